"""What a trade costs: rates by venue, segment and day, from `data/charges.toml`.

A new segment is new rows in the file: one per head (commission, tax, exchange fee...), narrowed by side or liquidity
where the exchange does so. Amounts are exact decimals in the quote currency and are not rounded here.
"""

from datetime import date
from decimal import Decimal
from functools import cache
from typing import Literal

from trading_platform.markets.effective import DATA, Effective, RuleTable, load

Side = Literal["buy", "sell"]
Liquidity = Literal["taker", "maker"]
FILE = DATA / "charges.toml"


class NoChargeRuleError(LookupError):
    """No rate is known for a trade: trading on without one would report a profit that is not there."""


class ChargeRow(Effective):
    """One rate, a fraction of the trade's value."""

    venue: str
    segment: str
    head: str
    rate: Decimal
    side: Side | None = None
    liquidity: Liquidity | None = None

    def applies(self, side: Side, liquidity: Liquidity) -> bool:
        return self.side in (None, side) and self.liquidity in (None, liquidity)


def charges(
    venue: str,
    segment: str,
    notional: Decimal,
    *,
    side: Side,
    day: date,
    liquidity: Liquidity = "taker",
) -> dict[str, Decimal]:
    """{head: amount} of a trade worth `notional` (quote currency) on the trading day `day`, unrounded.

    Raises `NoChargeRuleError` where no rule is in force.
    """
    heads: dict[str, Decimal] = {}
    for key in _rules().keys():  # noqa: SIM118 - not a mapping
        found = _rules().find(key, day) if key[:2] == (venue, segment) else None
        if found is not None and not found.backdated and found.row.applies(side, liquidity):
            heads[found.row.head] = heads.get(found.row.head, Decimal(0)) + notional * found.row.rate
    if not heads:
        raise NoChargeRuleError(
            f"no charges are known for {venue} {segment} ({side}, {liquidity}) on {day}; add them to {FILE.name}"
        )
    return heads


def rate(venue: str, segment: str, *, side: Side, day: date, liquidity: Liquidity = "taker") -> Decimal:
    """All heads together, as a fraction of the trade's value."""
    return sum(charges(venue, segment, Decimal(1), side=side, day=day, liquidity=liquidity).values(), Decimal(0))


@cache
def _rules() -> RuleTable[ChargeRow]:
    return load(
        FILE, "charge", ChargeRow, lambda row: (row.venue, row.segment, row.head, row.side or "", row.liquidity or "")
    )
