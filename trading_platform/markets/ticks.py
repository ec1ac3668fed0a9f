"""Price steps: which one holds at a price, and rounding to it, exact in decimals.

The dump's `tick_size` of the day is the rule; the table by price serves instruments that have no dump. NSE sets a step
for a month by the last close of the month before.
"""

from datetime import date
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal
from functools import cache
from typing import Literal, NamedTuple, Self

from pydantic import model_validator

from trading_platform.markets.contracts import Contract
from trading_platform.markets.denials import Denial, untradable
from trading_platform.markets.effective import DATA, Effective, NoRuleError, RuleTable, load

Toward = Literal["down", "up", "nearest"]
Kind = Literal["share", "index_future", "option"]
ROUNDING = {"down": ROUND_FLOOR, "up": ROUND_CEILING, "nearest": ROUND_HALF_EVEN}


class TickBand(NamedTuple):
    """A step for prices above `above` (and at it, where `inclusive`)."""

    above: Decimal
    tick: Decimal
    inclusive: bool = False

    def holds(self, price: Decimal) -> bool:
        return price > self.above or (self.inclusive and price == self.above)


class TickRow(Effective):
    kind: Kind
    bands: tuple[TickBand, ...]

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        bounds = [band.above for band in self.bands]
        if not bounds or bounds != sorted(set(bounds)):
            raise ValueError("`bands` are [above, step] in ascending order")
        return self


class TickAt(NamedTuple):
    """The step of a price; `rules_backdated`: by a table younger than the day."""

    tick: Decimal
    rules_backdated: bool


def tick_by_price(kind: Kind, price: Decimal, day: date) -> TickAt:
    """The step of a price by the exchange's table of that day. Raises `NoRuleError` for a price that no band has."""
    found = _ticks().at(kind, day)
    steps = [band.tick for band in found.row.bands if band.holds(price)]
    if not steps:
        raise NoRuleError(f"no price step is known for {kind} at {price}: prices are positive")
    return TickAt(steps[-1], found.backdated)


def round_price(price: Decimal, tick: Decimal, toward: Toward = "nearest") -> Decimal:
    """The multiple of `tick` next to `price`.

    A passive limit rounds away from the market (buy down, sell up), a protective one toward it.

    >>> round_price(Decimal("100.03"), Decimal("0.05"), "down")
    Decimal('100.00')
    """
    return (price / tick).to_integral_value(ROUNDING[toward]) * tick


def check_tick(price: Decimal, contract: Contract, what: str = "price") -> Denial | None:
    """Whether a price is a multiple of the contract's own step."""
    if contract.tick_size <= 0:
        return untradable(contract.tradingsymbol)
    if price > 0 and price % contract.tick_size == 0:
        return None
    nearest = max(round_price(price, contract.tick_size), contract.tick_size)
    return Denial(
        "PRICE_TICK", f"{what} {price} of {contract.tradingsymbol} is not a multiple of its tick {contract.tick_size}",
        nearest,
    )  # fmt: skip


@cache
def _ticks() -> RuleTable[TickRow]:
    return load(DATA / "ticks.toml", "tick", TickRow, lambda row: row.kind)
