"""Decisions on disk: cursor, intents, outbox, orders and audit entries in the caller's one transaction.

What is written here is what happened, whoever dies afterwards: the unique decision key makes a second writing of the same
decision impossible, and the client order id that the venue will see is already in the row.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from trading_platform.execution import trail
from trading_platform.execution.decisions import Decision
from trading_platform.identifiers import DatasetId
from trading_platform.storage.group import Intent, Order, Outbox, SignalCursor


async def move_cursor(session: AsyncSession, dataset_id: DatasetId, seq: int, market_time: datetime) -> None:
    """All signals up to `seq` are consumed."""
    moved = {"seq": seq, "market_time": market_time}
    row = insert(SignalCursor).values(dataset_id=dataset_id, **moved)
    await session.execute(row.on_conflict_do_update(index_elements=[SignalCursor.dataset_id], set_=moved))


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
    rows = [_columns(decision, market_time, epoch) for decision in decisions]
    inserted = await session.scalars(insert(Intent).values(rows).on_conflict_do_nothing().returning(Intent))
    new = {intent.intent_id: intent for intent in inserted}
    to_send = {}
    for decision in decisions:
        intent = new.get(decision.intent_id)
        if intent is None:
            continue
        trail.planned(session, decision.portfolio, intent, decision.signal)
        if decision.denial is None:
            session.add_all(on_the_way(intent, epoch, issued_at, market_sent_at))
            to_send[intent.intent_id] = intent
    return to_send


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


def on_the_way(intent: Intent, epoch: int, issued_at: datetime, market_sent_at: datetime) -> tuple[Outbox, Order]:
    """The rows of an intent that is sent as soon as they are committed."""
    outbox = Outbox(
        intent_id=intent.intent_id, user_id=intent.user_id, account_id=intent.account_id, state="SENDING", epoch=epoch,
        sent_at=issued_at, market_sent_at=market_sent_at,
    )  # fmt: skip
    order = Order(
        user_id=intent.user_id, client_order_id=intent.client_order_id, intent_id=intent.intent_id,
        account_id=intent.account_id, symbol=intent.symbol, contract=intent.contract, side=intent.side,
        order_type=intent.order_type, quantity=intent.quantity, state="SUBMITTED", market_time=intent.market_time,
        sent_at=issued_at, epoch=epoch,
    )  # fmt: skip
    return outbox, order
