"""Features and conditions of one symbol, over history or bar by bar, from the same state.

    history = compute(bars)                          # a bar frame of one symbol -> matrix, sigma, conditions
    stream = SymbolStream(Venue("binance"), 3600)   # the same, live
    row = stream.extend(history_bars); row = stream.push(bar)

Batch is the live loop run over many bars, so both agree to the last bit wherever they started at the same bar.
"""

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from trading_platform.features import conditions as market
from trading_platform.features import context
from trading_platform.features.definition import CONTEXT_FROM, FEATURES, Feature
from trading_platform.features.kernel import Floats, run
from trading_platform.features.program import Program, compile_features
from trading_platform.features.reference import COLUMN
from trading_platform.features.sessions import SessionNames
from trading_platform.identifiers import Venue
from trading_platform.market_data.bar import Bar

CONDITIONS = ("volatility", "trend", "liquidity", "session")
PRICES = ("open", "high", "low", "close", "volume")


class Row(NamedTuple):
    """One bar's features (k,), the deviation of its one-bar log returns (NaN in warm-up) and its conditions."""

    features: Floats
    sigma: float
    conditions: dict[str, str]

    def barrier_volatility(self, horizon_bars: int) -> float:
        """Volatility over a horizon as a fraction of price: the unit of a strategy's barriers. NaN in warm-up."""
        return float(self.sigma * np.sqrt(float(horizon_bars)))


@dataclass(frozen=True)
class History:
    """Rows of one symbol: `matrix` (n, k), `sigma` (n,), `conditions` {name: (n,) of strings}."""

    matrix: Floats
    sigma: Floats
    conditions: dict[str, NDArray[np.str_]]

    def barrier_volatility(self, horizon_bars: int) -> Floats:
        """`Row.barrier_volatility` of every row (n,): the same numbers."""
        return self.sigma * np.sqrt(float(horizon_bars))


class SymbolStream:
    """The state of one symbol. Takes bars in order of their opening times, each once; ValueError on one that is not.

    `features`: those of the bars first, those of the context after them.
    """

    def __init__(self, venue: Venue, interval_seconds: int, features: tuple[Feature, ...] = FEATURES) -> None:
        own = tuple(feature for feature in features if feature.op < CONTEXT_FROM)
        if features[: len(own)] != own:
            raise ValueError("features of the context come after those of the bars themselves: reorder the set")
        self._program: Program = compile_features(own)
        self._context = context.compile_context(features[len(own) :])
        self._interval = float(interval_seconds)
        self._state = self._program.empty_state()
        self._around = context.empty_state(self._context)
        self._market = market.empty_state()
        self._sessions = SessionNames(venue, interval_seconds)
        self._bar, self._reference = np.empty((1, 1 + len(PRICES))), np.empty(1)
        self._cells = self._bar.reshape(-1)
        self.last_open_time: datetime | None = None

    def push(self, bar: Bar, reference: float = math.nan) -> Row:
        """Take one bar, with the newest close of the market's reference, and return its row."""
        if self.last_open_time is not None and bar.open_time <= self.last_open_time:
            raise _disorder(self.last_open_time)
        cells, self._reference[0] = self._cells, reference
        cells[0], cells[1], cells[2] = bar.open_time.timestamp(), bar.open, bar.high
        cells[3], cells[4], cells[5] = bar.low, bar.close, bar.volume
        matrix, sigma, codes = self._take(self._bar, self._reference)
        self.last_open_time = bar.open_time
        volatility, trend, liquidity = map(int, codes[0].tolist())
        conditions = {
            "volatility": market.VOLATILITY[volatility], "trend": market.TREND[trend],
            "liquidity": market.LIQUIDITY[liquidity], "session": self._sessions.one(bar.open_time),
        }  # fmt: skip
        return Row(matrix[0], sigma.item(), conditions)

    def extend(self, bars: pl.DataFrame) -> History:
        """Take many bars (a bar frame of this symbol, sorted by open time) and return all their rows.

        The reference is read from the column that `reference.with_reference` adds.
        """
        seconds = bars["open_time"].dt.timestamp("us").to_numpy() / 1e6
        values = np.column_stack([seconds, *(bars[name].cast(pl.Float64).to_numpy() for name in PRICES)])
        last = -np.inf if self.last_open_time is None else self.last_open_time.timestamp()
        if np.any(np.diff(values[:, 0], prepend=last) <= 0):
            raise _disorder(self.last_open_time)
        there = COLUMN in bars.columns
        beside = bars[COLUMN].cast(pl.Float64).fill_null(math.nan).to_numpy() if there else np.full(len(bars), math.nan)
        matrix, sigma, codes = self._take(values, np.ascontiguousarray(beside))
        conditions = {
            name: np.array(names)[codes[:, column].astype(np.int64)]
            for column, (name, names) in enumerate(market.NAMES.items())
        }
        conditions["session"] = self._sessions.many(bars["open_time"])
        if len(bars):
            self.last_open_time = bars["open_time"][-1]
        return History(matrix, sigma, conditions)

    def snapshot(self) -> Floats:
        """Everything remembered, as one vector that `restore` takes back."""
        last = -1.0 if self.last_open_time is None else self.last_open_time.timestamp()
        return np.concatenate([[last], self._state, self._market, self._around])

    def restore(self, snapshot: Floats) -> None:
        """Go back to a snapshot of a stream with the same features."""
        ends = np.cumsum([1, len(self._state), len(self._market), len(self._around)])
        expected = int(ends[-1])
        if snapshot.shape != (expected,):
            raise ValueError(f"a snapshot of {snapshot.shape} numbers is not of these features: expected {expected}")
        self.last_open_time = datetime.fromtimestamp(snapshot[0], UTC) if snapshot[0] >= 0 else None
        self._state, self._market, self._around = (part.copy() for part in np.split(snapshot, ends[:-1])[1:])

    def _take(self, bars: Floats, reference: Floats) -> tuple[Floats, Floats, Floats]:
        """(features, sigma, condition codes) of bars (rows, 6), taken into the state."""
        p = self._program
        matrix, sigma = np.empty((len(bars), len(p.outputs))), np.empty(len(bars))
        run(p.windows, p.averages, p.alphas, p.extremes, p.outputs, self._state, bars, matrix, sigma)
        codes = np.empty((len(bars), len(market.NAMES)))
        market.run(self._market, bars, sigma, codes)
        if not len(self._context):
            return matrix, sigma, codes
        around = np.empty((len(bars), len(self._context)))
        context.run(self._context, self._around, bars, reference, sigma, self._interval, around)
        return np.hstack([matrix, around]), sigma, codes


def compute(bars: pl.DataFrame, features: tuple[Feature, ...] = FEATURES) -> History:
    """Features of one symbol's bars from the first of them on. `bars` is a bar frame sorted by open time."""
    if bars.is_empty():
        raise ValueError("there are no bars to compute features of")
    if bars["symbol"].n_unique() > 1:
        raise ValueError(f"features are of one symbol, found {sorted(bars['symbol'].unique())}: partition the frame")
    return SymbolStream(Venue(bars["venue"][0]), int(bars["interval_seconds"][0]), features).extend(bars)


def _disorder(last: datetime | None) -> ValueError:
    return ValueError(
        f"bars must come in order of their opening times, each once, and later than the last one taken ({last}); sort "
        "them and drop repetitions"
    )
