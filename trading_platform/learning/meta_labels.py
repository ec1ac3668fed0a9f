"""Meta-labels: a primary rule says when to enter, the model learns whether to follow it.

Lopez de Prado (2018), section 3.6. The label stays what it was, a net profit between the barriers; what changes is
which bars are asked about. A rule reads the feature table, so it knows no more than the model does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class PrimaryRule:
    """Enter long where `feature` is above (or below) `level`. NaN is no entry."""

    name: str
    feature: str
    above: bool
    level: float

    def entries(self, matrix: NDArray[np.float64], features: Sequence[str]) -> NDArray[np.bool_]:
        """Bars (n,) of a feature matrix (n, k) that the rule enters at. Raises ValueError without its feature."""
        if self.feature not in features:
            raise ValueError(f"the primary rule {self.name!r} reads {self.feature}, which is not among the features")
        column = matrix[:, list(features).index(self.feature)]
        return np.asarray(column > self.level if self.above else column < self.level)


PRIMARY_RULES: Mapping[str, PrimaryRule] = {
    rule.name: rule
    for rule in (
        PrimaryRule("trend", "ema_gap_50", above=True, level=0.0),
        PrimaryRule("breakout", "range_position_60", above=True, level=0.95),
        PrimaryRule("oversold", "rsi_14", above=False, level=0.3),
    )
}
"""Textbook rules to lay a model over: above the 50-bar average, at the top of the 60-bar range, Wilder's RSI under 30."""
