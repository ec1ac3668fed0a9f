"""Take over the static model of the system this platform replaces, as the first champion.

Two shapes are read. JSON, a logistic model on raw features:

    {"feature_names": ["rsi_14", ...], "weights": [0.31, ...], "intercept": -0.2}

or LightGBM's own text file (`Booster.save_model`). Its claimed figures are a CSV with the columns `figure,value`
(`accuracy,0.893`); they are kept as claims, beside measured figures that are absent until it has been measured here.
Every feature must exist, under the same name, among the platform's.
"""

import csv
import hashlib
import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from trading_platform.identifiers import DatasetId, StrategyId, VersionId, content_id
from trading_platform.learning.artifact import write_artifact
from trading_platform.learning.models import LEGACY, LightGbmModel, LogisticModel, Model
from trading_platform.learning.provenance import code_version, lock_hash
from trading_platform.learning.registry import CHAMPION, deploy, register
from trading_platform.storage.control import ModelVersion
from trading_platform.storage.databases import Databases

log = structlog.get_logger(__name__)

THRESHOLD = 0.5
"""The decision rule of a model that came without one."""


class LegacyModelError(ValueError):
    """The file is not in one of the documented shapes, or asks for features that the platform does not compute."""


def import_legacy(
    databases: Databases,
    *,
    dataset_id: DatasetId,
    strategy_id: StrategyId,
    features: Sequence[str],
    feature_hash: str,
    model_file: Path,
    figures_file: Path | None,
    market_time: datetime,
    by: str,
    threshold: float = THRESHOLD,
) -> tuple[ModelVersion, bool]:
    """Register the old model (kind `legacy`, origin `import`) and let it serve as champion from `market_time` on.

    `features`, `feature_hash`: the platform's feature list, which the model is laid over. Returns (row, whether it is
    new); importing the same file again changes nothing. Raises `LegacyModelError`.
    """
    data = model_file.read_bytes()
    model = _read_model(data.decode(), list(features), model_file)
    claimed = {} if figures_file is None else read_figures(figures_file)
    path, sha256 = write_artifact(databases.settings.artifacts_dir, _document(model, features, feature_hash, threshold))
    source = hashlib.sha256(data).hexdigest()
    row = ModelVersion(
        version_id=VersionId(content_id("v", dataset_id, strategy_id, LEGACY, source, feature_hash, threshold)),
        dataset_id=dataset_id,
        strategy_id=strategy_id,
        kind=LEGACY,
        origin="import",
        data_version=f"unknown; file sha256 {source}",
        feature_hash=feature_hash,
        code_version=code_version(),
        lock_hash=lock_hash(),
        params={"file": model_file.name, "model": model.document()["kind"]},
        seed=0,
        rows=0,
        metrics={"claimed": claimed, "threshold": threshold, "certified_80": False},
        artifact_path=path,
        artifact_sha256=sha256,
        certified=False,
    )
    with databases.control() as session:
        row, created = register(session, row)
        if created:
            deploy(
                session,
                databases.settings,
                dataset_id=dataset_id,
                strategy_id=strategy_id,
                role=CHAMPION,
                version_id=VersionId(row.version_id),
                market_time=market_time,
                reason=f"imported from {model_file.name}",
                by=by,
                feature_hash=feature_hash,
            )
    log.info("legacy_model_imported", version_id=row.version_id, created=created, file=model_file.name)
    return row, created


def read_figures(path: Path) -> dict[str, float]:
    """Claimed figures: a CSV with the columns figure and value."""
    with path.open(newline="") as handle:
        reader = csv.DictReader(handle)
        if reader.fieldnames is None or not {"figure", "value"} <= set(reader.fieldnames):
            raise LegacyModelError(f"{path} has the columns {reader.fieldnames}; `figure` and `value` are expected")
        try:
            return {line["figure"]: float(line["value"]) for line in reader}
        except ValueError as problem:
            raise LegacyModelError(f"{path}, line {reader.line_num}: {problem}") from None


def _read_model(text: str, features: list[str], path: Path) -> Model:
    if text.lstrip().startswith("{"):
        return _read_logistic(text, features, path)
    if text.startswith("tree"):
        names = next((line for line in text.splitlines() if line.startswith("feature_names=")), None)
        if names is None:
            raise LegacyModelError(f"{path}: a LightGBM text file names its features in a line `feature_names=`")
        return LightGbmModel(text, tuple(_positions(names.partition("=")[2].split(" "), features, path)))
    raise LegacyModelError(
        f"{path} is neither JSON with feature_names, weights and intercept nor a LightGBM text file (Booster.save_model)"
    )


def _read_logistic(text: str, features: list[str], path: Path) -> LogisticModel:
    try:
        found = json.loads(text)
        names = [str(name) for name in found["feature_names"]]
        given = np.array(found["weights"], dtype=np.float64)
        intercept = float(found["intercept"])
    except (KeyError, TypeError, ValueError) as problem:
        raise LegacyModelError(
            f'{path}: expected {{"feature_names": [...], "weights": [...], "intercept": number}}; {problem!r}'
        ) from None
    if given.shape != (len(names),) or not np.isfinite(given).all():
        raise LegacyModelError(f"{path}: {len(names)} feature names want as many finite weights, got {given.tolist()}")
    weights = np.zeros(len(features))
    weights[_positions(names, features, path)] = given
    return LogisticModel(np.zeros(len(features)), np.ones(len(features)), weights, intercept)


def _positions(names: Sequence[str], features: list[str], path: Path) -> list[int]:
    missing = [name for name in names if name not in features]
    if missing or len(set(names)) < len(names):
        raise LegacyModelError(
            f"{path} wants the features {', '.join(missing) or 'twice'}, which the platform does not compute. Known: "
            f"{', '.join(features)}. Rename them in the file, or add them to the feature definition."
        )
    return [features.index(name) for name in names]


def _document(model: Model, features: Sequence[str], feature_hash: str, threshold: float) -> dict[str, Any]:
    """The artifact. Nobody measured its calibration, so there is none, no interval, and nothing certified."""
    return {
        "kind": model.document()["kind"],
        "features": list(features),
        "feature_hash": feature_hash,
        "model": model.document(),
        "calibrator": {"method": "identity"},
        "venn_abers": None,
        "threshold": threshold,
        "certified": False,
        "outliers": None,
    }
