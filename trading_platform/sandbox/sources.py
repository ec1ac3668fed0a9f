"""Where market time comes from: the stored tail of a dataset, then, for a synthetic one, the same series for ever.

A step is all bars of one close time. A live market's source is in `live.py`.
"""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import polars as pl

from trading_platform.market_data import synthetic
from trading_platform.sandbox.events import BarClosed


@dataclass(frozen=True, slots=True)
class Step:
    """All bars that became available at one market time (milliseconds), one a symbol, in order of their symbols."""

    time: int
    bars: list[BarClosed]


class Source(Protocol):
    """Steps in order of market time."""

    def steps(self, after: int | None) -> AsyncIterator[Step]:
        """Every step later than `after` (milliseconds), once; None: from the beginning. A source may end."""
        ...


@dataclass
class ReplaySource:
    """The tail of a dataset: a bar frame with every bar to be replayed."""

    tail: pl.DataFrame

    async def steps(self, after: int | None) -> AsyncIterator[Step]:
        """Ends with the last bar."""
        for step in _steps(self.tail, after):
            yield step


@dataclass
class SyntheticSource:
    """The stored tail of a synthetic market, then the series that its seed goes on with; never ends."""

    tail: pl.DataFrame
    parameters: dict[str, Any]
    """`details["synthetic"]` of the dataset: seed, start, bars, symbols, interval_seconds."""

    async def steps(self, after: int | None) -> AsyncIterator[Step]:
        for step in _steps(self.tail, after):
            after = step.time
            yield step
        start, interval = datetime.fromisoformat(self.parameters["start"]), self.parameters["interval_seconds"]
        first = self.parameters["bars"]
        if after is not None:
            first = max((after - int(start.timestamp() * 1_000)) // (interval * 1_000), first)
        for frame in synthetic.stream(
            self.parameters["seed"], first, start=start, symbols=self.parameters["symbols"], interval_seconds=interval
        ):
            for step in _steps(frame, after):
                yield step


def _steps(frame: pl.DataFrame, after: int | None) -> Iterator[Step]:
    rows = frame.sort("available_at", "symbol").select(
        pl.col("available_at").dt.timestamp("ms"),
        "symbol",
        pl.col("open_time").dt.timestamp("ms"),
        "open",
        "high",
        "low",
        "close",
        "volume",
    )
    if after is not None:
        rows = rows.filter(pl.col("available_at") > after)
    step: Step | None = None
    for time, *values in rows.iter_rows():
        if step is None or step.time != time:
            if step is not None:
                yield step
            step = Step(time, [])
        step.bars.append(BarClosed(*values))
    if step is not None:
        yield step
