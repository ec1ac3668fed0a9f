"""Champion against challenger: both score every bar, money is split by a sticky hash, evidence decides.

What is compared is the log-loss of the two confidences on the same bar, for every bar whose label is known, whether or
not anybody traded it. Differences are averaged over blocks of time longer than the label horizon, all symbols of one
moment in one block, and bounded by a confidence sequence that may be looked at as often as one likes: on overlapping
labels a naive test promotes an identical model 74 % of the time, this one about 5 %. The error is shared out among the
challengers that come one after another.
"""

from datetime import datetime, timedelta

import numpy as np
import structlog
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from trading_platform.identifiers import DatasetId, ExperimentId, StrategyId, VersionId, content_id
from trading_platform.learning.evidence import ExperimentPolicy, decide, document, paired, weigh
from trading_platform.learning.labels import BarrierSpec
from trading_platform.learning.registry import CHALLENGER, CHAMPION, DeploymentRefusedError, deploy, retire, serving
from trading_platform.learning.resolved import resolved_signals
from trading_platform.market_data.lake import Lake
from trading_platform.settings import Settings
from trading_platform.storage.control import Dataset, Experiment
from trading_platform.storage.databases import Databases

log = structlog.get_logger(__name__)


# --- beginning and ending --------------------------------------------------------------------------------------------


def start_experiment(
    session: Session,
    *,
    dataset_id: DatasetId,
    strategy_id: StrategyId,
    market_time: datetime,
    split_basis_points: int = 5_000,
) -> Experiment | None:
    """Begin an experiment between the versions that serve; the one running where it is the same pair.

    None where there is no challenger. An experiment between other versions that still runs ends undecided.
    """
    session.execute(select(Dataset.dataset_id).where(Dataset.dataset_id == dataset_id).with_for_update())
    now = serving(session, dataset_id, strategy_id)
    if now.champion is None or now.challenger is None:
        return None
    pair = (now.champion.version_id, now.challenger.version_id)
    current = running(session, dataset_id, strategy_id)
    if current is not None:
        if (current.champion_id, current.challenger_id) == pair:
            return current
        current.ended_at = market_time
        current.evidence = current.evidence | {"ended": "its versions no longer serve"}
    experiment_id = content_id("x", dataset_id, strategy_id, *pair, market_time.isoformat())
    if (known := session.get(Experiment, experiment_id)) is not None:
        return known  # begun and ended at this very market time
    experiment = Experiment(
        experiment_id=experiment_id,
        dataset_id=dataset_id,
        strategy_id=strategy_id,
        champion_id=pair[0],
        challenger_id=pair[1],
        split_basis_points=split_basis_points,
        started_at=market_time,
        decision="continue",
        samples=0,
        evidence={},
    )
    session.add(experiment)
    session.flush()
    return experiment


def running(session: Session, dataset_id: DatasetId, strategy_id: StrategyId) -> Experiment | None:
    """The experiment that runs now, if any."""
    return session.scalars(
        select(Experiment)
        .where(
            Experiment.dataset_id == dataset_id,
            Experiment.strategy_id == strategy_id,
            Experiment.ended_at.is_(None),
        )
        .order_by(Experiment.started_at.desc())
        .limit(1)
    ).one_or_none()


def conclude(session: Session, settings: Settings, experiment: Experiment, *, market_time: datetime, by: str) -> bool:
    """Do what the experiment decided: promote the challenger, or retire it. Returns whether anything was to be done."""
    if experiment.ended_at is not None or experiment.decision == "continue":
        return False
    if experiment.decision == "promote":
        promote(session, settings, experiment, market_time=market_time, by=by)
        return True
    retire(
        session,
        dataset_id=DatasetId(experiment.dataset_id),
        strategy_id=StrategyId(experiment.strategy_id),
        role=CHALLENGER,
        market_time=market_time,
    )
    experiment.ended_at = market_time
    log.info("challenger_retired", experiment_id=experiment.experiment_id, decision=experiment.decision, by=by)
    return True


def promote(session: Session, settings: Settings, experiment: Experiment, *, market_time: datetime, by: str) -> None:
    """Make the challenger champion, and end the experiment. The deployment's reason names the evidence.

    Raises `DeploymentRefusedError` where the evidence does not carry it, or the pair no longer serves.
    """
    dataset_id, strategy_id = DatasetId(experiment.dataset_id), StrategyId(experiment.strategy_id)
    if experiment.decision != "promote":
        raise DeploymentRefusedError(
            f"experiment {experiment.experiment_id} says {experiment.decision!r}, not 'promote': only evidence promotes. "
            "Deploying by hand is `registry.deploy`, with a reason."
        )
    now = serving(session, dataset_id, strategy_id)
    if now.challenger is None or now.challenger.version_id != experiment.challenger_id:
        raise DeploymentRefusedError(
            f"{experiment.challenger_id} no longer serves as challenger; experiment {experiment.experiment_id} is moot"
        )
    retire(session, dataset_id=dataset_id, strategy_id=strategy_id, role=CHALLENGER, market_time=market_time)
    deploy(
        session,
        settings,
        dataset_id=dataset_id,
        strategy_id=strategy_id,
        role=CHAMPION,
        version_id=VersionId(experiment.challenger_id),
        market_time=market_time,
        reason=f"experiment {experiment.experiment_id}: log-loss better by at least {experiment.lower:.5f} nats "
        f"on {experiment.samples} blocks",
        by=by,
    )
    experiment.ended_at = market_time
    log.info("challenger_promoted", experiment_id=experiment.experiment_id, version_id=experiment.challenger_id, by=by)


# --- evaluating ------------------------------------------------------------------------------------------------------


def evaluate(
    databases: Databases,
    lake: Lake,
    barriers: BarrierSpec,
    experiment_id: ExperimentId | str,
    *,
    as_of: datetime,
    policy: ExperimentPolicy | None = None,
) -> Experiment:
    """Look at the evidence known at `as_of` (market time) and write decision, bounds and evidence into the row.

    An experiment that has ended is returned as it is. A decision other than `continue` stands until `conclude`.
    """
    policy = policy or ExperimentPolicy()
    with databases.control() as session:
        experiment = session.get_one(Experiment, experiment_id)
        if experiment.ended_at is not None:
            return experiment
        interval = session.get_one(Dataset, experiment.dataset_id).interval_seconds
        alpha = policy.alpha * _share(_position(session, experiment))
    resolved = resolved_signals(
        databases, lake, barriers, DatasetId(experiment.dataset_id),
        [experiment.champion_id, experiment.challenger_id], since=experiment.started_at, as_of=as_of,
    )  # fmt: skip
    width = timedelta(seconds=policy.horizons_per_block * barriers.horizon_bars * interval)
    known_until = as_of - timedelta(seconds=barriers.horizon_bars * interval)
    evidence = weigh(
        paired(resolved, experiment.champion_id, experiment.challenger_id),
        width=width, known_until=known_until, alpha=alpha, harm_alpha=policy.harm_alpha,
    )  # fmt: skip
    decision, reasons = decide(evidence, policy)
    with databases.control() as session:
        experiment = session.get_one(Experiment, experiment_id, with_for_update=True)
        if experiment.decision == "continue":
            experiment.decision = decision
            experiment.samples = len(evidence.loss.mean)
            experiment.lower, experiment.upper = evidence.loss.last
            experiment.evidence = document(evidence, policy, alpha, reasons) | {"as_of": as_of.isoformat()}
            experiment.updated_at = session.execute(select(func.now())).scalar_one()
        return experiment


def _share(position: int) -> float:
    """Share of the error for the k-th challenger: 6 / (pi * k)^2, which sums to one over all of them."""
    return 6.0 / (np.pi * position) ** 2


def _position(session: Session, experiment: Experiment) -> int:
    """Which challenger this is in the strategy's history on the dataset, from 1."""
    earlier = session.scalar(
        select(func.count()).where(
            Experiment.dataset_id == experiment.dataset_id,
            Experiment.strategy_id == experiment.strategy_id,
            Experiment.started_at < experiment.started_at,
        )
    )
    return int(earlier or 0) + 1
