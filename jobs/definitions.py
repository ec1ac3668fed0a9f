"""The jobs, named after what a person would ask for, and the schedules that ask for them by themselves."""

import dagster as dg

from assets import partitions
from assets.platform import Platform

MAX_RUNTIME = {"dagster/max_runtime": "3600"}
"""A run that hangs is ended after an hour; the daemon's run monitoring does it."""
# Jobs of short steps, one after the other, run in the process of the run: a process a step costs its imports each time.
EVALUATION = ("model_performance", "ab_evaluation", "promotion", "drift_report")
"""In this order: drift is looked for in whoever serves after the gate."""

collect = dg.define_asset_job(
    "collect",
    selection=dg.AssetSelection.assets("bars", "features"),
    description="Bars into the lake, quality checks, features and market conditions.",
    tags=MAX_RUNTIME,
)
train = dg.define_asset_job(
    "train",
    selection=dg.AssetSelection.assets("trained_model", "baseline_model", "serving"),
    description="Search, validate, calibrate and register a champion and a challenger; put both into service.",
    tags=MAX_RUNTIME,
)
retrain = dg.define_asset_job(
    "retrain",
    selection=dg.AssetSelection.assets("features", "retrained_model"),
    executor_def=dg.in_process_executor,
    description="Retrain on the newest window with the parent's hyperparameters and enter it as a challenger. "
    "Fired weekly and by the drift sensor.",
    tags=MAX_RUNTIME,
)
evaluate = dg.define_asset_job(
    "evaluate",
    selection=dg.AssetSelection.assets(*EVALUATION),
    executor_def=dg.in_process_executor,
    description="Score what was predicted against what happened; A/B decision; promotion through the gate; drift. Fired "
    "by the sensor `evaluation_due`.",
    tags=MAX_RUNTIME,
)
model_cards = dg.define_asset_job(
    "model_cards",
    selection=dg.AssetSelection.assets("model_card"),
    partitions_def=partitions.versions,
    executor_def=dg.in_process_executor,
    description="A page for one model version: data, figures, reliability, lineage.",
)
execution = dg.define_asset_job(
    "execution",
    selection=dg.AssetSelection.assets(
        "live_execution", "live_session", "fills", "reconciliation", "trade_outcomes", "parity_report"
    ),
    partitions_def=partitions.groups,
    description="Ask a group's engine to run, report what it shows: sessions, fills, books against venues, outcomes.",
)
marts = dg.define_asset_job(
    "marts",
    selection=dg.AssetSelection.assets("analytics_export").downstream()
    - dg.AssetSelection.assets("audit_verification", "compliance_records"),
    description="Export every group's books to analytics and build the marts for traders and compliance.",
    tags=MAX_RUNTIME,
)
compliance = dg.define_asset_job(
    "compliance",
    selection=dg.AssetSelection.assets("audit_verification", "compliance_records"),
    partitions_def=partitions.days,
    description="Verify the audit chains and write the day's compliance records (CSV and HTML).",
)

compact = dg.define_asset_job(
    "compact",
    selection=dg.AssetSelection.assets("compacted_lake"),
    description="Join the small files that live bars leave in the lake.",
    tags=MAX_RUNTIME,
)

morning = dg.define_asset_job(
    "morning",
    selection=dg.AssetSelection.assets("kite_preflight"),
    description="Whether orders of every account at Zerodha would get through today.",
    tags=MAX_RUNTIME,
)

ban_list = dg.define_asset_job(
    "ban_list",
    selection=dg.AssetSelection.assets("fno_ban_list"),
    executor_def=dg.in_process_executor,
    description="Load today's F&O ban list from the exchange, with retries.",
    tags=MAX_RUNTIME,
)

JOBS = [ban_list, compact, collect, train, retrain, evaluate, model_cards, execution, marts, compliance, morning]


@dg.schedule(
    job=retrain,
    cron_schedule="0 2 * * 0",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every Sunday 02:00 UTC, drift or not.",
)
def weekly_retraining(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    week = context.scheduled_execution_time.strftime("%G-W%V")
    return dg.RunRequest(
        run_key=f"weekly-{week}",
        run_config=dg.RunConfig(ops={"retrained_model": {"config": {"origin": "weekly"}}}),
        tags={"trigger": "weekly"},
    )


marts_schedule = dg.ScheduleDefinition(
    name="marts_every_15_minutes",
    job=marts,
    cron_schedule="5-59/15 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="What the dashboard shows of the past is at most 15 minutes old.",
)
daily_compliance = dg.build_schedule_from_partitioned_job(
    compliance,
    name="daily_compliance",
    hour_of_day=0,
    minute_of_hour=30,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="00:30 IST: the records of the day before.",
)
daily_compaction = dg.ScheduleDefinition(
    name="daily_compaction",
    job=compact,
    cron_schedule="40 0 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="00:40 UTC: the lake's small files of the day become few.",
)

kite_morning = dg.ScheduleDefinition(
    name="kite_morning",
    job=morning,
    cron_schedule="45 8 * * 1-5",
    execution_timezone="Asia/Kolkata",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="08:45 IST on weekdays, a quarter of an hour before the pre-open.",
)


@dg.schedule(
    job=ban_list,
    cron_schedule="*/10 8 * * *",
    execution_timezone="Asia/Kolkata",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every ten minutes from 08:00 to 08:50 IST until it is there, on days on which derivatives are traded, special "
    "sessions on weekends included.",
)
def ban_list_before_the_open(
    context: dg.ScheduleEvaluationContext, platform: Platform
) -> dg.RunRequest | dg.SkipReason:
    from trading_platform.markets.sessions import IST
    from trading_platform.venues.zerodha.bans import needless

    at = context.scheduled_execution_time.astimezone(IST)
    why = needless(platform.databases, at.date())
    return dg.SkipReason(why) if why else dg.RunRequest(run_key=f"ban-list-{at:%Y-%m-%d-%H%M}")


SCHEDULES = [
    ban_list_before_the_open,
    kite_morning,
    daily_compaction,
    weekly_retraining,
    marts_schedule,
    daily_compliance,
]
