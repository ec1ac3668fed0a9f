"""How far a limit may lie from what it refers to: a stop order's from its trigger, an option's from its reference price.

The exchange refuses beyond these ranges, and for stop orders only after the broker has answered with an order id, so that
a stop which looks placed is none. Hence they are checked before. Where no range is known nothing is refused.
"""

from datetime import date
from decimal import Decimal
from functools import cache
from typing import Literal

from trading_platform.markets.contracts import Contract
from trading_platform.markets.denials import Denial
from trading_platform.markets.effective import DATA, Effective, RuleTable, load
from trading_platform.markets.ticks import round_price

FILE = DATA / "price_bands.toml"
Side = Literal["buy", "sell"]


class RangeRow(Effective):
    exchange: str
    kind: Literal["share", "future", "option"]
    up_to: Decimal
    rupees: Decimal
    share: Decimal

    def around(self, price: Decimal) -> Decimal:
        """The largest distance from `price`, in rupees."""
        return self.rupees if price <= self.up_to else price * self.share


def check_stop_range(side: Side, price: Decimal, trigger: Decimal, contract: Contract, day: date) -> Denial | None:
    """Whether a stop order's limit is near enough to its trigger (exchange code 16448)."""
    row = _range(_stops(), contract, day)
    if row is None or abs(price - trigger) <= row.around(trigger):
        return None
    return Denial(
        "STOP_RANGE",
        f"the limit {price} of a stop on {contract.tradingsymbol} is more than {row.around(trigger):f} from its trigger "
        f"{trigger}: the exchange refuses it after the broker has taken it",
        _edge(side, trigger, row, contract),
    )


def check_limit_protection(
    side: Side, price: Decimal, reference: Decimal, contract: Contract, day: date
) -> Denial | None:
    """Whether an option's limit is within Limit Price Protection (exchange code 17070).

    Only a limit on the far side of the market is refused: a purchase too high, a sale too low.
    """
    row = _range(_protections(), contract, day)
    if row is None:
        return None
    beyond = price - reference if side == "buy" else reference - price
    if beyond <= row.around(reference):
        return None
    return Denial(
        "PRICE_PROTECTION",
        f"the limit {price} of {contract.tradingsymbol} is more than {row.around(reference):f} beyond the reference price "
        f"{reference}",
        _edge(side, reference, row, contract),
    )


def _edge(side: Side, price: Decimal, row: RangeRow, contract: Contract) -> Decimal:
    """The furthest limit that passes, on the tick."""
    if side == "buy":
        return round_price(price + row.around(price), contract.tick_size, "down")
    return max(round_price(price - row.around(price), contract.tick_size, "up"), contract.tick_size)


def _range(table: RuleTable[RangeRow], contract: Contract, day: date) -> RangeRow | None:
    kind = "option" if contract.is_option else "future" if contract.is_future else "share"
    found = table.find((contract.exchange, kind), day)
    return None if found is None or found.backdated else found.row


@cache
def _stops() -> RuleTable[RangeRow]:
    return load(FILE, "stop_range", RangeRow, lambda row: (row.exchange, row.kind))


@cache
def _protections() -> RuleTable[RangeRow]:
    return load(FILE, "limit_protection", RangeRow, lambda row: (row.exchange, row.kind))
