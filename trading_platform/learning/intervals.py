"""Confidence intervals for shares and means of rows that are not independent.

Labels overlap in time and symbols move together, so n rows are worth fewer. Time is cut into blocks longer than a
label; how much block sums vary says how many independent rows the rows are worth (cluster-robust variance).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """An estimate from `n` rows, worth `n_effective` independent ones, with its two-sided 95 % interval."""

    value: float
    lower: float
    upper: float
    n: int
    n_effective: float


def share(hits: NDArray[np.bool_], block: NDArray[np.int64], level: float = LEVEL) -> Interval | None:
    """The share of rows (n,) that are hits. `block` (n,): number of each row's block of time. None without rows.

    Korn & Graubard, "Confidence intervals for proportions with small expected number of positive counts estimated from
    survey data", Survey Methodology 24(2), 1998: the exact binomial interval at the effective number of rows.
    """
    n = len(hits)
    if not n:
        return None
    value = float(hits.mean())
    effective, blocks = effective_rows(hits.astype(np.float64), block)
    tail = (1.0 - level) / 2.0
    worth = effective
    if blocks > 1 and n > 1:  # fewer degrees of freedom than rows: the paper's correction, for the interval alone
        worth *= float((special.stdtrit(n - 1, 1 - tail) / special.stdtrit(blocks - 1, 1 - tail)) ** 2)
    positive = value * worth
    lower = float(special.betaincinv(positive, worth - positive + 1, tail)) if positive > 0 else 0.0
    upper = float(special.betaincinv(positive + 1, worth - positive, 1 - tail)) if value < 1 else 1.0
    return Interval(value, lower, upper, n, effective)


def mean(values: Floats, block: NDArray[np.int64], level: float = LEVEL) -> Interval | None:
    """The mean of rows (n,), with Student's t on the blocks. None with fewer than two blocks."""
    effective, blocks = effective_rows(values, block)
    if blocks < 2:
        return None
    centre, deviation = float(values.mean()), float(values.std())
    margin = float(special.stdtrit(blocks - 1, 1 - (1 - level) / 2)) * deviation / float(np.sqrt(effective))
    return Interval(centre, centre - margin, centre + margin, len(values), effective)


def effective_rows(values: Floats, block: NDArray[np.int64]) -> tuple[float, int]:
    """(number of independent rows whose mean varies as much, number of blocks). At most n.

    Where the values do not vary, nothing is learnt of their dependence: then a block counts as one row.
    """
    _, number = np.unique(block, return_inverse=True)
    blocks, n = int(number.max()) + 1 if len(number) else 0, len(values)
    spread = float(values.var()) if n else 0.0
    if blocks < 2 or spread == 0.0:
        return float(blocks), blocks
    totals = np.bincount(number, values - values.mean())
    variance = float(np.sum(totals**2)) / n**2 * blocks / (blocks - 1)
    return (min(float(n), spread / variance) if variance > 0 else float(n)), blocks
