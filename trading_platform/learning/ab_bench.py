"""How often an experiment promotes a challenger that is no better, and how long it takes to see one that is.

Differences between the two arms are made up, heavy-tailed (Student's t with 4 degrees of freedom), and looked at after
every block. Three ways of looking: a naive test at every trade, the confidence sequence on single trades, and the same
on means of blocks, which is what experiments use.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from trading_platform.learning.confidence_sequence import confidence_sequence
from trading_platform.learning.drift_bench import Progress, share_interval

Floats = NDArray[np.float64]
TRADES, BLOCK, ALPHA = 3_000, 10, 0.05
NAIVE_FROM = 50
"""Trades before a naive test looks for the first time; looking earlier would only make it worse."""
EFFECTS = (0.05, 0.1, 0.2)
"""In standard deviations of a trade's difference."""
DECISION_TRADES = 6_000


def independent(rng: np.random.Generator, trades: int) -> Floats:
    """t4 with unit variance."""
    return np.asarray(rng.standard_t(4, trades) / np.sqrt(2.0), dtype=np.float64)


def autocorrelated(rng: np.random.Generator, trades: int) -> Floats:
    """AR(.2) with t4 innovations."""
    warm_up = 50
    return np.asarray(lfilter([1.0], [1.0, -0.2], rng.standard_t(4, trades + warm_up)))[warm_up:]


def overlapping(rng: np.random.Generator, trades: int) -> Floats:
    """Labels that overlap five bars: moving means of five."""
    return np.convolve(rng.standard_t(4, trades + 4), np.ones(5) / 5.0, "valid")


DEPENDENCE: dict[str, Callable[[np.random.Generator, int], Floats]] = {
    "independent": independent,
    "AR(.2)": autocorrelated,
    "labels overlapping 5 bars": overlapping,
}


@dataclass(frozen=True)
class FalsePromotions:
    """Shares of A/A experiments that promote within 3,000 trades; `interval` (95 %, exact) is of the blocks' share."""

    differences: str
    runs: int
    naive: float
    single_trades: float
    blocks: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class TimeToDecision:
    """Median trades until the lower bound clears zero (None where half never do), share decided by 3,000 trades."""

    effect: float
    runs: int
    median_trades: float | None
    decided_by_3000: float
    missed: float
    """Share undecided after 6,000 trades."""


def false_promotions(runs: int, progress: Progress = lambda what, done, total: None) -> list[FalsePromotions]:
    """One row a dependence structure, `runs` A/A experiments each."""
    rows = []
    for number, (name, draw) in enumerate(DEPENDENCE.items()):
        naive = single = blocks = 0
        for run in range(runs):
            differences = draw(np.random.default_rng((number, run)), TRADES)
            naive += _naive_promotes(differences)
            single += bool((confidence_sequence(differences, ALPHA).lower > 0.0).any())
            blocks += first_decision(differences) is not None
            progress(f"A/A, {name}", run + 1, runs)
        rows.append(
            FalsePromotions(name, runs, naive / runs, single / runs, blocks / runs, share_interval(blocks, runs))
        )
    return rows


def times_to_decision(runs: int, progress: Progress = lambda what, done, total: None) -> list[TimeToDecision]:
    """One row an effect, `runs` experiments each, on independent differences."""
    rows = []
    for number, effect in enumerate(EFFECTS):
        decisions = []
        for run in range(runs):
            rng = np.random.default_rng((100 + number, run))
            decisions.append(first_decision(independent(rng, DECISION_TRADES) + effect))
            progress(f"effect {effect:g}", run + 1, runs)
        trades = np.array([np.inf if decided is None else decided for decided in decisions])
        median = float(np.median(trades))
        rows.append(
            TimeToDecision(
                effect, runs, median if np.isfinite(median) else None, float(np.mean(trades <= TRADES)),
                float(np.mean(np.isinf(trades))),
            )
        )  # fmt: skip
    return rows


def first_decision(differences: Floats) -> int | None:
    """Trades after which the challenger is promoted, looking after every block; None where it never is."""
    blocks = differences[: len(differences) // BLOCK * BLOCK].reshape(-1, BLOCK).mean(axis=1)
    cleared = np.flatnonzero(confidence_sequence(blocks, ALPHA).lower > 0.0)
    return (int(cleared[0]) + 1) * BLOCK if len(cleared) else None


def _naive_promotes(differences: Floats) -> bool:
    """A z-test at 5 %, two-sided, at every trade: significant in the challenger's favour at least once."""
    count = np.arange(1, len(differences) + 1)
    mean = np.cumsum(differences) / count
    deviation = np.sqrt(np.maximum(np.cumsum(differences**2) / count - mean**2, 1e-12))
    return bool((mean * np.sqrt(count) > 1.96 * deviation)[NAIVE_FROM:].any())
