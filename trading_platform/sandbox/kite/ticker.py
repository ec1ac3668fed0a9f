"""The binary stream: ticks of what a client subscribed to, heartbeats, and order updates as text.

Kite's frame: a count of packets, then each packet's length and bytes, big-endian; prices in paise. Ticks are sent after
every step of the market; an order's update as soon as its change is on disk, as the order was at that change.
"""

import asyncio
import contextlib
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson
from aiohttp import WSMsgType, web

from trading_platform.markets.contracts import Contract, ContractBook, UnknownContractError
from trading_platform.sandbox.events import Event, OfOrder
from trading_platform.sandbox.exchange import Exchange
from trading_platform.sandbox.faults import Faults, Unsteady
from trading_platform.sandbox.kite.errors import KiteError
from trading_platform.sandbox.kite.mischief import Mischief
from trading_platform.sandbox.kite.postbacks import Postbacks
from trading_platform.sandbox.kite.quotes import Quotes
from trading_platform.sandbox.kite.rows import Rows
from trading_platform.sandbox.kite.sessions import Sessions

Mode = Literal["ltp", "quote", "full"]
HEARTBEAT_SECONDS = 1.0
MOST_INSTRUMENTS = 3_000
MOST_CONNECTIONS = 3
MOST_WAITING = 256
"""Frames that a slow client may leave unread; beyond that it is cut off."""


@dataclass(eq=False)
class Subscriber:
    """One connection."""

    account_id: str
    socket: web.WebSocketResponse
    unsteady: Unsteady
    modes: dict[int, Mode] = field(default_factory=dict)
    waiting: asyncio.Queue[bytes | str] = field(default_factory=lambda: asyncio.Queue(MOST_WAITING))

    def tell(self, what: Literal["order", "tick"], message: bytes | str) -> None:
        """Queue a frame, as often and in such order as the faults want it. A client that does not read is cut off."""
        frames = self.unsteady.pass_on(what, message)
        if frames is None:
            asyncio.get_running_loop().create_task(self.socket.close())
            return
        try:
            for frame in frames:
                self.waiting.put_nowait(frame)
        except asyncio.QueueFull:
            asyncio.get_running_loop().create_task(self.socket.close())


@dataclass
class Ticker:
    """All connections of the stream."""

    exchange: Exchange
    book: ContractBook
    sessions: Sessions
    rows: Rows
    quotes: Quotes
    mischief: Mischief
    postbacks: Postbacks
    faults: Faults
    subscribers: set[Subscriber] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.exchange.listeners.append(self)

    async def connect(self, request: web.Request) -> web.StreamResponse:
        """GET /: a WebSocket for whoever asks for one; its HEAD tells the broker's clock."""
        if request.headers.get("Upgrade", "").lower() != "websocket":
            return web.Response(text="Sandbox broker: Kite Connect v3.\n")
        try:
            account = self.sessions.account(request.query.get("api_key", ""), request.query.get("access_token", ""))
        except KiteError as error:
            raise web.HTTPForbidden(text=error.message) from error
        if sum(each.account_id == account.account_id for each in self.subscribers) >= MOST_CONNECTIONS:
            raise web.HTTPTooManyRequests(text=f"An API key has at most {MOST_CONNECTIONS} connections.")
        socket = web.WebSocketResponse(max_msg_size=1 << 20, autoping=False)
        await socket.prepare(request)
        subscriber = Subscriber(account.account_id, socket, Unsteady(self.faults, "kite"))
        self.subscribers.add(subscriber)
        sending = asyncio.create_task(self._send(subscriber))
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    self._take(subscriber, message.data)
                elif message.type is WSMsgType.PING and not subscriber.unsteady.half_open:
                    await socket.pong(message.data)
        finally:
            self.subscribers.discard(subscriber)
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await sending
        return socket

    def after_step(self) -> None:
        """Tell everybody what the market did."""
        for subscriber in self.subscribers:
            if frame := self._frame(subscriber.modes):
                subscriber.tell("tick", frame)

    def committed(self, events: list[Event], time: int) -> Callable[[], None] | None:
        """Rows of the orders that changed, as they are now; the result tells their owners."""
        numbers = dict.fromkeys(event.order_id for event in events if isinstance(event, OfOrder))
        orders = (self.exchange.books.orders[number] for number in numbers)
        changed = [
            (order.account_id, order, self.rows.order(order)) for order in orders if "variety" in order.request.terms
        ]
        if not changed:
            return None

        def tell() -> None:
            for account_id, order, row in changed:
                if not self.mischief.shows(order):
                    continue
                self.postbacks.tell(self.exchange.books.accounts[account_id], row)
                text = orjson.dumps({"type": "order", "data": row}).decode()
                for subscriber in self.subscribers:
                    if subscriber.account_id == account_id:
                        subscriber.tell("order", text)

        return tell

    async def close(self) -> None:
        for subscriber in list(self.subscribers):
            await subscriber.socket.close()

    # --- inside ------------------------------------------------------------------------------------------------------

    async def _send(self, subscriber: Subscriber) -> None:
        while not subscriber.socket.closed:
            try:
                message = await asyncio.wait_for(subscriber.waiting.get(), HEARTBEAT_SECONDS)
            except TimeoutError:
                if subscriber.unsteady.half_open:
                    continue
                message = b"\x00"
            if isinstance(message, bytes):
                await subscriber.socket.send_bytes(message)
            else:
                await subscriber.socket.send_str(message)

    def _take(self, subscriber: Subscriber, text: str) -> None:
        """subscribe, unsubscribe and mode; anything else is told to be no message."""
        try:
            asked = orjson.loads(text)
            value = asked["v"]
            match asked["a"]:
                case "subscribe":
                    self._subscribe(subscriber, value, "quote")
                case "unsubscribe":
                    for token in value:
                        subscriber.modes.pop(int(token), None)
                case "mode":
                    mode, tokens = value
                    if mode not in ("ltp", "quote", "full"):
                        raise ValueError(mode)
                    self._subscribe(subscriber, tokens, mode)
                case other:
                    raise ValueError(other)
        except (ValueError, KeyError, TypeError, UnknownContractError) as problem:
            subscriber.tell("tick", orjson.dumps({"type": "error", "data": f"Invalid message: {problem}"}).decode())
            return
        if frame := self._frame(subscriber.modes):
            subscriber.tell("tick", frame)

    def _subscribe(self, subscriber: Subscriber, tokens: list[Any], mode: Mode) -> None:
        contracts = [self.book.by_token(int(token)) for token in tokens]
        if len(subscriber.modes.keys() | {each.instrument_token for each in contracts}) > MOST_INSTRUMENTS:
            raise ValueError(f"more than {MOST_INSTRUMENTS} instruments")
        subscriber.modes.update((each.instrument_token, mode) for each in contracts)

    def _frame(self, modes: dict[int, Mode]) -> bytes:
        packets = [
            packet for token, mode in modes.items()
            if (packet := packet_of(self.book.by_token(token), mode, self.quotes.quote_of, self.exchange.now // 1_000))
        ]  # fmt: skip
        if not packets:
            return b""
        return struct.pack(">H", len(packets)) + b"".join(struct.pack(">H", len(each)) + each for each in packets)


def packet_of(contract: Contract, mode: Mode, quote: Callable[[Contract], dict[str, Any]], at: int) -> bytes:
    """The packet of one instrument at market time `at` (seconds)."""
    row = quote(contract)
    day, token, last = row["ohlc"], contract.instrument_token, _paise(row["last_price"])
    if mode == "ltp":
        return struct.pack(">Ii", token, last)
    opened, high, low, close = (_paise(day[name]) for name in ("open", "high", "low", "close"))
    if contract.is_index:
        body = struct.pack(">Iiiiiii", token, last, high, low, opened, close, last - close)
        return body + struct.pack(">i", at) if mode == "full" else body
    body = struct.pack(
        ">IiiiIIIiiii", token, last, row["last_quantity"], _paise(row["average_price"]), _small(row["volume"]),
        _small(row["buy_quantity"]), _small(row["sell_quantity"]), opened, high, low, close,
    )  # fmt: skip
    if mode == "quote":
        return body
    levels = b"".join(
        struct.pack(">IiHxx", _small(level["quantity"]), _paise(level["price"]), level["orders"])
        for side in ("buy", "sell") for level in row["depth"][side]
    )  # fmt: skip
    return body + struct.pack(">iIIIi", at, 0, 0, 0, at) + levels


def _paise(rupees: float) -> int:
    return round(rupees * 100)


def _small(value: float) -> int:
    """What fits the packet's 32 bits."""
    return min(int(value), 2**32 - 1)
