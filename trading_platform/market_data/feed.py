"""Closed bars in the order in which the market made them known: from the venue, or replayed from the lake."""

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import orjson
import structlog

from trading_platform.identifiers import DatasetId, Symbol, Venue
from trading_platform.market_data.bar import Bar
from trading_platform.market_data.klines import KlinesClient, stream_url
from trading_platform.market_data.lake import Lake
from trading_platform.market_data.quality import Reason, broken_rule
from trading_platform.market_data.reading import interval_name

log = structlog.get_logger(__name__)

BINANCE = Venue("binance")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
PAGE = 1000
QUIET_AFTER = 3
"""A symbol absent from so many steps running is not waited for until it is heard of again."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0


@dataclass(frozen=True, slots=True)
class Step:
    """All bars that became available at one market time, one a symbol, in order of their symbols."""

    available_at: datetime
    bars: list[Bar]


class BarFeed(Protocol):
    """Where live or replayed bars come from."""

    def steps(self, after: datetime | None) -> AsyncIterator[Step]:
        """Every step with `available_at` > `after`, once and in order; `None` starts at the feed's own beginning.

        First what was missed is filled in, then the feed goes on live. A feed that can end simply stops.
        """
        ...


class LakeFeed:
    """Replays bars straight from the lake: for datasets without a venue to trade on, such as an index."""

    def __init__(
        self, lake: Lake, dataset_id: str, *, start: datetime | None = None, symbols: list[str] | None = None
    ) -> None:
        self._lake = lake
        self._dataset_id = dataset_id
        self._start = start
        self._symbols = symbols

    async def steps(self, after: datetime | None) -> AsyncIterator[Step]:
        """Steps from `start` (an open time, normally the dataset's `replay_from`) on; ends with the last bar."""
        frame = self._lake.bars(self._dataset_id, self._symbols, start=self._start).sort("available_at", "symbol")
        if after is not None:
            frame = frame.filter(frame["available_at"] > after)
        step: Step | None = None
        for row in frame.iter_rows(named=True):
            bar = Bar(**row)
            if step is None or step.available_at != bar.available_at:
                if step is not None:
                    yield step
                step = Step(bar.available_at, [])
            step.bars.append(bar)
        if step is not None:
            yield step


@dataclass
class VenueFeed:
    """Binance spot klines: REST for what was missed, the combined WebSocket stream for what comes.

    The stream is opened before REST is asked, so nothing falls between the two; a bar is known by its open time, so
    nothing comes twice. A lost or silent connection is opened again, with growing pauses, and filled up in the same
    way. A step waits for its last symbols `grace_seconds` at most, then asks REST once for them: a bar that REST does
    not have either is absent for everybody. Bars that break a rule are kept out of the steps, in `set_aside`.
    """

    dataset_id: DatasetId
    symbols: Sequence[Symbol]
    interval_seconds: int
    base_url: str | None = None
    """None: the real exchange. The sandbox's address: every REST answer is taken as closed, since its market time is
    not the wall clock's."""
    venue: Venue = BINANCE
    start: datetime | None = None
    """Where `steps(None)` begins, as an open time; None: with the first bar that closes from now on."""
    grace_seconds: float = 0.25
    silent_after_seconds: float = 60.0
    set_aside: deque[tuple[Bar, Reason]] = field(default_factory=lambda: deque(maxlen=10_000))
    """Bars that broke a rule, for whoever keeps the quarantine; cleared by them."""
    reconnects: int = 0

    async def steps(self, after: datetime | None) -> AsyncIterator[Step]:
        """Endless. Cancel the task that iterates, or close the iterator, to stop."""
        if after is None and self.start is not None:
            after = self.start + self._interval - timedelta(microseconds=1)
        self._last = after
        self._absences = dict.fromkeys(self.symbols, 0)
        self._rest = KlinesClient(self.base_url)
        pause = FIRST_PAUSE
        try:
            while True:
                try:
                    async with contextlib.aclosing(self._connected()) as connected:
                        async for step in connected:
                            pause = FIRST_PAUSE
                            yield step
                except _connection_errors() as error:
                    self.reconnects += 1
                    log.warning("feed_reconnects", dataset_id=self.dataset_id, error=repr(error), pause=round(pause, 2))
                await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311
                pause = min(pause * 2, LONGEST_PAUSE)
        finally:
            await self._rest.close()

    # --- one connection ----------------------------------------------------------------------------------------------

    async def _connected(self) -> AsyncGenerator[Step, None]:
        """Steps of one connection: what REST has since the last step, then the stream, until it breaks."""
        from websockets.asyncio.client import connect

        name = interval_name(self.interval_seconds)
        streams = "/".join(f"{_venue_symbol(symbol).lower()}@kline_{name}" for symbol in self.symbols)
        async with connect(f"{stream_url(self.base_url)}/stream?streams={streams}", max_queue=None) as socket:
            arrived: asyncio.Queue[Bar | None] = asyncio.Queue()
            reader = asyncio.create_task(self._read(socket, arrived))
            try:
                async for step in self._missed():
                    yield step
                async for step in self._live(arrived):
                    yield step
                await reader
            finally:
                reader.cancel()
                await asyncio.gather(reader, return_exceptions=True)

    async def _read(self, socket: Any, arrived: "asyncio.Queue[Bar | None]") -> None:
        """Closed klines from the socket into the queue; None when it ends, so that nobody waits for ever."""
        try:
            while True:
                async with asyncio.timeout(self.silent_after_seconds):  # wait_for may swallow a cancellation
                    frame = await socket.recv()
                kline = orjson.loads(frame).get("data", {}).get("k")
                if kline and kline["x"]:
                    values = [float(kline[name]) for name in "ohlcv"]
                    arrived.put_nowait(self._bar(self._by_id[kline["s"]], kline["t"], values))
        finally:
            arrived.put_nowait(None)

    async def _live(self, arrived: "asyncio.Queue[Bar | None]") -> AsyncGenerator[Step, None]:
        """Bars from the queue, gathered by market time."""
        while (bar := await arrived.get()) is not None:
            if self._last is not None and bar.available_at <= self._last:
                self._absences[bar.symbol] = 0  # late, or known from REST: the symbol lives and is waited for again
                continue
            if self._last is not None and bar.available_at - self._last > self._interval:
                async for step in self._missed(before=bar.available_at):
                    yield step
            step = await self._gather(bar, arrived)
            self._last = step.available_at
            yield step

    async def _gather(self, first: Bar, arrived: "asyncio.Queue[Bar | None]") -> Step:
        """The step that `first` opens: wait for the symbols that are usually there, then ask REST for the rest."""
        found = {first.symbol: first}
        deadline = asyncio.get_running_loop().time() + self.grace_seconds
        while waiting := [s for s in self.symbols if s not in found and self._absences[s] < QUIET_AFTER]:
            try:
                async with asyncio.timeout_at(deadline):
                    bar = await arrived.get()
                if bar is not None and bar.available_at <= first.available_at:
                    found |= {bar.symbol: bar} if bar.available_at == first.available_at else {}
                    continue
                _put_first(arrived, bar)
            except TimeoutError:
                pass
            # The time is up, the stream has ended or has gone on to the next step: REST has the last word.
            found |= await self._ask(waiting, first.open_time)
            break
        for symbol in self.symbols:
            self._absences[symbol] = 0 if symbol in found else self._absences[symbol] + 1
        return self._step(first.available_at, list(found.values()))

    # --- REST --------------------------------------------------------------------------------------------------------

    async def _missed(self, before: datetime | None = None) -> AsyncGenerator[Step, None]:
        """Steps after the last one that REST knows, a page of every symbol at a time; `before`: available earlier."""
        while self._last is not None:
            pages = await self._pages(self._last)
            full = [page[-1].available_at for page in pages if len(page) >= PAGE]
            horizon = min(full) if full else None
            by_time: dict[datetime, list[Bar]] = {}
            for bar in (bar for page in pages for bar in page):
                if (horizon is None or bar.available_at <= horizon) and (before is None or bar.available_at < before):
                    by_time.setdefault(bar.available_at, []).append(bar)
            for moment in sorted(by_time):
                self._last = moment
                yield self._step(moment, by_time[moment])
            if horizon is None or (before is not None and horizon >= before):
                return

    async def _pages(self, after: datetime) -> list[list[Bar]]:
        """A page of every symbol, all reaching as far: time goes on between the answers, so laggards are asked again."""
        pages = list(await asyncio.gather(*(self._page(symbol, after, PAGE) for symbol in self.symbols)))
        latest = max((page[-1].available_at for page in pages if page), default=after)
        behind = [
            n for n, page in enumerate(pages)
            if len(page) < PAGE and (page[-1].available_at if page else after) < latest
        ]  # fmt: skip
        if behind:
            await asyncio.sleep(self.grace_seconds)
        for n in behind:
            known_to = pages[n][-1].available_at if pages[n] else after
            more = await self._page(self.symbols[n], known_to, PAGE)
            pages[n] = pages[n] + [bar for bar in more if bar.available_at <= latest]
        return pages

    async def _ask(self, symbols: list[Symbol], open_time: datetime) -> dict[Symbol, Bar]:
        """One bar of several symbols, where REST has it."""
        after = open_time + self._interval - timedelta(microseconds=1)
        pages = await asyncio.gather(*(self._page(symbol, after, 1) for symbol in symbols))
        return {page[0].symbol: page[0] for page in pages if page and page[0].open_time == open_time}

    async def _page(self, symbol: Symbol, after: datetime, limit: int) -> list[Bar]:
        """Closed bars of one symbol available after `after`, oldest first."""
        start_ms = (after - self._interval - EPOCH) // timedelta(milliseconds=1) + 1
        rows = await self._rest.rows(_venue_symbol(symbol), interval_name(self.interval_seconds), start_ms, limit)
        bars = [self._bar(symbol, int(row[0]), [float(value) for value in row[1:6]]) for row in rows]
        now = datetime.now(UTC)
        return [bar for bar in bars if bar.available_at > after and (self.base_url or bar.available_at <= now)]

    # --- bars --------------------------------------------------------------------------------------------------------

    @property
    def _interval(self) -> timedelta:
        return timedelta(seconds=self.interval_seconds)

    @property
    def _by_id(self) -> dict[str, Symbol]:
        return {_venue_symbol(symbol): symbol for symbol in self.symbols}

    def _step(self, moment: datetime, bars: list[Bar]) -> Step:
        """A step of the sound bars; the others are set aside."""
        sound = []
        for bar in sorted(bars, key=lambda bar: bar.symbol):
            reason = broken_rule(bar.open, bar.high, bar.low, bar.close, bar.volume)
            if reason is None:
                sound.append(bar)
            else:
                self.set_aside.append((bar, reason))
                log.warning(
                    "bar_set_aside", symbol=bar.symbol, open_time=bar.open_time.isoformat(), reason=reason.value
                )
        return Step(moment, sound)

    def _bar(self, symbol: Symbol, opened_ms: int, values: list[float]) -> Bar:
        open_time = datetime.fromtimestamp(opened_ms / 1000, UTC)
        opens, high, low, close, volume = values
        return Bar(
            dataset_id=self.dataset_id, venue=self.venue, symbol=symbol, interval_seconds=self.interval_seconds,
            open_time=open_time, open=opens, high=high, low=low, close=close, volume=volume,
            session_date=open_time.date(), available_at=open_time + self._interval, source=self.venue,
        )  # fmt: skip


def _venue_symbol(symbol: str) -> str:
    """Binance's spelling: BTC/USDT -> BTCUSDT."""
    return symbol.replace("/", "")


def _put_first(queue: "asyncio.Queue[Bar | None]", bar: Bar | None) -> None:
    """Undo a `get`."""
    rest = [queue.get_nowait() for _ in range(queue.qsize())]
    for item in [bar, *rest]:
        queue.put_nowait(item)


def _connection_errors() -> tuple[type[BaseException], ...]:
    from websockets.exceptions import WebSocketException

    return WebSocketException, OSError, TimeoutError
