"""Fires the evaluation wherever the market has moved on since the last one: outcomes, experiment, gate, drift."""

import json
from datetime import datetime

import dagster as dg
from sqlalchemy import select

from assets.platform import Platform
from jobs.definitions import EVALUATION, evaluate
from trading_platform.storage.control import Deployment, MarketProgress

GOING = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
]


@dg.sensor(
    job=evaluate,
    minimum_interval_seconds=600,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Every ten minutes, each dataset with a champion whose market time has moved on is evaluated, one run at "
    "a time. A market that is closed costs nothing, and a replay is followed at its own clock.",
)
def evaluation_due(context: dg.SensorEvaluationContext, platform: Platform) -> dg.SensorResult | dg.SkipReason:
    evaluated: dict[str, str] = json.loads(context.cursor or "{}")
    with platform.databases.control() as session:
        moved = session.execute(
            select(MarketProgress.dataset_id, MarketProgress.scored_through)
            .where(
                MarketProgress.dataset_id.in_(
                    select(Deployment.dataset_id).where(Deployment.role == "champion", Deployment.to_time.is_(None))
                )
            )
            .order_by(MarketProgress.dataset_id)
        ).all()
    due = {
        dataset_id: scored_through.isoformat()
        for dataset_id, scored_through in moved
        if _later(scored_through, evaluated.get(dataset_id)) and not _going(context.instance, dataset_id)
    }
    if not due:
        return dg.SkipReason("no market has moved on since its last evaluation")
    requests = [
        dg.RunRequest(
            run_key=f"evaluate-{dataset_id}-{market_time}",
            run_config=dg.RunConfig(ops={name: {"config": {"dataset_id": dataset_id}} for name in EVALUATION}),
            tags={"trigger": "market time", "dataset": dataset_id},
        )
        for dataset_id, market_time in due.items()
    ]
    return dg.SensorResult(run_requests=requests, cursor=json.dumps(evaluated | due))


def _later(market_time: datetime, evaluated: str | None) -> bool:
    return evaluated is None or market_time > datetime.fromisoformat(evaluated)


def _going(instance: dg.DagsterInstance, dataset_id: str) -> bool:
    """Whether the dataset's last evaluation has not ended yet: a second one would only stand in its way."""
    filters = dg.RunsFilter(job_name=evaluate.name, statuses=GOING, tags={"dataset": dataset_id})
    return instance.get_runs_count(filters) > 0
