"""A version's figures: measured on predictions it made out of sample, or absent."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trading_platform.learning.calibration import Floats, brier, expected_calibration_error, log_loss, reliability

CONFIDENCES = (0.6, 0.7, 0.8, 0.9)
MINIMUM_ROWS = 50
"""Below this many rows a share is noise, and the figure is absent."""


@dataclass(frozen=True)
class OutOfSample:
    """Calibrated predictions for rows that neither model nor calibrator had seen; arrays (n,).

    `guess`: the success rate of the training rows, the predictor to be beaten; `driftless`: the success rate of a
    driftless walk with the row's own barriers; `conditions`: the four market conditions of each row.
    """

    confidence: Floats
    label: NDArray[np.int8]
    net_return: Floats
    guess: Floats
    driftless: Floats
    conditions: Mapping[str, NDArray[np.str_]]


def figures(rows: OutOfSample, threshold: float) -> dict[str, Any]:
    """All figures of a version. Every key is there; what could not be measured is None.

    `expected_value` is the mean net return of the rows at or above `threshold`, as a fraction of the money laid out.
    """
    every = np.ones(len(rows.label), dtype=np.bool_)
    return {
        **_summary(rows, every, threshold),
        "precision_at": {str(level): _precision(rows, rows.confidence >= level) for level in CONFIDENCES},
        "coverage_at": {str(level): _share(rows.confidence >= level) for level in CONFIDENCES},
        "reliability": [asdict(row) for row in reliability(rows.confidence, rows.label)] if len(rows.label) else [],
        "by_condition": {
            name: {
                str(value): _summary(rows, values == value, threshold)
                for value in np.unique(values)
                if np.sum(values == value) >= MINIMUM_ROWS
            }
            for name, values in rows.conditions.items()
        },
    }


def _summary(rows: OutOfSample, part: NDArray[np.bool_], threshold: float) -> dict[str, Any]:
    label, confidence = rows.label[part], rows.confidence[part]
    chosen = part & (rows.confidence >= threshold)
    measured = len(label) >= MINIMUM_ROWS
    return {
        "rows": len(label),
        "base_rate": float(label.mean()) if measured else None,
        "driftless_base_rate": _finite_mean(rows.driftless[part]) if measured else None,
        "accuracy": float(np.mean((confidence >= 0.5) == (label == 1))) if measured else None,
        "log_loss": log_loss(confidence, label) if measured else None,
        "log_loss_base_rate": log_loss(rows.guess[part], label) if measured else None,
        "brier": brier(confidence, label) if measured else None,
        "ece": expected_calibration_error(reliability(confidence, label)) if measured else None,
        "precision": _precision(rows, chosen),
        "precision_80": _precision(rows, part & (rows.confidence >= 0.8)),
        "coverage": float(chosen.sum() / len(label)) if measured else None,
        "expected_value": float(rows.net_return[chosen].mean()) if chosen.sum() >= MINIMUM_ROWS else None,
        "expected_value_all": float(rows.net_return[part].mean()) if measured else None,
    }


def _precision(rows: OutOfSample, chosen: NDArray[np.bool_]) -> float | None:
    return float(rows.label[chosen].mean()) if chosen.sum() >= MINIMUM_ROWS else None


def _share(chosen: NDArray[np.bool_]) -> float | None:
    return float(chosen.mean()) if len(chosen) >= MINIMUM_ROWS else None


def _finite_mean(values: Floats) -> float | None:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else None
