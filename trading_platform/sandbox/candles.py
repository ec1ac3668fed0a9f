"""Closed bars as the exchange shows them: history up to the market time, never beyond it."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable

import polars as pl

from trading_platform.market_data.bar import Bar

Row = tuple[int, float, float, float, float, float]
"""Open time in milliseconds, open, high, low, close, volume."""


class Candles:
    """Bars of one symbol in order of time."""

    def __init__(self, interval_seconds: int) -> None:
        self.interval_ms = interval_seconds * 1_000
        self.times: list[int] = []
        self.rows: list[Row] = []

    def load(self, bars: pl.DataFrame) -> None:
        """Take a symbol's history: a bar frame sorted by open time."""
        times = bars["open_time"].dt.timestamp("ms").to_list()
        columns = [bars[name].to_list() for name in ("open", "high", "low", "close", "volume")]
        self.times = times
        self.rows = list(zip(times, *columns, strict=True))

    def add(self, bar: Bar) -> Row:
        row = (milliseconds(bar), bar.open, bar.high, bar.low, bar.close, bar.volume)
        if not self.times or row[0] > self.times[-1]:
            self.times.append(row[0])
            self.rows.append(row)
        return row

    def between(self, start: int | None, end: int | None, limit: int) -> list[Row]:
        """As Binance does it: the first `limit` from `start` on, or without a start the last ones up to `end`."""
        stop = len(self.times) if end is None else bisect_right(self.times, end)
        first = max(stop - limit, 0) if start is None else bisect_left(self.times, start)
        return self.rows[first : min(first + limit, stop)]

    def last(self, count: int) -> Iterable[Row]:
        return self.rows[-count:]


def milliseconds(bar: Bar) -> int:
    return int(bar.open_time.timestamp() * 1_000)
