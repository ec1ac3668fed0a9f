"""The binary stream: ticks of what a client subscribed to, heartbeats, and order updates as text.

Kite's frame: a count of packets, then each packet's length and bytes, big-endian; prices in paise. Ticks are sent after
every step of the market, order updates at once.
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
from trading_platform.sandbox.exchange import Exchange
from trading_platform.sandbox.kite.errors import KiteError
from trading_platform.sandbox.kite.orders import Orders
from trading_platform.sandbox.kite.quotes import Quotes
from trading_platform.sandbox.kite.sessions import Sessions
from trading_platform.sandbox.orders import Order

Mode = Literal["ltp", "quote", "full"]
HEARTBEAT_SECONDS = 1.0
MOST_INSTRUMENTS = 3_000
MOST_WAITING = 256
"""Frames that a slow client may leave unread; beyond that it is cut off."""


@dataclass(eq=False)
class Subscriber:
    """One connection."""

    account_id: str
    socket: web.WebSocketResponse
    modes: dict[int, Mode] = field(default_factory=dict)
    waiting: asyncio.Queue[bytes | str] = field(default_factory=lambda: asyncio.Queue(MOST_WAITING))
    told: dict[int, tuple[str, int, int]] = field(default_factory=dict)
    """{order id: what was last told of it}"""

    def tell(self, message: bytes | str) -> None:
        try:
            self.waiting.put_nowait(message)
        except asyncio.QueueFull:
            asyncio.get_running_loop().create_task(self.socket.close())


@dataclass
class Ticker:
    """All connections of the stream."""

    exchange: Exchange
    book: ContractBook
    sessions: Sessions
    orders: Orders
    quotes: Quotes
    subscribers: set[Subscriber] = field(default_factory=set)

    async def connect(self, request: web.Request) -> web.StreamResponse:
        """GET /: a WebSocket for whoever asks for one; its HEAD tells the broker's clock."""
        if request.headers.get("Upgrade", "").lower() != "websocket":
            return web.Response(text="Sandbox broker: Kite Connect v3.\n")
        try:
            account = self.sessions.account(request.query.get("api_key", ""), request.query.get("access_token", ""))
        except KiteError as error:
            raise web.HTTPForbidden(text=error.message) from error
        socket = web.WebSocketResponse(max_msg_size=1 << 20)
        await socket.prepare(request)
        past = {order.order_id: _mark(order) for order in account.orders.values()}
        subscriber = Subscriber(account.account_id, socket, told=past)
        self.subscribers.add(subscriber)
        sending = asyncio.create_task(self._send(subscriber))
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    self._take(subscriber, message.data)
        finally:
            self.subscribers.discard(subscriber)
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await sending
        return socket

    def after_step(self) -> None:
        """Tell everybody what the market did, and owners what became of their orders."""
        for subscriber in self.subscribers:
            if frame := self._frame(subscriber.modes):
                subscriber.tell(frame)
        self.tell_orders()

    def tell_orders(self) -> None:
        """An update for every order that changed since it was told last."""
        for subscriber in self.subscribers:
            account = self.exchange.books.accounts[subscriber.account_id]
            for order in account.orders.values():
                if order.request.terms and subscriber.told.get(order.order_id) != _mark(order):
                    subscriber.told[order.order_id] = _mark(order)
                    row = self.orders.row(order)
                    subscriber.tell(orjson.dumps({"type": "order", "data": row}).decode())

    async def close(self) -> None:
        for subscriber in list(self.subscribers):
            await subscriber.socket.close()

    # --- inside ------------------------------------------------------------------------------------------------------

    async def _send(self, subscriber: Subscriber) -> None:
        while not subscriber.socket.closed:
            try:
                message = await asyncio.wait_for(subscriber.waiting.get(), HEARTBEAT_SECONDS)
            except TimeoutError:
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
            subscriber.tell(orjson.dumps({"type": "error", "data": f"Invalid message: {problem}"}).decode())
            return
        if frame := self._frame(subscriber.modes):
            subscriber.tell(frame)

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


def _mark(order: Order) -> tuple[str, int, int]:
    return order.state, order.updated, len(order.trades)


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
