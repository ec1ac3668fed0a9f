"""Price steps: which one holds at a price, and rounding to it, exact in decimals.

The dump's `tick_size` of the day is the rule; the table by price serves instruments that have no dump.
"""

from datetime import date
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal
from functools import cache
from typing import Literal

from trading_platform.markets.contracts import Contract
from trading_platform.markets.denials import Denial
from trading_platform.markets.effective import DATA, Effective, NoRuleError, RuleTable, load

Toward = Literal["down", "up", "nearest"]
Kind = Literal["share", "index_future", "option"]
ROUNDING = {"down": ROUND_FLOOR, "up": ROUND_CEILING, "nearest": ROUND_HALF_EVEN}
FIRST_OF_SECOND_BAND = Decimal(250)
"""The lowest band ends below 250 and the second begins at it; all others end at their bound and begin above it."""


class TickRow(Effective):
    kind: Kind
    above: Decimal
    tick: Decimal


def tick_by_price(kind: Kind, price: Decimal, day: date) -> Decimal:
    """The step of a price by the exchange's table. Raises `NoRuleError` for a price that no band has."""
    bands = sorted(
        {above for name, above in _ticks().keys() if name == kind},  # noqa: SIM118 - not a mapping
        reverse=True,
    )
    for above in bands:
        if price > above or (price == above and above in (0, FIRST_OF_SECOND_BAND)):
            return _ticks().at((kind, above), day).row.tick
    raise NoRuleError(f"no price step is known for {kind} at {price}")


def round_price(price: Decimal, tick: Decimal, toward: Toward = "nearest") -> Decimal:
    """The multiple of `tick` next to `price`.

    A passive limit rounds away from the market (buy down, sell up), a protective one toward it.

    >>> round_price(Decimal("100.03"), Decimal("0.05"), "down")
    Decimal('100.00')
    """
    return (price / tick).to_integral_value(ROUNDING[toward]) * tick


def check_tick(price: Decimal, contract: Contract, what: str = "price") -> Denial | None:
    """Whether a price is a multiple of the contract's own step."""
    if price > 0 and price % contract.tick_size == 0:
        return None
    nearest = max(round_price(price, contract.tick_size), contract.tick_size)
    return Denial(
        "PRICE_TICK", f"{what} {price} of {contract.tradingsymbol} is not a multiple of its tick {contract.tick_size}",
        nearest,
    )  # fmt: skip


@cache
def _ticks() -> RuleTable[TickRow]:
    return load(DATA / "ticks.toml", "tick", TickRow, lambda row: (row.kind, row.above))
