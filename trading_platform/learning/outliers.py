"""Rows unlike anything the model was trained on.

Distance of a row from the training data: robust z-scores (median, interquartile range), clipped, under a shrunk
covariance (Ledoit & Wolf, 2004). The threshold is the quantile of the training distances that gives the stated
false-alarm rate: nothing about the features' distributions is assumed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
CLIP = 50.0


@dataclass(frozen=True)
class OutlierDetector:
    """`centre`, `scale` (k,), `whitening` (k, k); features that were absent in training have scale inf and no say."""

    centre: Floats
    scale: Floats
    whitening: Floats
    threshold: float
    false_alarm_rate: float

    def is_outlier(self, row: Floats) -> bool:
        """A row (k,) farther off than the threshold, or with a feature missing that training always had."""
        if self._some_absent:
            row = np.where(self._absent, 0.0, row)
        white = self.whitening @ ((row - self.centre) / self.scale)
        return not float(white @ white) <= self.threshold  # NaN compares false: a missing feature is an outlier

    def distances(self, matrix: Floats) -> Floats:
        """Squared distance of each row of (n, k); NaN where a feature is missing."""
        z = (np.where(self._absent, 0.0, matrix) - self.centre) / self.scale
        return np.asarray(((z @ self.whitening.T) ** 2).sum(axis=1), dtype=np.float64)

    def are_outliers(self, matrix: Floats) -> NDArray[np.bool_]:
        return np.logical_not(self.distances(matrix) <= self.threshold)

    @cached_property
    def _absent(self) -> NDArray[np.bool_]:
        return np.isinf(self.scale)

    @cached_property
    def _some_absent(self) -> bool:
        return bool(self._absent.any())

    def document(self) -> dict[str, Any]:
        return {
            "centre": self.centre.tolist(),
            "scale": [None if np.isinf(value) else float(value) for value in self.scale],
            "whitening": self.whitening.tolist(),
            "threshold": self.threshold,
            "false_alarm_rate": self.false_alarm_rate,
        }


def detector_from(document: Mapping[str, Any]) -> OutlierDetector:
    """The detector that `document()` described."""
    return OutlierDetector(
        centre=np.array(document["centre"], dtype=np.float64),
        scale=np.array([np.inf if value is None else value for value in document["scale"]], dtype=np.float64),
        whitening=np.array(document["whitening"], dtype=np.float64),
        threshold=float(document["threshold"]),
        false_alarm_rate=float(document["false_alarm_rate"]),
    )


def fit_outliers(
    matrix: Floats, present: NDArray[np.bool_], false_alarm_rate: float = 0.005, max_rows: int = 40_000
) -> OutlierDetector:
    """Fit on training rows (n, k). `present` (k,): features that the data have at all. Uses the newest `max_rows`."""
    from sklearn.covariance import LedoitWolf

    rows = matrix[-max_rows:]
    width = matrix.shape[1]
    centre, scale = np.zeros(width), np.full(width, np.inf)
    known = rows[:, present]
    lower, middle, upper = np.quantile(known, [0.25, 0.5, 0.75], axis=0)
    spread = (upper - lower) / 1.349
    spread = np.where(spread > 0, spread, known.std(axis=0))
    centre[present] = middle
    scale[present] = np.where(spread > 0, spread, 1.0)
    z = np.clip((known - middle) / scale[present], -CLIP, CLIP)
    covariance = LedoitWolf().fit(z)
    # Rows vary about the mean, not the median: the distance is measured from there.
    centre[present] = middle + covariance.location_ * scale[present]
    whitening = np.zeros((width, width))
    whitening[np.ix_(present, present)] = np.linalg.cholesky(covariance.precision_).T
    unset = OutlierDetector(centre, scale, whitening, np.inf, false_alarm_rate)
    threshold = float(np.quantile(unset.distances(rows), 1.0 - false_alarm_rate))
    return OutlierDetector(centre, scale, whitening, threshold, false_alarm_rate)
