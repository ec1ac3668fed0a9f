"""The model registry: which versions exist, which one serves in which role, and what was live when.

A deployment is a row with a beginning and an end in market time. Putting a version into a role closes the row of the
one before it, in the same transaction, so the history has neither gaps nor overlaps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from trading_platform.identifiers import DatasetId, StrategyId, VersionId
from trading_platform.learning import arms
from trading_platform.observability.alerts import raise_alert
from trading_platform.settings import Settings
from trading_platform.storage.control import Dataset, Deployment, ModelVersion

log = structlog.get_logger(__name__)

CHAMPION, CHALLENGER = arms.CHAMPION, arms.CHALLENGER


class UnknownVersionError(LookupError):
    """The registry has no such version."""


class DeploymentRefusedError(RuntimeError):
    """The version may not serve where it was asked to; the message says why."""


@dataclass(frozen=True)
class Serving:
    """The versions that serve a strategy on a dataset; None where the role is vacant."""

    champion: ModelVersion | None
    challenger: ModelVersion | None

    def versions(self) -> list[tuple[str, ModelVersion]]:
        """(role, version) of the roles that are filled, champion first."""
        both = ((CHAMPION, self.champion), (CHALLENGER, self.challenger))
        return [(role, version) for role, version in both if version is not None]


def register(session: Session, row: ModelVersion) -> tuple[ModelVersion, bool]:
    """Insert a version; returns (the row in the registry, whether it is new). Two trainers of the same version meet."""
    columns = {column.key: getattr(row, column.key) for column in ModelVersion.__mapper__.column_attrs}
    values = {name: value for name, value in columns.items() if value is not None}
    created = session.execute(
        insert(ModelVersion).values(values).on_conflict_do_nothing().returning(ModelVersion.version_id)
    ).scalar_one_or_none()
    return version(session, VersionId(row.version_id)), created is not None


def version(session: Session, version_id: VersionId | str) -> ModelVersion:
    """One version. Raises `UnknownVersionError`."""
    row = session.get(ModelVersion, version_id)
    if row is None:
        raise UnknownVersionError(f"no model version {version_id!r}; see `trading-platform models list`")
    return row


def versions(
    session: Session, dataset_id: DatasetId | None = None, strategy_id: StrategyId | None = None
) -> Sequence[ModelVersion]:
    """Versions, newest first."""
    query = select(ModelVersion).order_by(ModelVersion.created_at.desc(), ModelVersion.version_id)
    if dataset_id is not None:
        query = query.where(ModelVersion.dataset_id == dataset_id)
    if strategy_id is not None:
        query = query.where(ModelVersion.strategy_id == strategy_id)
    return session.scalars(query).all()


def withdraw_certificate(
    session: Session, version_id: VersionId | str, *, market_time: datetime, evidence: dict[str, Any]
) -> bool:
    """Take a version's certificate away and tell people. Its signals are uncertified from now on. False where it had none.

    What was measured before stays in its metrics; `certificate_withdrawn` says when (market time) and on what evidence.
    """
    row = session.get_one(ModelVersion, version_id, with_for_update=True)
    if not row.certified:
        return False
    row.certified = False
    row.metrics = row.metrics | {"certificate_withdrawn": {"at": market_time.isoformat(), **evidence}}
    raise_alert(
        session, severity="critical", source=f"learning:{row.dataset_id}", title="A certificate was withdrawn",
        detail=f"{version_id}: of {evidence['certified_trades']} certified signals one after the other fewer came true than "
        "80 %, beyond luck. Its signals are uncertified from now on; live accounts no longer take them.",
        labels={"version": str(version_id)},
    )  # fmt: skip
    log.warning("certificate_withdrawn", version_id=version_id, **evidence)
    return True


def lineage(session: Session, version_id: VersionId | str) -> list[ModelVersion]:
    """The version, its parent, its parent's parent, to the first."""
    line = [version(session, version_id)]
    while line[-1].parent_id is not None:
        line.append(version(session, line[-1].parent_id))
    return line


# --- deployments -----------------------------------------------------------------------------------------------------


def deploy(
    session: Session,
    settings: Settings,
    *,
    dataset_id: DatasetId,
    strategy_id: StrategyId,
    role: str,
    version_id: VersionId,
    market_time: datetime,
    reason: str,
    by: str,
    feature_hash: str | None = None,
) -> Deployment:
    """Let a version serve in a role from `market_time` on; the one before it ends there.

    Deploying what already serves changes nothing. Raises `DeploymentRefusedError` where the version is of another
    dataset or strategy, is past its expiry, or serves in the other role, and `artifact.ArtifactError` where its file
    is not the registered one or its features are not `feature_hash`.
    """
    from trading_platform.learning.servable import load

    row = version(session, version_id)
    if (row.dataset_id, row.strategy_id) != (dataset_id, strategy_id):
        raise DeploymentRefusedError(
            f"version {version_id} was trained for {row.strategy_id} on {row.dataset_id}; it may not serve "
            f"{strategy_id} on {dataset_id}: what is learnt on one dataset never trades another"
        )
    if row.expires_at is not None and market_time > row.expires_at:
        raise DeploymentRefusedError(
            f"version {version_id} expired at {row.expires_at.isoformat()}, and it is {market_time.isoformat()}: "
            "train a new one"
        )
    load(settings, row, feature_hash=feature_hash)
    # Deployments of one dataset take turns.
    session.execute(select(Dataset.dataset_id).where(Dataset.dataset_id == dataset_id).with_for_update())
    current = {found.role: found for found in _open(session, dataset_id, strategy_id)}
    if role in current and current[role].version_id == version_id:
        return current[role]
    other = CHALLENGER if role == CHAMPION else CHAMPION
    if other in current and current[other].version_id == version_id:
        raise DeploymentRefusedError(f"version {version_id} already serves as {other}; retire it from there first")
    if role in current:
        _close(current[role], market_time)
        session.flush()
    deployment = Deployment(
        dataset_id=dataset_id,
        strategy_id=strategy_id,
        role=role,
        version_id=version_id,
        from_time=market_time,
        reason=reason,
        decided_by=by,
    )
    session.add(deployment)
    session.flush()
    return deployment


def roll_back(
    session: Session,
    settings: Settings,
    *,
    dataset_id: DatasetId,
    strategy_id: StrategyId,
    market_time: datetime,
    reason: str,
    by: str,
) -> Deployment:
    """Put the champion before the present one back into service. Raises `DeploymentRefusedError` where there was none."""
    line = [row for row in history(session, dataset_id, strategy_id) if row.role == CHAMPION]
    if not line or line[-1].to_time is not None:
        raise DeploymentRefusedError(f"no champion serves {strategy_id} on {dataset_id}: there is nothing to roll back")
    before = [row.version_id for row in line if row.version_id != line[-1].version_id]
    if not before:
        raise DeploymentRefusedError(
            f"{line[-1].version_id} is the only champion that ever served {strategy_id} on {dataset_id}; "
            "train another, or stop trading with the kill switch"
        )
    now = serving(session, dataset_id, strategy_id)
    if now.challenger is not None and now.challenger.version_id == before[-1]:
        retire(session, dataset_id=dataset_id, strategy_id=strategy_id, role=CHALLENGER, market_time=market_time)
    return deploy(
        session, settings, dataset_id=dataset_id, strategy_id=strategy_id, role=CHAMPION,
        version_id=VersionId(before[-1]), market_time=market_time, reason=reason, by=by,
    )  # fmt: skip


def retire(
    session: Session, *, dataset_id: DatasetId, strategy_id: StrategyId, role: str, market_time: datetime
) -> bool:
    """End what serves in a role without a successor. Returns whether anything did."""
    for found in _open(session, dataset_id, strategy_id):
        if found.role == role:
            _close(found, market_time)
            session.flush()
            return True
    return False


def serving(session: Session, dataset_id: DatasetId, strategy_id: StrategyId) -> Serving:
    """What serves now."""
    found = {
        deployment.role: version(session, deployment.version_id)
        for deployment in _open(session, dataset_id, strategy_id)
    }
    return Serving(found.get(CHAMPION), found.get(CHALLENGER))


def history(session: Session, dataset_id: DatasetId, strategy_id: StrategyId) -> Sequence[Deployment]:
    """Every deployment, oldest first."""
    return session.scalars(
        select(Deployment)
        .where(Deployment.dataset_id == dataset_id, Deployment.strategy_id == strategy_id)
        .order_by(Deployment.from_time, Deployment.deployment_id)
    ).all()


def live_at(session: Session, dataset_id: DatasetId, strategy_id: StrategyId, market_time: datetime) -> Serving:
    """Which versions served at that market time."""
    rows = session.scalars(
        select(Deployment).where(
            Deployment.dataset_id == dataset_id,
            Deployment.strategy_id == strategy_id,
            Deployment.from_time <= market_time,
            or_(Deployment.to_time.is_(None), Deployment.to_time > market_time),
        )
    )
    found = {row.role: version(session, row.version_id) for row in rows}
    return Serving(found.get(CHAMPION), found.get(CHALLENGER))


def _open(session: Session, dataset_id: DatasetId, strategy_id: StrategyId) -> Sequence[Deployment]:
    return session.scalars(
        select(Deployment).where(
            Deployment.dataset_id == dataset_id,
            Deployment.strategy_id == strategy_id,
            Deployment.to_time.is_(None),
        )
    ).all()


def _close(deployment: Deployment, market_time: datetime) -> None:
    if market_time < deployment.from_time:
        raise DeploymentRefusedError(
            f"{deployment.version_id} serves since {deployment.from_time.isoformat()}; it cannot have ended at "
            f"{market_time.isoformat()}: give the dataset's current market time"
        )
    deployment.to_time = market_time


def summary(row: ModelVersion) -> dict[str, Any]:
    """The figures of a version that summaries and tables show; None where a figure was not measured."""
    names = (
        "base_rate", "driftless_base_rate", "accuracy", "log_loss", "log_loss_base_rate", "brier", "ece", "precision_at_80",
        "coverage_at_80", "certified_80", "expected_value",
    )  # fmt: skip
    return {
        "version": row.version_id,
        "parent": row.parent_id,
        "kind": row.kind,
        "origin": row.origin,
        "rows": row.rows,
        "features": row.metrics.get("features"),
        **{name: row.metrics.get(name) for name in names},
    }
