"""Group `models`: trained versions, who serves, and a card for each version."""

from typing import TYPE_CHECKING

import dagster as dg
from sqlalchemy import select
from sqlalchemy.orm import Session

from assets import plots
from assets.features import features
from assets.model_cards import write_card
from assets.partitions import versions
from assets.platform import OnDataset, Platform
from assets.progress import reporter
from trading_platform.identifiers import VersionId
from trading_platform.storage.control import Deployment, ModelVersion

if TYPE_CHECKING:
    from trading_platform.learning.training import TrainedVersion

# The domain is imported inside the bodies: the code location loads in seconds, and the daemon loads it for every run.
GROUP = "models"
TRIALS, FOLDS = 20, 5
BY = "dagster"
FIGURES = ("base_rate", "accuracy", "log_loss", "brier", "ece")


class Training(OnDataset):
    """How much to search. Twenty trials over five folds is what the first pass does; more is better and slower."""

    trials: int = TRIALS
    folds: int = FOLDS
    seed: int = 7


class Retraining(OnDataset):
    origin: str = "manual"
    """What asked for it: `weekly`, `drift` or `manual`."""
    seed: int = 7


@dg.asset(
    group_name=GROUP,
    deps=[features],
    kinds={"lightgbm", "optuna"},
    description="LightGBM on triple-barrier labels net of costs: Optuna over purged walk-forward folds, calibrated on the "
    "most recent purged window, certified where a threshold carries the guarantee. Training again on the same data, "
    "features, parameters, code and seed finds the version that exists.",
)
def trained_model(context: dg.AssetExecutionContext, config: Training, platform: Platform) -> dg.Output[str]:
    return _first(context, config, platform, "lightgbm")


@dg.asset(
    group_name=GROUP,
    deps=[features],
    kinds={"scikitlearn"},
    description="Logistic regression on the same rows and labels: the plain model that enters as the first challenger.",
)
def baseline_model(context: dg.AssetExecutionContext, config: Training, platform: Platform) -> dg.Output[str]:
    return _first(context, config, platform, "logistic")


@dg.asset(
    group_name=GROUP,
    kinds={"postgres"},
    description="Who serves. The first pass puts the trained model in as champion (an imported model keeps that seat) and "
    "the baseline as challenger; afterwards only a decided experiment changes anything.",
)
def serving(config: OnDataset, platform: Platform, trained_model: str, baseline_model: str) -> dg.MaterializeResult:
    from trading_platform.learning.experiments import start_experiment
    from trading_platform.learning.registry import CHALLENGER, CHAMPION, deploy
    from trading_platform.learning.registry import serving as now_serving
    from trading_platform.strategies.definition import strategy_of

    dataset_id = platform.dataset_id(config.dataset_id)
    market_time = platform.market_time(dataset_id, config.as_of)
    with platform.databases.control() as session:
        definition = strategy_of(session, dataset_id)
        for role, version_id in ((CHAMPION, trained_model), (CHALLENGER, baseline_model)):
            current = now_serving(session, dataset_id, definition.strategy_id)
            taken = {row.version_id for _, row in current.versions()}
            vacant = current.champion is None if role == CHAMPION else current.challenger is None
            if vacant and version_id not in taken and not _ran(session, dataset_id, version_id):
                deploy(
                    session, platform.settings, dataset_id=dataset_id, strategy_id=definition.strategy_id, role=role,
                    version_id=VersionId(version_id), market_time=market_time, reason="first pass", by=BY,
                )  # fmt: skip
        start_experiment(session, dataset_id=dataset_id, strategy_id=definition.strategy_id, market_time=market_time)
        current = now_serving(session, dataset_id, definition.strategy_id)
    rows = [{"role": role, "version": row.version_id, "kind": row.kind} for role, row in current.versions()]
    return dg.MaterializeResult(metadata={"dataset": dataset_id, "serving": plots.table(rows)})


@dg.asset(
    group_name=GROUP,
    deps=[features],
    kinds={"lightgbm"},
    description="A child of the champion: its hyperparameters, the newest window; a full refit and a warm start compete on "
    "the newest purged labels. It enters as challenger: only the experiment can promote it.",
)
def retrained_model(context: dg.AssetExecutionContext, config: Retraining, platform: Platform) -> dg.Output[str]:
    from trading_platform.learning.experiments import start_experiment
    from trading_platform.learning.registry import CHALLENGER, deploy
    from trading_platform.learning.registry import serving as now_serving
    from trading_platform.learning.training import train_version
    from trading_platform.strategies.definition import strategy_of, training_plan

    dataset_id = platform.dataset_id(config.dataset_id)
    market_time = platform.market_time(dataset_id, config.as_of)
    with platform.databases.control() as session:
        definition = strategy_of(session, dataset_id)
        champion = now_serving(session, dataset_id, definition.strategy_id).champion
    if champion is None:
        raise dg.Failure(f"nothing serves on {dataset_id}: run the job `train` first")
    trained = train_version(
        platform.databases, platform.lake, training_plan(definition), dataset_id=dataset_id, as_of=market_time,
        kind="lightgbm" if champion.kind == "legacy" else champion.kind, origin=config.origin, parent_id=VersionId(champion.version_id), seed=config.seed,
        progress=reporter(context),
    )  # fmt: skip
    entered = max(market_time, platform.market_time(dataset_id))  # the market went on while the model learnt
    with platform.databases.control() as session:
        current = now_serving(session, dataset_id, definition.strategy_id)
        if trained.version_id not in {row.version_id for _, row in current.versions()}:
            deploy(
                session, platform.settings, dataset_id=dataset_id, strategy_id=definition.strategy_id, role=CHALLENGER,
                version_id=trained.version_id, market_time=entered, reason=f"retrained: {config.origin}", by=BY,
            )  # fmt: skip
            start_experiment(session, dataset_id=dataset_id, strategy_id=definition.strategy_id, market_time=entered)
    return _shown(trained)


@dg.asset(
    group_name=GROUP,
    partitions_def=versions,
    kinds={"html"},
    description="One page for one version: lineage, data, figures out of sample, reliability, conditions.",
)
def model_card(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:
    with platform.databases.control() as session:
        row = session.get_one(ModelVersion, context.partition_key)
    path = write_card(platform.settings.reports_dir / "models", row)
    return dg.MaterializeResult(metadata={"card": dg.MetadataValue.path(path), **_figures(row)})


def _first(context: dg.AssetExecutionContext, config: Training, platform: Platform, kind: str) -> dg.Output[str]:
    from trading_platform.learning.training import train_version
    from trading_platform.strategies.definition import strategy_of, training_plan

    dataset_id = platform.dataset_id(config.dataset_id)
    with platform.databases.control() as session:
        definition = strategy_of(session, dataset_id)
    trained = train_version(
        platform.databases, platform.lake, training_plan(definition), dataset_id=dataset_id,
        as_of=platform.history_end(dataset_id, config.as_of), kind=kind, origin="initial", trials=config.trials,
        folds=config.folds, seed=config.seed, progress=reporter(context),
    )  # fmt: skip
    return _shown(trained)


def _ran(session: Session, dataset_id: str, version_id: str) -> bool:
    """Whether a version has served before: one that an experiment retired does not come back by itself."""
    found = session.scalars(
        select(Deployment.deployment_id).where(Deployment.dataset_id == dataset_id, Deployment.version_id == version_id)
    )
    return found.first() is not None


def _shown(trained: "TrainedVersion") -> dg.Output[str]:
    metadata = {
        "version": trained.version_id,
        "created": trained.created,
        "rows": trained.row.rows,
        "certified": trained.row.certified,
        "seconds": dg.MetadataValue.json({name: round(value, 2) for name, value in trained.seconds.items()}),
        **_figures(trained.row),
    }
    return dg.Output(str(trained.version_id), metadata=metadata)


def _figures(row: ModelVersion) -> dict[str, dg.FloatMetadataValue]:
    found = {name: row.metrics.get(name) for name in FIGURES}
    return {name: dg.MetadataValue.float(float(value)) for name, value in found.items() if value is not None}
