"""Which versions score a dataset now, loaded and checked; the rest of the room sees no registry row.

A version is refused where it was trained on another dataset, or where it or any of its ancestors learnt from replayed
or made-up bars and the dataset is a live market. A refusal stops the scorer: better no signal than a foreign one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from trading_platform.features.definition import FEATURE_SETS, feature_hash
from trading_platform.identifiers import StrategyId, VersionId
from trading_platform.learning.artifact import ArtifactError
from trading_platform.learning.labels import BarrierSpec
from trading_platform.learning.registry import CHAMPION, lineage
from trading_platform.learning.servable import Servable, load
from trading_platform.settings import Settings
from trading_platform.storage.control import Dataset, Deployment, ModelVersion
from trading_platform.strategies.definition import StrategyError, strategy

LIVE = "venue"


class ServingRefusedError(RuntimeError):
    """A deployed version must not serve here; the message says why and what to do."""


@dataclass(frozen=True)
class Deployed:
    """A version in service. `barriers` are those that its labels were made with."""

    deployment_id: int
    role: str
    strategy_id: StrategyId
    version_id: VersionId
    barriers: BarrierSpec
    servable: Servable
    trained: ModelVersion


def serving_now(session: Session, dataset_id: str) -> list[tuple[int, bool]]:
    """(deployment, whether its version is certified) of all that serve the dataset: cheap enough to ask every second."""
    query = _open(dataset_id).join(ModelVersion, ModelVersion.version_id == Deployment.version_id)
    return [
        (row.deployment_id, row.certified)
        for row in session.execute(query.with_only_columns(Deployment.deployment_id, ModelVersion.certified))
    ]


def deployed(session: Session, settings: Settings, dataset: Dataset) -> list[Deployed]:
    """Every serving version, champions before challengers; empty while no champion is deployed.

    Raises `ServingRefusedError` where one of them must not serve, or cannot: its artifact is gone or of other features.
    """
    found = session.scalars(_open(dataset.dataset_id)).all()
    if not any(row.role == CHAMPION for row in found):
        return []
    return [_load(session, settings, dataset, row) for row in found]


def refusal(dataset: Dataset, kinds: Sequence[tuple[str, str, str]]) -> str | None:
    """Why a version may not serve, or None. `kinds`: (version, dataset id, dataset kind), the version's own first."""
    version_id, dataset_id, _ = kinds[0]
    if dataset_id != dataset.dataset_id:
        return f"version {version_id} was trained on {dataset_id}; what is learnt on one dataset never scores another"
    if dataset.kind == LIVE:
        for ancestor, learnt_on, kind in kinds:
            if kind != LIVE:
                return (
                    f"version {version_id} descends from {ancestor}, which learnt from {kind} data ({learnt_on}): "
                    "a model of replayed or synthetic lineage is never served live. Train one on the venue's own bars"
                )
    return None


def _load(session: Session, settings: Settings, dataset: Dataset, row: Deployment) -> Deployed:
    line = lineage(session, row.version_id)
    kinds = [(each.version_id, each.dataset_id, session.get_one(Dataset, each.dataset_id).kind) for each in line]
    if (why := refusal(dataset, kinds)) is not None:
        raise ServingRefusedError(why)
    try:
        chosen = FEATURE_SETS[strategy(row.strategy_id).features]
        servable = load(settings, line[0], feature_hash=feature_hash(chosen))
        barriers = _barriers(line[0], row.strategy_id)
    except (ArtifactError, StrategyError) as error:
        raise ServingRefusedError(str(error)) from error
    return Deployed(
        row.deployment_id, row.role, StrategyId(row.strategy_id), VersionId(row.version_id), barriers, servable, line[0]
    )


def _barriers(version: ModelVersion, strategy_id: str) -> BarrierSpec:
    """Those of the version's training plan; an imported model knows of none and takes the strategy's."""
    trained_with = version.params.get("plan", {}).get("barriers")
    return BarrierSpec(**trained_with) if trained_with else strategy(strategy_id).barriers


def _open(dataset_id: str) -> Select[Deployment]:
    return (
        select(Deployment)
        .where(Deployment.dataset_id == dataset_id, Deployment.to_time.is_(None))
        .order_by(Deployment.strategy_id, Deployment.role.desc(), Deployment.deployment_id)
    )
