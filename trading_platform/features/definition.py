"""The feature set as data: a name, an operation, its windows. Everything else follows from this table.

`program.py` compiles the table, `kernel.py` executes it bar by bar, `stream.py` offers it for history and for live
bars: the same machine code for both, so that a model sees in production what it was trained on, to the last bit. All features are
free of the price's scale, so that symbols pool. A bar after a gap is simply the next bar: windows count bars, not
hours, and the jump across the gap is one return. Where volume is always 0 (an index) the features of volume are 0.

To add a feature: add a row below; for a new operation also a branch in `kernel.py`. Models then retrain by themselves,
since `feature_hash()` changes.
"""

from dataclasses import dataclass
from enum import IntEnum

from trading_platform.identifiers import content_id


class Op(IntEnum):
    """Operations of the kernel and, from 70 on, of the context. o, h, l, c, v are open, high, low, close, volume; r is the one-bar log return; s is its
    exponentially weighted deviation over `SIGMA_SPAN` bars, the unit in which moves are measured. Deviations are those
    of the population (ddof 0). Numbers are by what an operation reads (see `kernel.run`); one once given is never
    given to another, since compiled kernels in numba's cache know operations by number."""

    RETURN = 0
    """log(c / c[-n]) / (s * sqrt(n))"""

    EMA_GAP = 10
    """log(c / ema_n(c)) / s"""
    MACD = 11
    """(ema_n(c) - ema_m(c)) / (c * s)"""
    MACD_HISTOGRAM = 12
    """macd minus its own 9-bar ema, in the same unit"""
    RSI = 13
    """Wilder's relative strength over n bars, 0 to 1; 0.5 where the price does not move"""
    ATR = 19
    """Wilder's average true range over n bars / (c * s)"""

    BAND_POSITION = 20
    """(c - mean_n) / (2 deviation_n): the position between Bollinger's bands, -1 to 1 inside; 0 on a flat price"""
    BAND_WIDTH = 21
    """log(4 deviation_n / (mean_n * s)), at least log(1e-6)"""
    MEAN_RATIO = 22
    """log(mean_n / mean_m) / s"""
    VOLATILITY_RATIO = 23
    """log(deviation of r over n bars / the same over m bars), both at least s / 100"""
    SKEW = 24
    """Skewness of r over n bars; 0 on a flat price"""
    AUTOCORRELATION = 25
    """mean of r * r[-1] over n bars / mean of r squared: first autocorrelation about zero"""
    UP_SHARE = 29
    """Share of rising bars among the last n"""

    VOLUME_SCORE = 30
    """(v - mean_n) / deviation_n of volume; 0 where volume does not vary"""
    VOLUME_RATIO = 31
    """log1p(v / mean_n); 0 where there is no volume"""
    VWAP_GAP = 39
    """log(c / vwap_n) / s; 0 where there is no volume"""

    RANGE_POSITION = 40
    """(c - lowest low) / (highest high - lowest low) over n bars (Donchian); 0.5 on a flat range"""

    BAR_RANGE = 50
    """(h - l) / (c * s)"""
    BODY = 51
    """log(c / o) / s"""
    UPPER_WICK = 52
    """(h - max(o, c)) / (h - l); 0 on a flat bar"""
    SIGMA = 53
    """log(s), the level of volatility"""
    DAY_SIN = 60
    DAY_COS = 61
    """Time of day (UTC, of the bar's opening) on the circle"""
    WEEK_SIN = 62
    WEEK_COS = 63
    """Time of week (UTC, from Monday) on the circle"""

    HIGHER_RETURN = 70
    """Return over the last n closed longer bars of m bars each / (s * sqrt(n * m))"""
    HIGHER_EMA_GAP = 71
    """log(c / ema_n(close of longer bars)) / (s * sqrt(m))"""
    HIGHER_RANGE_POSITION = 72
    """(c - lowest low) / (highest high - lowest low) of the last n closed longer bars; outside 0 to 1 on a break-out"""
    HIGHER_RANGE = 73
    """Wilder's average true range of n longer bars / (c * s * sqrt(m))"""
    REFERENCE_RETURN = 80
    """The reference's return over n bars, in units of its own deviation"""
    BETA = 81
    """Average of r * the reference's r / average of the latter squared, exponentially weighted over n bars"""
    CORRELATION = 82
    """The same product / the root of the product of both squares' averages"""
    RELATIVE_RETURN = 83
    """(return over n bars - beta over m bars * the reference's) / (s * sqrt(n))"""


SIGMA_SPAN = 100
RECURSIVE = frozenset({Op.EMA_GAP, Op.MACD, Op.MACD_HISTOGRAM, Op.RSI, Op.ATR})
"""Operations that never quite forget: after 8 spans the start weighs less than 1e-6."""
CONTEXT_FROM = Op.HIGHER_RETURN
"""Operations from here on read longer bars or the reference: `context.py`."""


@dataclass(frozen=True)
class Feature:
    """One column: n and m are window lengths or spans in bars, 0 where the operation has none."""

    name: str
    op: Op
    n: int = 0
    m: int = 0

    @property
    def warm_up(self) -> int:
        """Bars that must have been seen; the column is NaN before. 4 spans of s at least, since all are in its unit."""
        return max(4 * SIGMA_SPAN, self._memory)

    @property
    def _memory(self) -> int:
        longest = max(self.n, self.m)
        if self.op in (Op.HIGHER_EMA_GAP, Op.HIGHER_RANGE):
            return 8 * self.n * self.m
        if self.op in (Op.HIGHER_RETURN, Op.HIGHER_RANGE_POSITION):
            return (self.n + 2) * self.m  # the first longer bar was half over when we came, the newest is not whole yet
        recursive = self.op in RECURSIVE or self.op >= CONTEXT_FROM
        return 8 * longest if recursive else longest + 1


FEATURES: tuple[Feature, ...] = (
    *(Feature(f"return_{n}", Op.RETURN, n) for n in (1, 2, 4, 8, 16, 36, 72, 168)),
    *(Feature(f"ema_gap_{n}", Op.EMA_GAP, n) for n in (12, 26, 50)),
    Feature("macd_12_26", Op.MACD, 12, 26),
    Feature("macd_histogram_12_26", Op.MACD_HISTOGRAM, 12, 26),
    Feature("rsi_14", Op.RSI, 14),
    Feature("band_position_20", Op.BAND_POSITION, 20),
    Feature("band_width_20", Op.BAND_WIDTH, 20),
    Feature("atr_14", Op.ATR, 14),
    Feature("mean_ratio_10_50", Op.MEAN_RATIO, 10, 50),
    Feature("range_position_60", Op.RANGE_POSITION, 60),
    Feature("volume_score_60", Op.VOLUME_SCORE, 60),
    Feature("volume_ratio_60", Op.VOLUME_RATIO, 60),
    Feature("volatility_ratio_12_120", Op.VOLATILITY_RATIO, 12, 120),
    Feature("skew_60", Op.SKEW, 60),
    Feature("autocorrelation_60", Op.AUTOCORRELATION, 60),
    Feature("up_share_24", Op.UP_SHARE, 24),
    Feature("bar_range", Op.BAR_RANGE),
    Feature("body", Op.BODY),
    Feature("upper_wick", Op.UPPER_WICK),
    Feature("vwap_gap_60", Op.VWAP_GAP, 60),
    Feature("log_sigma", Op.SIGMA),
    Feature("day_sin", Op.DAY_SIN),
    Feature("day_cos", Op.DAY_COS),
    Feature("week_sin", Op.WEEK_SIN),
    Feature("week_cos", Op.WEEK_COS),
)
LONGER = 12
"""Bars in a longer bar: an hour of 5-minute bars, half a day of hours."""
CONTEXT: tuple[Feature, ...] = (
    *(Feature(f"higher_return_{n}", Op.HIGHER_RETURN, n, LONGER) for n in (1, 4)),
    Feature("higher_ema_gap_8", Op.HIGHER_EMA_GAP, 8, LONGER),
    Feature("higher_range_position_8", Op.HIGHER_RANGE_POSITION, 8, LONGER),
    Feature("higher_range_8", Op.HIGHER_RANGE, 8, LONGER),
    *(Feature(f"reference_return_{n}", Op.REFERENCE_RETURN, n) for n in (1, 12)),
    Feature("beta_60", Op.BETA, 60),
    Feature("correlation_60", Op.CORRELATION, 60),
    Feature("relative_return_12_60", Op.RELATIVE_RETURN, 12, 60),
)
FEATURE_SETS: dict[str, tuple[Feature, ...]] = {"standard": FEATURES, "wide": FEATURES + CONTEXT}
"""By the name that a strategy chooses one with. Where a dataset has no reference its features are absent."""
NAMES: tuple[str, ...] = tuple(feature.name for feature in FEATURES)
WARM_UP: int = max(feature.warm_up for feature in FEATURES)
KERNEL_VERSION = 2
"""Raised when an operation comes to compute something else under the same name: models must then retrain."""


def feature_hash(features: tuple[Feature, ...] = FEATURES) -> str:
    """The feature set's identity: names, order, operations, windows and the kernel's version."""
    parts = (f"{feature.name}:{feature.op.name}:{feature.n}:{feature.m}" for feature in features)
    return content_id("f", KERNEL_VERSION, SIGMA_SPAN, *parts)
