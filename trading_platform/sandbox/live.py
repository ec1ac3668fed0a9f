"""Market time of a live market: Binance's public klines and best prices, passed through.

REST fills in what was missed since the last step, then the WebSocket stream goes on; a lost connection is opened again,
with growing pauses, and filled up in the same way. Orders never leave the sandbox.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import aiohttp
import orjson
import structlog

from trading_platform.sandbox.events import BarClosed
from trading_platform.sandbox.liquidity import Level
from trading_platform.sandbox.sources import Step

log = structlog.get_logger(__name__)

REST = "https://api.binance.com"
STREAM = "wss://stream.binance.com:9443"
PAGE = 1_000
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 30.0
GRACE_SECONDS = 2.0
"""How long a step waits for the bars of its other symbols."""
SILENT_AFTER_SECONDS = 60.0
QuoteListener = Callable[[str, Level, Level], None]


@dataclass
class LiveSource:
    """Closed bars of Binance spot as steps; best prices go to `on_quote`. Times are milliseconds."""

    symbols: Sequence[str]
    interval: str
    interval_ms: int
    on_quote: QuoteListener
    base_url: str | None = None
    """None: Binance itself; else an address that speaks as Binance does, such as another sandbox."""
    is_closed: Callable[[int], bool] = field(default=lambda close_time: close_time < time.time_ns() // 1_000_000)
    """Whether a bar with this close time is over: by the wall clock, unless the address has a market time of its own."""

    async def steps(self, after: int | None) -> AsyncIterator[Step]:
        """Every step later than `after`, once; None: from the first bar that closes from now on. Never ends."""
        pause, last = FIRST_PAUSE, after
        while True:
            try:
                async with contextlib.aclosing(self._connected(last)) as connected:
                    async for step in connected:
                        pause, last = FIRST_PAUSE, step.time
                        yield step
            except (aiohttp.ClientError, OSError, TimeoutError, ConnectionError) as error:
                log.warning("live_market_reconnects", error=repr(error), pause=round(pause, 1))
            await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311
            pause = min(pause * 2, LONGEST_PAUSE)

    # --- one connection ----------------------------------------------------------------------------------------------

    async def _connected(self, last: int | None) -> AsyncGenerator[Step, None]:
        """What REST has since `last`, then the stream until it breaks."""
        names = [name for symbol in self.symbols for name in self._streams(symbol)]
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session,
            session.ws_connect(f"{self._stream_url}/stream?streams={'/'.join(names)}", heartbeat=20) as socket,
        ):
            if last is not None:
                for step in await self._missed(session, last):
                    last = step.time
                    yield step
            arrived: dict[int, dict[str, BarClosed]] = {}
            due: float | None = None
            while True:
                wait = SILENT_AFTER_SECONDS if due is None else max(due - time.monotonic(), 0.0)
                try:
                    message = await socket.receive(timeout=wait)
                except TimeoutError:
                    if due is None:
                        raise
                    message = None
                if message is not None and not self._take(message, arrived, last):
                    raise ConnectionError("the stream was closed")
                while arrived and (
                    len(first := arrived[min(arrived)]) == len(self.symbols)
                    or (due is not None and time.monotonic() >= due)
                ):
                    last, due = min(arrived), None
                    del arrived[last]
                    yield Step(last, [first[symbol] for symbol in sorted(first)])
                if arrived and due is None:
                    due = time.monotonic() + GRACE_SECONDS

    def _take(self, message: aiohttp.WSMessage, arrived: dict[int, dict[str, BarClosed]], last: int | None) -> bool:
        """Sort a message in; False where the stream is at its end."""
        if message.type is not aiohttp.WSMsgType.TEXT:
            return message.type in (aiohttp.WSMsgType.PING, aiohttp.WSMsgType.PONG, aiohttp.WSMsgType.BINARY)
        data = orjson.loads(message.data).get("data", {})
        if "k" in data:
            kline = data["k"]
            available = kline["t"] + self.interval_ms
            if kline["x"] and (last is None or available > last):
                symbol = self._by_name[kline["s"]]
                values = [float(kline[name]) for name in "ohlcv"]
                arrived.setdefault(available, {})[symbol] = BarClosed(symbol, kline["t"], *values)
        elif "a" in data and "b" in data and data.get("s") in self._by_name:
            bid, ask = (Level(Decimal(data[price]), Decimal(data[size])) for price, size in (("b", "B"), ("a", "A")))
            if 0 < bid.price < ask.price:
                self.on_quote(self._by_name[data["s"]], bid, ask)
        return True

    async def _missed(self, session: aiohttp.ClientSession, last: int) -> list[Step]:
        """Steps after `last` that are over already, oldest first."""
        found: dict[int, dict[str, BarClosed]] = {}
        for symbol in self.symbols:
            start = last - self.interval_ms + 1
            while True:
                rows = await self._klines(session, symbol, start)
                for row in rows:
                    if self.is_closed(row[6]):
                        bar = BarClosed(symbol, row[0], *(float(value) for value in row[1:6]))
                        found.setdefault(row[0] + self.interval_ms, {})[symbol] = bar
                if len(rows) < PAGE:
                    break
                start = rows[-1][0] + 1
        return [
            Step(moment, [found[moment][symbol] for symbol in sorted(found[moment])])
            for moment in sorted(found)
            if moment > last
        ]

    async def _klines(self, session: aiohttp.ClientSession, symbol: str, start: int) -> list[list[Any]]:
        query = {"symbol": _name(symbol), "interval": self.interval, "startTime": str(start), "limit": str(PAGE)}
        async with session.get(f"{self.base_url or REST}/api/v3/klines", params=query) as answer:
            answer.raise_for_status()
            rows: list[list[Any]] = orjson.loads(await answer.read())
            return rows

    # --- names -------------------------------------------------------------------------------------------------------

    @property
    def _by_name(self) -> dict[str, str]:
        return {_name(symbol): symbol for symbol in self.symbols}

    @property
    def _stream_url(self) -> str:
        return STREAM if self.base_url is None else self.base_url.replace("http", "ws", 1)

    def _streams(self, symbol: str) -> tuple[str, str]:
        name = _name(symbol).lower()
        return f"{name}@kline_{self.interval}", f"{name}@bookTicker"


def _name(symbol: str) -> str:
    return symbol.replace("/", "")
