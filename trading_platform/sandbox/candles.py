"""Closed bars as the exchange shows them: history up to the market time, never beyond it."""

from array import array
from bisect import bisect_left, bisect_right
from typing import Any

import polars as pl

from trading_platform.sandbox.events import BarClosed

Row = tuple[int, float, float, float, float, float]
"""Open time in milliseconds, open, high, low, close, volume."""
MOST_KEPT = 100_000
"""Bars of one symbol that are kept (about 5 MB); older ones are forgotten."""
MINUTE_MS = 60_000
COLUMNS = ("open", "high", "low", "close", "volume")


class Candles:
    """Bars of one symbol in order of time, in flat arrays."""

    def __init__(self, interval_seconds: int) -> None:
        self.interval_ms = interval_seconds * 1_000
        self.times = array("q")
        self.columns = tuple(array("d") for _ in COLUMNS)
        self._newest = -1
        self._stored = 0
        """How many of the oldest rows came from storage, which has them for the next start too."""

    def __len__(self) -> int:
        return len(self.times)

    def put_before(self, history: pl.DataFrame) -> None:
        """Add a symbol's stored bars (a bar frame sorted by open time) where they are older than all that is here."""
        times = history["open_time"].dt.timestamp("ms")
        if len(self.times):
            history = history.filter(times < self.times[0])
        history = history.tail(max(MOST_KEPT - len(self.times), 0))
        self._stored += len(history)
        self.times = array("q", history["open_time"].dt.timestamp("ms").to_list()) + self.times
        self.columns = tuple(
            array("d", history[name].to_list()) + column for name, column in zip(COLUMNS, self.columns, strict=True)
        )

    def add(self, bar: BarClosed) -> None:
        """A new bar; one that is not newer than the last is known already.

        A market that moves faster than its bars (steps of seconds) forms each bar from several: they are parts of the last.
        """
        if self.times and bar.open_time <= max(self.times[-1], self._newest):
            return
        self._newest = bar.open_time
        if self.times and self.interval_ms <= MINUTE_MS and bar.open_time // self.interval_ms == self.times[-1] // self.interval_ms:  # fmt: skip
            _, high, low, close, volume = self.columns
            high[-1], low[-1], close[-1] = max(high[-1], bar.high), min(low[-1], bar.low), bar.close
            volume[-1] += bar.volume
            return
        self.times.append(bar.open_time)
        for name, column in zip(COLUMNS, self.columns, strict=True):
            column.append(getattr(bar, name))
        if len(self.times) > MOST_KEPT * 5 // 4:
            self._forget(len(self.times) - MOST_KEPT)

    def row(self, index: int) -> Row:
        o, h, low, c, v = (column[index] for column in self.columns)
        return self.times[index], o, h, low, c, v

    def between(self, start: int | None, end: int | None, limit: int) -> list[Row]:
        """As Binance does it: the first `limit` from `start` on, or without a start the last ones up to `end`."""
        stop = len(self.times) if end is None else bisect_right(self.times, end)
        first = max(stop - limit, 0) if start is None else bisect_left(self.times, start)
        return [self.row(index) for index in range(first, min(first + limit, stop))]

    def last(self, count: int) -> list[Row]:
        return [self.row(index) for index in range(max(len(self.times) - count, 0), len(self.times))]

    def unstored(self) -> dict[str, Any]:
        """The rows that storage did not bring: what a snapshot has to hold."""
        kept = slice(self._stored, None)
        return {"times": self.times[kept].tolist(), "columns": [column[kept].tolist() for column in self.columns]}

    def restore(self, rows: dict[str, Any]) -> None:
        """Take what `unstored` gave."""
        self.times = array("q", rows["times"])
        self.columns = tuple(array("d", column) for column in rows["columns"])

    def _forget(self, count: int) -> None:
        del self.times[:count]
        for column in self.columns:
            del column[:count]
        self._stored = max(self._stored - count, 0)
