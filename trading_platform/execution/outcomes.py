"""The arithmetic of a closed trade: what was laid out, what came back, what it cost. Pure.

In quote currency: laid out = sum of price x quantity bought plus such fees as are taken in quote or in a third asset; came
back = sum of price x quantity sold less such fees. net = came back - laid out. gross = (average exit - average entry) x
quantity of the entry, which is negative for a short. costs = gross - net: the fees of both sides, those taken in the asset
bought, and the dust that is too small to be sold. net return = net / laid out; for a short, which lays out nothing, net /
what its sale brought.
"""

from collections.abc import Callable, Iterable, Sequence
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
    """A trade from its first entry to its last exit; money in quote currency, `quantity` negative for a short."""

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
    worth: Callable[[str], Decimal], short: bool = False,
) -> ClosedTrade:  # fmt: skip
    """Settle a trade. `worth(asset)`: the price in quote of a third asset in which the venue took a fee.

    `short`: its entries were sales, and its exits bought back.
    """
    opening, closing = list(entries), list(exits)
    entry_price, exit_price = _average_price(opening), _average_price(closing)
    bought, sold = (closing, opening) if short else (opening, closing)
    laid_out = _value(bought) + sum((fee_in_quote(f, base, quote, worth) for f in bought), ZERO)
    came_back = _value(sold) - sum((fee_in_quote(f, base, quote, worth) for f in sold), ZERO)
    net = came_back - laid_out
    units = _units(opening) * (-1 if short else 1)
    gross = (exit_price - entry_price) * units
    return ClosedTrade(
        quantity=units,
        entry_price=entry_price,
        exit_price=exit_price,
        entry_time=max(f.market_time for f in opening),
        exit_time=max(f.market_time for f in closing),
        gross=gross,
        costs=gross - net,
        net=net,
        net_return=float(net / (came_back if short else laid_out)),
    )


def _units(fills: Iterable[TradedFill]) -> Decimal:
    return sum((fill.quantity for fill in fills), ZERO)


def _value(fills: Iterable[TradedFill]) -> Decimal:
    return sum((fill.price * fill.quantity for fill in fills), ZERO)


def _average_price(fills: Sequence[TradedFill]) -> Decimal:
    return _value(fills) / _units(fills)


def fee_in_quote(fill: Charged, base: str, quote: str, worth: Callable[[str], Decimal]) -> Decimal:
    """A fee that is not already seen in the quantity: one taken in base makes what can be sold smaller by itself."""
    if fill.fee_currency == base or not fill.fee:
        return ZERO
    return fill.fee if fill.fee_currency == quote else fill.fee * worth(fill.fee_currency)
