"""Kite's stream of ticks and order updates, as an asyncio client that notices when it has gone deaf.

    stream = KiteStream("wss://ws.kite.trade", api_key, token, on_rows=..., on_order=..., resync=..., session_alive=...)
    await stream.subscribe([408065], "full")
    await stream.run()                     # connects, and connects again, until cancelled or the session has ended

Frames are handed on as arrays (`packets.decode`); `packets.values` makes rupees of them. Every frame, heartbeats too, is a
sign of life: a socket that says nothing for 10 seconds of a session is closed and opened anew. A quiet market is no fault,
since heartbeats go on; where they do while no tick comes in continuous trading, subscriptions are sent again. The stream
has no memory: after every connection the books are read in full (`resync`), and an order update is a reason to read that
order, never a record of it.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import numpy as np
import orjson
import structlog
from numpy.typing import NDArray
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from trading_platform.markets.sessions import Phase, Segment, phase_at
from trading_platform.venues.zerodha.packets import BadFrameError, Mode, decode

ADDRESS = "wss://ws.kite.trade"
MOST_INSTRUMENTS = 3_000
"""Per connection; three connections an API key (Kite Connect documentation, WebSocket)."""
SILENCE_IN_SESSION, SILENCE_OFF_SESSION = 10.0, 60.0
NO_TICK_IN_SESSION = 60.0
SHORTEST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
LARGEST_MESSAGE = 4 << 20
REMEMBERED_UPDATES = 10_000
OPENING_TIMEOUT = 10.0
log = structlog.get_logger(__name__)
_wire_log = logging.getLogger("trading_platform.venues.zerodha.wire")
_wire_log.setLevel(logging.WARNING)  # at DEBUG the library writes addresses, and this one holds the session's token

Rows = dict[int, NDArray[np.void]]


class SessionEndedError(PermissionError):
    """The broker's session is over: nothing to connect with until somebody logs in again."""


class TooManyInstrumentsError(ValueError):
    """More subscriptions than one connection takes."""


@dataclass
class Health:
    """What the stream has seen; `last_frame` and `last_tick` are of the monotonic clock, in seconds."""

    connected: bool = False
    connections: int = 0
    frames: int = 0
    bad_frames: int = 0
    last_frame: float = 0.0
    last_tick: float = 0.0


class KiteStream:
    """One connection. Callbacks run on the event loop and must be short: put into a queue what takes time.

    `token` is asked at every connection, so that a new session is used as soon as it is there. `resync` reads the books;
    where it fails the connection is given up and tried again. `session_alive` asks the broker (GET /user/profile) when a
    connection was refused.
    """

    def __init__(
        self, address: str, api_key: str, token: Callable[[], str], *,
        on_rows: Callable[[Rows], None],
        on_order: Callable[[Mapping[str, Any]], None],
        resync: Callable[[], Awaitable[None]],
        session_alive: Callable[[], Awaitable[bool]],
        segments: Iterable[Segment] = ("NSE", "NFO"),
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        silence_seconds: float = SILENCE_IN_SESSION,
    ) -> None:  # fmt: skip
        self.health = Health()
        self._address, self._api_key, self._token = address, api_key, token
        self._on_rows, self._on_order = on_rows, on_order
        self._resync, self._session_alive = resync, session_alive
        self._segments, self._now = tuple(segments), now
        self._silence = silence_seconds
        self._modes: dict[int, Mode] = {}
        self._ticked: dict[int, float] = {}
        self._seen: OrderedDict[tuple[object, ...], None] = OrderedDict()
        self._socket: ClientConnection | None = None
        self._asked_again = 0.0

    # --- subscriptions -----------------------------------------------------------------------------------------------

    async def subscribe(self, tokens: Iterable[int], mode: Mode = "quote") -> None:
        """Also changes the mode of what is subscribed already. Raises `TooManyInstrumentsError` and changes nothing."""
        wanted = dict.fromkeys(tokens, mode)
        together = len(self._modes.keys() | wanted.keys())
        if together > MOST_INSTRUMENTS:
            raise TooManyInstrumentsError(
                f"{together} instruments on one connection; it takes {MOST_INSTRUMENTS}. Open another (three an API key)"
            )
        self._modes |= wanted
        await self._send_subscriptions(wanted)

    async def unsubscribe(self, tokens: Iterable[int]) -> None:
        gone = [token for token in tokens if self._modes.pop(token, None) is not None]
        for token in gone:
            self._ticked.pop(token, None)
        await self._send({"a": "unsubscribe", "v": gone})

    @property
    def subscriptions(self) -> Mapping[int, Mode]:
        return dict(self._modes)

    def quiet_since(self, seconds: float) -> list[int]:
        """Subscribed instruments without a tick for that long. In a quiet market, or off session, that is no fault."""
        before = time.monotonic() - seconds
        return [token for token in self._modes if self._ticked.get(token, 0.0) < before]

    # --- the connection ----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Raises `SessionEndedError` when the broker's session is over; otherwise goes on until cancelled."""
        pause = SHORTEST_PAUSE
        while True:
            frames = self.health.frames
            try:
                await self._one_connection()
            except InvalidStatus as refusal:
                await self._require_session(refusal.response.status_code)
            except (ConnectionClosed, InvalidHandshake, OSError, TimeoutError) as error:
                log.warning("stream_lost", error=self._without_secrets(error))
            finally:
                self.health.connected, self._socket = False, None
            pause = SHORTEST_PAUSE if self.health.frames > frames else min(pause * 2, LONGEST_PAUSE)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads clients, hides nothing

    async def _one_connection(self) -> None:
        query = urlencode({"api_key": self._api_key, "access_token": self._token()})
        async with connect(
            f"{self._address}?{query}", additional_headers={"X-Kite-Version": "3"}, max_size=LARGEST_MESSAGE,
            open_timeout=OPENING_TIMEOUT, close_timeout=1.0, ping_interval=None, logger=_wire_log,
        ) as socket:  # fmt: skip
            self._socket = socket
            self.health.connected = True
            self.health.connections += 1
            self.health.last_frame = self.health.last_tick = self._asked_again = time.monotonic()
            await self._send_subscriptions(self._modes)
            syncing = asyncio.create_task(self._sync_or_close(socket))
            try:
                await self._read(socket)
            finally:
                syncing.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await syncing

    async def _read(self, socket: ClientConnection) -> None:
        while True:
            try:
                async with asyncio.timeout(self._silence if self._in_session() else SILENCE_OFF_SESSION):
                    message = await socket.recv()
            except TimeoutError:
                silent = time.monotonic() - self.health.last_frame
                raise TimeoutError(f"no frame for {silent:.0f} s, not even a heartbeat") from None
            self.health.frames += 1
            self.health.last_frame = time.monotonic()
            if isinstance(message, str):
                self._take_text(message)
            elif len(message) > 1:
                self._take_ticks(message)
            else:
                await self._ask_again_if_no_tick_comes()

    async def _sync_or_close(self, socket: ClientConnection) -> None:
        """A stream beside books that were not read is worse than none."""
        try:
            await self._resync()
        except Exception as error:
            log.warning("stream_resync_failed", error=self._without_secrets(error))
            await socket.close()

    async def _require_session(self, status: int) -> None:
        log.warning("stream_refused", http_status=status)
        if status in (401, 403) and not await self._session_alive():
            raise SessionEndedError("the stream was refused and the session is over: log in again (kite login)")

    async def _ask_again_if_no_tick_comes(self) -> None:
        now = time.monotonic()
        quiet = now - max(self.health.last_tick, self._asked_again)
        if self._modes and quiet > NO_TICK_IN_SESSION and self._in_session():
            log.warning("stream_without_ticks", seconds=round(quiet), instruments=len(self._modes))
            self._asked_again = now
            await self._send_subscriptions(self._modes)

    def _in_session(self) -> bool:
        try:
            return any(phase_at(segment, self._now()).phase is Phase.CONTINUOUS for segment in self._segments)
        except LookupError:  # the calendar ends before today: rather look too often
            return True

    # --- messages ----------------------------------------------------------------------------------------------------

    def _take_ticks(self, frame: bytes) -> None:
        try:
            rows = decode(frame)
        except BadFrameError as error:
            self.health.bad_frames += 1
            log.warning("stream_bad_frame", error=str(error))
            return
        self.health.last_tick = self.health.last_frame
        for each in rows.values():
            self._ticked.update(dict.fromkeys(each["token"].tolist(), self.health.last_frame))
        if rows:
            self._on_rows(rows)

    def _take_text(self, text: str) -> None:
        try:
            message = orjson.loads(text)
            kind, data = message["type"], message["data"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            self.health.bad_frames += 1
            log.warning("stream_bad_text", text=text[:200])
            return
        if kind == "order" and isinstance(data, dict):
            if self._is_new(data):
                self._on_order(data)
        else:
            log.info("stream_message", kind=kind, text=str(data)[:500])

    def _is_new(self, update: Mapping[str, Any]) -> bool:
        """Updates come twice, and in any order: what is told once already is left out."""
        names = ("order_id", "status", "filled_quantity", "exchange_update_timestamp")
        key = tuple(str(update.get(name)) for name in names)
        if key in self._seen:
            return False
        self._seen[key] = None
        if len(self._seen) > REMEMBERED_UPDATES:
            self._seen.popitem(last=False)
        return True

    async def _send_subscriptions(self, modes: Mapping[int, Mode]) -> None:
        if not modes:
            return
        await self._send({"a": "subscribe", "v": list(modes)})
        for mode in sorted(set(modes.values())):
            await self._send({"a": "mode", "v": [mode, [token for token, each in modes.items() if each == mode]]})

    async def _send(self, message: Mapping[str, object]) -> None:
        """Unsent while there is no connection: the next one begins with all subscriptions."""
        if self._socket is not None:
            with contextlib.suppress(ConnectionClosed):
                await self._socket.send(orjson.dumps(message).decode())

    def _without_secrets(self, error: Exception) -> str:
        return f"{type(error).__name__}: {error}".replace(self._token() or "\0", "***")
