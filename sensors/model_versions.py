"""Keeps the partition of model versions in step with the registry and has a card written for each new one."""

import dagster as dg
from sqlalchemy import select

from assets import partitions
from assets.platform import Platform
from jobs.definitions import model_cards
from trading_platform.storage.control import ModelVersion


@dg.sensor(
    job=model_cards,
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Every version in the registry becomes a partition and gets a model card.",
)
def new_model_versions(context: dg.SensorEvaluationContext, platform: Platform) -> dg.SensorResult | dg.SkipReason:
    known = set(context.instance.get_dynamic_partitions(partitions.versions.name or ""))
    with platform.databases.control() as session:
        registered = session.scalars(select(ModelVersion.version_id).order_by(ModelVersion.created_at)).all()
    missing = [version for version in registered if version not in known]
    if not missing:
        return dg.SkipReason("every version has its card")
    return dg.SensorResult(
        dynamic_partitions_requests=[partitions.versions.build_add_request(missing)],
        run_requests=[dg.RunRequest(run_key=f"card-{version}", partition_key=version) for version in missing],
    )
