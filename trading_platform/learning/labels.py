"""What is being predicted: does a trade entered at this bar's close end in profit, net of costs?

Triple-barrier labels after Lopez de Prado, "Advances in Financial Machine Learning" (2018), chapter 3, evaluated on
closing prices: the position is entered at the close of bar i and left at the first later close at or beyond the
profit or the stop barrier, else at the first close at or after the time barrier. The engine leaves positions by the
same rule, so an outcome equals its label up to slippage.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

UNRESOLVED = -1
"""Label of a row whose trade has not ended by the last bar, or that has no finite volatility to set barriers with."""

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class BarrierSpec:
    """Where a long trade ends. Distances are multiples of the bar's barrier volatility (a fraction of price).

    `horizon_bars` counts regular intervals of market time, so that a missing bar does not lengthen a trade;
    `cost_per_side` is a fraction of the notional traded, paid at entry and again at exit (0.001 = 0.1 %).
    """

    profit_multiple: float
    stop_multiple: float
    horizon_bars: int
    cost_per_side: float

    def __post_init__(self) -> None:
        if not (self.profit_multiple > 0 and self.stop_multiple > 0):
            raise ValueError(
                f"barriers lie at positive multiples of volatility, not {self.profit_multiple} and {self.stop_multiple}"
            )
        if self.horizon_bars < 1:
            raise ValueError(f"horizon_bars is at least 1, not {self.horizon_bars}")
        if not 0 <= self.cost_per_side < 0.5:
            raise ValueError(f"cost_per_side is a fraction of notional in [0, 0.5), not {self.cost_per_side}")

    def target_price(self, close: float, volatility: float) -> float:
        """Price of the profit barrier of a trade entered at `close`."""
        return close * (1.0 + self.profit_multiple * volatility)

    def stop_price(self, close: float, volatility: float) -> float:
        """Price of the stop barrier; never below zero."""
        return max(0.0, close * (1.0 - self.stop_multiple * volatility))

    def exit_by(self, available_at: datetime, interval_seconds: int) -> datetime:
        """Market time of the time barrier of a trade on the bar that became available at `available_at`."""
        return available_at + timedelta(seconds=self.horizon_bars * interval_seconds)

    def net_return(self, entry: float, exit_price: float) -> float:
        """Return on the money laid out, after costs on both sides."""
        return exit_price * (1.0 - self.cost_per_side) / (entry * (1.0 + self.cost_per_side)) - 1.0

    @property
    def breakeven_log_return(self) -> float:
        """Log return of the price at which a trade's net return is zero."""
        return float(np.log1p(self.cost_per_side) - np.log1p(-self.cost_per_side))


@dataclass(frozen=True)
class Labels:
    """Labels of one symbol's bars, all arrays of length n.

    `label`: 1 (net profit), 0 (none) or UNRESOLVED; `net_return`: NaN where unresolved; `end_index`: bar at whose
    close the trade ends (the row's own index where unresolved); `exit_kind`: 1 profit, -1 stop, 0 time.
    """

    label: NDArray[np.int8]
    net_return: Floats
    end_index: Integers
    exit_kind: NDArray[np.int8]

    @property
    def resolved(self) -> NDArray[np.bool_]:
        return np.not_equal(self.label, UNRESOLVED)


def triple_barrier(
    close: Floats, volatility: Floats, available_at: Integers, interval_seconds: int, spec: BarrierSpec
) -> Labels:
    """Label every bar of one symbol.

    `close` (n,) prices, `volatility` (n,) barrier volatility as a fraction of price, `available_at` (n,) microseconds
    since the epoch, ascending. Raises ValueError on arrays that do not fit together or prices that are not positive.
    """
    from trading_platform.learning.barrier_walk import first_exits

    close = np.ascontiguousarray(close, dtype=np.float64)
    volatility = np.ascontiguousarray(volatility, dtype=np.float64)
    moments = np.ascontiguousarray(available_at, dtype=np.int64)
    if not len(close) == len(volatility) == len(moments):
        raise ValueError(
            f"one value a bar is expected: {len(close)} closes, {len(volatility)} volatilities, {len(moments)} times"
        )
    if not np.all(close > 0):
        raise ValueError("closing prices must be positive and finite; quarantine bad bars before labelling")
    if np.any(np.diff(moments) <= 0):
        raise ValueError("bars must be in strictly ascending order of available_at")
    usable = np.isfinite(volatility) & (volatility > 0)
    targets = np.where(usable, close * (1.0 + spec.profit_multiple * volatility), np.nan)
    stops = np.where(usable, np.maximum(0.0, close * (1.0 - spec.stop_multiple * volatility)), np.nan)
    exit_by = moments + spec.horizon_bars * interval_seconds * 1_000_000
    end_index, exit_kind = first_exits(close, moments, np.arange(len(close)), (targets, stops), exit_by)
    resolved = end_index >= 0
    end_index = np.where(resolved, end_index, np.arange(len(close)))
    ratio = (1.0 - spec.cost_per_side) / (1.0 + spec.cost_per_side)
    net_return = np.where(resolved, close[end_index] / close * ratio - 1.0, np.nan)
    label = np.where(resolved, net_return > 0, UNRESOLVED).astype(np.int8)
    return Labels(label, net_return, end_index, np.where(resolved, exit_kind, 0).astype(np.int8))


def average_uniqueness(end_index: Integers, resolved: NDArray[np.bool_]) -> Floats:
    """Weights of overlapping labels of one symbol: the mean of 1 / concurrency over each label's bars.

    Lopez de Prado (2018), section 4.4. A label covers the bars after its entry up to its end; rows that are not
    resolved weigh zero. The sum of the weights is the number of effective samples.
    """
    from trading_platform.learning.barrier_walk import uniqueness

    return uniqueness(np.ascontiguousarray(end_index, dtype=np.int64), np.ascontiguousarray(resolved, dtype=np.bool_))
