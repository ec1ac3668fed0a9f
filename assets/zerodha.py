"""Group `execution`: what has to be there before the Indian market opens: accounts that are ready, and the ban list."""

import asyncio
from datetime import UTC, datetime

import dagster as dg

from assets.platform import Platform

GROUP = "execution"


@dg.asset(
    group_name=GROUP,
    kinds={"kite"},
    description="Every live account at Zerodha before the market opens: session, address, clock, profile, the day's "
    "instruments, segments, money, and whether the list of holidays reaches far enough. What fails is an alert.",
    check_specs=[
        dg.AssetCheckSpec("all_ready", asset="kite_preflight", description="Orders of all accounts would get through.")
    ],
)
def kite_preflight(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:
    from trading_platform.accounts.vault import Vault
    from trading_platform.venues.zerodha.watch import check_account, tell, to_check

    databases = platform.databases
    vault = Vault(databases.settings)
    rows, unready = [], []
    for account in to_check(databases):
        report = asyncio.run(check_account(databases, vault, account, datetime.now(UTC)))
        tell(databases, account, report)
        rows += [
            dg.TableRecord(
                {"account": account.account_id, "check": each.check, "verdict": each.verdict, "found": each.text}
            )
            for each in report.findings
        ]
        unready += [] if report.ready else [account.account_id]
    schema = dg.TableSchema([dg.TableColumn(name) for name in ("account", "check", "verdict", "found")])
    return dg.MaterializeResult(
        metadata={
            "accounts": len({str(row.data["account"]) for row in rows}),
            "findings": dg.MetadataValue.table(rows, schema) if rows else "no live account at Zerodha is armed",
        },
        check_results=[
            dg.AssetCheckResult(
                check_name="all_ready", passed=not unready, metadata={"not_ready": ", ".join(unready) or "none"}
            )
        ],
    )


@dg.asset(
    group_name=GROUP,
    kinds={"csv", "postgres"},
    retry_policy=dg.RetryPolicy(max_retries=2, delay=60),
    description="The exchange's F&O ban list of today, checked and put into force for all engines. A list of another day or a "
    "broken one is an alert and changes nothing.",
)
def fno_ban_list(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:
    from trading_platform.markets.sessions import IST
    from trading_platform.venues.zerodha.bans import fetch_and_take, needless

    day = datetime.now(IST).date()
    if why := needless(platform.databases, day):
        return dg.MaterializeResult(metadata={"not_asked_for": why})
    found = fetch_and_take(platform.databases, day, actor="dagster")
    return dg.MaterializeResult(
        metadata={"day": found.day.isoformat(), "underlyings": ", ".join(sorted(found.underlyings)) or "none"}
    )
