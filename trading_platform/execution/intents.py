"""Decisions on disk: cursor, intents, outbox, orders and audit entries in the caller's one transaction.

What is written here is what happened, whoever dies afterwards: the unique decision key makes a second writing of the same
decision impossible, and the client order id that the venue will see is already in the row.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from trading_platform.compliance.audit import record_all
from trading_platform.execution import trail
from trading_platform.execution.decisions import Decision
from trading_platform.identifiers import DatasetId
from trading_platform.storage.group import Intent, Order, Outbox, SignalCursor
from trading_platform.storage.types import table_of

# Made once, and on tables: in the way of every order, mapped objects would take most of the time.
_NEW_INTENTS = insert(table_of(Intent)).on_conflict_do_nothing().returning(table_of(Intent).c.intent_id)
_NEW_OUTBOX, _NEW_ORDERS, _CURSOR = insert(table_of(Outbox)), insert(table_of(Order)), insert(table_of(SignalCursor))
_MOVE_CURSOR = _CURSOR.on_conflict_do_update(
    index_elements=["dataset_id"], set_={"seq": _CURSOR.excluded.seq, "market_time": _CURSOR.excluded.market_time}
)


async def move_cursor(session: AsyncSession, dataset_id: DatasetId, seq: int, market_time: datetime) -> None:
    """All signals up to `seq` are consumed."""
    await session.execute(_MOVE_CURSOR, {"dataset_id": dataset_id, "seq": seq, "market_time": market_time})


async def write_intents(
    session: AsyncSession, decisions: Sequence[Decision], market_time: datetime, epoch: int, issued_at: datetime,
    market_sent_at: datetime,
) -> dict[str, Intent]:  # fmt: skip
    """Write the decisions that are new; returns the intents to be sent, by id.

    They were decided on what was known at `market_time`, and go out now: `issued_at` is wall time, which is signed later,
    `market_sent_at` the market's clock.
    """
    if not decisions:
        return {}
    intents = await new_intents(session, [_columns(decision, market_time, epoch) for decision in decisions])
    entries: list[dict[str, Any]] = []
    to_send: dict[str, Intent] = {}
    for decision in decisions:
        intent = intents.pop(decision.intent_id, None)
        if intent is None:
            continue
        entries += trail.planned(decision.portfolio, intent, decision.signal)
        if decision.denial is None:
            to_send[intent.intent_id] = intent
    await record_all(session, entries)
    await mark_sending(session, list(to_send.values()), issued_at, market_sent_at)
    return to_send


async def new_intents(session: AsyncSession, rows: Sequence[dict[str, Any]]) -> dict[str, Intent]:
    """Write intents; returns by id those that were not there. They are of no session: what was decided never changes."""
    written = set((await session.scalars(_NEW_INTENTS, rows)).all())
    return {row["intent_id"]: Intent(**row, attempts=0) for row in rows if row["intent_id"] in written}


async def mark_sending(
    session: AsyncSession, intents: Sequence[Intent], issued_at: datetime, market_sent_at: datetime
) -> None:
    """Outbox and order rows of intents that are sent as soon as they are committed."""
    if not intents:
        return
    sent = {"sent_at": issued_at}
    outbox = [
        {
            "intent_id": intent.intent_id,
            "user_id": intent.user_id,
            "account_id": intent.account_id,
            "state": "SENDING",
            "epoch": intent.epoch,
            "market_sent_at": market_sent_at,
            **sent,
        }
        for intent in intents
    ]
    orders = [
        {
            "user_id": intent.user_id,
            "client_order_id": intent.client_order_id,
            "intent_id": intent.intent_id,
            "account_id": intent.account_id,
            "symbol": intent.symbol,
            "contract": intent.contract,
            "side": intent.side,
            "order_type": intent.order_type,
            "quantity": intent.quantity,
            "state": "SUBMITTED",
            "market_time": intent.market_time,
            "epoch": intent.epoch,
            **sent,
        }
        for intent in intents
    ]
    await session.execute(_NEW_OUTBOX, outbox)
    await session.execute(_NEW_ORDERS, orders)


def _columns(decision: Decision, market_time: datetime, epoch: int) -> dict[str, Any]:
    signal, held = decision.signal, decision.holding
    return {
        "user_id": decision.portfolio.user_id,
        "intent_id": decision.intent_id,
        "decision_key": decision.decision_key,
        "client_order_id": decision.client_order_id,
        "account_id": decision.portfolio.account_id,
        "dataset_id": signal.dataset_id,
        "strategy_id": signal.strategy_id,
        "version_id": held.version_id if held else signal.version_id,
        "arm": held.arm if held else signal.role,
        "signal_id": signal.signal_id,
        "purpose": decision.purpose,
        "entry_intent_id": held.entry_intent_id if held else None,
        "symbol": signal.symbol,
        "contract": decision.contract,
        "side": decision.side,
        "order_type": "MARKET",
        "quantity": decision.quantity,
        "reference_price": signal.price,
        "target_price": None if held else signal.target_price,
        "stop_price": None if held else signal.stop_price,
        "exit_by": None if held else signal.exit_by,
        "market_time": market_time,
        "state": decision.state,
        "denial": decision.denial,
        "epoch": epoch,
        "trace_id": signal.trace_id,
    }
