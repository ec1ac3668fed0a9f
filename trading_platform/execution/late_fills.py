"""Orders that have ended are asked for a while longer: a fill may overtake a cancellation, and what was given up may turn up."""

from collections.abc import Mapping, Sequence

import structlog
from sqlalchemy import Float, cast, delete, func, select, update

from trading_platform.execution.books import SETTLING
from trading_platform.execution.portfolio import Portfolio
from trading_platform.execution.probes import next_late_question
from trading_platform.execution.sender import Sender
from trading_platform.identifiers import AccountId, ClientOrderId, Symbol
from trading_platform.markets.instruments import Instrument
from trading_platform.storage.group import Intent, Order, Outbox
from trading_platform.venues.port import FINAL_STATES, QueryFailedError

log = structlog.get_logger(__name__)


async def take_late_fills(
    sender: Sender, portfolios: Sequence[Portfolio], instruments: Mapping[Symbol, Instrument], *, all_now: bool = False
) -> int:
    """Ask for ended orders whose turn it is, and book what the venue told after their end; returns how many changed.

    `all_now`: all of them, without waiting for their turn. A question without an answer is asked again.
    """
    accounts = {portfolio.account_id: portfolio for portfolio in portfolios}
    changed = 0
    for intent, order, seconds in await _ended(sender, list(accounts), all_now=all_now):
        instrument = instruments.get(Symbol(intent.contract))
        if instrument is None:
            continue
        portfolio = accounts[AccountId(order.account_id)]
        try:
            found = await portfolio.venue.find_order(ClientOrderId(intent.client_order_id), Symbol(intent.contract))
        except QueryFailedError as error:
            log.warning("late_fill_not_asked", intent_id=intent.intent_id, error=str(error)[:300])
            continue
        news = found is not None and (
            found.filled > order.filled_quantity
            or found.state not in FINAL_STATES
            or found.venue_order_id != order.venue_order_id
        )
        if found is not None and news:
            log.warning("late_word", intent_id=intent.intent_id, booked=order.state, told=found.state)
            await sender.take(portfolio, intent, instrument, found)
            changed += 1
        else:
            await _turn(sender, intent, seconds)
    return changed


async def _ended(
    sender: Sender, accounts: Sequence[AccountId], *, all_now: bool
) -> Sequence[tuple[Intent, Order, float]]:
    due = [] if all_now else [Outbox.next_try_at <= func.now()]
    seconds = cast(func.extract("epoch", func.now() - Order.updated_at), Float)
    async with sender.databases.group_async(sender.lease.group_id) as session:
        rows = await session.execute(
            select(Intent, Order, seconds)
            .join(Outbox, (Outbox.intent_id == Intent.intent_id) & (Outbox.user_id == Intent.user_id))
            .join(Order, (Order.intent_id == Intent.intent_id) & (Order.user_id == Intent.user_id))
            .where(Outbox.account_id.in_(accounts), Outbox.state == SETTLING, *due)
            .order_by(Outbox.next_try_at)
        )
        return rows.tuples().all()


async def _turn(sender: Sender, intent: Intent, ended: float) -> None:
    """Nothing new: the next question, or none any more."""
    wait = next_late_question(ended)
    row = (Outbox.intent_id == intent.intent_id, Outbox.state == SETTLING)
    async with sender.databases.group_async(sender.lease.group_id) as session:
        await sender.lease.check(session)
        if wait is None:
            await session.execute(delete(Outbox).where(*row))
        else:
            later = func.now() + func.make_interval(0, 0, 0, 0, 0, 0, wait)
            await session.execute(update(Outbox).where(*row).values(next_try_at=later))
