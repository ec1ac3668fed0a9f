"""How much of a good backtest is luck: the probability of overfitting and the deflated Sharpe ratio.

Both need the returns of every trial that ran, the winners' and the losers'. Sharpe ratios here are a period, never
annualised: the formulae are about the sample.
"""

from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from scipy.stats import rankdata

Floats = NDArray[np.float64]
BLOCKS = 12
"""924 ways to choose half of the blocks: the authors use 16 (12,870), which changes the share by less than its error."""


@dataclass(frozen=True)
class Overfitting:
    """`logits`: of the out-of-sample rank of each in-sample winner; `pbo`: the share at or below zero, which is worse
    than the median trial. None where there are fewer than two trials that differ, or too few periods."""

    pbo: float | None
    logits: Floats
    trials: int
    periods: int


def probability_of_overfitting(returns: Floats, blocks: int = BLOCKS) -> Overfitting:
    """Combinatorially symmetric cross-validation of trials by Sharpe ratio. `returns` (periods, trials).

    Bailey, Borwein, Lopez de Prado & Zhu, "The probability of backtest overfitting", Journal of Computational Finance
    20(4), 2017. Periods are cut into `blocks` of equal length (the oldest remainder is left out); each half of the
    blocks picks a winner, the other half ranks it.
    """
    periods, trials = returns.shape
    if blocks < 2 or blocks % 2:
        raise ValueError(f"blocks are an even number of at least 2, not {blocks}")
    length = periods // blocks
    if trials < 2 or length < 2 or np.all(returns == returns[:, :1]):
        return Overfitting(None, np.array([]), trials, periods)
    parts = returns[periods - length * blocks :].reshape(blocks, length, trials)
    sums, squares = parts.sum(axis=1), (parts**2).sum(axis=1)
    chosen = np.zeros((comb(blocks, blocks // 2), blocks))
    for row, numbers in enumerate(combinations(range(blocks), blocks // 2)):
        chosen[row, list(numbers)] = 1.0
    half = length * blocks // 2
    inside = _sharpe_of_sums(chosen @ sums, chosen @ squares, half)
    outside = _sharpe_of_sums((1.0 - chosen) @ sums, (1.0 - chosen) @ squares, half)
    winner = inside.argmax(axis=1)
    rank = rankdata(outside, axis=1)[np.arange(len(winner)), winner] / (trials + 1.0)
    logits = np.log(rank / (1.0 - rank))
    return Overfitting(float(np.mean(logits <= 0.0)), logits, trials, periods)


def sharpe(returns: Floats) -> float:
    """Mean over sample deviation of the returns of a period; 0 where they do not vary."""
    deviation = returns.std(ddof=1) if len(returns) > 1 else 0.0
    return float(returns.mean() / deviation) if deviation > 0 else 0.0


def probabilistic_sharpe(
    ratio: float, benchmark: float, periods: int, skew: float = 0.0, kurtosis: float = 3.0
) -> float:
    """P(the true Sharpe ratio exceeds `benchmark`), given the estimate and the shape of the returns.

    Bailey & Lopez de Prado, "The Sharpe ratio efficient frontier", Journal of Risk 15(2), 2012. `kurtosis` is that of a
    normal distribution at 3.
    """
    spread = 1.0 - skew * ratio + (kurtosis - 1.0) / 4.0 * ratio**2
    if periods < 2 or spread <= 0:
        return float("nan")
    return float(ndtr((ratio - benchmark) * np.sqrt(periods - 1.0) / np.sqrt(spread)))


def expected_maximum_sharpe(variance: float, trials: int) -> float:
    """The best Sharpe ratio to expect of `trials` independent trials without skill, whose ratios vary by `variance`."""
    if trials < 2:
        return 0.0
    first, second = ndtri(1.0 - 1.0 / trials), ndtri(1.0 - 1.0 / (trials * np.e))
    return float(np.sqrt(variance) * ((1.0 - np.euler_gamma) * first + np.euler_gamma * second))


def deflated_sharpe(returns: Floats, ratios: Floats) -> float:
    """P(the strategy's true Sharpe ratio is above zero), after having picked it among trials with these `ratios`.

    Bailey & Lopez de Prado, "The deflated Sharpe ratio", Journal of Portfolio Management 40(5), 2014. `returns`
    (periods,) of the strategy that was picked; `ratios` of all trials, a period. NaN where returns do not vary.
    """
    if len(returns) < 2 or returns.std() == 0:
        return float("nan")
    standard = (returns - returns.mean()) / returns.std()
    variance = float(np.var(ratios, ddof=1)) if len(ratios) > 1 else 0.0
    return probabilistic_sharpe(
        sharpe(returns),
        expected_maximum_sharpe(variance, len(ratios)),
        len(returns),
        float(np.mean(standard**3)),
        float(np.mean(standard**4)),
    )


def _sharpe_of_sums(total: Floats, squares: Floats, count: int) -> Floats:
    mean = total / count
    variance = np.maximum(squares / count - mean**2, 0.0) * count / (count - 1)
    return np.divide(mean, np.sqrt(variance), out=np.zeros_like(mean), where=variance > 1e-18)
