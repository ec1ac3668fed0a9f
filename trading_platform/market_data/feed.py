"""Closed bars in the order in which the market made them known."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from trading_platform.market_data.bar import Bar
from trading_platform.market_data.lake import Lake


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
