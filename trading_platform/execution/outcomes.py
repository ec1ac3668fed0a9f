"""The arithmetic of a closed trade: what was laid out, what came back, what it cost. Pure.

In quote currency: laid out = sum of entry price x quantity plus entry fees taken in quote or in a third asset; came back
= sum of exit price x quantity less such exit fees. net = came back - laid out. gross = (average exit - average entry) x
quantity bought. costs = gross - net: the fees of both sides, those taken in the asset bought, and the dust that is too
small to be sold. net return = net / laid out.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Protocol

ZERO = Decimal(0)


class Charged(Protocol):
    """Something with a fee: a fill, as the venue tells it or as the books have it."""

    @property
    def fee(self) -> Decimal: ...
    @property
    def fee_currency(self) -> str: ...


class TradedFill(Charged, Protocol):
    """What a fill must have to be counted; a row of `fills` has it."""

    @property
    def price(self) -> Decimal: ...
    @property
    def quantity(self) -> Decimal: ...
    @property
    def market_time(self) -> datetime: ...


@dataclass(frozen=True)
class ClosedTrade:
    """A trade from first buy to last sale; money in quote currency."""

    quantity: Decimal
    entry_price: Decimal
    exit_price: Decimal
    entry_time: datetime
    exit_time: datetime
    gross: Decimal
    costs: Decimal
    net: Decimal
    net_return: float


def closed_trade(
    entries: Iterable[TradedFill], exits: Iterable[TradedFill], *, base: str, quote: str,
    worth: Callable[[str], Decimal],
) -> ClosedTrade:  # fmt: skip
    """Settle a trade. `worth(asset)`: the price in quote of a third asset in which the venue took a fee."""
    bought, sold = list(entries), list(exits)
    quantity, paid = sum((f.quantity for f in bought), ZERO), sum((f.price * f.quantity for f in bought), ZERO)
    sold_quantity, received = sum((f.quantity for f in sold), ZERO), sum((f.price * f.quantity for f in sold), ZERO)
    laid_out = paid + sum((fee_in_quote(f, base, quote, worth) for f in bought), ZERO)
    came_back = received - sum((fee_in_quote(f, base, quote, worth) for f in sold), ZERO)
    entry_price, exit_price = paid / quantity, received / sold_quantity
    net = came_back - laid_out
    gross = (exit_price - entry_price) * quantity
    return ClosedTrade(
        quantity=quantity,
        entry_price=entry_price,
        exit_price=exit_price,
        entry_time=max(f.market_time for f in bought),
        exit_time=max(f.market_time for f in sold),
        gross=gross,
        costs=gross - net,
        net=net,
        net_return=float(net / laid_out),
    )


def fee_in_quote(fill: Charged, base: str, quote: str, worth: Callable[[str], Decimal]) -> Decimal:
    """A fee that is not already seen in the quantity: one taken in base makes what can be sold smaller by itself."""
    if fill.fee_currency == base or not fill.fee:
        return ZERO
    return fill.fee if fill.fee_currency == quote else fill.fee * worth(fill.fee_currency)
