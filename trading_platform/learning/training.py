"""Train a version: samples, search or update, calibration, certification, figures, artifact, registry row.

    trained = train_version(databases, lake, plan, dataset_id=..., as_of=replay_from, kind="lightgbm", origin="initial")
    trained.row.metrics["precision_at"]["0.8"], trained.created

A version's id is the content of what decides its numbers, so training again on the same data returns the version that
is there, without work.
"""

import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import structlog
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # a requirement of scikit-learn

from trading_platform.identifiers import DatasetId, VersionId, content_id
from trading_platform.learning.artifact import write_artifact
from trading_platform.learning.calibration import Floats
from trading_platform.learning.certification import Certification, Resolved, certify, own_threshold
from trading_platform.learning.figures import OutOfSample, figures
from trading_platform.learning.fitting import Fitted, fit_first
from trading_platform.learning.models import LEGACY
from trading_platform.learning.outliers import fit_outliers
from trading_platform.learning.plan import TrainingPlan
from trading_platform.learning.provenance import code_version, lock_hash
from trading_platform.learning.registry import register, version
from trading_platform.learning.samples import Samples, build_samples
from trading_platform.learning.search import Progress
from trading_platform.learning.servable import load
from trading_platform.learning.updating import Parent, fit_update
from trading_platform.market_data.lake import Lake
from trading_platform.settings import Settings
from trading_platform.storage.control import ModelVersion
from trading_platform.storage.databases import Databases

log = structlog.get_logger(__name__)

TRIALS = 20
FOLDS = 5
SEED = 7
THREADS = 1
OUTLIER_FALSE_ALARM_RATE = 0.005
RECENT_SHARE, RECENT_LEAST = 0.1, 2_000


@dataclass(frozen=True)
class TrainedVersion:
    """`created` is False where the version was there already; `seconds` then holds only the look-up."""

    version_id: VersionId
    created: bool
    row: ModelVersion
    seconds: dict[str, float]


def train_version(
    databases: Databases,
    lake: Lake,
    plan: TrainingPlan,
    *,
    dataset_id: DatasetId,
    as_of: datetime,
    kind: str,
    origin: str,
    parent_id: VersionId | None = None,
    search_again: bool = False,
    trials: int = TRIALS,
    folds: int = FOLDS,
    seed: int = SEED,
    progress: Progress = lambda what, done, total: None,
) -> TrainedVersion:
    """Train on the bars known at `as_of` (market time) and register the version.

    Only labels that ended, plus an embargo of one horizon, before `as_of` are learnt from. With `parent_id` the
    parent's hyperparameters are reused and the cheap ways of updating compared, unless `search_again`, or the parent
    is a legacy model. Raises ValueError where the data hold too little to learn from.
    """
    began = time.monotonic()
    # One thread a fit, everywhere: sums come out in one order, and threads do not spin against each other.
    with threadpool_limits(limits=THREADS):
        return _train(
            databases, lake, plan, dataset_id=dataset_id, as_of=as_of, kind=kind, origin=origin, parent_id=parent_id,
            search_again=search_again, trials=trials, folds=folds, seed=seed, progress=progress, began=began,
        )  # fmt: skip


def _train(
    databases: Databases,
    lake: Lake,
    plan: TrainingPlan,
    *,
    dataset_id: DatasetId,
    as_of: datetime,
    kind: str,
    origin: str,
    parent_id: VersionId | None,
    search_again: bool,
    trials: int,
    folds: int,
    seed: int,
    progress: Progress,
    began: float,
) -> TrainedVersion:
    bars = lake.bars(dataset_id, as_of=as_of)
    if bars.is_empty():
        raise ValueError(f"dataset {dataset_id} has no bars available at {as_of.isoformat()}: ingest it first")
    data_version = lake.data_version(dataset_id, as_of=as_of)
    identity = {
        "plan": plan.parameters(),
        "kind": kind,
        "trials": trials,
        "folds": folds,
        "search_again": search_again,
    }
    provenance = (data_version, plan.feature_hash, json.dumps(identity, sort_keys=True), code_version(), lock_hash())
    version_id = VersionId(content_id("v", dataset_id, *provenance, seed, origin, parent_id or ""))
    with databases.control() as session:
        existing = session.get(ModelVersion, version_id)
        parent_row = None if parent_id is None else version(session, parent_id)
    if existing is not None:
        return TrainedVersion(version_id, False, existing, {"look-up": time.monotonic() - began})

    cutoff = min(as_of, _newest(bars))
    interval = int(bars["interval_seconds"][0])
    embargo = plan.barriers.horizon_bars * interval * 1_000_000
    progress("labelling", 0, 1)
    samples = build_samples(bars, plan, cutoff, embargo)
    progress("labelling", 1, 1)
    labelled = time.monotonic()
    reuse = parent_row is not None and parent_row.kind != LEGACY and not search_again
    if parent_row is not None and reuse:
        parent = parent_of(databases.settings, parent_row, kind, plan)
        fitted = fit_update(samples, parent, kind=kind, seed=seed, embargo=embargo, progress=progress)
    else:
        # The search knows nothing of origin or parent: whoever asks for the same search shares the study.
        study = content_id("study", dataset_id, *provenance, seed)
        fitted = fit_first(
            databases, samples, kind=kind, study=study, trials=trials, folds=folds, seed=seed, embargo=embargo,
            progress=progress,
        )  # fmt: skip
    fitted_at = time.monotonic()
    recertification = 1 + _certifications(parent_row)
    certification, threshold, document = finished(plan, samples, fitted, recertification)
    path, sha256 = write_artifact(databases.settings.artifacts_dir, document)
    seconds = {
        "label": labelled - began,
        "fit": fitted_at - labelled,
        "certify and write": time.monotonic() - fitted_at,
    }
    row = ModelVersion(
        version_id=version_id,
        dataset_id=dataset_id,
        strategy_id=plan.strategy_id,
        parent_id=parent_id,
        kind=kind,
        origin=origin,
        data_version=data_version,
        feature_hash=plan.feature_hash,
        code_version=code_version(),
        lock_hash=lock_hash(),
        params={**identity, "hyperparameters": fitted.params, "arm": fitted.details["arm"], "threads": THREADS},
        seed=seed,
        trained_from=_moment(samples.open_time.min()),
        trained_to=_moment(samples.open_time.max()),
        rows=len(samples),
        metrics=_metrics(samples, fitted, certification, threshold)
        | {"learnt_until": cutoff.isoformat(), "recertification": recertification, "seconds": seconds},
        artifact_path=path,
        artifact_sha256=sha256,
        certified=certification.certified,
        expires_at=cutoff + timedelta(seconds=plan.valid_bars * interval),
    )
    with databases.control() as session:
        row, created = register(session, row)
    log.info(
        "version_trained", version_id=version_id, kind=kind, origin=origin, rows=len(samples), created=created,
        certified=certification.certified, seconds=round(time.monotonic() - began, 1),
    )  # fmt: skip
    return TrainedVersion(version_id, created, row, seconds)


def version_id_of(row: ModelVersion) -> VersionId:
    """The id that the row's own columns make. Another one than the row's: a column was changed after training."""
    decided = {name: row.params[name] for name in ("plan", "kind", "trials", "folds", "search_again")}
    parts = (row.data_version, row.feature_hash, json.dumps(decided, sort_keys=True), row.code_version, row.lock_hash)
    return VersionId(content_id("v", row.dataset_id, *parts, row.seed, row.origin, row.parent_id or ""))


def finished(
    plan: TrainingPlan, samples: Samples, fitted: Fitted, recertification: int
) -> tuple[Certification, float, dict[str, Any]]:
    """(what is certified, the threshold in force, the artifact's content) of a fitted model.

    `recertification`: how often this line of versions has been certified, this time included.
    """
    certification = _certify(samples, fitted, recertification)
    threshold = certification.threshold or own_threshold(_recent(fitted), plan.target_coverage)
    return certification, threshold, _document(plan, samples, fitted, threshold, certification.certified)


def _recent(fitted: Fitted) -> Floats:
    """Confidences that the served calibration gives to the newest out-of-sample scores.

    The newest, because how sure a model gets changes with the market, and a threshold from years of history may never be
    reached again. The served calibration, because that is what signals will be compared with: the one of the window
    before, which those predictions were made with, can lie elsewhere altogether.
    """
    newest_first = np.argsort(fitted.predicted.rows)[::-1]
    newest = newest_first[: max(int(len(newest_first) * RECENT_SHARE), RECENT_LEAST)]
    return fitted.calibrator.many(fitted.predicted.score[newest])


def parent_of(settings: Settings, row: ModelVersion, kind: str, plan: TrainingPlan) -> Parent:
    """A registered version as the parent of an update. Raises ValueError, and `artifact.ArtifactError` without its file."""
    if row.kind != kind:
        raise ValueError(f"version {row.version_id} is a {row.kind} model and cannot be the parent of a {kind} one")
    servable = load(settings, row, feature_hash=plan.feature_hash)
    method = servable.calibrator.method
    until = datetime.fromisoformat(row.metrics["learnt_until"])
    return Parent(servable.model, row.params["hyperparameters"], method, int(until.timestamp() * 1_000_000))


def _certify(samples: Samples, fitted: Fitted, recertification: int) -> Certification:
    rows = fitted.predicted.rows
    driftless = samples.base_rate[rows]
    # The stricter of what a coin scores with these barriers and what the market gave to everybody.
    base_rate = np.fmax(driftless, fitted.predicted.guess)
    return certify(
        Resolved(
            confidence=fitted.predicted.confidence,
            label=samples.label[rows],
            net_return=samples.net_return[rows],
            base_rate=base_rate,
            start=samples.start[rows],
            end=samples.end[rows],
        ),
        recertification=recertification,
    )


def _metrics(samples: Samples, fitted: Fitted, certification: Certification, threshold: float) -> dict[str, Any]:
    predicted = fitted.predicted
    rows = predicted.rows
    measured = figures(
        OutOfSample(
            confidence=predicted.confidence,
            label=samples.label[rows],
            net_return=samples.net_return[rows],
            guess=predicted.guess,
            driftless=samples.base_rate[rows],
            conditions={name: values[rows] for name, values in samples.conditions.items()},
        ),
        threshold,
    )
    return measured | {
        "features": int(samples.present.sum()),
        "training_rows": len(samples),
        "effective_samples": float(samples.weight.sum()),
        "left_out": dict(samples.left_out),
        "evaluated_from": _moment(samples.start[rows].min()).isoformat(),
        "evaluated_to": _moment(samples.start[rows].max()).isoformat(),
        "precision_at_80": measured["precision_at"]["0.8"],
        "coverage_at_80": measured["coverage_at"]["0.8"],
        "certified_80": certification.certified,
        "certification": certification.document(),
        "threshold": threshold,
        **fitted.details,
    }


def _document(
    plan: TrainingPlan, samples: Samples, fitted: Fitted, threshold: float, certified: bool
) -> dict[str, Any]:
    return {
        "kind": fitted.model.document()["kind"],
        "features": list(plan.features),
        "feature_hash": plan.feature_hash,
        "model": fitted.model.document(),
        "calibrator": fitted.calibrator.document(),
        "venn_abers": fitted.interval.document(),
        "threshold": threshold,
        "certified": certified,
        "outliers": fit_outliers(samples.matrix, samples.present, OUTLIER_FALSE_ALARM_RATE).document(),
    }


def _certifications(parent: ModelVersion | None) -> int:
    return 0 if parent is None else int(parent.metrics.get("recertification", 0))


def _newest(bars: pl.DataFrame) -> datetime:
    newest = bars["available_at"].max()
    assert isinstance(newest, datetime)
    return newest


def _moment(microseconds: int) -> datetime:
    return datetime.fromtimestamp(int(microseconds) / 1_000_000, UTC)
