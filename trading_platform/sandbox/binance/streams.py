"""The WebSocket side: market streams, user data streams, and as much of the WebSocket API as these need.

/ws/<stream>, /stream?streams=a/b, SUBSCRIBE, UNSUBSCRIBE and LIST_SUBSCRIPTIONS on an open connection; /ws/<listenKey>
and, on /ws-api/v3, `userDataStream.subscribe.signature`. An event is made when it happens and sent when it is on disk.
A client that does not read is cut off rather than waited for.
"""

import asyncio
import hashlib
import hmac
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson
import structlog
from aiohttp import WSMsgType, web

from trading_platform.sandbox.binance.errors import BinanceError
from trading_platform.sandbox.binance.gateway import check_signature, check_time, customer, wall_ms
from trading_platform.sandbox.binance.market_events import Made, MarketEvents
from trading_platform.sandbox.binance.parameters import Parameters
from trading_platform.sandbox.binance.user_data import Payload, reports
from trading_platform.sandbox.books import Account
from trading_platform.sandbox.events import BarClosed, Event, Filled, Rested
from trading_platform.sandbox.exchange import Exchange
from trading_platform.sandbox.faults import Faults, Unsteady

log = structlog.get_logger(__name__)

HEARTBEAT_SECONDS = 20.0
LONGEST_QUEUE = 50_000
METHODS = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")


@dataclass(eq=False)
class Connection:
    """A client. `combined`: events are wrapped with their stream's name."""

    abort: Callable[[], None]
    combined: bool = False
    streams: set[str] = field(default_factory=set)
    accounts: dict[int, str] = field(default_factory=dict)
    """Subscriptions of the WebSocket API to user data: {number: account}."""
    subscriptions: int = 0
    unsteady: Unsteady | None = None
    outgoing: asyncio.Queue[bytes] = field(default_factory=lambda: asyncio.Queue(LONGEST_QUEUE))

    def send(self, frame: bytes, what: str = "answer") -> None:
        """Queue a frame; those of events ("order", "tick") as often and in such order as the faults want it."""
        frames = [frame] if self.unsteady is None or what == "answer" else self.unsteady.pass_on(what, frame)
        if frames is None:
            self.abort()
            return
        try:
            for each in frames:
                self.outgoing.put_nowait(each)
        except asyncio.QueueFull:
            log.warning("slow_stream_client_cut_off", streams=sorted(self.streams))
            self.abort()


class Streams:
    """All connections; a listener of the exchange."""

    def __init__(self, exchange: Exchange, faults: Faults | None = None) -> None:
        self.exchange = exchange
        self.faults = faults if faults is not None else Faults()
        self.pairs = frozenset(symbol for symbol in exchange.instruments if "/" in symbol)
        self.market = MarketEvents(exchange)
        self.connections: set[Connection] = set()
        self.listening: dict[str, set[Connection]] = defaultdict(set)
        self.keys: dict[str, str] = {}
        """Listen keys in use: {key: account}."""
        exchange.listeners.append(self)

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/ws", self.raw),
            web.get("/ws/{streams:.*}", self.raw),
            web.get("/stream", self.combined),
            web.get("/stream/{streams:.*}", self.combined),
            web.get("/ws-api/v3", self.api),
        ]

    async def raw(self, request: web.Request) -> web.WebSocketResponse:
        return await self._serve(request, self._command, request.match_info.get("streams", ""))

    async def combined(self, request: web.Request) -> web.WebSocketResponse:
        return await self._serve(request, self._command, request.query.get("streams", ""), combined=True)

    async def api(self, request: web.Request) -> web.WebSocketResponse:
        return await self._serve(request, self._api_call, "")

    # --- listen keys -------------------------------------------------------------------------------------------------

    def listen_key(self, account: Account) -> str:
        """The account's key; it outlives a restart, because it follows from the account's secret."""
        key = hmac.new(account.api_secret.encode(), b"listenKey", hashlib.sha256).hexdigest()[:60]
        self.keys[key] = account.account_id
        return key

    def close_listen_key(self, account: Account) -> None:
        """End the streams that the key opened."""
        for connection in list(self.listening.get(self.listen_key(account), ())):
            connection.abort()

    def close(self) -> None:
        """Cut all connections: the exchange shuts down."""
        for connection in list(self.connections):
            connection.abort()

    # --- what happened -----------------------------------------------------------------------------------------------

    def committed(self, events: list[Event], time: int) -> Callable[[], None] | None:
        """Make the frames that somebody waits for; the result sends them."""
        frames: list[tuple[Connection, bytes]] = []
        if self.listening:
            for bar in events:
                if isinstance(bar, BarClosed) and bar.symbol in self.pairs:
                    self._make(self.market.of_bar(bar, time), frames)
            for symbol in self._changed_books(events):
                self._make(self.market.of_book(symbol, time), frames)
        self._make_user_data(events, time, frames)
        if not frames:
            return None

        def send() -> None:
            for connection, frame in frames:
                connection.send(frame, "order" if b"executionReport" in frame else "tick")

        return send

    def quoted(self, symbol: str) -> None:
        """A live market's best prices have changed."""
        frames: list[tuple[Connection, bytes]] = []
        self._make(self.market.of_book(symbol, self.exchange.now), frames)
        for connection, frame in frames:
            connection.send(frame)

    def _changed_books(self, events: list[Event]) -> list[str]:
        symbols: dict[str, None] = {}
        for event in events:
            if isinstance(event, BarClosed) and event.symbol in self.pairs:
                symbols[event.symbol] = None
            elif isinstance(event, Filled | Rested):
                symbols[self.exchange.books.orders[event.order_id].symbol] = None
        return [symbol for symbol in symbols if symbol in self.pairs]

    def _make(self, made: Iterable[Made], frames: list[tuple[Connection, bytes]]) -> None:
        for stream, events in made:
            if listeners := self.listening.get(stream):
                for event in events():
                    self._frame(stream, event, listeners, frames)

    def _frame(
        self, stream: str, event: Any, listeners: Iterable[Connection], frames: list[tuple[Connection, bytes]]
    ) -> None:
        raw = orjson.dumps(event)
        wrapped = b'{"stream":%s,"data":%s}' % (orjson.dumps(stream), raw)
        frames.extend((connection, wrapped if connection.combined else raw) for connection in listeners)

    def _make_user_data(self, events: list[Event], time: int, frames: list[tuple[Connection, bytes]]) -> None:
        through_api = [
            (account, number, connection)
            for connection in self.connections
            for number, account in connection.accounts.items()
        ]
        by_key = {account: key for key, account in self.keys.items() if self.listening.get(key)}
        accounts = {account for account, _, _ in through_api} | set(by_key)
        if not accounts:
            return
        for account_id, payload in reports(events, self.exchange.books, accounts, time):
            if key := by_key.get(account_id):
                self._frame(key, payload, self.listening[key], frames)
            for account, number, connection in through_api:
                if account == account_id:
                    frames.append((connection, orjson.dumps({"subscriptionId": number, "event": payload})))

    # --- connections -------------------------------------------------------------------------------------------------

    async def _serve(
        self, request: web.Request, command: Callable[[Connection, str], Payload], streams: str, combined: bool = False
    ) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(heartbeat=HEARTBEAT_SECONDS)
        await socket.prepare(request)
        transport = request.transport
        connection = Connection(transport.abort if transport is not None else lambda: None, combined)
        connection.unsteady = Unsteady(self.faults, "binance")
        self.connections.add(connection)
        self._subscribe(connection, [name for name in streams.split("/") if name])
        sending = asyncio.create_task(_forward(connection, socket))
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    connection.send(orjson.dumps(command(connection, message.data)))
        finally:
            sending.cancel()
            self.connections.discard(connection)
            self._unsubscribe(connection, list(connection.streams))
        return socket

    def _subscribe(self, connection: Connection, names: list[str]) -> None:
        for name in names:
            connection.streams.add(name)
            self.listening[name].add(connection)
            self.market.subscribed(name)

    def _unsubscribe(self, connection: Connection, names: list[str]) -> None:
        for name in names:
            connection.streams.discard(name)
            self.listening[name].discard(connection)
            if not self.listening[name]:
                del self.listening[name]
                self.market.unsubscribed(name, lambda other: other in self.listening)

    def _command(self, connection: Connection, text: str) -> Payload:
        """SUBSCRIBE and its like; the answer carries the request's id."""
        try:
            command = orjson.loads(text)
            method, number, names = command["method"], command.get("id"), command.get("params") or []
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
            return {"code": 3, "msg": "Invalid JSON: expected an object with method, params and id"}
        if not isinstance(names, list):
            return {"code": 2, "msg": "Invalid request: params must be a list", "id": number}
        match method:
            case "SUBSCRIBE":
                self._subscribe(connection, [str(name) for name in names])
            case "UNSUBSCRIBE":
                self._unsubscribe(connection, [str(name) for name in names])
            case "LIST_SUBSCRIPTIONS":
                return {"result": sorted(connection.streams), "id": number}
            case "SET_PROPERTY" | "GET_PROPERTY":
                return _property(connection, names, number)
            case _:
                known = ", ".join(f"`{name}`" for name in METHODS)
                return {"code": 2, "msg": f"Invalid request: unknown variant `{method}`, expected one of {known}", "id": number}  # fmt: skip
        return {"result": None, "id": number}

    def _api_call(self, connection: Connection, text: str) -> Payload:
        """The WebSocket API: {"id", "method", "params"} -> {"id", "status", "result" or "error"}."""
        try:
            call = orjson.loads(text)
            number, method, sent = call.get("id"), call["method"], dict(call.get("params") or {})
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
            return {"id": None, "status": 400, "error": {"code": -1135, "msg": "Invalid JSON Request"}}
        try:
            return {"id": number, "status": 200, "result": self._api_result(connection, method, sent)}
        except BinanceError as error:
            return {"id": number, "status": error.status, "error": error.body}

    def _api_result(self, connection: Connection, method: str, sent: Payload) -> Any:
        match method:
            case "ping":
                return {}
            case "time":
                return {"serverTime": wall_ms()}
            case "session.subscriptions":
                return [{"subscriptionId": number} for number in connection.accounts]
            case "userDataStream.subscribe.signature":
                return {"subscriptionId": self._subscribe_account(connection, sent)}
            case "userDataStream.unsubscribe":
                ended = list(connection.accounts) if "subscriptionId" not in sent else [sent["subscriptionId"]]
                for number in ended:
                    connection.accounts.pop(number, None)
                return {}
            case _:
                raise BinanceError(-1000, f"This WebSocket API has no method {method!r}; use the REST API.", 400)

    def _subscribe_account(self, connection: Connection, sent: Payload) -> int:
        parameters = Parameters(values={name: str(value) for name, value in sent.items()})
        account = customer(self.exchange.books, parameters.get("apiKey", ""))
        signed = "&".join(f"{name}={parameters[name]}" for name in sorted(parameters) if name != "signature")
        check_signature(account, signed, parameters.get("signature", ""))
        check_time(parameters)
        if account.account_id in connection.accounts.values():
            raise BinanceError(-2035, "User Data Stream subscription already active.")
        number = connection.subscriptions
        connection.accounts[number] = account.account_id
        connection.subscriptions += 1
        return number


def _property(connection: Connection, words: list[Any], number: Any) -> Payload:
    """The one property there is: `combined`, whether events are wrapped with their stream's name."""
    if words == ["combined"]:
        return {"result": connection.combined, "id": number}
    if len(words) == 2 and words[0] == "combined" and isinstance(words[1], bool):
        connection.combined = words[1]
        return {"result": None, "id": number}
    return {"code": 0, "msg": "Unknown property", "id": number}


async def _forward(connection: Connection, socket: web.WebSocketResponse) -> None:
    """Send what is queued, in order, until the connection breaks."""
    try:
        while True:
            await socket.send_frame(await connection.outgoing.get(), WSMsgType.TEXT)
    except (ConnectionError, RuntimeError):
        connection.abort()
