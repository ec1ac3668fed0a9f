"""When may a confidence be called certified, and what threshold does a strategy trade at otherwise?

Learn-then-test (Angelopoulos, Bates, Candes, Jordan & Lei, 2021) on precision: thresholds are tested from the highest
downwards, a fixed sequence that stops at the first failure, so every threshold passed holds jointly at the stated
confidence. The trials of each test are trades that do not overlap in time, on any symbol: given the past, each is a
fresh draw, so under the null the number of successes is dominated by a binomial whatever the dependence in the market.

A precision is skill only beyond what needs none. Chosen trades must beat a coin with their barriers, the rate of the
training rows, and what entering every bar of the same stretch scored: a market that went up made everybody right. The
last is an estimate too, so its upper bound has to be cleared. Two bounds that do not overlap are the stricter test of a
difference, the more so as the chosen trades are among all (Schenker & Gentleman, "On judging the significance of
differences by examining the overlap between confidence intervals", The American Statistician 55(3), 2001).
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

TARGET_PRECISION = 0.80
ERROR = 0.10
"""One minus the confidence of the guarantee."""
MINIMUM_TRADES = 65
"""Where the sequence starts: with fewer, even a true precision of .90 passes less than 80 % of the time."""
GRID = np.round(np.arange(0.99, 0.495, -0.01), 2)


@dataclass(frozen=True)
class Resolved:
    """Out-of-sample signals with known ends, in order of `start`; arrays (n,).

    `confidence`: calibrated; `label` 0/1; `net_return` after costs; `base_rate`: success rate of a driftless walk with
    the row's own barriers; `start`, `end`: entry and label end in microseconds.
    """

    confidence: Floats
    label: NDArray[np.int8]
    net_return: Floats
    base_rate: Floats
    start: Integers
    end: Integers


@dataclass(frozen=True)
class Tested:
    """One threshold of the sequence; bounds are one-sided at the confidence the certification was given."""

    threshold: float
    trades: int
    """Trades at or above the threshold that do not overlap."""
    coverage: float
    """Share of all rows at or above the threshold."""
    precision: float
    precision_lower: float
    base_rate: float
    """What the precision must beat: the larger of the rows' own base rates and the upper bound of everybody's."""
    margin_lower: float
    """Lower bound of precision minus base rate."""
    expected_value: float
    expected_value_lower: float
    """Net return a trade, as a fraction of the money laid out."""
    passed: bool


@dataclass(frozen=True)
class Certification:
    """`threshold` is None where nothing could be certified: the platform then publishes no certified signal."""

    threshold: float | None
    target: float
    error: float
    sequence: tuple[Tested, ...]

    @property
    def certified(self) -> bool:
        return self.threshold is not None

    def document(self) -> dict[str, Any]:
        return asdict(self)


def spent_error(recertification: int, error: float = ERROR) -> float:
    """Share of the error that the k-th certification in a line of versions may use: error * 6 / (pi * k)^2.

    The shares add up to `error` however often the line is certified again. `recertification` counts from 1.
    """
    return error * 6.0 / (np.pi * recertification) ** 2


def certify(
    rows: Resolved, *, recertification: int = 1, target: float = TARGET_PRECISION, error: float = ERROR
) -> Certification:
    """Walk down the thresholds; the lowest one passed is certified.

    `rows` are all rows of the stretch, since what is chosen among them is compared with taking them all. A threshold
    passes where the lower bounds of precision, of its margin over the base rate and of the expected value after costs
    all clear their marks: precision by Clopper & Pearson (1934), expected value by Student's t.
    """
    level = spent_error(recertification, error)
    everybody = rows.label[non_overlapping(rows.start, rows.end)]
    of_everybody = clopper_pearson_upper(int(everybody.sum()), len(everybody), level)
    sequence: list[Tested] = []
    certified: float | None = None
    for threshold in GRID:
        chosen = np.flatnonzero(rows.confidence >= threshold)
        trades = chosen[non_overlapping(rows.start[chosen], rows.end[chosen])]
        if len(trades) < MINIMUM_TRADES:
            continue
        tested = _test(rows, float(threshold), trades, target=target, level=level, of_everybody=of_everybody)
        sequence.append(tested)
        if not tested.passed:
            break
        certified = tested.threshold
    return Certification(certified, target, level, tuple(sequence))


def own_threshold(confidence: Floats, target_coverage: float) -> float:
    """The threshold that publishes this share of bars: a quantile of out-of-sample confidences. Certifies nothing."""
    if not 0.0 < target_coverage <= 1.0:
        raise ValueError(f"target coverage is a share of bars in (0, 1], not {target_coverage}")
    return float(np.quantile(confidence, 1.0 - target_coverage))


def clopper_pearson_lower(successes: int, trials: int, error: float) -> float:
    """Exact one-sided lower bound of a proportion."""
    return float(special.betaincinv(successes, trials - successes + 1, error)) if successes else 0.0


def clopper_pearson_upper(successes: int, trials: int, error: float) -> float:
    """Exact one-sided upper bound of a proportion."""
    return float(special.betaincinv(successes + 1, trials - successes, 1.0 - error)) if successes < trials else 1.0


def student_lower(values: Floats, error: float) -> float:
    """One-sided lower bound of a mean; -inf below two values."""
    if len(values) < 2:
        return float("-inf")
    margin = special.stdtrit(len(values) - 1, 1.0 - error) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - margin)


def non_overlapping(start: Integers, end: Integers) -> Integers:
    """Positions of trades taken one after the other: each starts when the one before has ended.

    `start` ascending. Of trades starting together one is taken, in turn by position, whatever became of it.
    """
    return _non_overlapping(np.ascontiguousarray(start), np.ascontiguousarray(end))


@njit(cache=True)
def _non_overlapping(start: Integers, end: Integers) -> Integers:
    taken = np.empty(start.shape[0], dtype=np.int64)
    count = 0
    free_from = np.int64(-(2**62))
    i = 0
    while i < start.shape[0]:
        together = 1
        while i + together < start.shape[0] and start[i + together] == start[i]:
            together += 1
        if start[i] >= free_from:
            choice = i + count % together
            taken[count] = choice
            count += 1
            free_from = end[choice]
        i += together
    return taken[:count]


def _test(
    rows: Resolved, threshold: float, trades: Integers, *, target: float, level: float, of_everybody: float
) -> Tested:
    successes = int(rows.label[trades].sum())
    lower = clopper_pearson_lower(successes, len(trades), level)
    base_rate = float(np.maximum(rows.base_rate[trades].mean(), of_everybody))
    value_lower = student_lower(rows.net_return[trades], level)
    return Tested(
        threshold=threshold,
        trades=len(trades),
        coverage=float(np.mean(rows.confidence >= threshold)),
        precision=successes / len(trades),
        precision_lower=lower,
        base_rate=base_rate,
        margin_lower=lower - base_rate,
        expected_value=float(rows.net_return[trades].mean()),
        expected_value_lower=value_lower,
        passed=lower >= target and lower > base_rate and value_lower > 0.0,
    )
