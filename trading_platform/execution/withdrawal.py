"""Taking back what works and leaving what is held: what a halt or the end of a session asks of an account.

Nothing here trusts the books alone. An order is cancelled by its own client order id, and its end is learned by asking for
it; what is sold, or bought back, is no more than what the venue says is there, or is short, for a position that somebody
closed by hand must not become one on the other side.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal

import structlog
from sqlalchemy import select

from trading_platform.execution import trail
from trading_platform.execution.books import SETTLING
from trading_platform.execution.decisions import Decision
from trading_platform.execution.lease import GroupLease
from trading_platform.execution.portfolio import Portfolio
from trading_platform.identifiers import ClientOrderId, Symbol
from trading_platform.markets.instruments import Instrument
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import Intent, Outbox
from trading_platform.venues.port import AuthLostError, QueryFailedError, Refused

ZERO = Decimal(0)
log = structlog.get_logger(__name__)


async def cancel_entries(
    databases: Databases, lease: GroupLease, portfolio: Portfolio, why: str, symbols: Collection[Symbol] | None = None
) -> int:
    """Ask the venue to cancel the entries of an account that work there, or those in `symbols`; returns how many.

    The request is in the audit trail before it is sent. What became of the order is learned as with every other: it stays
    unfinished in the books until the venue shows its end, so a fill that overtook the cancellation is not lost.
    """
    working = portfolio.working if symbols is None else portfolio.working.intersection(symbols)
    if not working:
        return 0
    async with databases.group_async(lease.group_id) as session:
        await lease.check(session)
        rows = await session.scalars(
            select(Intent)
            .join(Outbox, (Outbox.intent_id == Intent.intent_id) & (Outbox.user_id == Intent.user_id))
            .where(
                Outbox.account_id == portfolio.account_id, Intent.user_id == portfolio.user_id,
                Intent.purpose == "entry", Intent.symbol.in_(working), Outbox.state != SETTLING,
            )
        )  # fmt: skip
        entries = rows.all()
        for intent in entries:
            trail.note(session, portfolio, intent, "CANCEL_REQ", "SENDING", why)
    for intent in entries:
        answer = await portfolio.venue.cancel(ClientOrderId(intent.client_order_id), Symbol(intent.contract))
        if isinstance(answer, Refused):
            log.info("cancel_refused", intent_id=intent.intent_id, code=answer.code, text=answer.text[:200])
    return len(entries)


async def held_at_venue(portfolio: Portfolio) -> Mapping[str, Decimal] | None:
    """`OrderVenue.balances`; None where it does not answer, which is no reason to keep other accounts waiting."""
    try:
        return await portfolio.venue.balances()
    except AuthLostError:
        raise
    except QueryFailedError as error:
        log.warning("nothing_known_to_flatten", account=portfolio.account_id, error=str(error)[:300])
        return None


def working_options(portfolio: Portfolio) -> set[Symbol]:
    """Legs that work at the venue: they have no bars of their own, and go with those of the index."""
    found = {symbol: portfolio.venue.listed(symbol) for symbol in portfolio.working}
    return {symbol for symbol, listed in found.items() if listed is not None and listed.is_option}


def at_most_held(
    decisions: Sequence[Decision], at_venue: Mapping[str, Decimal], instruments: Mapping[Symbol, Instrument]
) -> list[Decision]:
    """Exits of one account with quantities that the venue says are there; those of which nothing is there are left out.

    `at_venue`: units by asset, of `OrderVenue.balances`; negative for what is short, of which so much is bought back at
    most. Several strategies that hold the same contract share what there is, in order.
    """
    left = dict(at_venue)
    kept = []
    for decision in decisions:
        instrument = instruments.get(decision.contract)
        if instrument is None:
            kept.append(decision)  # which risk has denied
            continue
        there, sign = left.get(instrument.base, ZERO), 1 if decision.side == "sell" else -1
        quantity = instrument.round_quantity(min(decision.quantity, max(sign * there, ZERO)))
        left[instrument.base] = there - sign * quantity
        if quantity > ZERO:
            kept.append(replace(decision, quantity=quantity))
        else:
            log.warning(
                "nothing_to_flatten", account=decision.portfolio.account_id, contract=decision.contract,
                books=str(decision.quantity), venue=str(there),
            )  # fmt: skip
    return kept
