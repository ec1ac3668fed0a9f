"""Ways to break the order path on purpose: each removes one of its protections, and the torture must notice.

They are patched into an engine's process by the torture alone; the product has no such switches.
"""

from collections.abc import Callable
from typing import Any

from sqlalchemy import delete

from trading_platform.execution import books, sender
from trading_platform.execution.intents import StepWriter
from trading_platform.execution.lease import GroupLease
from trading_platform.execution.order_states import OrderRecord
from trading_platform.execution.sender import Sender
from trading_platform.storage.group import EngineLease, Order, Outbox


def sending_mark_removed() -> None:
    """An order goes out without having been written down as SENDING."""

    write = StepWriter.write_rows

    async def unmarked(self: StepWriter, *given: Any) -> set[str]:
        new = await write(self, *given)
        async with self.databases.group_async(self.lease.group_id) as session:
            for table in (Outbox, Order):
                await session.execute(delete(table).where(table.intent_id.in_(new)))
        return new

    StepWriter.write_rows = unmarked  # type: ignore[assignment,method-assign]


def epoch_check_removed() -> None:
    """An engine takes any lease of its group for its own."""
    GroupLease._ours = lambda self: (EngineLease.group_id == self.group_id,)  # type: ignore[method-assign]
    write = StepWriter.write_rows

    async def as_whoever_holds_it(self: StepWriter, *given: Any) -> set[str]:
        lease = self.lease
        async with self.databases.group_async(lease.group_id) as session:
            row = await session.get_one(EngineLease, lease.group_id)
        own, lease.holder, lease.epoch = (lease.holder, lease.epoch), row.holder, row.epoch
        try:
            return await write(self, *given)
        finally:
            lease.holder, lease.epoch = own

    StepWriter.write_rows = as_whoever_holds_it  # type: ignore[assignment,method-assign]


def fills_applied_without_their_id() -> None:
    """Every fill that is told counts, however often it was told before."""
    once = books._insert_fills

    async def always(session: Any, fills: Any) -> Any:
        await once(session, fills)
        return {(intent.client_order_id, fill.trade_id) for intent, fill in fills}

    books._insert_fills = always
    OrderRecord.new_fills = lambda self, told: list(told)  # type: ignore[method-assign]


def absence_believed() -> None:
    """An order that the venue does not show yet is taken for one that never arrived, and sent again however late."""
    Sender._proven_absent = lambda self, *given: True  # type: ignore[method-assign]
    sender._too_late = lambda intent, now: False


def unknown_taken_for_refused() -> None:
    """An answer that does not come is taken for a refusal, and nobody asks again."""

    async def hasty(self: Sender, session: Any, portfolio: Any, intent: Any, cause: str) -> bool:
        await books.take_refusal(session, portfolio, intent, "NO_ANSWER", cause)
        await session.execute(delete(Outbox).where(Outbox.intent_id == intent.intent_id))
        return True

    Sender._unknown = hasty  # type: ignore[method-assign]


SABOTAGES: dict[str, Callable[[], None]] = {
    "sending_mark": sending_mark_removed,
    "epoch_check": epoch_check_removed,
    "fill_ids": fills_applied_without_their_id,
    "absence_proof": absence_believed,
    "unknown_state": unknown_taken_for_refused,
}
