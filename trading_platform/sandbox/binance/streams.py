"""The streams: /ws/<stream>, /stream?streams=a/b, and SUBSCRIBE or UNSUBSCRIBE on an open connection.

Closed klines and best bid and ask are sent. A client that does not read is cut off rather than waited for.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import orjson
import structlog
from aiohttp import WSMsgType, web

from trading_platform.market_data.feed import Step
from trading_platform.sandbox.binance import shapes
from trading_platform.sandbox.candles import milliseconds
from trading_platform.sandbox.exchange import Exchange

log = structlog.get_logger(__name__)

HEARTBEAT_SECONDS = 20.0
LONGEST_QUEUE = 50_000


@dataclass(eq=False)
class Client:
    """One connection. `combined`: events are wrapped with the stream's name."""

    combined: bool
    streams: set[str] = field(default_factory=set)
    outgoing: asyncio.Queue[bytes] = field(default_factory=lambda: asyncio.Queue(LONGEST_QUEUE))
    cut_off: asyncio.Event = field(default_factory=asyncio.Event)


class Streams:
    """All connections; listens to the exchange's steps."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.clients: set[Client] = set()
        exchange.listeners.append(self.publish)

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/ws", self.raw),
            web.get("/ws/{streams:.*}", self.raw),
            web.get("/stream", self.combined),
        ]

    async def raw(self, request: web.Request) -> web.WebSocketResponse:
        return await self._serve(request, Client(False, _names(request.match_info.get("streams", ""))))

    async def combined(self, request: web.Request) -> web.WebSocketResponse:
        return await self._serve(request, Client(True, _names(request.query.get("streams", ""))))

    def publish(self, step: Step) -> None:
        """Send a step's events to whoever subscribed to them."""
        market_ms = int(step.available_at.timestamp() * 1_000)
        interval = self.exchange.interval_seconds
        for bar in step.bars:
            name = shapes.venue_symbol(bar.symbol).lower()
            row = (milliseconds(bar), bar.open, bar.high, bar.low, bar.close, bar.volume)
            self._send(
                f"{name}@kline_{shapes.INTERVALS[interval]}", shapes.kline_event(bar.symbol, row, interval, market_ms)
            )
            self._send(f"{name}@bookTicker", self._best(bar.symbol))

    def _best(self, symbol: str) -> dict[str, Any]:
        market = self.exchange.markets[symbol]
        bid, ask = market.bids[0], market.asks[0]
        return {
            "u": self.exchange.steps,
            "s": shapes.venue_symbol(symbol),
            "b": shapes.number(bid.price),
            "B": shapes.number(bid.quantity),
            "a": shapes.number(ask.price),
            "A": shapes.number(ask.quantity),
        }

    def _send(self, stream: str, event: dict[str, Any]) -> None:
        listening = [client for client in self.clients if stream in client.streams]
        if not listening:
            return
        raw, wrapped = orjson.dumps(event), orjson.dumps({"stream": stream, "data": event})
        for client in listening:
            try:
                client.outgoing.put_nowait(wrapped if client.combined else raw)
            except asyncio.QueueFull:
                log.warning("slow_stream_client_cut_off", stream=stream)
                client.cut_off.set()

    async def _serve(self, request: web.Request, client: Client) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(heartbeat=HEARTBEAT_SECONDS)
        await socket.prepare(request)
        self.clients.add(client)
        sending = asyncio.create_task(self._forward(client, socket))
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    client.outgoing.put_nowait(self._command(client, message.data))
        finally:
            self.clients.discard(client)
            sending.cancel()
        return socket

    async def _forward(self, client: Client, socket: web.WebSocketResponse) -> None:
        cut_off = asyncio.create_task(client.cut_off.wait())
        try:
            while not client.cut_off.is_set():
                upcoming = asyncio.create_task(client.outgoing.get())
                await asyncio.wait({upcoming, cut_off}, return_when=asyncio.FIRST_COMPLETED)
                if not upcoming.done():
                    upcoming.cancel()
                    break
                await socket.send_str(upcoming.result().decode())
            await socket.close()
        finally:
            cut_off.cancel()

    def _command(self, client: Client, text: str) -> bytes:
        """SUBSCRIBE, UNSUBSCRIBE or LIST_SUBSCRIPTIONS; the answer carries the request's id."""
        try:
            command = orjson.loads(text)
            method, names, number = command["method"], command.get("params") or [], command.get("id")
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return orjson.dumps({"code": 3, "msg": "Invalid JSON: expected method, params and id"})
        if method == "SUBSCRIBE":
            client.streams.update(names)
        elif method == "UNSUBSCRIBE":
            client.streams.difference_update(names)
        elif method == "LIST_SUBSCRIPTIONS":
            return orjson.dumps({"result": sorted(client.streams), "id": number})
        else:
            return orjson.dumps({"code": 2, "msg": f"Invalid request: unknown method {method!r}", "id": number})
        return orjson.dumps({"result": None, "id": number})


def _names(joined: str) -> set[str]:
    return {name for name in joined.split("/") if name}
