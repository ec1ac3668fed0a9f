"""Group `execution`: a group's sessions at its brokers, its fills, and how its books compare with the venues'.

All is read from what the engine wrote: nothing here asks a venue, and nothing changes what an engine does.
"""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import dagster as dg
from sqlalchemy import func, select

from assets import plots
from assets.execution import live_execution
from assets.partitions import groups
from assets.platform import Platform
from trading_platform.identifiers import GroupId
from trading_platform.storage.group import Account, Credential, EngineLease, Fill, Order

GROUP = "execution"
OLDEST = timedelta(minutes=5)
"""Of a comparison that still says something; engines compare every minute."""


@dg.asset(
    group_name=GROUP,
    partitions_def=groups,
    deps=[live_execution],
    kinds={"postgres"},
    description="The group's open live accounts: whether their owner has armed them, and until when the session at the "
    "broker lasts. An account without a session is not traded, and keeps nobody else from trading.",
    check_specs=[
        dg.AssetCheckSpec(
            "logged_in", asset="live_session", description="Every armed account has a session that lasts."
        )
    ],
)
def live_session(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:
    from trading_platform.execution.accounts import VENUES_WITH_LOGIN
    from trading_platform.venues.zerodha.vaulted import TOKEN

    with platform.databases.group(GroupId(context.partition_key)) as session:
        rows = session.execute(
            select(Account.account_id, Account.venue, Account.armed_at, Credential.expires_at)
            .outerjoin(
                Credential,
                (Credential.user_id == Account.user_id) & (Credential.account_id == Account.account_id)
                & (Credential.name == TOKEN),
            )
            .where(Account.kind == "live", Account.closed_at.is_(None))
            .order_by(Account.account_id)
        ).all()  # fmt: skip
    now = datetime.now(UTC)
    lacking = [
        row.account_id
        for row in rows
        if row.armed_at and row.venue in VENUES_WITH_LOGIN and (row.expires_at is None or row.expires_at <= now)
    ]
    table = [
        {
            "account": row.account_id, "venue": row.venue, "armed": "yes" if row.armed_at else "no",
            "session until": row.expires_at.isoformat() if row.expires_at else "",
        }
        for row in rows
    ]  # fmt: skip
    return dg.MaterializeResult(
        metadata={"dagster/row_count": len(rows), "accounts": plots.table(table)},
        check_results=[
            dg.AssetCheckResult(
                check_name="logged_in", passed=not lacking, severity=dg.AssetCheckSeverity.WARN,
                metadata={"without_session": ", ".join(lacking) or "none"},
            )
        ],
    )  # fmt: skip


@dg.asset(
    group_name=GROUP,
    partitions_def=groups,
    deps=[live_execution],
    kinds={"postgres"},
    description="Every trade of the group's orders, applied once by the venue's trade id.",
    check_specs=[
        dg.AssetCheckSpec(
            "orders_add_up", asset="fills", description="What an order has filled is the sum of its fills."
        )
    ],
)
def fills(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:
    told = (
        select(Fill.user_id, Fill.client_order_id, func.sum(Fill.quantity).label("quantity"))
        .group_by(Fill.user_id, Fill.client_order_id)
        .subquery()
    )
    of_order = (told.c.user_id == Order.user_id) & (told.c.client_order_id == Order.client_order_id)
    with platform.databases.group(GroupId(context.partition_key)) as session:
        count, newest = session.execute(select(func.count(), func.max(Fill.market_time))).one()
        days = session.execute(
            select(func.date_trunc("day", Fill.market_time).label("day"), func.count().label("fills"))
            .group_by("day").order_by("day")
        ).all()  # fmt: skip
        wrong = session.scalars(
            select(Order.client_order_id)
            .outerjoin(told, of_order)
            .where(Order.filled_quantity != func.coalesce(told.c.quantity, Decimal(0)))
            .order_by(Order.client_order_id)
        ).all()
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": count,
            "newest": newest.isoformat() if newest else "none",
            "by_day": plots.lines(
                {"fills": ([row.day for row in days], [float(row.fills) for row in days])}, "fills a day"
            ),
        },
        check_results=[
            dg.AssetCheckResult(
                check_name="orders_add_up", passed=not wrong, metadata={"orders": ", ".join(wrong[:20]) or "none"}
            )
        ],
    )


@dg.asset(
    group_name=GROUP,
    partitions_def=groups,
    deps=[fills],
    kinds={"postgres"},
    description="What the group's engine found when it last compared its books with the venues: unknown outcomes, fills that "
    "came late, orders that are not the platform's and are left alone, and every difference by name. An account whose books "
    "differ is set aside: it is not traded.",
    check_specs=[
        dg.AssetCheckSpec(
            "books_match", asset="reconciliation", description="A living engine compared lately, and nothing differs."
        )
    ],
)
def reconciliation(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:
    with platform.databases.group(GroupId(context.partition_key)) as session:
        row = session.execute(
            select(EngineLease.detail, EngineLease.expires_at > func.now()).where(
                EngineLease.group_id == context.partition_key
            )
        ).one_or_none()
    found: dict[str, Any] = dict((row[0] or {}).get("reconciliation") or {}) if row else {}
    at = datetime.fromisoformat(found["at"]) if found else None
    recent = row is not None and bool(row[1]) and at is not None and datetime.now(UTC) - at <= OLDEST
    differences = [{"difference": line} for line in found.get("differences", [])]
    return dg.MaterializeResult(
        metadata={
            "compared_at": at.isoformat() if at else "never",
            **{name: int(found.get(name, 0)) for name in ("set_aside", "open_outcomes", "late_fills", "foreign_orders")},
            "differences": plots.table(differences),
        },
        check_results=[
            dg.AssetCheckResult(
                check_name="books_match", passed=recent and bool(found.get("matches")),
                metadata={"why": "" if recent else "no engine has compared within five minutes"},
            )
        ],
    )  # fmt: skip
