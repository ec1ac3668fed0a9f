"""What a strategy asks of training: its barriers, its features, how often it wants to trade, how long a model is good.

Strategies make a `TrainingPlan`; learning needs nothing else of them.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from trading_platform.identifiers import StrategyId
from trading_platform.learning.labels import BarrierSpec

CONDITIONS = ("volatility", "trend", "liquidity", "session")


@dataclass(frozen=True)
class SymbolFeatures:
    """Features of one symbol's bars, row for row.

    `matrix` (n, k) float64, NaN during warm-up or where a feature does not exist for the data; `barrier_volatility`
    (n,) as a fraction of price; `conditions`: the four of `CONDITIONS`, each (n,) of strings.
    """

    matrix: NDArray[np.float64]
    barrier_volatility: NDArray[np.float64]
    conditions: Mapping[str, NDArray[np.str_]]


@dataclass(frozen=True)
class TrainingPlan:
    """Everything about a strategy that decides what a model learns."""

    strategy_id: StrategyId
    barriers: BarrierSpec
    features: tuple[str, ...]
    feature_hash: str
    compute: Callable[[pl.DataFrame], SymbolFeatures]
    """From one symbol's bars, sorted by open time, to its features; point-in-time."""
    target_coverage: float
    """Share of bars the strategy wants to trade where nothing is certified."""
    valid_bars: int
    """A version's signals expire this many intervals after the newest bar it could learn from."""
    prepare: Callable[[pl.DataFrame], pl.DataFrame] = lambda bars: bars
    """Applied to the bars of all symbols before they are parted: what `compute` needs of the others is put beside."""

    def parameters(self) -> dict[str, Any]:
        """What goes into a version's id, beside data, code and seed."""
        return {
            "strategy_id": self.strategy_id,
            "barriers": asdict(self.barriers),
            "features": list(self.features),
            "feature_hash": self.feature_hash,
            "target_coverage": self.target_coverage,
            "valid_bars": self.valid_bars,
        }
