"""From the feature table to what the kernel executes: shared windows, averages and extremes, and where they are used.

Two features over the same window share its running sums, so that a bar updates each of them once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from trading_platform.features.definition import FEATURES, SIGMA_SPAN, Feature, Op
from trading_platform.features.kernel import COLUMNS, EXTREME, LONGEST, MOMENTS, RING, SIGNAL, Column

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
_Row = TypeVar("_Row")


@dataclass(frozen=True)
class Program:
    """`windows` (w, 2): column, length. `averages` (a, 5): column or SIGNAL, two averages, the new value's
    weight as a fraction of two whole numbers. `extremes` (e,): length. `outputs` (k, 6): operation, two references into those tables, the two lengths, warm-up."""

    windows: Integers
    averages: Integers
    extremes: Integers
    outputs: Integers

    def empty_state(self) -> Floats:
        """All that is remembered of a symbol, before its first bar: a flat vector, the count of bars in cell 0."""
        cells = COLUMNS * RING + MOMENTS * len(self.windows) + len(self.averages) + EXTREME * len(self.extremes)
        return np.zeros(1 + cells)


def compile_features(features: tuple[Feature, ...] = FEATURES) -> Program:
    """The program of a feature table. Raises ValueError where a window is longer than the ring allows."""
    if too_long := [feature.name for feature in features if max(feature.n, feature.m) > LONGEST]:
        raise ValueError(f"features {too_long} look back more than {LONGEST} bars; raise RING")
    tables = _Tables()
    tables.average(Column.SQUARE, 2, SIGMA_SPAN + 1)  # average 0 is s squared
    outputs = [(int(f.op), *tables.references(f), f.warm_up) for f in features]
    return Program(
        windows=np.array(tables.windows or [(0, 1)], dtype=np.int64),
        averages=np.array(tables.averages, dtype=np.int64),
        extremes=np.array(tables.extremes or [1], dtype=np.int64),
        outputs=np.array(outputs, dtype=np.int64),
    )


class _Tables:
    """Rows made on demand, each once."""

    def __init__(self) -> None:
        self.windows: list[tuple[int, int]] = []
        self.averages: list[tuple[int, int, int, int, int]] = []
        self.extremes: list[int] = []

    def window(self, column: Column, n: int) -> int:
        return _index(self.windows, (int(column), n))

    def average(self, column: int, new: int, whole: int, first: int = 0, second: int = 0) -> int:
        return _index(self.averages, (int(column), first, second, new, whole))

    def ema(self, span: int) -> int:
        return self.average(Column.CLOSE, 2, span + 1)

    def wilder(self, column: Column, n: int) -> int:
        return self.average(column, 1, n)

    def references(self, feature: Feature) -> tuple[int, int, int, int]:
        """(row a, row b, length of a, length of b) of what an operation reads; 0 where it reads none."""
        n, m = feature.n, feature.m
        averages: dict[Op, Callable[[], tuple[int, int]]] = {
            Op.EMA_GAP: lambda: (self.ema(n), 0),
            Op.MACD: lambda: (self.ema(n), self.ema(m)),
            Op.MACD_HISTOGRAM: lambda: (self.average(SIGNAL, 1, 5, self.ema(n), self.ema(m)), 0),
            Op.RSI: lambda: (self.wilder(Column.GAIN, n), self.wilder(Column.LOSS, n)),
            Op.ATR: lambda: (self.wilder(Column.TRUE_RANGE, n), 0),
            Op.RANGE_POSITION: lambda: (_index(self.extremes, n), 0),
        }
        windows: dict[Op, tuple[tuple[Column, int], ...]] = {
            Op.BAND_POSITION: ((Column.CLOSE, n),),
            Op.BAND_WIDTH: ((Column.CLOSE, n),),
            Op.MEAN_RATIO: ((Column.CLOSE, n), (Column.CLOSE, m)),
            Op.VOLATILITY_RATIO: ((Column.RETURN, n), (Column.RETURN, m)),
            Op.SKEW: ((Column.RETURN, n),),
            Op.AUTOCORRELATION: ((Column.LAGGED, n), (Column.RETURN, n)),
            Op.UP_SHARE: ((Column.RISING, n),),
            Op.VOLUME_SCORE: ((Column.VOLUME, n),),
            Op.VOLUME_RATIO: ((Column.VOLUME, n),),
            Op.VWAP_GAP: ((Column.TURNOVER, n), (Column.VOLUME, n)),
        }
        if feature.op in averages:
            return *averages[feature.op](), n, m
        read = windows.get(feature.op, ())
        rows = [self.window(column, length) for column, length in read] + [0, 0]
        lengths = [length for _, length in read] + [n, m]
        return rows[0], rows[1], lengths[0], lengths[1]


def _index(rows: list[_Row], row: _Row) -> int:
    if row not in rows:
        rows.append(row)
    return rows.index(row)
