"""The drift check of a champion: features against its training data, errors against its promises.

Two tiers. `retrain`: features beyond computed thresholds, errors that have risen, losses that the confidences did not
promise, in all or in one market condition, or certified signals that do not come true 80 % of the time, which also
withdraws the certificate. `warning`: errors that seem to rise, published signals that keep less than they promise. A version asks for retraining once a cool-down, and not while the
challenger that answered the last request is winning: replacing it would begin its proof anew.
"""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import structlog
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from trading_platform.identifiers import DatasetId, content_id
from trading_platform.learning.condition_drift import CONCEPT, ConditionDrift, share_drift, signal_drift
from trading_platform.learning.error_drift import (
    NONE,
    RETRAIN,
    WARNING,
    broken_promise,
    detect,
    error_streams,
    expected_accuracy,
)
from trading_platform.learning.experiments import running
from trading_platform.learning.feature_drift import FeatureDrift, feature_drift
from trading_platform.learning.plan import CONDITIONS, TrainingPlan
from trading_platform.learning.precision_monitor import Watched, watch
from trading_platform.learning.registry import CHALLENGER, CHAMPION, serving, withdraw_certificate
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
    `follow_up_bars`: a version that drift asked for learnt from little of what the market had become, so it is asked for
    once more when this much market time has passed since.
    """

    window_bars: int = 1_000
    minimum_bars: int = 100
    reference_bars: int = 20_000
    cool_down_bars: int = 250
    follow_up_bars: int = 1_000
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
        now = serving(session, dataset_id, plan.strategy_id)
        champion = now.champion
        if champion is None:
            raise NoChampionError(f"no champion serves {plan.strategy_id} on {dataset_id}: train and deploy one first")
        existing = session.scalars(
            select(DriftReport).where(DriftReport.version_id == champion.version_id, DriftReport.window_to == as_of)
        ).one_or_none()
        request = _last_request(session, dataset_id, plan, as_of)
        asked = None if request is None else request.window_to
        answer = None if asked is None else _answer(session, dataset_id, plan, asked)
    if existing is not None:
        return existing
    bars = lake.bars(dataset_id, as_of=as_of)
    if bars.is_empty():
        raise ValueError(f"dataset {dataset_id} has no bars available at {as_of.isoformat()}")
    interval = timedelta(seconds=int(bars["interval_seconds"][0]))
    learnt_until = _learnt_until(champion)
    window_from = max(learnt_until, as_of - policy.window_bars * interval)
    features, conditions = _of_market(bars, plan, policy, window_from, champion.seed)
    published = signals(databases, dataset_id, [champion.version_id], as_of=as_of)
    resolved = _ended(published, bars, plan, as_of)
    width = int(plan.barriers.horizon_bars * interval.total_seconds() * 1e6)
    errors = _errors(resolved, width, policy)
    pending = published.join(resolved, on=["version_id", "symbol", "bar_open_time"], how="anti")
    watched = {champion.version_id: watch(resolved)}
    if now.challenger is not None and now.challenger.certified:  # it trades a share of the money, on the same promise
        theirs = signals(databases, dataset_id, [now.challenger.version_id], as_of=as_of)
        watched[now.challenger.version_id] = watch(_ended(theirs, bars, plan, as_of))
    errors["precision of published"] = _precision(watched[champion.version_id])
    errors["expected accuracy of pending"] = _entry(NONE, expected_accuracy(pending["confidence"].to_numpy()))
    followed = request is not None and request.error.get("follow-up", {}).get("state") == RETRAIN
    if champion.origin == "drift" and not followed and (asked is None or asked <= learnt_until):
        due = as_of >= learnt_until + policy.follow_up_bars * interval
        errors["follow-up"] = _entry(RETRAIN if due else NONE, None)
    conditions += signal_drift(resolved, 2 * width, policy.promise_margin)
    decision = _decision(features, errors, conditions)
    cooling = asked is not None and as_of < asked + policy.cool_down_bars * interval
    if decision == RETRAIN and cooling:
        assert asked is not None
        decision = WARNING
        errors["cool_down"] = {"state": WARNING, "since": asked.isoformat(), "statistic": None}
    if decision == RETRAIN and answer is not None:
        own = signals(databases, dataset_id, [answer.challenger_id], since=answer.since, as_of=as_of)
        broken = _broken(_ended(own, bars, plan, as_of), 2 * width)
        if answer.proved or broken is None or broken <= policy.promise_margin:
            decision = WARNING
            errors["challenger ahead"] = _entry(WARNING, answer.ahead)
    values = {
        "dataset_id": dataset_id,
        "strategy_id": plan.strategy_id,
        "version_id": champion.version_id,
        "window_from": window_from,
        "window_to": as_of,
        "features": {name: asdict(found) for name, found in features.items()},
        "error": errors,
        "conditions": {f"{found.question} {found.condition}={found.value}": found.document() for found in conditions},
        "decision": decision,
        "run_key": content_id("drift", champion.version_id, as_of.astimezone(UTC).isoformat()),
    }
    report = _write(databases, values, watched)
    log.info("drift_checked", dataset_id=dataset_id, version_id=champion.version_id, decision=report.decision,
             drifted=sum(found.drifted for found in features.values()))  # fmt: skip
    return report


def _write(databases: Databases, values: dict[str, Any], watched: dict[str, Watched]) -> DriftReport:
    """The report in its table, and certificates whose promise is broken withdrawn with it."""
    version_id, as_of = values["version_id"], values["window_to"]
    with databases.control() as session:
        session.execute(insert(DriftReport).values(values).on_conflict_do_nothing())
        for watched_id, seen in watched.items():
            if seen.certificate_broken:
                withdraw_certificate(session, watched_id, market_time=as_of, evidence=seen.document())
        return session.scalars(
            select(DriftReport).where(DriftReport.version_id == version_id, DriftReport.window_to == as_of)
        ).one()


def _last_request(session: Session, dataset_id: DatasetId, plan: TrainingPlan, as_of: datetime) -> DriftReport | None:
    """The newest report before `as_of` that asked for retraining."""
    return session.scalars(
        select(DriftReport)
        .where(
            DriftReport.dataset_id == dataset_id,
            DriftReport.strategy_id == plan.strategy_id,
            DriftReport.decision == RETRAIN,
            DriftReport.window_to < as_of,
        )
        .order_by(DriftReport.window_to.desc())
        .limit(1)
    ).one_or_none()


@dataclass(frozen=True)
class _Answer:
    """A challenger that learnt from what was known at the last request, `ahead` (nats) in its experiment `since` then.

    `proved`: the lower bound says so too, and only days, blocks or conditions are wanting. Where it does not, the
    challenger must keep its own promises: one that is merely less wrong than the champion is no answer.
    """

    challenger_id: str
    since: datetime
    ahead: float
    proved: bool


def _answer(session: Session, dataset_id: DatasetId, plan: TrainingPlan, asked: datetime) -> _Answer | None:
    """None where there is no such challenger, or it is behind so far."""
    challenger = serving(session, dataset_id, plan.strategy_id).challenger
    experiment = running(session, dataset_id, plan.strategy_id)
    if challenger is None or experiment is None or _learnt_until(challenger) < asked:
        return None
    losses = experiment.evidence.get("log_loss", {})
    ours, theirs = losses.get(CHAMPION), losses.get(CHALLENGER)
    if ours is None or theirs is None or theirs >= ours:
        return None
    proved = experiment.lower is not None and experiment.lower > 0.0
    return _Answer(challenger.version_id, experiment.started_at, float(ours - theirs), proved)


def _ended(published: pl.DataFrame, bars: pl.DataFrame, plan: TrainingPlan, as_of: datetime) -> pl.DataFrame:
    """Up to the last signal whose time barrier has passed: of newer ones only those that ended early would be known."""
    return resolve(published, bars, plan.barriers).filter(pl.col("exit_by") <= as_of)


def _of_market(
    bars: pl.DataFrame, plan: TrainingPlan, policy: DriftPolicy, window_from: datetime, seed: int
) -> tuple[dict[str, FeatureDrift], list[ConditionDrift]]:
    """Features, and shares of market conditions, of the window against the training data; empty where it is too short."""
    parts = plan.prepare(bars).partition_by("symbol", maintain_order=True)
    computed = [plan.compute(rows) for rows in parts]
    matrix = np.concatenate([features.matrix for features in computed])
    moment = np.concatenate([microseconds(rows["available_at"]) for rows in parts])
    present = np.asarray(np.isfinite(matrix).any(axis=0))
    rows = np.argsort(moment, kind="stable")
    rows = rows[np.isfinite(matrix[:, present]).all(axis=1)[rows]]
    matrix, moment = matrix[rows][:, present], moment[rows]
    new = moment > int(window_from.timestamp() * 1e6)
    old_moments = np.unique(moment[~new])[-policy.reference_bars :]
    if len(np.unique(moment[new])) < policy.minimum_bars or len(old_moments) < 2 * policy.minimum_bars:
        return {}, []
    old = ~new & (moment >= old_moments[0])
    names = tuple(name for name, there in zip(plan.features, present.tolist(), strict=True) if there)
    conditions = {
        name: np.concatenate([np.asarray(features.conditions[name], dtype=np.str_) for features in computed])[rows]
        for name in CONDITIONS
    }
    training, window = (
        ({name: values[part] for name, values in conditions.items()}, moment[part]) for part in (old, new)
    )
    return feature_drift(
        names, (matrix[old], moment[old]), (matrix[new], moment[new]), seed=seed,
        false_discovery_rate=policy.false_discovery_rate,
    ), share_drift(training, window, seed=seed)  # fmt: skip


def _errors(resolved: pl.DataFrame, width: int, policy: DriftPolicy) -> dict[str, Any]:
    """{detector: {state, since, statistic}} on signals whose labels are known; `width` of a horizon in microseconds."""
    confidence, label = resolved["confidence"].to_numpy(), resolved["label"].to_numpy()
    moments = microseconds(resolved["available_at"])
    found = {
        name: _entry(detected.state, detected.statistic, detected.since)
        for name, detected in detect(error_streams(confidence, label, moments, width)).items()
    }
    # Two horizons a block, as in experiments: the confidence sequence asks for more independence than the detectors.
    lower = _broken(resolved, 2 * width)
    broken = lower is not None and lower > policy.promise_margin
    return found | {"loss beyond promise": _entry(RETRAIN if broken else NONE, lower)}


def _precision(seen: Watched) -> dict[str, Any]:
    """The monitor's entry: what a trader is told of the published signals, with how many it rests on."""
    state = RETRAIN if seen.certificate_broken else WARNING if seen.broken else NONE
    return _entry(state, seen.precision) | seen.document()


def _broken(resolved: pl.DataFrame, width: int) -> float | None:
    """Lower bound on the nats of log-loss beyond what the confidences promised."""
    confidence, label = resolved["confidence"].to_numpy(), resolved["label"].to_numpy()
    return broken_promise(confidence, label, microseconds(resolved["available_at"]), width)[0]


def _entry(state: str, statistic: float | None, since: int | None = None) -> dict[str, Any]:
    moment = None if since is None else datetime.fromtimestamp(since / 1e6, UTC).isoformat()
    return {"state": state, "since": moment, "statistic": statistic}


def _decision(features: dict[str, FeatureDrift], errors: dict[str, Any], conditions: list[ConditionDrift]) -> str:
    """What one condition has lost may be lost in the mean of all, so a concept that drifted in one of them is enough.

    Another mix of conditions, or confidences that are off in one, are no reason to learn anew by themselves.
    """
    states = {str(entry["state"]) for entry in errors.values()}
    drifted = {found.question for found in conditions if found.drifted}
    if RETRAIN in states or CONCEPT in drifted or any(found.drifted for found in features.values()):
        return RETRAIN
    return WARNING if WARNING in states or drifted else NONE


def _learnt_until(champion: ModelVersion) -> datetime:
    """The market time up to which the champion saw data; an imported model's is the end of its claimed training."""
    until = champion.metrics.get("learnt_until")
    if until is not None:
        return datetime.fromisoformat(until)
    return champion.trained_to or datetime.fromtimestamp(0, UTC)
