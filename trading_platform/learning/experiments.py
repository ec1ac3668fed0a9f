"""Champion against challenger: both score every bar, money is split by a sticky hash, evidence decides.

What is compared is the log-loss of the two confidences on the same bar, for every bar whose label is known, whether or
not anybody traded it. Differences are averaged over blocks of time longer than the label horizon, all symbols of one
moment in one block, and bounded by a confidence sequence that may be looked at as often as one likes: on overlapping
labels a naive test promotes an identical model 74 % of the time, this one about 5 %. The error is shared out among the
challengers that come one after another.
"""

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import structlog
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from trading_platform.identifiers import DatasetId, ExperimentId, StrategyId, VersionId, content_id
from trading_platform.learning.calibration import Floats, expected_calibration_error, log_losses, reliability
from trading_platform.learning.confidence_sequence import FIRST_LOOK, Bounds, block_means, confidence_sequence
from trading_platform.learning.labels import BarrierSpec
from trading_platform.learning.registry import CHALLENGER, CHAMPION, DeploymentRefusedError, deploy, retire, serving
from trading_platform.learning.resolved import resolved_signals
from trading_platform.learning.samples import microseconds
from trading_platform.market_data.lake import Lake
from trading_platform.settings import Settings
from trading_platform.storage.control import Dataset, Experiment
from trading_platform.storage.databases import Databases

log = structlog.get_logger(__name__)

MOST_PLOTTED = 500
LEAST_TRADES = 30
"""Published bars below which a drawdown says nothing."""


@dataclass(frozen=True)
class ExperimentPolicy:
    """When an experiment may end, and how.

    `margin`: what the challenger has to be better by, in nats of log-loss; blocks, days of market time and market
    conditions (values of volatility with at least `rows_per_condition` rows) that must have been seen first.
    """

    alpha: float = 0.05
    harm_alpha: float = 0.05
    margin: float = 0.0
    minimum_blocks: int = 40
    minimum_days: float = 7.0
    minimum_conditions: int = 2
    rows_per_condition: int = 30
    calibration_slack: float = 0.02
    drawdown_slack: float = 0.02
    maximum_days: float = 120.0
    horizons_per_block: int = 2


@dataclass(frozen=True)
class Evidence:
    """What an experiment has shown so far. Differences are champion minus challenger: positive favours the challenger.

    `harm` bounds the challenger's net return minus the champion's, a block, each on the bars it published.
    """

    rows: int
    days: float
    loss: Bounds
    harm: Bounds
    block_times: list[datetime]
    log_loss: dict[str, float | None]
    ece: dict[str, float | None]
    drawdown: dict[str, float | None]
    conditions: dict[str, int]


# --- the split -------------------------------------------------------------------------------------------------------


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
            experiment.evidence = _document(evidence, policy, alpha, reasons) | {"as_of": as_of.isoformat()}
            experiment.updated_at = session.execute(select(func.now())).scalar_one()
        return experiment


def paired(resolved: pl.DataFrame, champion_id: str, challenger_id: str) -> pl.DataFrame:
    """One row a bar that both versions scored: the champion's columns, and the challenger's with `_challenger`."""
    key = ["symbol", "bar_open_time"]
    champion = resolved.filter(pl.col("version_id") == champion_id)
    challenger = resolved.filter(pl.col("version_id") == challenger_id)
    both = champion.join(
        challenger.select(*key, "confidence", "threshold", "state", "net_return"), on=key, suffix="_challenger"
    )
    return both.sort("available_at", "symbol")


def weigh(pairs: pl.DataFrame, *, width: timedelta, known_until: datetime, alpha: float, harm_alpha: float) -> Evidence:
    """Evidence from paired rows (see `paired`). Blocks that may still get labels at `known_until` do not count yet."""
    label = pairs["label"].to_numpy()
    moments = microseconds(pairs["available_at"])
    champion = log_losses(pairs["confidence"].to_numpy(), label)
    challenger = log_losses(pairs["confidence_challenger"].to_numpy(), label)
    champion_pnl = _published_return(pairs, "")
    challenger_pnl = _published_return(pairs, "_challenger")
    microseconds_wide = int(width.total_seconds() * 1_000_000)
    loss, begins = block_means(champion - challenger, moments, microseconds_wide)
    harm, _ = block_means(challenger_pnl - champion_pnl, moments, microseconds_wide)
    complete = begins + microseconds_wide <= int(known_until.timestamp() * 1_000_000)
    begins = begins[complete]
    days = float(moments.max() - moments.min()) / 86_400e6 if len(moments) else 0.0
    return Evidence(
        rows=len(pairs),
        days=days,
        loss=confidence_sequence(loss[complete], alpha),
        harm=confidence_sequence(harm[complete], harm_alpha),
        block_times=[datetime.fromtimestamp(begin / 1e6, known_until.tzinfo) for begin in begins.tolist()],
        log_loss={CHAMPION: _mean(champion), CHALLENGER: _mean(challenger)},
        ece={
            CHAMPION: _ece(pairs["confidence"].to_numpy(), label),
            CHALLENGER: _ece(pairs["confidence_challenger"].to_numpy(), label),
        },
        drawdown={CHAMPION: _drawdown(champion_pnl, moments), CHALLENGER: _drawdown(challenger_pnl, moments)},
        conditions={str(value): int(count) for value, count in pairs["volatility"].value_counts().iter_rows()},
    )


def decide(evidence: Evidence, policy: ExperimentPolicy) -> tuple[str, list[str]]:
    """(decision, what still stands in the way of a promotion)."""
    lower, upper = evidence.loss.last
    _, harm_upper = evidence.harm.last
    if harm_upper is not None and harm_upper < 0.0:
        return "rollback", ["the challenger loses money against the champion"]
    if upper is not None and upper < 0.0:
        return "keep", ["the challenger's log-loss is worse"]
    wanting = _wanting(evidence, policy)
    if lower is not None and lower > policy.margin and not wanting:
        return "promote", []
    if lower is None or lower <= policy.margin:
        wanting = [f"the lower bound does not clear {policy.margin}", *wanting]
    if evidence.days > policy.maximum_days:
        return "keep", [f"undecided after {policy.maximum_days:g} days", *wanting]
    return "continue", wanting


def _wanting(evidence: Evidence, policy: ExperimentPolicy) -> list[str]:
    blocks = len(evidence.loss.mean)
    conditions = sum(count >= policy.rows_per_condition for count in evidence.conditions.values())
    checks = [
        (blocks >= policy.minimum_blocks, f"{blocks} of {policy.minimum_blocks} blocks"),
        (evidence.days >= policy.minimum_days, f"{evidence.days:.1f} of {policy.minimum_days:g} days"),
        (conditions >= policy.minimum_conditions, f"{conditions} of {policy.minimum_conditions} volatility conditions"),
        (_not_worse(evidence.ece, policy.calibration_slack), "its calibration is worse"),
        (
            evidence.drawdown[CHAMPION] is None or _not_worse(evidence.drawdown, policy.drawdown_slack),
            "its drawdown is worse, or not known",
        ),
    ]
    return [text for passed, text in checks if not passed]


def _not_worse(measure: dict[str, float | None], slack: float) -> bool:
    """Whether both were measured and the challenger's is no larger. A champion that hardly trades has no drawdown."""
    champion, challenger = measure[CHAMPION], measure[CHALLENGER]
    return champion is not None and challenger is not None and challenger <= champion + slack


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


def _published_return(pairs: pl.DataFrame, suffix: str) -> Floats:
    """Net return of the rows a version published, zero elsewhere."""
    published = (pairs[f"state{suffix}"] == "ok").to_numpy()
    return np.where(published, pairs["net_return"].to_numpy(), 0.0)


def _drawdown(returns: Floats, moments: Any) -> float | None:
    """Largest fall of the summed returns, an equal share of money a symbol and moment; None where hardly any traded."""
    if np.count_nonzero(returns) < LEAST_TRADES:
        return None
    _, number = np.unique(moments, return_inverse=True)
    curve = np.cumsum(np.bincount(number, returns) / np.bincount(number))
    return float(np.max(np.maximum.accumulate(np.maximum(curve, 0.0)) - curve))


def _ece(confidence: Floats, label: Any) -> float | None:
    return expected_calibration_error(reliability(confidence, label)) if len(label) else None


def _mean(values: Floats) -> float | None:
    return float(values.mean()) if len(values) else None


def _document(evidence: Evidence, policy: ExperimentPolicy, alpha: float, wanting: list[str]) -> dict[str, Any]:
    """The evidence as JSON, with series thinned for plots."""
    step = max(1, len(evidence.block_times) // MOST_PLOTTED)
    shown = [index for index in range(len(evidence.block_times)) if index >= FIRST_LOOK - 1][::step]
    return {
        "rows": evidence.rows,
        "days": evidence.days,
        "alpha": alpha,
        "wanting": wanting,
        "log_loss": evidence.log_loss,
        "ece": evidence.ece,
        "drawdown": evidence.drawdown,
        "conditions": evidence.conditions,
        "policy": asdict(policy),
        "harm": dict(zip(("lower", "upper"), evidence.harm.last, strict=True)),
        "series": {
            "time": [evidence.block_times[index].isoformat() for index in shown],
            "mean": [float(evidence.loss.mean[index]) for index in shown],
            "lower": [float(evidence.loss.lower[index]) for index in shown],
            "upper": [float(evidence.loss.upper[index]) for index in shown],
        },
    }
