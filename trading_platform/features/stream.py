"""Features of one symbol, over history or bar by bar, from the same state.

history = SymbolFeatures.of(bars)            # a frame sorted by open time -> matrix, sigma, conditions
live = SymbolStream(venue); live.push(bar)   # a bar -> one row of the same
"""

from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

from trading_platform.features import conditions as market
from trading_platform.features.definition import FEATURES
from trading_platform.features.kernel import Floats, empty_state, program, run, step
from trading_platform.identifiers import Venue
from trading_platform.market_data.bar import Bar
from trading_platform.markets.calendars import Calendar, calendar

CONDITIONS = ("volatility", "trend", "liquidity", "session")
NAMES = {"volatility": market.VOLATILITY, "trend": market.TREND, "liquidity": market.LIQUIDITY}


@dataclass(frozen=True)
class Row:
    """One bar's features (k,), its deviation of one-bar log returns (NaN in warm-up) and its conditions."""

    features: Floats
    sigma: float
    conditions: dict[str, str]


@dataclass
class SymbolStream:
    """The state of one symbol. `push` takes bars in order of time, each once."""

    venue: Venue
    table: NDArray[np.int64] = field(default_factory=program)

    def __post_init__(self) -> None:
        self.ring, self.memory = empty_state(len(self.table))
        self.history, self.averages = market.empty_conditions()
        self.calendar: Calendar = calendar(self.venue)
        self._codes = np.zeros(3)

    def push(self, bar: Bar) -> Row:
        """Take one bar and return its row."""
        out = np.empty(len(self.table))
        sigma = step(
            self.table, self.ring, self.memory, bar.open_time.timestamp(),
            bar.open, bar.high, bar.low, bar.close, bar.volume, out,
        )  # fmt: skip
        market.step_conditions(self.history, self.averages, bar.close, bar.volume, sigma, self._codes)
        named = {name: NAMES[name][int(code)] for name, code in zip(CONDITIONS, self._codes, strict=False)}
        return Row(out, sigma, named | {"session": market.live_session(bar.open_time, self.calendar)})

    def extend(self, bars: pl.DataFrame) -> "History":
        """Take many bars (one symbol, sorted by open time) and return all their rows."""
        rows = len(bars)
        out, sigma, codes = np.empty((rows, len(self.table))), np.empty(rows), np.empty((rows, 3))
        columns = [
            np.ascontiguousarray(bars[name].to_numpy(), np.float64)
            for name in ("open", "high", "low", "close", "volume")
        ]
        seconds = bars["open_time"].dt.timestamp("us").to_numpy() / 1e6
        run(self.table, self.ring, self.memory, seconds, *columns, out, sigma)
        market.run_conditions(self.history, self.averages, columns[3], columns[4], sigma, codes)
        named = {
            name: np.array(NAMES[name])[codes[:, column].astype(int)] for column, name in enumerate(CONDITIONS[:3])
        }
        return History(out, sigma, {**named, "session": self._sessions(bars)})

    def _sessions(self, bars: pl.DataFrame) -> NDArray[np.str_]:
        never_closes = self.calendar.never_closes
        times: list[datetime] = bars["open_time"].to_list()
        if never_closes:
            return np.array([market.session_of(time, None, None, True) for time in times], dtype=np.str_)
        located = self.calendar.locate(bars["open_time"], int(bars["interval_seconds"][0]))
        return np.array(
            [
                market.session_of(time, opens_at, closes_at, False)
                for time, opens_at, closes_at in zip(times, located["opens_at"], located["closes_at"], strict=True)
            ],
            dtype=np.str_,
        )


@dataclass(frozen=True)
class History:
    """Rows of one symbol: `matrix` (n, k), `sigma` (n,), `conditions` {name: (n,) of strings}."""

    matrix: Floats
    sigma: Floats
    conditions: dict[str, NDArray[np.str_]]


def compute(bars: pl.DataFrame) -> History:
    """Features of one symbol's bars from the first of them on. `bars` is a bar frame sorted by open time."""
    return SymbolStream(Venue(bars["venue"][0]), program(FEATURES)).extend(bars)
