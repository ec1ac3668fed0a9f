"""Fires retraining when a drift report asks for it, once a run key."""

import dagster as dg
from sqlalchemy import select

from assets.platform import Platform
from jobs.definitions import retrain
from trading_platform.storage.control import DriftReport


@dg.sensor(
    job=retrain,
    minimum_interval_seconds=10,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="A drift report with the decision `retrain` launches a retraining run. The report's run key holds "
    "the window, so a window retrains once; the cool-down is in the drift check itself.",
)
def drift_retraining(context: dg.SensorEvaluationContext, platform: Platform) -> dg.SensorResult | dg.SkipReason:
    seen = int(context.cursor or 0)
    with platform.databases.control() as session:
        reports = session.scalars(
            select(DriftReport)
            .where(DriftReport.decision == "retrain", DriftReport.report_id > seen)
            .order_by(DriftReport.report_id)
        ).all()
    if not reports:
        return dg.SkipReason("no drift report asks for retraining")
    requests = [
        dg.RunRequest(
            run_key=report.run_key,
            run_config=dg.RunConfig(
                ops={
                    "features": {"config": {"dataset_id": report.dataset_id}},
                    "retrained_model": {
                        "config": {
                            "dataset_id": report.dataset_id,
                            "as_of": report.window_to.isoformat(),
                            "origin": "drift",
                        }
                    },
                }
            ),
            tags={"trigger": "drift", "drift_report": str(report.report_id), "dataset": report.dataset_id},
        )
        for report in {report.run_key: report for report in reports}.values()
    ]
    return dg.SensorResult(run_requests=requests, cursor=str(reports[-1].report_id))
