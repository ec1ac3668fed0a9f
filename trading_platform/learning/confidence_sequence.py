"""Bounds on a mean that hold at every look, so that an experiment may be read as often as one likes.

The normal-mixture confidence sequence of Robbins (1970) with the running variance in place of the unknown one, valid
asymptotically: Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas, "Time-uniform central limit theory and asymptotic
confidence sequences" (2021), theorem 2.2. Observations should be blocks long enough to be nearly independent; what
neighbours still have in common goes into the variance (Newey & West 1987, one lag). `ab_bench.py` measures the error
that is really made and the time to a decision; the constants below were chosen there.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
TUNED_FOR = 65
"""Number of blocks at which the sequence is tightest."""
FIRST_LOOK = 12
"""No bounds before this many blocks: the running variance of fewer means too little."""
LEARNT_BY = 50.0
"""Blocks after which half of the measured covariance of neighbours is believed."""
LEAST_SHARE = 0.75
"""Of the variance, which neighbours that contradict each other may not reduce further."""


@dataclass(frozen=True)
class Bounds:
    """`mean`, `lower`, `upper` (n,) after each block; infinitely wide before the first look."""

    mean: Floats
    lower: Floats
    upper: Floats

    @property
    def last(self) -> tuple[float | None, float | None]:
        """(lower, upper) now; None before the first look."""
        if len(self.mean) < FIRST_LOOK:
            return None, None
        return float(self.lower[-1]), float(self.upper[-1])


def confidence_sequence(values: Floats, alpha: float) -> Bounds:
    """Bounds on the running mean of `values` (n,), each of which holds at all times with probability 1 - alpha.

    A promotion looks at one bound only, so alpha is the error of one: the mixture is taken at 2 * alpha for both.
    """
    two_sided = 2.0 * alpha
    values = np.asarray(values, dtype=np.float64)
    count = np.arange(1, len(values) + 1, dtype=np.float64)
    mean = np.cumsum(values) / count
    variance = _long_run_variance(values, mean, count)
    rho_squared = _tuned(two_sided)
    grown = count * rho_squared + 1.0
    margin = np.sqrt(variance * 2.0 * grown / (count**2 * rho_squared) * np.log(np.sqrt(grown) / two_sided))
    margin = np.where(count < FIRST_LOOK, np.inf, margin)
    return Bounds(mean, mean - margin, mean + margin)


def sequential_p_value(values: Floats, null: float, *, above: bool = False, tuned_at: float = 0.005) -> float:
    """p-value of "the mean of `values` (n,) is `null`", or with `above` "is `null` or less", valid at every look.

    The reciprocal of the largest e-value so far: the mixture behind `confidence_sequence` as a bet against `null`, whose
    winnings exceed 1 / p with probability p at most (Ville 1939). `tuned_at`: the level at which it is sharpest. 1.0
    before the first look.
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) < FIRST_LOOK:
        return 1.0
    count = np.arange(1, len(values) + 1, dtype=np.float64)
    mean = np.cumsum(values) / count
    variance = np.maximum(_long_run_variance(values, mean, count), 1e-18)
    grown = count * _tuned(tuned_at) + 1.0
    away = np.maximum(mean - null, 0.0) if above else mean - null
    winnings = count**2 * _tuned(tuned_at) * away**2 / (2.0 * variance * grown) - 0.5 * np.log(grown)
    return float(min(1.0, np.exp(-winnings[FIRST_LOOK - 1 :].max())))


def _tuned(two_sided: float) -> float:
    """Variance of the mixture that is tightest at `TUNED_FOR` blocks and this level."""
    return float((-2.0 * np.log(two_sided) + np.log(-2.0 * np.log(two_sided) + 1.0)) / TUNED_FOR)


def _long_run_variance(values: Floats, mean: Floats, count: Floats) -> Floats:
    """Variance (n,) of the first 1, 2, ... values plus twice the covariance of neighbours, shrunk while few are known."""
    variance = np.maximum(np.cumsum(values**2) / count - mean**2, 0.0) * count / np.maximum(count - 1.0, 1.0)
    neighbours = np.concatenate([[0.0], np.cumsum(values[1:] * values[:-1])])[: len(values)]
    covariance = neighbours / count - mean**2 * (count - 1.0) / count
    believed = count / (count + LEARNT_BY)
    return np.maximum(variance + 2.0 * believed * covariance, LEAST_SHARE * variance)


def block_means(values: Floats, moments: NDArray[np.int64], width: int) -> tuple[Floats, NDArray[np.int64]]:
    """Means of `values` (n,) over consecutive stretches of time of `width` microseconds, on a grid fixed at the epoch.

    All symbols of one moment fall into one block. Returns (means, begin of each block), empty blocks left out.
    """
    if not len(values):
        return np.array([]), np.array([], dtype=np.int64)
    block = moments // width
    found, number = np.unique(block, return_inverse=True)
    totals = np.bincount(number, values)
    return totals / np.bincount(number), found * width
