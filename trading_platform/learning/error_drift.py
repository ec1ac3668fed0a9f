"""Has the model become worse? Detectors on the stream of its errors, and an estimate while labels are pending.

The stream is one value a block of a label horizon, all symbols together: single labels overlap, and detectors made for
independent errors would take their overlap for change. One detector in two tiers: `shiryaev_roberts.py` at its usual
threshold asks for retraining, at a tenth of it warns. `trading-platform learn drift-bench` compares it with others.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trading_platform.learning.calibration import Floats, log_losses
from trading_platform.learning.confidence_sequence import block_means, confidence_sequence
from trading_platform.learning.shiryaev_roberts import SAMPLES_BETWEEN_FALSE_ALARMS, ShiryaevRoberts

LARGEST_LOSS = 3.0
"""Log-losses are cut here and divided by it: the detectors want values in [0, 1]."""
RETRAIN, WARNING, NONE = "retrain", "warning", "none"
THRESHOLDS = {RETRAIN: SAMPLES_BETWEEN_FALSE_ALARMS, WARNING: SAMPLES_BETWEEN_FALSE_ALARMS / 10}


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
    """{`tier on stream`: what it says}. Only becoming worse counts."""
    return {
        f"{level} on {stream}": _run(ShiryaevRoberts(threshold), level, *values)
        for stream, values in streams.items()
        for level, threshold in THRESHOLDS.items()
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
    excess, _ = block_means(log_losses(confidence, label) - promised_losses(confidence), moments, width)
    return confidence_sequence(excess, alpha).last


def promised_losses(confidence: Floats) -> Floats:
    """Log-loss (n,) that calibrated confidences (n,) have on average: their entropy, in nats."""
    against = 1.0 - confidence
    losses: Floats = -confidence * np.log(np.clip(confidence, 1e-6, 1)) - against * np.log(np.clip(against, 1e-6, 1))
    return losses


def _run(detector: ShiryaevRoberts, level: str, values: Floats, begins: NDArray[np.int64]) -> Detected:
    fired_at = None
    for index, value in enumerate(values.tolist()):
        detector.update(value)
        if detector.drift_detected:
            fired_at = index
    since = values if fired_at is None else values[fired_at:]
    mean = float(since.mean()) if len(since) else 0.0
    if fired_at is None:
        return Detected(NONE, None, mean)
    return Detected(level, int(begins[fired_at]), mean)
