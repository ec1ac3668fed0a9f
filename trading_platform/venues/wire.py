"""The wire that orders go out on: one HTTP/1.1 request over a kept connection, its answer read to the end, nothing else.

A client that can do everything spends more of the processor on an order than all of risk and the books' write together
(bench/orders.py), and does what must not happen to an order: follow redirects, try again. Here a request is written once;
whatever happens after that is an exception, and whether it arrived is for the caller to ask. llhttp, the parser of Node.js,
reads the answers (through httptools).
"""

import asyncio
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

import httptools

KEEP_SECONDS = 15.0
"""An idle connection is not used after that: the other side may be closing it, and then nobody knows what arrived."""
LONGEST_ANSWER = 4 * 1024 * 1024


class BrokenAnswerError(ConnectionError):
    """The answer is not HTTP, too long, or ended in its middle."""


@dataclass(frozen=True, slots=True)
class Reply:
    """`headers` by their name in small letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Wire:
    """Connections to one server. Use it on one event loop; `close` it.

    `origin`: `https://host[:port]`; a path behind it is ignored. `tls` is used for https.
    """

    def __init__(self, origin: str, tls: ssl.SSLContext, timeout_seconds: float) -> None:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{origin!r} is no address of a server: expected http(s)://host[:port]")
        self.timeout_seconds = timeout_seconds
        self._host, self._tls = parts.hostname, tls if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        self._name = parts.netloc.rpartition("@")[2]
        self._idle: list[tuple[float, Connection]] = []
        self._closed = False

    def request(self, method: str, target: str, headers: Mapping[str, str], body: str = "") -> bytes:
        """A request's bytes. `target`: path and query.

        Raises ValueError for a header or target with characters that end a line.
        """
        return _request(method, target, {"Host": self._name, **headers}, body.encode())

    async def ask(self, request: bytes) -> Reply:
        """Send a request once.

        Raises `OSError` (no connection, or it broke: `BrokenAnswerError`) and `TimeoutError`; the request may have arrived.
        """
        async with asyncio.timeout(self.timeout_seconds):
            connection = self._kept() or await self._connected()
            try:
                reply = await connection.ask(request)
            except BaseException:  # also cancelled: what comes now would be taken for the next one's answer
                connection.abort()
                raise
        if connection.reusable and not self._closed:
            self._idle.append((time.monotonic(), connection))
        else:
            connection.abort()
        return reply

    def close(self) -> None:
        self._closed = True
        while self._idle:
            self._idle.pop()[1].abort()

    def _kept(self) -> "Connection | None":
        while self._idle:
            since, connection = self._idle.pop()
            if connection.reusable and time.monotonic() - since < KEEP_SECONDS:
                return connection
            connection.abort()
        return None

    async def _connected(self) -> "Connection":
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, self._host, self._port, ssl=self._tls)
        return connection


class Connection(asyncio.Protocol):
    """One question at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Reply] | None = None
        self._parser: httptools.HttpResponseParser
        self._headers: dict[str, str] = {}
        self._parts: list[bytes] = []
        self._length = 0
        self._kept = True

    @property
    def reusable(self) -> bool:
        return self._kept and self._transport is not None and not self._transport.is_closing()

    async def ask(self, request: bytes) -> Reply:
        if self._transport is None or self._transport.is_closing():
            raise ConnectionResetError("the connection was closed before anything was sent")
        self._answer = asyncio.get_running_loop().create_future()
        self._parser = httptools.HttpResponseParser(self)
        self._transport.write(request)
        return await self._answer

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # --- what the transport tells ------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._answer is None:  # nobody asked
            self.abort()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(BrokenAnswerError(f"not an HTTP answer: {error}"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(BrokenAnswerError(f"the connection ended before the answer did: {exc or 'closed by the server'}"))

    def _fail(self, error: Exception) -> None:
        self._kept = False
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_exception(error)
        self.abort()

    # --- what the parser tells ---------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._headers, self._parts, self._length = {}, [], 0

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)
        self._length += len(body)
        if self._length > LONGEST_ANSWER:
            self._fail(BrokenAnswerError(f"the answer is longer than {LONGEST_ANSWER} bytes"))

    def on_message_complete(self) -> None:
        status, answer = self._parser.get_status_code(), self._answer
        if status < 200 or answer is None:  # 100 and the like say that the answer is still to come
            return
        self._answer = None
        self._kept = self._parser.should_keep_alive()
        if not answer.done():
            answer.set_result(Reply(status, self._headers, b"".join(self._parts)))


def _request(method: str, target: str, headers: Mapping[str, str], body: bytes) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    for name, line in zip(("the target", *headers), lines, strict=True):  # the value may be a secret
        if not line.isascii() or not line.isprintable():
            raise ValueError(f"{name} cannot be sent: only printable ASCII can be part of a request's head")
    if body or method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join((*lines, "", "")).encode("ascii") + body
