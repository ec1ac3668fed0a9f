"""Group `models`: trained versions, who serves, and a card for each version."""

from datetime import datetime

import dagster as dg
from sqlalchemy import select

from assets import plots
from assets.features import features
from assets.partitions import versions
from assets.platform import OnDataset, Platform
from assets.progress import reporter
from trading_platform.learning.registry import serving as serving_versions
from trading_platform.learning.training import TrainedVersion, train_version
from trading_platform.storage.control import Dataset, ModelVersion
from trading_platform.strategies.barrier_long import BARRIER_LONG
from trading_platform.strategies.definition import training_plan

GROUP = "models"
TRIALS, FOLDS = 20, 5


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
    description="LightGBM on triple-barrier labels net of costs: Optuna over purged walk-forward folds, calibrated on the most "
    "recent purged window, certified where a threshold carries the guarantee. Training again on the same data, features, "
    "parameters, code and seed finds the version that exists.",
)
def trained_model(context: dg.AssetExecutionContext, config: Training, platform: Platform) -> dg.Output[str]:
    return _train(context, config, platform, kind="lightgbm")


@dg.asset(
    group_name=GROUP,
    deps=[features],
    kinds={"scikitlearn"},
    description="Logistic regression on the same rows and labels: the baseline that a champion has to earn its place against.",
)
def baseline_model(context: dg.AssetExecutionContext, config: Training, platform: Platform) -> dg.Output[str]:
    return _train(context, config, platform, kind="logistic")
