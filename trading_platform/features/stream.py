"""Features and conditions of one symbol, over history or bar by bar, from the same state.

    history = compute(bars)                          # a bar frame of one symbol -> matrix, sigma, conditions
    stream = SymbolStream(Venue("binance"), 3600)   # the same, live
    row = stream.extend(history_bars); row = stream.push(bar)

Batch is the live loop run over many bars, so both agree to the last bit wherever they started at the same bar.
"""

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
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
from trading_platform.features.sessions import SESSIONS, Codes, SessionNames
from trading_platform.identifiers import Venue
from trading_platform.market_data.bar import Bar

CONDITION_NAMES = {**market.NAMES, "session": SESSIONS}
CONDITIONS = tuple(CONDITION_NAMES)
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
    """Rows of one symbol: `matrix` (n, k), `sigma` (n,), `codes` {condition: (n,) positions in its `CONDITION_NAMES`}."""

    matrix: Floats
    sigma: Floats
    codes: dict[str, Codes]

    @cached_property
    def conditions(self) -> dict[str, NDArray[np.str_]]:
        """The conditions in words, {name: (n,)}: made when they are asked for, since they take longer than the codes."""
        return {name: np.array(CONDITION_NAMES[name])[codes] for name, codes in self.codes.items()}

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
        self._width = len(features)
        self._live = _Live()
        self.last_open_time: datetime | None = None

    def push(self, bar: Bar, reference: float = math.nan) -> Row:
        """Take one bar, with the newest close of the market's reference, and return its row."""
        if self.last_open_time is not None and bar.open_time <= self.last_open_time:
            raise _disorder(self.last_open_time)
        live, matrix = self._live, np.empty((1, self._width))
        cells = live.cells
        cells[0], cells[1], cells[2] = bar.open_time.timestamp(), bar.open, bar.high
        cells[3], cells[4], cells[5], cells[6] = bar.low, bar.close, bar.volume, reference
        self._take(live.bar, live.reference, matrix, live.sigma, live.codes)
        self.last_open_time = bar.open_time
        volatility, trend, liquidity = live.code_cells
        conditions = {
            "volatility": market.VOLATILITY[volatility], "trend": market.TREND[trend],
            "liquidity": market.LIQUIDITY[liquidity], "session": self._sessions.one(bar.open_time),
        }  # fmt: skip
        return Row(matrix[0], live.sigma.item(), conditions)

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
        matrix, sigma = np.empty((len(bars), self._width)), np.empty(len(bars))
        codes = np.empty((len(market.NAMES), len(bars)), dtype=np.int8)
        self._take(values, np.ascontiguousarray(beside), matrix, sigma, codes)
        if len(bars):
            self.last_open_time = bars["open_time"][-1]
        named = dict(zip(CONDITIONS, (*codes, self._sessions.many(bars["open_time"])), strict=True))
        return History(matrix, sigma, named)

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

    def _take(self, bars: Floats, reference: Floats, matrix: Floats, sigma: Floats, codes: Codes) -> None:
        """Take bars (rows, 6) into the state; fill features (rows, k), sigma (rows,) and condition codes (3, rows)."""
        p = self._program
        run(p.windows, p.averages, p.extremes, p.outputs, self._state, bars, matrix, sigma)
        market.run(self._market, bars, sigma, codes)
        if len(self._context):
            own = len(p.outputs)
            context.run(self._context, self._around, bars, reference, sigma, self._interval, matrix, own)


class _Live:
    """Where one bar and what is computed of it lie, made once; `cells`: the bar's six numbers and the
    reference, `code_cells`: the codes, both as Python reads and writes them the fastest."""

    def __init__(self) -> None:
        given = np.empty(1 + len(PRICES) + 1)
        self.cells = given.data.cast("B").cast("d")
        self.bar, self.reference = given[:-1].reshape(1, -1), given[-1:]
        self.sigma, self.codes = np.empty(1), np.empty((len(market.NAMES), 1), dtype=np.int8)
        self.code_cells = self.codes.data.cast("B").cast("b")


def compute(bars: pl.DataFrame, features: tuple[Feature, ...] = FEATURES) -> History:
    """Features of one symbol's bars from the first of them on. `bars` is a bar frame sorted by open time."""
    if bars.is_empty():
        raise ValueError("there are no bars to compute features of")
    if (bars["symbol"] != bars["symbol"][0]).any():
        raise ValueError(f"features are of one symbol, found {sorted(bars['symbol'].unique())}: partition the frame")
    return SymbolStream(Venue(bars["venue"][0]), int(bars["interval_seconds"][0]), features).extend(bars)


def _disorder(last: datetime | None) -> ValueError:
    return ValueError(
        f"bars must come in order of their opening times, each once, and later than the last one taken ({last}); sort "
        "them and drop repetitions"
    )
