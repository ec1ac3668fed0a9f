"""The day's price bands as last quoted: what may not be entered, since nobody sells it or it could not be left again.

Bands are read from the broker's quotes and never computed (`markets/price_bands.py`). A quote says nothing of a minute
later, so an old one forbids nothing: then it is the broker that refuses.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

from trading_platform.identifiers import Symbol
from trading_platform.markets.denials import Denial
from trading_platform.markets.price_bands import check_exit_room
from trading_platform.venues.port import Side
from trading_platform.venues.zerodha.quotes import Quote

FRESH = timedelta(seconds=30)
EXIT_ROOM = Decimal("0.01")
"""Of the price: so near to the limit on the other side a position could soon not be left any more."""


@dataclass
class QuotedBands:
    """What the quotes of one broker's address said, and when, by the market's clock."""

    _quotes: dict[Symbol, tuple[Quote, datetime]] = field(default_factory=dict)

    def heard(self, contract: Symbol, quote: Quote, now: datetime) -> None:
        self._quotes[contract] = quote, now

    def forbids_entry(self, contract: Symbol, side: Side, now: datetime) -> Denial | None:
        """Why nothing new is entered; None also where no fresh quote is known."""
        quote, at = self._quotes.get(contract, (None, now))
        if quote is None or not timedelta(0) <= now - at <= FRESH:
            return None
        if quote.locked == ("upper" if side == "buy" else "lower"):
            others, bound = ("sells", quote.limits.upper) if side == "buy" else ("buys", quote.limits.lower)
            return Denial("PRICE_LOCKED", f"{contract} is at its circuit limit of {bound}, where nobody {others} it")
        return check_exit_room(side, quote.last_price, quote.limits, EXIT_ROOM)
