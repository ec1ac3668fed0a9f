"""Can a result be believed? Luck over the trials made, overfitting, and the plain signs of a backtest that misleads."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import stats

from trading_platform.backtest.kernel import Floats
from trading_platform.backtest.statistics import Figures

FEWEST_TRADES = 30
"""Below it the share of winners is known to no better than 18 points either way at 95 %: 1.96 * sqrt(.25 / 30)."""
TRADES_A_PARAMETER = 10
"""The usual rule of events per variable (Peduzzi et al., 1996)."""
BELIEVED = 0.95
EULER = 0.5772156649015329
BLOCKS = 16
"""As in the paper on combinatorially symmetric cross-validation: 12,870 ways to halve them."""
AT_ONCE = 1_000


@dataclass(frozen=True)
class Finding:
    """One objection: a code, and a sentence with its figures."""

    code: str
    text: str


def probabilistic_sharpe(sharpe: float, benchmark: float, observations: int, skewness: float, kurtosis: float) -> float:
    """Probability that the true Sharpe ratio exceeds `benchmark` (Bailey & Lopez de Prado, 2012, "The Sharpe Ratio
    Efficient Frontier"). Ratios are by observation, not a year's; `kurtosis` of a normal is 3."""
    spread = math.sqrt(max(1e-12, 1.0 - skewness * sharpe + (kurtosis - 1.0) / 4.0 * sharpe**2))
    return float(stats.norm.cdf((sharpe - benchmark) * math.sqrt(observations - 1.0) / spread))


def expected_best_sharpe(trials: int, variance: float) -> float:
    """The largest Sharpe ratio to expect of `trials` that are worth nothing, whose ratios have `variance`."""
    if trials < 2:
        return 0.0
    upper = (1.0 - EULER) * stats.norm.ppf(1.0 - 1.0 / trials) + EULER * stats.norm.ppf(1.0 - 1.0 / (trials * math.e))
    return math.sqrt(variance) * float(upper)


def deflated_sharpe(
    sharpe: float, observations: int, skewness: float, kurtosis: float, trials: int, variance: float
) -> float:
    """Probability that the best of `trials` is better than luck alone would have made it (Bailey & Lopez de Prado, 2014,
    "The Deflated Sharpe Ratio"). `variance`: of the trials' Sharpe ratios; all ratios by observation."""
    return probabilistic_sharpe(sharpe, expected_best_sharpe(trials, variance), observations, skewness, kurtosis)


def probability_of_overfitting(matrix: Floats, blocks: int = BLOCKS) -> float:
    """How often the best of the trials in one half of the time is below the median in the other half.

    `matrix` (observations, trials) of returns. Combinatorially symmetric cross-validation (Bailey, Borwein, Lopez de
    Prado & Zhu, 2015, "The Probability of Backtest Overfitting"): time is cut into `blocks`, every half of them selects,
    the other half judges, both by the Sharpe ratio; a rank at the median or below counts. Raises ValueError on fewer than
    two trials, an odd number of blocks, or fewer than two observations a block.
    """
    rows, trials = matrix.shape
    if trials < 2 or blocks < 2 or blocks % 2 or rows < 2 * blocks:
        raise ValueError(
            f"an even number of blocks of 2 rows and more, and 2 trials and more; got {matrix.shape}, {blocks}"
        )
    parts = np.array_split(matrix, blocks)
    sums = np.array([part.sum(axis=0) for part in parts])
    squares = np.array([np.square(part).sum(axis=0) for part in parts])
    counts = np.array([len(part) for part in parts], dtype=np.float64)
    halves = list(combinations(range(blocks), blocks // 2))
    below = 0
    for start in range(0, len(halves), AT_ONCE):
        chosen = np.zeros((len(halves[start : start + AT_ONCE]), blocks))
        for row, half in enumerate(halves[start : start + AT_ONCE]):
            chosen[row, list(half)] = 1.0
        best = _ratios(chosen, sums, squares, counts).argmax(axis=1)
        judged = _ratios(1.0 - chosen, sums, squares, counts)
        own = judged[np.arange(len(best)), best][:, None]
        rank = (judged < own).sum(axis=1) + (judged == own).sum(axis=1) / 2.0 + 0.5
        below += int(np.sum(rank / (trials + 1.0) <= 0.5))
    return below / len(halves)


def _ratios(chosen: Floats, sums: Floats, squares: Floats, counts: Floats) -> Floats:
    """Sharpe ratios (halves, trials) over the blocks chosen; 0 for a trial that never moved."""
    n = (chosen @ counts)[:, None]
    mean = chosen @ sums / n
    variance = np.maximum(chosen @ squares / n - mean**2, 0.0)
    return np.divide(mean, np.sqrt(variance), out=np.zeros_like(mean), where=variance > 1e-18)


@dataclass(frozen=True)
class Trials:
    """Everything that was tried: daily returns (days, trials), which one was chosen, and where the grid ends.

    `at_edge`: parameters whose chosen value is the first or last of those tried.
    """

    returns: Floats
    chosen: int
    at_edge: Sequence[str] = ()


def luck(trials: Trials) -> dict[str, float | int | None]:
    """`deflated_sharpe`, `probability_of_overfitting` (None where it cannot be known) and the number of trials."""
    spread = trials.returns.std(axis=0, ddof=1)
    ratios = np.divide(trials.returns.mean(axis=0), spread, out=np.zeros_like(spread), where=spread > 0)
    chosen, (days, count) = trials.returns[:, trials.chosen], trials.returns.shape
    varies = days > 2 and spread[trials.chosen] > 0
    deflated = (
        deflated_sharpe(
            float(ratios[trials.chosen]), days, float(stats.skew(chosen)), float(stats.kurtosis(chosen, fisher=False)),
            count, float(ratios.var(ddof=1)) if count > 1 else 0.0,
        )
        if varies
        else None
    )  # fmt: skip
    blocks = min(BLOCKS, days // 4 * 2)
    overfit = probability_of_overfitting(trials.returns, blocks) if count > 1 and blocks >= 4 else None
    return {"deflated_sharpe": deflated, "probability_of_overfitting": overfit, "trials": count}


def criticise(
    figures: Figures, parameters: int, measured: Mapping[str, float | int | None], at_edge: Sequence[str] = ()
) -> list[Finding]:
    """Every objection to a result, the gravest first; none is no proof."""
    trades, deflated, overfit = figures.trades, measured["deflated_sharpe"], measured["probability_of_overfitting"]
    interval = 1.96 * math.sqrt(0.25 / trades) if trades else 1.0
    share = figures.largest_share
    objections = (
        (trades < FEWEST_TRADES, "too_few_trades",
         f"{trades} trades: the share of winners is known to {interval:.0%} either way; {FEWEST_TRADES} are the least"),
        (trades < TRADES_A_PARAMETER * parameters, "too_many_parameters",
         f"{parameters} parameters on {trades} trades: at least {TRADES_A_PARAMETER} trades a parameter are asked for"),
        (deflated is None or deflated < BELIEVED, "luck",
         f"deflated Sharpe {_shown(deflated)} over {measured['trials']} trials: below {BELIEVED}, luck explains it"),
        (overfit is not None and overfit > 0.5, "overfitted",
         f"probability of overfitting {_shown(overfit)}: what is best in one half of the time is no better than the median in the other"),
        (figures.net <= 0 < figures.gross, "eaten_by_costs",
         f"gains of {figures.gross:,.2f} before charges, dust and slippage become {figures.net:,.2f} after"),
        (share is not None and trades > 1 and share > 0.5, "one_trade",
         f"one trade makes {share or 0:.0%} of all gains"),
        (figures.total_return < figures.buy_and_hold, "worse_than_holding",
         f"return {figures.total_return:.1%}; holding the instruments alone made {figures.buy_and_hold:.1%}"),
        (bool(at_edge), "at_the_edge", f"the best value of {', '.join(at_edge)} is the last one tried: the best may lie beyond"),
        (figures.refused > 0, "refused", f"{figures.refused} entries could not be paid for at the price they would have got"),
    )  # fmt: skip
    return [Finding(code, text) for applies, code, text in objections if applies]


def _shown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"
