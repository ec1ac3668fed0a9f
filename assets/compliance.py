"""Group `compliance`: audit chains verified, the day's records written. The dbt models of the same group are in `marts`."""

from datetime import date

import dagster as dg

from assets import plots
from assets.partitions import days
from assets.platform import Platform

GROUP = "compliance"
COMPLIANCE_MODELS = [
    "order_audit_log", "ops_rate", "order_to_trade_ratio", "algo_tagging", "access_log", "risk_control_log",
    "strategy_register", "incident_log",
]  # fmt: skip
"""The dbt models that the records are written from."""


@dg.asset(
    group_name=GROUP,
    partitions_def=days,
    deps=["analytics_export"],
    kinds={"postgres"},
    check_specs=[
        dg.AssetCheckSpec(
            "chains_are_whole", asset="audit_verification", blocking=True,
            description="Every audit chain recomputes to its seals and to the anchors kept outside the groups.",
        )
    ],
    description="Recomputes the hash chain of every group's audit trail and compares it with the anchors.",
)  # fmt: skip
def audit_verification(platform: Platform) -> dg.MaterializeResult:
    from trading_platform.compliance.audit import seal, verify

    for group_id in platform.databases.group_ids():
        seal(platform.databases, group_id)
    results = {group_id: verify(platform.databases, group_id) for group_id in platform.databases.group_ids()}
    broken = {group_id: result.problems for group_id, result in results.items() if result.problems}
    return dg.MaterializeResult(
        metadata={
            "chains": plots.table(
                [
                    {
                        "group": group_id,
                        "entries": result.entries,
                        "verified": result.verified,
                        "problems": len(result.problems),
                    }
                    for group_id, result in results.items()
                ]
            )
        },
        check_results=[
            dg.AssetCheckResult(
                check_name="chains_are_whole", passed=not broken, metadata={"problems": dg.MetadataValue.json(broken)}
            )
        ],
    )


@dg.asset(
    group_name=GROUP,
    partitions_def=days,
    deps=[audit_verification, *COMPLIANCE_MODELS],
    kinds={"csv"},
    description="The day's compliance records (Indian date): order and trade audit log, rates, order-to-trade ratio, tagging, "
    "access and risk-control logs as CSV, and one readable page.",
)
def compliance_records(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:
    from trading_platform.compliance.reports import write_daily_records

    records = write_daily_records(platform.databases, date.fromisoformat(context.partition_key))
    return dg.MaterializeResult(
        metadata={
            "files": dg.MetadataValue.md("\n".join(f"- `{path}`" for path in records.paths)),
            "figures": dg.MetadataValue.json(records.figures),
        }
    )
