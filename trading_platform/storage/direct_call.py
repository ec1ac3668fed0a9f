"""One function of the database, called again and again in the way of something that waits for it.

psycopg connects, and libpq is then used as it is: a cursor, adapted parameters and a wait through a generator cost an engine
a twelfth of the time from an intent to its answer, and leave nothing to be done while the server works.

    call = DirectCall(connection, "select write_step($1, $2)", ("text", "json"))
    answer = call.send([b"g1", b"[]"])      # the server works from here on
    ...                                     # and so can we
    value = await answer
"""

import asyncio
from collections.abc import Sequence

import psycopg
from psycopg import pq
from psycopg.errors import error_from_result
from psycopg.pq.abc import PGresult


class DirectCall:
    """Takes a connection that nobody else uses any more; `close` it. Use it on one event loop.

    `command`: a statement that gives one value, with parameters as $1, $2, …; `types`: their names in PostgreSQL, so that
    the server need not look for the function that fits.
    """

    def __init__(self, connection: psycopg.AsyncConnection, command: str, types: Sequence[str]) -> None:
        self._connection, self._pgconn = connection, connection.pgconn
        self._command = command.encode()
        self._types = [connection.adapters.types[name].oid for name in types]
        self._answer: asyncio.Future[bytes | None] | None = None
        self._result: PGresult | None = None
        self._open = True
        self._loop, self._socket = asyncio.get_running_loop(), self._pgconn.socket
        self._loop.add_reader(self._socket, self._readable)

    @property
    def closed(self) -> bool:
        return not self._open or self._connection.closed

    def send(self, values: Sequence[bytes | None]) -> "asyncio.Future[bytes | None]":
        """Call the function with these values in PostgreSQL's text form; what it gives comes in the same form.

        Raises `psycopg.Error`, at once or when the answer is awaited; the call may then have been carried out.
        """
        if self._answer is not None:
            raise psycopg.InterfaceError("the answer to an earlier call is still to come on this connection")
        self._pgconn.send_query_params(self._command, values, param_types=self._types)
        answer = self._answer = self._loop.create_future()
        self._flush()
        return answer

    def close(self) -> None:
        """Close the connection; a call that is under way fails, and may have been carried out."""
        self._fail(psycopg.InterfaceError("the connection was closed before the answer came"))

    # --- what the event loop tells -----------------------------------------------------------------------------------

    def _flush(self) -> None:
        """Send what the kernel has not taken yet: a long list of values may not fit at once."""
        try:
            if self._pgconn.flush():
                self._loop.add_writer(self._socket, self._flush)
            else:
                self._loop.remove_writer(self._socket)
        except psycopg.Error as error:
            self._fail(error)

    def _readable(self) -> None:
        try:
            self._pgconn.consume_input()
            while self._answer is not None and not self._pgconn.is_busy():
                result = self._pgconn.get_result()
                if result is None:
                    self._tell()
                else:
                    self._result = result
        except psycopg.Error as error:
            self._fail(error)

    def _tell(self) -> None:
        answer, self._answer, result, self._result = self._answer, None, self._result, None
        if answer is None or answer.done():  # nobody waits any more
            return
        if result is not None and result.status == pq.ExecStatus.TUPLES_OK:
            answer.set_result(result.get_value(0, 0))
        elif result is not None:
            answer.set_exception(error_from_result(result))
        else:
            answer.set_exception(psycopg.OperationalError("the server ended the call without a result"))

    def _fail(self, error: psycopg.Error) -> None:
        """The connection is lost, or not to be used any more."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._pgconn.finish()
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_exception(error)
