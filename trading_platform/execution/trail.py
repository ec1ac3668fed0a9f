"""What the audit trail says of an order, from the plan to its last fill: one function for each kind of entry.

Entries are added to the caller's transaction, or returned for it where there are many, so that a change and its entry
commit together. Their columns cannot be filled in later, and therefore every entry says which way the order took
(`Route`), which model decided and where to find the trace.
"""

from decimal import Decimal
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from trading_platform.compliance.audit import record
from trading_platform.execution.portfolio import Portfolio
from trading_platform.storage.control import Signal
from trading_platform.storage.group import Intent
from trading_platform.venues.port import Accepted, VenueFill

ACTOR = "engine"


def planned(portfolio: Portfolio, signal: Signal, denial: str | None, purpose: str) -> dict[str, Any]:
    """A decision: what was planned, what risk said of it, and that it goes out where risk let it pass."""
    events = ["PLAN", "RISK_PASS", "SEND"] if denial is None else ["PLAN", "RISK_BLOCK"]
    return {**_route(portfolio), "events": events, "detail": {"purpose": purpose, **_signal_tags(signal)}}


def protected(portfolio: Portfolio, trigger: Decimal) -> dict[str, Any]:
    """A stop goes to the venue: nothing was decided but by the rule that every position has one."""
    return {**_route(portfolio), "events": ["PLAN", "SEND"], "detail": {"purpose": "stop", "trigger": str(trigger)}}


def acknowledged(portfolio: Portfolio, intent: Intent, accepted: Accepted, latency_ms: float | None) -> dict[str, Any]:
    """The venue has the order; `latency_ms` is None where that was asked for later."""
    return {
        **_common(portfolio, intent), **_standing(intent, accepted), "event_type": "ACK",
        "filled_quantity": accepted.filled, "status": accepted.state, "latency_ms": latency_ms,
    }  # fmt: skip


def filled(portfolio: Portfolio, intent: Intent, accepted: Accepted, fill: VenueFill) -> dict[str, Any]:
    return {
        **_common(portfolio, intent), **_standing(intent, accepted), "event_type": "FILL", "trade_id": fill.trade_id,
        "filled_quantity": fill.quantity, "price": fill.price,
    }  # fmt: skip


def refused(session: AsyncSession, portfolio: Portfolio, intent: Intent, code: str, text: str) -> None:
    record(
        session, **_common(portfolio, intent), event_type="REJECT", status="REJECTED", error_type=code,
        status_message=text[:500], status_message_raw=text[:2000],
    )  # fmt: skip


def note(session: AsyncSession, portfolio: Portfolio, intent: Intent, event: str, status: str, message: str) -> None:
    """Something on the way of an order that changes nothing else."""
    record(
        session, **_common(portfolio, intent), event_type=event, status=status, status_message=message[:500]
    )  # fmt: skip


def _common(portfolio: Portfolio, intent: Intent) -> dict[str, Any]:
    return {
        "user_id": intent.user_id,
        "account_id": intent.account_id,
        "dataset_id": intent.dataset_id,
        "strategy_id": intent.strategy_id,
        "strategy_version": intent.version_id,
        "intent_id": intent.intent_id,
        "attempt": intent.attempts,
        "actor": ACTOR,
        "client_order_id": intent.client_order_id,
        **_route(portfolio),
        "symbol": intent.contract,
        "side": intent.side,
        "quantity": intent.quantity,
        "order_type_sent": intent.order_type,
        "market_time": intent.market_time,
        "trace_id": intent.trace_id,
    }


def _route(portfolio: Portfolio) -> dict[str, Any]:
    """Which way an order takes."""
    route = portfolio.venue.route
    return {"exchange": route.exchange, "source_ip": route.source_ip, "clock_offset_ms": route.clock_offset_ms}


def _standing(intent: Intent, accepted: Accepted) -> dict[str, Any]:
    """Where the order stands at the venue."""
    return {
        "venue_order_id": accepted.venue_order_id,
        "pending_quantity": intent.quantity - accepted.filled,
        "status_venue": accepted.state,
    }


def _signal_tags(signal: Signal) -> dict[str, Any]:
    """What an outcome will want to know of its entry signal; it is read back from the PLAN entry."""
    return {
        "confidence": signal.confidence,
        "threshold": signal.threshold,
        "certified": signal.certified,
        "volatility": signal.volatility,
        "trend": signal.trend,
        "liquidity": signal.liquidity,
        "session": signal.session,
    }
