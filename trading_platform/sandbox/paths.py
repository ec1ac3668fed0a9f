"""Minutes out of longer bars, and a market that goes on when its data end: what a sandbox by itself is fed with.

A bar becomes a path that begins at its open, touches its high and low once each and ends at its close; where in between is
the seed's. After the data each symbol walks on, day by day, as an invented bar of the same length. Symbols that the data do
not have (pairs beside Indian data, shares beside pairs) walk from the start. Equal data and seeds give equal markets.
"""

import random
from array import array
from bisect import bisect_left
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from math import exp, sqrt
from zoneinfo import ZoneInfo

import polars as pl

from trading_platform.markets.calendars import DAY_SECONDS
from trading_platform.markets.sessions import Phase, is_trading_day, session_of
from trading_platform.sandbox.events import BarClosed
from trading_platform.sandbox.sources import Step

IST = ZoneInfo("Asia/Kolkata")
USUAL_HOURS = (time(9, 15), time(15, 30))
DAILY_VOLATILITY = 0.012
SHARE_OF_NOISE = 0.15
"""How far a path strays from the straight line between its corners, as a share of the bar's range."""


@dataclass(frozen=True, slots=True)
class Ohlcv:
    """A bar without its time."""

    open: float
    high: float
    low: float
    close: float
    volume: float


def path(bar: Ohlcv, parts: int, tick: float, draw: random.Random) -> list[Ohlcv]:
    """`parts` shorter bars that together are `bar`: same open, high, low and close, same volume to rounding."""
    if parts < 2:
        return [bar]
    corners = {0: bar.open, parts: bar.close}
    if parts > 3:
        first, second = sorted(draw.sample(range(1, parts), 2))
        upward = bar.close >= bar.open
        corners[first], corners[second] = (bar.low, bar.high) if upward else (bar.high, bar.low)
    marks = sorted(corners)
    points = [bar.open]
    for start, end in pairwise(marks):
        for at in range(start + 1, end + 1):
            level = corners[start] + (corners[end] - corners[start]) * (at - start) / (end - start)
            if at not in corners:
                level += (draw.random() - 0.5) * SHARE_OF_NOISE * (bar.high - bar.low)
                level = min(max(round(level / tick) * tick, bar.low), bar.high)
            points.append(round(level, 8))
    each = float(round(bar.volume / parts, 8))
    found = [Ohlcv(o, max(o, c), min(o, c), c, each) for o, c in pairwise(points)]
    if parts <= 3:
        found[0] = Ohlcv(found[0].open, bar.high, bar.low, found[0].close, each)
    return found


def walked(previous: float, seconds: int, tick: float, volume: float, draw: random.Random) -> Ohlcv:
    """An invented bar of `seconds` after a close."""
    deviation = DAILY_VOLATILITY * sqrt(min(seconds, DAY_SECONDS) / 22_500)
    levels = [previous]
    for _ in range(4):
        levels.append(max(previous * exp(draw.gauss(0, deviation / 2)), tick))
    rounded = [max(round(level / tick) * tick, tick) for level in levels]
    opened, close = round(rounded[0], 8), round(rounded[-1], 8)
    return Ohlcv(opened, round(max(rounded), 8), round(min(rounded), 8), close, round(volume * draw.uniform(0.6, 1.4)))


@dataclass
class Prices:
    """One symbol: its bars in order of time, and how they go on. `interval` in seconds."""

    symbol: str
    tick: float
    interval: int
    times: "array[int]" = field(default_factory=lambda: array("q"))
    """Open times in milliseconds."""
    bars: list[Ohlcv] = field(default_factory=list)
    start: float = 100.0
    volume: float = 100_000.0

    def between(self, first: int, end: int) -> Iterator[tuple[int, Ohlcv]]:
        at = bisect_left(self.times, first)
        while at < len(self.times) and self.times[at] < end:
            yield self.times[at], self.bars[at]
            at += 1

    @property
    def last_time(self) -> int:
        return self.times[-1] if self.times else -1


@dataclass
class PathSource:
    """Steps of `step_seconds` from `first` on, without end. `indian`: symbols that trade in NSE's hours, the rest always.

    `nights`: whether there are steps while no share trades; else time goes from one session to the next.
    """

    prices: Sequence[Prices]
    indian: frozenset[str]
    first: datetime
    step_seconds: int
    seed: int
    nights: bool = False
    _closes: dict[str, float] = field(default_factory=dict)

    async def steps(self, after: int | None) -> AsyncIterator[Step]:
        """Every step later than `after` (milliseconds)."""
        began = self.first if after is None else datetime.fromtimestamp((after + 1) / 1_000, UTC)
        day = began.astimezone(IST).date()
        while True:
            for step in self.of_day(day):
                if step.time > (after if after is not None else -1) and step.time > self.first.timestamp() * 1_000:
                    yield step
            day += timedelta(days=1)

    def of_day(self, day: date) -> Iterator[Step]:
        """The steps of an IST day, in order of time."""
        steps: dict[int, list[BarClosed]] = {}
        for each in self.prices:
            in_session = each.symbol in self.indian
            for opened, bar in self._bars_of(each, day):
                seconds = self._length(each, day) if in_session else each.interval
                draw = random.Random(f"{self.seed}:{each.symbol}:{opened}")  # noqa: S311
                parts = path(bar, max(seconds // self.step_seconds, 1), each.tick, draw)
                for number, part in enumerate(parts):
                    start = opened + number * self.step_seconds * 1_000
                    end = start + min(self.step_seconds, seconds) * 1_000
                    steps.setdefault(end, []).append(
                        BarClosed(each.symbol, start, part.open, part.high, part.low, part.close, part.volume)
                    )
        for moment in sorted(steps):
            if self.nights or any(bar.symbol in self.indian for bar in steps[moment]):
                yield Step(moment, sorted(steps[moment], key=lambda bar: bar.symbol))

    # --- inside ------------------------------------------------------------------------------------------------------

    def _length(self, prices: Prices, day: date) -> int:
        if prices.interval < DAY_SECONDS:
            return prices.interval
        start, end = hours(day)
        return int((end - start).total_seconds())

    def _bars_of(self, prices: Prices, day: date) -> Iterator[tuple[int, Ohlcv]]:
        midnight = datetime.combine(day, time(), IST)
        first, end = int(midnight.timestamp() * 1_000), int((midnight + timedelta(days=1)).timestamp() * 1_000)
        if prices.last_time >= first:
            for opened, bar in prices.between(first, end):
                self._closes[prices.symbol] = bar.close
                daily = prices.interval >= DAY_SECONDS and prices.symbol in self.indian
                yield (int(hours(day)[0].timestamp() * 1_000) if daily else opened), bar
            return
        yield from self._invented(prices, day, first, end)

    def _invented(self, prices: Prices, day: date, first: int, end: int) -> Iterator[tuple[int, Ohlcv]]:
        close = self._closes.get(prices.symbol) or (prices.bars[-1].close if prices.bars else prices.start)
        draw = random.Random(f"{self.seed}:{prices.symbol}:{day}")  # noqa: S311
        if prices.symbol in self.indian:
            if not is_trading_day("NSE", day):
                return
            opens, closes = (int(moment.timestamp() * 1_000) for moment in hours(day))
        else:
            opens, closes = first, end
        length = min(prices.interval * 1_000, closes - opens)
        for opened in range(opens, closes, length):
            bar = walked(close, length // 1_000, prices.tick, prices.volume, draw)
            close = bar.close
            yield opened, bar
        self._closes[prices.symbol] = close


def hours(day: date) -> tuple[datetime, datetime]:
    """When shares are traded on a day; the usual hours on a day of the data that the calendar does not know."""
    spans = [span for span in session_of("NSE", day) if span.phase is Phase.CONTINUOUS]
    if spans:
        return spans[0].starts, spans[-1].ends
    return (datetime.combine(day, USUAL_HOURS[0], IST), datetime.combine(day, USUAL_HOURS[1], IST))


def prices_of(bars: pl.DataFrame, interval: int, tick: float) -> list[Prices]:
    """The series of a bar frame, by symbol."""
    found = []
    for (symbol,), rows in sorted(bars.partition_by("symbol", as_dict=True).items()):
        ordered = rows.sort("open_time")
        times = array("q", ordered["open_time"].dt.timestamp("ms").to_list())
        values = [Ohlcv(*row) for row in ordered.select("open", "high", "low", "close", "volume").iter_rows()]
        volume = float(ordered["volume"].tail(250).mean() or 100_000.0)  # type: ignore[arg-type]
        found.append(Prices(str(symbol), tick, interval, times, values, values[-1].close, volume))
    return found
