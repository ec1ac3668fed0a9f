"""A model version as the live path sees it: one row in, one calibrated confidence out.

servable = load(settings, row)            # a row of control.model_versions; checks hash and feature list
scored = servable.score(feature_row)      # Scored(probability, confidence, lower, upper, outlier)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trading_platform.learning.artifact import ArtifactError, read_artifact
from trading_platform.learning.calibration import Calibrator, Floats, VennAbers, calibrator_from
from trading_platform.learning.models import Model, model_from
from trading_platform.learning.outliers import OutlierDetector, detector_from
from trading_platform.settings import Settings
from trading_platform.storage.control import ModelVersion


class Scored(NamedTuple):
    """What a version says of one bar.

    `probability`: the model's raw output; `confidence`: calibrated probability that the trade ends in net profit;
    `lower`, `upper`: the Venn-Abers interval around it (0 and 1 where calibration was never measured); `outlier`: the
    row is unlike the training data, or lacks a feature: the confidence means nothing.
    """

    probability: float
    confidence: float
    lower: float
    upper: float
    outlier: bool


@dataclass(frozen=True)
class ScoredMany:
    """`Scored` for many rows: five arrays (n,)."""

    probability: Floats
    confidence: Floats
    lower: Floats
    upper: Floats
    outlier: NDArray[np.bool_]


@dataclass(frozen=True)
class Servable:
    """Ready to score. Not for use by several threads at once.

    `threshold`: confidence from which a signal is published. Where `certified`, it is the risk-controlled one and
    every signal at or above it is certified; otherwise the strategy's own, and no signal is.
    """

    version_id: str
    kind: str
    features: tuple[str, ...]
    feature_hash: str
    threshold: float
    certified: bool
    expires_at: datetime | None
    model: Model
    calibrator: Calibrator
    interval: VennAbers | None
    outliers: OutlierDetector | None

    def __post_init__(self) -> None:
        object.__setattr__(self, "_score", self.model.scorer())

    def score(self, row: Floats) -> Scored:
        """Score one feature row (k,), in the order of `features`."""
        outlier = self.outliers.is_outlier(row) if self.outliers is not None else not np.isfinite(row).all()
        probability: float = self._score(row)  # type: ignore[attr-defined]  # set once in __post_init__
        confidence = self.calibrator.one(probability)
        if self.interval is None:
            return Scored(probability, confidence, 0.0, 1.0, bool(outlier))
        lower, upper = self.interval.interval(probability)
        return Scored(probability, confidence, min(lower, confidence), max(upper, confidence), bool(outlier))

    def score_many(self, matrix: Floats) -> ScoredMany:
        """Score rows (n, k); the same numbers as `score` row by row."""
        if self.outliers is None:
            outlier = np.logical_not(np.isfinite(matrix).all(axis=1))
        else:
            outlier = self.outliers.are_outliers(matrix)
        probability = self.model.scores(matrix)
        confidence = self.calibrator.many(probability)
        if self.interval is None:
            return ScoredMany(probability, confidence, np.zeros(len(confidence)), np.ones(len(confidence)), outlier)
        lower, upper = self.interval.intervals(probability)
        return ScoredMany(
            probability, confidence, np.minimum(lower, confidence), np.maximum(upper, confidence), outlier
        )

    def expired(self, market_time: datetime) -> bool:
        """Whether its signals at this market time are `expired`."""
        return self.expires_at is not None and market_time > self.expires_at


def load(settings: Settings, row: ModelVersion, *, feature_hash: str | None = None) -> Servable:
    """Read and check the artifact of a registered version.

    Raises `ArtifactError` where the file is missing or differs from the registered hash, where artifact and registry
    name different features, or where they differ from `feature_hash`, the features the caller computes.
    """
    document = read_artifact(settings.artifacts_dir, row.artifact_path, row.artifact_sha256)
    for what, expected in (("the registry", row.feature_hash), ("the running feature set", feature_hash)):
        if expected is not None and document["feature_hash"] != expected:
            raise ArtifactError(
                f"version {row.version_id} was trained on features {document['feature_hash']}, {what} says {expected}. "
                "It will not serve: deploy a version trained on these features."
            )
    # The registry may have withdrawn what the artifact was certified for.
    document["certified"] = document["certified"] and row.certified
    return servable_from(document, version_id=row.version_id, kind=row.kind, expires_at=row.expires_at)


def servable_from(document: Mapping[str, Any], *, version_id: str, kind: str, expires_at: datetime | None) -> Servable:
    """The servable that an artifact's document describes."""
    interval = document["venn_abers"]
    outliers = document["outliers"]
    venn_abers = None if interval is None else calibrator_from(interval)
    if venn_abers is not None and not isinstance(venn_abers, VennAbers):
        raise ArtifactError(f"version {version_id}: its interval is a {venn_abers.method} calibrator, not Venn-Abers")
    return Servable(
        version_id=version_id,
        kind=kind,
        features=tuple(document["features"]),
        feature_hash=document["feature_hash"],
        threshold=float(document["threshold"]),
        certified=bool(document["certified"]),
        expires_at=expires_at,
        model=model_from(document["model"]),
        calibrator=calibrator_from(document["calibrator"]),
        interval=venn_abers,
        outliers=None if outliers is None else detector_from(outliers),
    )
