"""The code location: everything Dagster knows of the platform."""

from collections.abc import Mapping

import dagster as dg

import assets.compliance
import assets.evaluation
import assets.execution
import assets.features
import assets.market_data
import assets.marts
import assets.models
import assets.parity
import assets.trading_books
import assets.zerodha
from assets.platform import Platform
from jobs.definitions import JOBS, SCHEDULES
from sensors.drift_retraining import drift_retraining
from sensors.engine_observations import engine_observations
from sensors.evaluation_due import evaluation_due
from sensors.kite_watch import kite_watch
from sensors.model_versions import new_model_versions

ASSET_MODULES = [
    assets.market_data,
    assets.features,
    assets.models,
    assets.evaluation,
    assets.execution,
    assets.trading_books,
    assets.parity,
    assets.zerodha,
    assets.compliance,
    assets.marts,
]
SENSORS = [drift_retraining, evaluation_due, engine_observations, kite_watch, new_model_versions]


def build_defs(overrides: Mapping[str, object] | None = None) -> dg.Definitions:
    """The definitions, with any resource replaced: `build_defs({"platform": Platform(home_dir=...)})`."""
    resources: dict[str, object] = {"platform": Platform(), **assets.marts.resources(), **(overrides or {})}
    return dg.Definitions(
        assets=dg.load_assets_from_modules(ASSET_MODULES),
        asset_checks=dg.load_asset_checks_from_modules(ASSET_MODULES),
        jobs=JOBS,
        schedules=SCHEDULES,
        sensors=SENSORS,
        resources=resources,
    )


defs = build_defs()
