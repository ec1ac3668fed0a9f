"""The feature set as data: a name, an operation, its window. Everything else follows from this table.

`kernel.py` executes the table bar by bar; `batch.py` runs it over history and `stream.py` over live bars, the same
machine code, so that a model sees in production what it was trained on, to the last bit. All features are free of the
price's scale, so that symbols pool. A bar after a gap is still the next bar: windows count bars, not hours.
"""

from dataclasses import dataclass
from enum import IntEnum

from trading_platform.identifiers import content_id


class Op(IntEnum):
    """Operations of the kernel. c, h, l, o, v are close, high, low, open, volume; r is the one-bar log return; s is its
    exponentially weighted deviation over `SIGMA_SPAN` bars, the unit in which moves are measured."""

    RETURN = 0
    """log(c / c[-n]) / (s * sqrt(n))"""
    EMA_GAP = 1
    """log(c / ema_n(c)) / s"""
    MACD = 2
    """(ema_n(c) - ema_m(c)) / c / s"""
    MACD_HISTOGRAM = 3
    """macd minus its own 9-bar ema, in the same unit"""
    RSI = 4
    """Wilder's relative strength over n bars, 0 to 1"""
    BAND_POSITION = 5
    """(c - mean_n) / (2 deviation_n): Bollinger's position"""
    BAND_WIDTH = 6
    """log(4 deviation_n / (mean_n * s))"""
    ATR = 7
    """Wilder's average true range over n bars / (c * s)"""
    MEAN_RATIO = 8
    """log(mean_n / mean_m) / s"""
    RANGE_POSITION = 9
    """(c - lowest low) / (highest high - lowest low) over n bars (Donchian), 0.5 on a flat range"""
    VOLUME_SCORE = 10
    """(v - mean_n) / deviation_n of volume; 0 where volume does not vary"""
    VOLUME_RATIO = 11
    """log1p(v / mean_n), 0 where there is no volume"""
    VOLATILITY_RATIO = 12
    """log(deviation of r over n bars / deviation of r over m bars)"""
    SKEW = 13
    """Skewness of r over n bars"""
    BAR_RANGE = 14
    """(h - l) / (c * s)"""
    BODY = 15
    """log(c / o) / s"""
    UPPER_WICK = 16
    """(h - max(o, c)) / (h - l), 0 on a flat bar"""
    VWAP_GAP = 17
    """log(c / vwap_n) / s; against the plain mean where there is no volume"""
    AUTOCORRELATION = 18
    """First autocorrelation of r over n bars"""
    UP_SHARE = 19
    """Share of rising bars among the last n"""
    SIGMA = 20
    """log(s), the level of volatility"""
    DAY_SIN = 21
    DAY_COS = 22
    """Time of day (UTC) on the circle"""
    WEEK_SIN = 23
    WEEK_COS = 24
    """Time of week (UTC) on the circle"""


@dataclass(frozen=True)
class Feature:
    """One column. `warm_up`: rows before this many bars are NaN; after it an endless history changes little."""

    name: str
    op: Op
    n: int = 0
    m: int = 0

    @property
    def warm_up(self) -> int:
        recursive = {Op.EMA_GAP, Op.MACD, Op.MACD_HISTOGRAM, Op.RSI, Op.ATR}
        longest = max(self.n, self.m)
        return max(WARM_UP_SIGMA, 8 * longest if self.op in recursive else longest + 1)


SIGMA_SPAN = 100
WARM_UP_SIGMA = 4 * SIGMA_SPAN
LONGEST_WINDOW = 240
"""The kernel keeps this many bars; no window may be longer."""

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
    Feature("sigma", Op.SIGMA),
    Feature("day_sin", Op.DAY_SIN),
    Feature("day_cos", Op.DAY_COS),
    Feature("week_sin", Op.WEEK_SIN),
    Feature("week_cos", Op.WEEK_COS),
)
NAMES: tuple[str, ...] = tuple(feature.name for feature in FEATURES)
WARM_UP: int = max(feature.warm_up for feature in FEATURES)
KERNEL_VERSION = 1
"""Raised when an operation comes to compute something else under the same name: models must then retrain."""


def feature_hash(features: tuple[Feature, ...] = FEATURES) -> str:
    """The feature set's identity: names, order, operations, windows and the kernel's version."""
    parts = (f"{feature.name}:{feature.op.name}:{feature.n}:{feature.m}" for feature in features)
    return content_id("f", KERNEL_VERSION, SIGMA_SPAN, *parts)
