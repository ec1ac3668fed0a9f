"""How much money an order blocks: estimates from a table, for checks before an order and for the sandbox.

The broker's own answer counts where it is there; this is what the platform expects without asking.
"""

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import cache
from typing import Literal

from trading_platform.markets.contract_note import ChargeSegment
from trading_platform.markets.effective import DATA, Effective, RuleTable, load

ZERO = Decimal(0)


class MarginRow(Effective):
    segment: str
    initial: Decimal
    exposure: Decimal


@dataclass(frozen=True, slots=True)
class Margin:
    """Rupees. `initial` is SPAN for derivatives and value at risk for shares; `premium` what a bought option costs.

    `rules_backdated`: by a table younger than the day.
    """

    initial: Decimal
    exposure: Decimal
    premium: Decimal
    rules_backdated: bool = False

    @property
    def total(self) -> Decimal:
        return self.initial + self.exposure + self.premium


def margin_of(
    segment: ChargeSegment, side: Literal["buy", "sell"], value: Decimal, day: date, *,
    underlying_value: Decimal | None = None,
) -> Margin:  # fmt: skip
    """What a new position blocks. `value`: quantity x price; short options also want `underlying_value`.

    Raises ValueError for a short option without it.
    """
    found = _margins().at(segment, day)
    row, backdated = found.row, found.backdated
    if segment.endswith("options"):
        if side == "buy":
            return Margin(ZERO, ZERO, value, backdated)
        if underlying_value is None:
            raise ValueError("the margin of a short option depends on the underlying's value; give underlying_value")
        return Margin(underlying_value * row.initial, underlying_value * row.exposure, ZERO, backdated)
    return Margin(value * row.initial, value * row.exposure, ZERO, backdated)


def leverage(segment: ChargeSegment, day: date) -> Decimal:
    """How many times the money blocked a position may be worth."""
    row = _margins().at(segment, day).row
    return 1 / (row.initial + row.exposure)


@cache
def _margins() -> RuleTable[MarginRow]:
    return load(DATA / "margins.toml", "margin", MarginRow, lambda row: row.segment)
