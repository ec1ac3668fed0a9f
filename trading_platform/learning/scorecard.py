"""What out-of-sample predictions are worth, on all rows or on a part of them: one card of figures with intervals."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trading_platform.learning.calibration import Floats, brier, expected_calibration_error, log_loss, reliability
from trading_platform.learning.certification import ERROR, Resolved, certify
from trading_platform.learning.intervals import Interval, effective_rows, mean, share

LEVELS = (60, 70, 80, 90)
MINIMUM_ROWS = 50
"""Below this many rows a figure is noise, and absent."""

Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Judged:
    """Rows that neither model nor calibrator had seen, in order of `start`; arrays (n,).

    `guess`: success rate of the training rows, the predictor to be beaten; `base_rate`: the stricter of it and of a
    driftless walk with the row's barriers; `weight`: average uniqueness; `published`: above the threshold that was
    in force; `block`: number of the block of time; `window`: of the test window; times in microseconds, UTC.
    """

    confidence: Floats
    label: NDArray[np.int8]
    net_return: Floats
    weight: Floats
    guess: Floats
    base_rate: Floats
    published: Flags
    start: Integers
    end: Integers
    block: Integers
    window: Integers
    symbol: NDArray[np.str_]
    conditions: Mapping[str, NDArray[np.str_]]

    def resolved(self, part: Flags) -> Resolved:
        """Those rows, as certification wants them."""
        return Resolved(
            self.confidence[part], self.label[part], self.net_return[part], self.base_rate[part], self.start[part],
            self.end[part],
        )  # fmt: skip


def scorecard(rows: Judged, part: Flags | None = None, *, error: float = ERROR) -> dict[str, Any]:
    """The card of a part of the rows (all: None). Every key is there; what cannot be measured is None.

    `precision_at` and `coverage_at`: by confidence in per cent, as `Interval`s. `certified_80`: whether a threshold
    passes at this `error`; a caller who asks of many parts divides the error among them. `expected_value_after_costs`:
    mean net return of the published rows, a fraction of the money laid out.
    """
    part = np.ones(len(rows.label), dtype=np.bool_) if part is None else part
    label, confidence, block = rows.label[part], rows.confidence[part], rows.block[part]
    n = len(label)
    if n < MINIMUM_ROWS:
        by_level = dict.fromkeys(map(str, LEVELS))
        return {"n": n} | dict.fromkeys(_MEASURED) | {"precision_at": by_level, "coverage_at": dict(by_level)}
    hits = label == 1
    published = rows.published[part]
    value = mean(rows.net_return[part][published], block[published]) if published.sum() >= MINIMUM_ROWS else None
    certification = certify(rows.resolved(part), error=error)
    independent, _ = effective_rows(hits.astype(np.float64), block)
    return {
        "n": n,
        # Overlap within a symbol by uniqueness, symbols that move together by blocks: the smaller of the two.
        "n_effective": float(min(rows.weight[part].sum(), independent)),
        "base_rate": float(hits.mean()),
        "driftless_or_guessed_base_rate": _finite_mean(rows.base_rate[part]),
        "accuracy": float(np.mean((confidence >= 0.5) == hits)),
        "log_loss": log_loss(confidence, label),
        "log_loss_base_rate": log_loss(rows.guess[part], label),
        "brier": brier(confidence, label),
        "ece": expected_calibration_error(reliability(confidence, label)),
        "precision_at": {str(level): _precision(hits, confidence, block, level / 100) for level in LEVELS},
        "coverage_at": {str(level): _document(share(confidence >= level / 100, block)) for level in LEVELS},
        "published": int(published.sum()),
        "precision_published": _precision(hits, published.astype(np.float64), block, 1.0),
        "certified_80": certification.certified,
        "certified_threshold": certification.threshold,
        "expected_value_after_costs": None if value is None else value.value,
        "expected_value_interval": None if value is None else [value.lower, value.upper],
        "expected_value_of_every_bar": float(rows.net_return[part].mean()),
    }


_MEASURED = (
    "n_effective", "base_rate", "driftless_or_guessed_base_rate", "accuracy", "log_loss", "log_loss_base_rate", "brier",
    "ece", "precision_at", "coverage_at", "published", "precision_published", "certified_80", "certified_threshold",
    "expected_value_after_costs", "expected_value_interval", "expected_value_of_every_bar",
)  # fmt: skip


def _precision(hits: Flags, confidence: Floats, block: Integers, level: float) -> dict[str, Any] | None:
    """Share of hits among the rows at or above the level, with the interval that few rows make wide; None without."""
    chosen = confidence >= level
    return _document(share(hits[chosen], block[chosen]))


def _document(interval: Interval | None) -> dict[str, Any] | None:
    return None if interval is None else asdict(interval)


def _finite_mean(values: Floats) -> float | None:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else None
