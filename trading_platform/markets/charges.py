"""What a trade costs: rates by venue, segment and day, from `data/charges.toml`.

A new segment is new rows in the file: one per head (commission, tax, exchange fee...), narrowed by side or liquidity
where the exchange does so. Amounts are exact decimals in the quote currency and are not rounded here.
"""

import tomllib
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Literal

Side = Literal["buy", "sell"]
Liquidity = Literal["taker", "maker"]
DATA = Path(__file__).parent / "data" / "charges.toml"


class NoChargeRuleError(LookupError):
    """No rate is known for a trade: trading on without one would report a profit that is not there."""


@dataclass(frozen=True, slots=True)
class ChargeRule:
    """One rate, a fraction of the trade's value, in force from `starts` to `ends` (None: still)."""

    venue: str
    segment: str
    head: str
    rate: Decimal
    side: Side | None
    liquidity: Liquidity | None
    starts: date
    ends: date | None
    source: str

    def applies(self, side: Side, liquidity: Liquidity, day: date) -> bool:
        in_force = self.starts <= day and (self.ends is None or day <= self.ends)
        return in_force and self.side in (None, side) and self.liquidity in (None, liquidity)


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
    for rule in _rules():
        if (rule.venue, rule.segment) == (venue, segment) and rule.applies(side, liquidity, day):
            heads[rule.head] = heads.get(rule.head, Decimal(0)) + notional * rule.rate
    if not heads:
        raise NoChargeRuleError(
            f"no charges are known for {venue} {segment} ({side}, {liquidity}) on {day}; add them to {DATA.name}"
        )
    return heads


def rate(venue: str, segment: str, *, side: Side, day: date, liquidity: Liquidity = "taker") -> Decimal:
    """All heads together, as a fraction of the trade's value."""
    return sum(charges(venue, segment, Decimal(1), side=side, day=day, liquidity=liquidity).values(), Decimal(0))


@lru_cache(maxsize=1)
def _rules() -> tuple[ChargeRule, ...]:
    return tuple(
        ChargeRule(
            venue=row["venue"],
            segment=row["segment"],
            head=row["head"],
            rate=Decimal(row["rate"]),
            side=row.get("side"),
            liquidity=row.get("liquidity"),
            starts=row["from"],
            ends=row.get("until"),
            source=row["source"],
        )
        for row in tomllib.loads(DATA.read_text())["charge"]
    )
