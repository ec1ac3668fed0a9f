"""An order on its way out: what the books have of it, and the order as it is made out at its venue, signed and ready.

Making it out takes as long as half of sending it, and needs no answer from anybody: it is done while the database still
writes, so that nothing but sending is left to do once the order is in the books.
"""

from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import datetime

from trading_platform.execution.portfolio import Portfolio
from trading_platform.identifiers import ClientOrderId, Symbol
from trading_platform.markets.instruments import Instrument
from trading_platform.storage.group import Intent
from trading_platform.venues.port import Result, Side


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One order. It may be sent once its intent is SENDING in the books, since `issued_at` (wall time)."""

    portfolio: Portfolio
    intent: Intent
    instrument: Instrument
    issued_at: datetime
    sending: Awaitable[Result]
    """Awaiting it sends the order."""


def made_out(portfolio: Portfolio, intent: Intent, instrument: Instrument, issued_at: datetime) -> Outgoing:
    """The order of an intent, signed with the time at which it was issued; nothing is sent."""
    name, contract = ClientOrderId(intent.client_order_id), Symbol(intent.contract)
    side: Side = "buy" if intent.side == "buy" else "sell"
    if intent.purpose == "stop" and intent.stop_price is not None:
        sending = portfolio.venue.place_stop(
            name, contract, side, intent.quantity, intent.stop_price, intent.reference_price, issued_at
        )
    else:
        sending = portfolio.venue.place_market(
            name, contract, side, intent.quantity, issued_at, reducing=intent.purpose == "exit"
        )
    return Outgoing(portfolio, intent, instrument, issued_at, sending)
