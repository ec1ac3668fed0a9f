"""The drift check of a champion: features against its training data, errors against its promises.

Two tiers. `retrain`: features beyond computed thresholds, errors that have risen, or losses that the confidences did
not promise. `warning`: errors that seem to rise. A version asks for retraining once a cool-down.
"""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import structlog
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from trading_platform.identifiers import DatasetId, content_id
from trading_platform.learning.error_drift import (
    NONE,
    RETRAIN,
    WARNING,
    broken_promise,
    detect,
    error_streams,
    expected_accuracy,
)
from trading_platform.learning.feature_drift import FeatureDrift, feature_drift
from trading_platform.learning.plan import TrainingPlan
from trading_platform.learning.registry import serving
from trading_platform.learning.resolved import resolve, signals
from trading_platform.learning.samples import microseconds
from trading_platform.market_data.lake import Lake
from trading_platform.storage.control import DriftReport, ModelVersion
from trading_platform.storage.databases import Databases

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class DriftPolicy:
    """`window_bars`: newest intervals of market time compared with the training data, at least `minimum_bars` of them.

    `reference_bars`: how far the training data are read back; twenty windows or more keep false alarms at the stated
    rate. `cool_down_bars`: market time between two requests to retrain. `promise_margin`: nats of log-loss above what
    the confidences promise that are worth a retraining.
    """

    window_bars: int = 1_000
    minimum_bars: int = 100
    reference_bars: int = 20_000
    cool_down_bars: int = 250
    promise_margin: float = 0.02
    false_discovery_rate: float = 0.05


class NoChampionError(LookupError):
    """Nothing serves, so nothing can have drifted."""


def check_drift(
    databases: Databases,
    lake: Lake,
    plan: TrainingPlan,
    dataset_id: DatasetId,
    as_of: datetime,
    policy: DriftPolicy | None = None,
) -> DriftReport:
    """Check the champion on what is known at `as_of` (market time) and write the report.

    One report a version and window: asking again for the same `as_of` returns the one that is there. Raises
    `NoChampionError`.
    """
    policy = policy or DriftPolicy()
    with databases.control() as session:
        champion = serving(session, dataset_id, plan.strategy_id).champion
        if champion is None:
            raise NoChampionError(f"no champion serves {plan.strategy_id} on {dataset_id}: train and deploy one first")
        existing = session.scalars(
            select(DriftReport).where(DriftReport.version_id == champion.version_id, DriftReport.window_to == as_of)
        ).one_or_none()
        asked = session.scalars(
            select(DriftReport.window_to)
            .where(
                DriftReport.dataset_id == dataset_id,
                DriftReport.strategy_id == plan.strategy_id,
                DriftReport.decision == RETRAIN,
                DriftReport.window_to < as_of,
            )
            .order_by(DriftReport.window_to.desc())
            .limit(1)
        ).one_or_none()
    if existing is not None:
        return existing
    bars = lake.bars(dataset_id, as_of=as_of)
    if bars.is_empty():
        raise ValueError(f"dataset {dataset_id} has no bars available at {as_of.isoformat()}")
    interval = timedelta(seconds=int(bars["interval_seconds"][0]))
    learnt_until = _learnt_until(champion)
    window_from = max(learnt_until, as_of - policy.window_bars * interval)
    features = _features(bars, plan, policy, window_from, as_of, champion.seed) if learnt_until else {}
    errors, error_decision = _errors(databases, bars, plan, dataset_id, champion, as_of, policy, interval)
    decision = error_decision
    if any(found.drifted for found in features.values()):
        decision = RETRAIN
    cooling = asked is not None and as_of < asked + policy.cool_down_bars * interval
    if decision == RETRAIN and cooling:
        assert asked is not None
        decision = WARNING
        errors["cool_down"] = {"state": WARNING, "since": asked.isoformat(), "statistic": None}
    values = {
        "dataset_id": dataset_id,
        "strategy_id": plan.strategy_id,
        "version_id": champion.version_id,
        "window_from": window_from,
        "window_to": as_of,
        "features": {name: asdict(found) for name, found in features.items()},
        "error": errors,
        "decision": decision,
        "run_key": content_id("drift", champion.version_id, as_of.astimezone(UTC).isoformat()),
    }
    with databases.control() as session:
        session.execute(insert(DriftReport).values(values).on_conflict_do_nothing())
        report = session.scalars(
            select(DriftReport).where(DriftReport.version_id == champion.version_id, DriftReport.window_to == as_of)
        ).one()
    log.info("drift_checked", dataset_id=dataset_id, version_id=champion.version_id, decision=report.decision,
             drifted=sum(found.drifted for found in features.values()))  # fmt: skip
    return report


def _features(
    bars: pl.DataFrame, plan: TrainingPlan, policy: DriftPolicy, window_from: datetime, as_of: datetime, seed: int
) -> dict[str, FeatureDrift]:
    """Features of the window against those of the training data; empty where the window is too short."""
    matrices, moments = [], []
    for rows in bars.partition_by("symbol", maintain_order=True):
        matrices.append(plan.compute(rows).matrix)
        moments.append(microseconds(rows["available_at"]))
    matrix, moment = np.concatenate(matrices), np.concatenate(moments)
    order = np.argsort(moment, kind="stable")
    matrix, moment = matrix[order], moment[order]
    present = np.asarray(np.isfinite(matrix).any(axis=0))
    complete = np.isfinite(matrix[:, present]).all(axis=1)
    matrix, moment = matrix[complete], moment[complete]
    begin = int(window_from.timestamp() * 1e6)
    new = moment > begin
    old_moments = np.unique(moment[~new])[-policy.reference_bars :]
    if len(np.unique(moment[new])) < policy.minimum_bars or len(old_moments) < 2 * policy.minimum_bars:
        return {}
    old = ~new & (moment >= old_moments[0])
    names = tuple(name for name, there in zip(plan.features, present.tolist(), strict=True) if there)
    return feature_drift(
        names,
        (matrix[old][:, present], moment[old]),
        (matrix[new][:, present], moment[new]),
        seed=seed,
        false_discovery_rate=policy.false_discovery_rate,
    )


def _errors(
    databases: Databases,
    bars: pl.DataFrame,
    plan: TrainingPlan,
    dataset_id: DatasetId,
    champion: ModelVersion,
    as_of: datetime,
    policy: DriftPolicy,
    interval: timedelta,
) -> tuple[dict[str, Any], str]:
    """({detector: {state, since, statistic}}, decision) from the champion's signals whose labels are known."""
    published = signals(databases, dataset_id, [champion.version_id], as_of=as_of)
    # Up to the last signal whose time barrier has passed: of newer ones only those that ended early would be known.
    resolved = resolve(published, bars, plan.barriers).filter(pl.col("exit_by") <= as_of)
    confidence, label = resolved["confidence"].to_numpy(), resolved["label"].to_numpy()
    moments = microseconds(resolved["available_at"])
    width = int(plan.barriers.horizon_bars * interval.total_seconds() * 1e6)
    found = {
        name: {
            "state": detected.state,
            "since": None if detected.since is None else datetime.fromtimestamp(detected.since / 1e6, UTC).isoformat(),
            "statistic": detected.statistic,
        }
        for name, detected in detect(error_streams(confidence, label, moments, width)).items()
    }
    # Two horizons a block, as in experiments: the confidence sequence asks for more independence than the detectors.
    lower, _ = broken_promise(confidence, label, moments, 2 * width)
    broken = lower is not None and lower > policy.promise_margin
    found["loss beyond promise"] = {"state": RETRAIN if broken else NONE, "since": None, "statistic": lower}
    pending = published.join(resolved, on=["version_id", "symbol", "bar_open_time"], how="anti")
    found["expected accuracy of pending"] = {
        "state": NONE,
        "since": None,
        "statistic": expected_accuracy(pending["confidence"].to_numpy()),
    }
    states = {str(entry["state"]) for entry in found.values()}
    decision = RETRAIN if RETRAIN in states else WARNING if WARNING in states else NONE
    return found, decision


def _learnt_until(champion: ModelVersion) -> datetime:
    """The market time up to which the champion saw data; an imported model's is the end of its claimed training."""
    until = champion.metrics.get("learnt_until")
    if until is not None:
        return datetime.fromisoformat(until)
    return champion.trained_to or datetime.fromtimestamp(0, UTC)
