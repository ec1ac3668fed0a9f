"""Ways to break the order path on purpose: each removes one of its protections, and the torture must notice.

They are patched into an engine's process by the torture alone; the product has no such switches.
"""

from collections.abc import Callable
from typing import Any

from sqlalchemy import delete

from trading_platform.execution import books, intents, sender
from trading_platform.execution.lease import GroupLease
from trading_platform.execution.order_states import OrderRecord
from trading_platform.execution.sender import Sender
from trading_platform.identifiers import Symbol
from trading_platform.storage.group import EngineLease, Outbox
from trading_platform.venues.port import Ambiguous


def sending_mark_removed() -> None:
    """An order goes out without having been written down as SENDING."""

    async def nothing(*given: Any) -> None:
        pass

    intents.mark_sending = nothing  # type: ignore[assignment]


def epoch_check_removed() -> None:
    """An engine takes any lease of its group for its own."""
    GroupLease._ours = lambda self: (EngineLease.group_id == self.group_id,)  # type: ignore[method-assign]


def fills_applied_without_their_id() -> None:
    """Every fill that is told counts, however often it was told before."""
    once = books._insert_fills

    async def always(session: Any, intent: Any, fills: Any) -> list[Any]:
        await once(session, intent, fills)
        return list(fills)

    books._insert_fills = always
    OrderRecord.new_fills = lambda self, told: list(told)  # type: ignore[method-assign]


def absence_believed() -> None:
    """An order that the venue does not show yet is taken for one that never arrived, and sent again however late."""
    Sender._proven_absent = lambda self, *given: True  # type: ignore[method-assign]
    sender._too_late = lambda intent, now: False


def unknown_taken_for_refused() -> None:
    """An answer that does not come is taken for a refusal, and nobody asks again."""
    take = Sender._take

    async def hasty(self: Sender, portfolio: Any, intent: Any, instrument: Any, result: Any, latency: Any) -> None:
        if not isinstance(result, Ambiguous):
            await take(self, portfolio, intent, instrument, result, latency)
            return
        async with self.databases.group_async(self.lease.group_id) as session:
            await self.lease.check(session)
            row = await session.get_one(type(intent), (intent.user_id, intent.intent_id))
            await books.take_refusal(session, portfolio, row, "NO_ANSWER", result.cause)
            await session.execute(delete(Outbox).where(Outbox.intent_id == intent.intent_id))
        portfolio.unknown.discard(Symbol(intent.symbol))

    Sender._take = hasty  # type: ignore[assignment,method-assign]


SABOTAGES: dict[str, Callable[[], None]] = {
    "sending_mark": sending_mark_removed,
    "epoch_check": epoch_check_removed,
    "fill_ids": fills_applied_without_their_id,
    "absence_proof": absence_believed,
    "unknown_state": unknown_taken_for_refused,
}
