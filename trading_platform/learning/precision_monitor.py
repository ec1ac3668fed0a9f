"""Is the precision that was promised kept, live? A monitor that may be read after every trade.

Two promises are watched on the signals that a version published, one at a time (trades that do not overlap, on any
symbol, as in certification): that a certified signal comes true at least 80 % of the time, and that any published one
comes true as often as its confidence says, but for a slack.

Each is tested by betting against it. A bet on a success rate q below the promised p multiplies its stake by q / p where
the trade succeeds and by (1 - q) / (1 - p) where it fails; whoever keeps the promise makes that lose on average,
whatever the market does. Stakes of 1 / error or more are then reached with probability `error` at the most, at any time
(Ville 1939; Ramdas, Grunwald, Vovk & Shafer, "Game-theoretic statistics and safe anytime-valid inference", 2023).
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import special

from trading_platform.learning.calibration import Floats
from trading_platform.learning.certification import TARGET_PRECISION, non_overlapping
from trading_platform.learning.samples import microseconds

ERROR = 0.05
"""Chance that a kept promise is ever called broken."""
SLACK = 0.05
"""How far published signals may fall behind their confidences: calibration is fitted to a few hundred trades."""
ODDS_RATIOS = (1.25, 1.5, 2.0, 3.0, 5.0)
"""Alternatives: a promise of .80 of which .76, .73, .67, .57 or .44 is kept."""


@dataclass(frozen=True)
class Watched:
    """What a version's published signals have shown so far.

    `lower`, `upper` bound the precision at every look with probability 1 - ERROR each side; `promised`: mean confidence;
    `against`, `against_certified`: the largest stake that betting against each promise has made of 1. The last is None
    where no certified signal has ended.
    """

    trades: int
    precision: float | None
    lower: float
    upper: float
    promised: float | None
    against: float
    certified_trades: int
    against_certified: float | None

    @property
    def broken(self) -> bool:
        """Published signals come true less often than their confidences say."""
        return self.against >= 1.0 / ERROR

    @property
    def certificate_broken(self) -> bool:
        """Certified signals do not come true 80 % of the time."""
        return self.against_certified is not None and self.against_certified >= 1.0 / ERROR

    def document(self) -> dict[str, Any]:
        return asdict(self)


def watch(resolved: pl.DataFrame) -> Watched:
    """Look at one version's signals with known outcomes (see `resolved.resolve`), in order of time."""
    published = _one_at_a_time(resolved.filter(pl.col("state") == "ok"))
    certified = _one_at_a_time(resolved.filter(pl.col("certified")))
    came_true, said = published["label"].to_numpy() == 1, published["confidence"].to_numpy()
    lower, upper = precision_bounds(int(came_true.sum()), len(came_true))
    kept = certified["label"].to_numpy() == 1
    return Watched(
        trades=len(came_true),
        precision=float(came_true.mean()) if len(came_true) else None,
        lower=lower,
        upper=upper,
        promised=float(said.mean()) if len(said) else None,
        against=evidence_against(came_true, np.maximum(said - SLACK, 0.01)),
        certified_trades=len(kept),
        against_certified=evidence_against(kept, np.full(len(kept), TARGET_PRECISION)) if len(kept) else None,
    )


def evidence_against(came_true: NDArray[np.bool_], promised: Floats) -> float:
    """The largest stake so far of betting against "each comes true with at least its promised probability" (n,)."""
    if not len(came_true):
        return 1.0
    odds = promised / (1.0 - promised)
    wins = np.zeros((len(ODDS_RATIOS), len(came_true)))
    for row, ratio in enumerate(ODDS_RATIOS):
        less = odds / ratio / (1.0 + odds / ratio)
        wins[row] = np.cumsum(np.log(np.where(came_true, less / promised, (1.0 - less) / (1.0 - promised))))
    stakes = special.logsumexp(wins, axis=0) - np.log(len(ODDS_RATIOS))
    return float(np.exp(min(max(0.0, float(stakes.max())), 700.0)))


def precision_bounds(successes: int, trials: int, error: float = ERROR) -> tuple[float, float]:
    """Bounds on a success rate, each of which holds at every look with probability 1 - error.

    The mixture of all rates below (above) p, as a bet against p or more (p or less): Robbins, "Statistical methods
    related to the law of the iterated logarithm" (1970), with the uniform mixture, whose stake is a ratio of incomplete
    beta functions.
    """
    failures = trials - successes
    if not trials:
        return 0.0, 1.0
    upper = _bound(successes, failures, error)
    return 1.0 - _bound(failures, successes, error), upper


def _bound(successes: int, failures: int, error: float) -> float:
    """The least p of which the stake against "p or more" is 1 / error; the stake grows with p above the mean."""
    low, high = successes / (successes + failures), 1.0
    whole = float(special.betaln(successes + 1, failures + 1)) + math.log(error)
    while high - low > 1e-9:
        middle = (low + high) / 2.0
        # Uniform below p: integral of q^s (1-q)^f over (0, p), over p * p^s (1-p)^f.
        area = math.log(special.betainc(successes + 1, failures + 1, middle)) + whole
        small = area < (successes + 1) * math.log(middle) + failures * math.log1p(-middle)
        low, high = (middle, high) if small else (low, middle)
    return high


def _one_at_a_time(rows: pl.DataFrame) -> pl.DataFrame:
    rows = rows.sort("available_at", "symbol")
    return rows[non_overlapping(microseconds(rows["available_at"]), microseconds(rows["label_end"]))]
