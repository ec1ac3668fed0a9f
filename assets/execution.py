"""Group `execution`: what the engines show and what their trades came to. Engines are not run by Dagster."""

from datetime import datetime

import dagster as dg
from sqlalchemy import func, select

from assets import plots
from assets.partitions import groups
from assets.platform import Platform
from trading_platform.identifiers import GroupId
from trading_platform.storage.control import Group
from trading_platform.storage.group import EngineLease, Outcome

GROUP = "execution"


@dg.asset(
    group_name=GROUP,
    partitions_def=groups,
    deps=["serving"],
    kinds={"postgres"},
    check_specs=[
        dg.AssetCheckSpec("engine_alive", asset="live_execution", description="The group's engine holds a valid lease.")
    ],
    description="The engine of one user group. Materializing it asks for `desired_state = RUN` and reports what the engine "
    "shows. It never clears a halt: only a person does that.",
)
def live_execution(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:
    group_id = GroupId(context.partition_key)
    with platform.databases.control() as session:
        session.get_one(Group, group_id).desired_state = "RUN"
    with platform.databases.group(group_id) as session:
        row = session.execute(
            select(EngineLease, (EngineLease.expires_at > func.now()).label("alive")).where(
                EngineLease.group_id == group_id
            )
        ).one_or_none()
    alive = bool(row and row.alive)
    shown: dict[str, object] = {"engine": "never started"}
    if row is not None:
        lease = row.EngineLease
        shown = {
            "engine": lease.state,
            "epoch": lease.epoch,
            "holder": lease.holder,
            "lease_expires_at": lease.expires_at.isoformat(),
            "detail": dg.MetadataValue.json(lease.detail),
        }
    return dg.MaterializeResult(
        metadata=shown,
        check_results=[
            dg.AssetCheckResult(check_name="engine_alive", passed=alive, metadata={"engine": str(shown["engine"])})
        ],
    )


@dg.asset(
    group_name=GROUP,
    partitions_def=groups,
    deps=[live_execution],
    kinds={"postgres"},
    description="Closed trades of one group, tagged with strategy, version, arm and the market condition at entry: what the "
    "loop learns from.",
)
def trade_outcomes(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:
    with platform.databases.group(GroupId(context.partition_key)) as session:
        rows = session.execute(
            select(
                Outcome.exit_time, Outcome.strategy_id, Outcome.arm, Outcome.volatility, Outcome.success,
                Outcome.net_pnl, Outcome.currency,
            ).order_by(Outcome.exit_time)
        ).all()  # fmt: skip
    curves: dict[str, tuple[list[datetime], list[float]]] = {}
    for row in rows:
        times, sums = curves.setdefault(f"{row.strategy_id} ({row.currency})", ([], []))
        times.append(row.exit_time)
        sums.append(float(row.net_pnl) + (sums[-1] if sums else 0.0))
    by_arm = {arm: [row.success for row in rows if row.arm == arm] for arm in sorted({row.arm for row in rows})}
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": len(rows),
            "successes": sum(row.success for row in rows),
            "success_rate_by_arm": plots.bars(
                {arm: sum(wins) / len(wins) for arm, wins in by_arm.items()}, "success rate by arm"
            ),
            "net_pnl": plots.lines(curves, "cumulative net P&L"),
        }
    )
