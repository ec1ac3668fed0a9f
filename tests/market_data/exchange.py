"""A small real exchange for tests: Binance's klines over HTTP and WebSocket, on a port of its own, that can fail."""

import asyncio
import math
from collections import defaultdict
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from aiohttp import WSMsgType, web

START_MS = int(datetime(2024, 3, 1, tzinfo=UTC).timestamp() * 1000)
MINUTE_MS = 60_000


def kline(index: int, symbol: str) -> list:
    """Bar `index` of a symbol, in Binance's 12 columns; prices tell symbol and index apart."""
    opened = START_MS + index * MINUTE_MS
    price = 100 * (1 + len(symbol)) + 10 * math.sin(index / 7)
    values = [f"{value:.4f}" for value in (price, price + 1, price - 1, price + 0.5, 1 + index % 5)]
    return [opened, *values, opened + MINUTE_MS - 1, "0", 1, "0", "0", "0"]


class Exchange:
    """Holds bars by symbol and index; tests publish, hide, drop and break them."""

    def __init__(self) -> None:
        self.bars: dict[str, dict[int, list]] = defaultdict(dict)
        self.sockets: list[web.WebSocketResponse] = []
        self.requests = 0
        self.connections = 0
        self.failing_requests = 0
        self.unlisted: set[str] = set()
        self.url = ""

    def close_bar(self, index: int, *symbols: str) -> None:
        """REST knows the bar from now on; nothing is sent."""
        for symbol in symbols:
            self.bars[symbol][index] = kline(index, symbol)

    async def publish(self, index: int, *symbols: str, also_rest: bool = True) -> None:
        """Send the closed bar, as a combined stream does, after an update of the bar while it was open."""
        for symbol in symbols:
            row = kline(index, symbol)
            if also_rest:
                self.bars[symbol][index] = row
            for is_closed in (False, True):
                await self.send(symbol, row, is_closed)

    async def send(self, symbol: str, row: list, is_closed: bool = True) -> None:
        payload = dict(zip("tohlcvT", row[:7], strict=True)) | {"s": symbol, "i": "1m", "x": is_closed}
        message = {"stream": f"{symbol.lower()}@kline_1m", "data": {"e": "kline", "s": symbol, "k": payload}}
        for socket in [socket for socket in self.sockets if not socket.closed]:
            await socket.send_json(message)

    async def drop(self) -> None:
        """Cut every stream without a closing handshake."""
        for socket in self.sockets:
            transport = socket._req.transport if socket._req else None
            if transport is not None:
                transport.abort()
        self.sockets.clear()

    async def connected(self, times: int = 1) -> None:
        async with asyncio.timeout(10):
            while self.connections < times or not self.sockets:
                await asyncio.sleep(0.01)

    async def klines(self, request: web.Request) -> web.Response:
        self.requests += 1
        if self.failing_requests:
            self.failing_requests -= 1
            return web.Response(status=503, text="{}")
        if request.query["symbol"] in self.unlisted:
            return web.json_response({"code": -1121, "msg": "Invalid symbol."}, status=400)
        start, limit = int(request.query["startTime"]), int(request.query["limit"])
        rows = [row for _, row in sorted(self.bars[request.query["symbol"]].items()) if row[0] >= start]
        return web.json_response(rows[:limit])

    async def stream(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.connections += 1
        self.sockets.append(socket)
        async for message in socket:
            if message.type is WSMsgType.ERROR:
                break
        return socket

    async def information(self, _: web.Request) -> web.Response:
        names = [("BTC", "USDT"), ("ETH", "USDT")]
        return web.json_response({"symbols": [_market(base, quote) for base, quote in names]})


@asynccontextmanager
async def running_exchange():
    exchange = Exchange()
    application = web.Application()
    application.router.add_get("/api/v3/klines", exchange.klines)
    application.router.add_get("/api/v3/exchangeInfo", exchange.information)
    application.router.add_get("/stream", exchange.stream)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    exchange.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield exchange
    finally:
        await exchange.drop()
        await runner.cleanup()


def _market(base: str, quote: str) -> dict:
    return {
        "symbol": base + quote, "baseAsset": base, "quoteAsset": quote, "status": "TRADING", "baseAssetPrecision": 8,
        "quotePrecision": 8, "orderTypes": ["LIMIT", "MARKET"], "isSpotTradingAllowed": True, "permissions": ["SPOT"],
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": "0.01", "maxPrice": "1000000", "tickSize": "0.01"},
            {"filterType": "LOT_SIZE", "minQty": "0.00001", "maxQty": "9000", "stepSize": "0.00001"},
            {"filterType": "NOTIONAL", "minNotional": "5"},
        ],
    }  # fmt: skip
