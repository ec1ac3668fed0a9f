"""Has the model become worse? Detectors on the stream of its errors, and an estimate while labels are pending.

The stream is one value a block of a label horizon, all symbols together: single labels overlap, and detectors made for
independent errors would take their overlap for change. Retrain: ADWIN (Bifet & Gavalda, 2007) or HDDM-A
(Frias-Blanco et al., 2015). Warning: HDDM-W or Page-Hinkley, quicker and less sure.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trading_platform.learning.calibration import Floats, log_losses
from trading_platform.learning.confidence_sequence import block_means, confidence_sequence

LARGEST_LOSS = 3.0
"""Log-losses are cut here and divided by it: the detectors want values in [0, 1]."""
RETRAIN, WARNING, NONE = "retrain", "warning", "none"


@dataclass(frozen=True)
class Detected:
    """One detector on one stream. `since`: microseconds of the block at which it last fired; None where it never did."""

    state: str
    since: int | None
    statistic: float
    """Mean of the stream since the change, or of all of it."""


def error_streams(
    confidence: Floats, label: NDArray[np.int8], moments: NDArray[np.int64], width: int
) -> dict[str, tuple[Floats, NDArray[np.int64]]]:
    """{`error`, `log_loss`: (block means in [0, 1], begin of each block)} in order of time.

    Arguments (n,): calibrated confidence, label 0/1, the bars' available_at in microseconds; `width` of a block.
    """
    wrong = ((confidence >= 0.5) != (label == 1)).astype(np.float64)
    loss = np.minimum(log_losses(confidence, label), LARGEST_LOSS) / LARGEST_LOSS
    return {"error": block_means(wrong, moments, width), "log_loss": block_means(loss, moments, width)}


def detect(streams: Mapping[str, tuple[Floats, NDArray[np.int64]]]) -> dict[str, Detected]:
    """{`detector on stream`: what it says}. Only becoming worse counts."""
    return {
        f"{name} on {stream}": _run(make(), level, *values)
        for stream, values in streams.items()
        for name, (level, make) in _detectors().items()
    }


def expected_accuracy(confidence: Floats) -> float | None:
    """Accuracy that calibrated confidences promise: the mean of max(p, 1 - p), known before any label is.

    Confidence-based performance estimation, Guillory et al., "Predicting with confidence on unseen distributions" (2021).
    """
    return float(np.mean(np.maximum(confidence, 1.0 - confidence))) if len(confidence) else None


def broken_promise(
    confidence: Floats, label: NDArray[np.int8], moments: NDArray[np.int64], width: int, alpha: float = 0.05
) -> tuple[float | None, float | None]:
    """Bounds on how much the log-loss exceeds what the confidences themselves promise, by a confidence sequence.

    A model whose confidences are calibrated keeps this at zero, so it needs no history from before a change.
    """
    entropy = -confidence * np.log(np.clip(confidence, 1e-6, 1)) - (1 - confidence) * np.log(
        np.clip(1 - confidence, 1e-6, 1)
    )
    excess, _ = block_means(log_losses(confidence, label) - entropy, moments, width)
    return confidence_sequence(excess, alpha).last


def _detectors() -> dict[str, tuple[str, Callable[[], Any]]]:
    from river import drift as river_drift
    from river.drift import binary as river_binary

    drift: Any = river_drift  # river's constructors carry no types
    binary: Any = river_binary
    return {
        "ADWIN": (RETRAIN, lambda: drift.ADWIN(delta=0.05)),
        "HDDM-A": (RETRAIN, lambda: binary.HDDMA(drift_confidence=0.001)),
        "HDDM-W": (WARNING, lambda: binary.HDDMW(drift_confidence=0.001)),
        "Page-Hinkley": (WARNING, lambda: drift.PageHinkley(delta=0.05, threshold=5.0, mode="up")),
    }


def _run(detector: Any, level: str, values: Floats, begins: NDArray[np.int64]) -> Detected:
    """Feed the stream; a fired detector that found the mean to have fallen is an improvement, not a drift."""
    last_change, fired_at = 0, None
    for index, value in enumerate(values.tolist()):
        detector.update(value)
        if detector.drift_detected:
            before, after = values[last_change : index + 1], values[max(last_change, index - 9) : index + 1]
            if after.mean() > before.mean():
                fired_at = index
            last_change = index + 1
    since = values[fired_at:] if fired_at is not None else values
    mean = float(since.mean()) if len(since) else 0.0
    if fired_at is None:
        return Detected(NONE, None, mean)
    return Detected(level, int(begins[fired_at]), mean)
