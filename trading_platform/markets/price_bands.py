"""Within which prices an order may be: circuit limits, the closing auction's band, and dynamic bands that are flexed.

Circuit limits are read from the broker's quote and never computed: lists change daily and bands during the day. Limits of
0 and 0 (indices) mean that there are none. The exchanges' own rules are in `data/price_bands.toml`; ranges of stop orders
and of option limits are in `price_ranges.py`.
"""

from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import cache

from trading_platform.markets.denials import Denial
from trading_platform.markets.effective import DATA, Effective, RuleTable, load
from trading_platform.markets.sessions import IST
from trading_platform.markets.ticks import round_price

FILE = DATA / "price_bands.toml"
ZERO = Decimal(0)


class BandRow(Effective):
    name: str
    width: Decimal


class FlexTriggerRow(Effective):
    near: Decimal
    trades: int
    clients: int
    members: int
    late_from: time


class FlexRow(Effective):
    number: int
    size: Decimal
    cooling_minutes: int
    late_cooling_minutes: int


@dataclass(frozen=True, slots=True)
class CircuitLimits:
    """The lowest and the highest price of the day, as quoted."""

    lower: Decimal
    upper: Decimal

    @property
    def apply(self) -> bool:
        return not (self.lower == ZERO and self.upper == ZERO)


def check_price(price: Decimal, limits: CircuitLimits, what: str = "price") -> Denial | None:
    """Whether a price lies within the limits, bounds included. For stop orders check limit and trigger both."""
    if not limits.apply or limits.lower <= price <= limits.upper:
        return None
    above = price > limits.upper
    bound = limits.upper if above else limits.lower
    side = "higher than the current upper" if above else "lower than the current lower"
    return Denial("PRICE_CIRCUIT", f"{what} {price} is {side} circuit limit of {bound}", bound)


def locked(limits: CircuitLimits, last_price: Decimal, *, sellers: bool, buyers: bool) -> str | None:
    """`upper` where nobody sells at the upper limit (no purchase fills), `lower` where nobody buys at the lower."""
    if not limits.apply:
        return None
    if last_price >= limits.upper and not sellers:
        return "upper"
    return "lower" if last_price <= limits.lower and not buyers else None


def check_exit_room(side: str, price: Decimal, limits: CircuitLimits, margin: Decimal) -> Denial | None:
    """An entry so near to a limit that its exit could not be placed: a purchase near the lower, a short near the upper.

    `margin`: the share of the price that must be left, such as Decimal("0.01").
    """
    if not limits.apply:
        return None
    if side == "buy" and price < limits.lower * (1 + margin):
        nearest = limits.lower * (1 + margin)
        return Denial("PRICE_NO_EXIT_ROOM", f"{price} is within {margin:%} of the lower limit {limits.lower}", nearest)
    if side == "sell" and price > limits.upper * (1 - margin):
        nearest = limits.upper * (1 - margin)
        return Denial("PRICE_NO_EXIT_ROOM", f"{price} is within {margin:%} of the upper limit {limits.upper}", nearest)
    return None


def closing_auction_limits(reference: Decimal, tick: Decimal, day: date) -> CircuitLimits:
    """The band of the closing auction around its reference price (the VWAP of 15:00 to 15:15), on the tick inside it."""
    return _around(reference, _bands().at("closing_auction", day).row.width, tick)


@dataclass(frozen=True, slots=True)
class Activity:
    """What one side of the book has done at the edge of a band."""

    trades: int
    clients: int
    members: int

    def enough(self, rule: FlexTriggerRow) -> bool:
        return self.trades >= rule.trades and self.clients >= rule.clients and self.members >= rule.members


@dataclass(frozen=True, slots=True)
class DynamicBand:
    """The band of a share with derivatives: it starts around the base and slides as a whole when flexed.

    `flexes` counts those of the day. `armed_at` is when a trade last reached the edge; the flex comes after the cooling.
    """

    base: Decimal
    limits: CircuitLimits
    flexes: int = 0
    armed_at: datetime | None = None
    armed_side: str | None = None

    @classmethod
    def of_day(cls, base: Decimal, tick: Decimal, day: date) -> "DynamicBand":
        return cls(base, _around(base, _bands().at("dynamic", day).row.width, tick))

    def traded(self, price: Decimal, at: datetime, buyers: Activity, sellers: Activity) -> "DynamicBand":
        """After a trade at `at` (aware): the cooling begins when it is at the edge and both sides are active enough."""
        rule = _trigger(at)
        if self.armed_at is not None or not (buyers.enough(rule) and sellers.enough(rule)):
            return self
        near = self.base * rule.near
        upper, lower = price >= self.limits.upper - near, price <= self.limits.lower + near
        side = "upper" if upper else "lower" if lower else None
        return self if side is None else replace(self, armed_at=at, armed_side=side)

    def at(self, when: datetime, tick: Decimal) -> "DynamicBand":
        """The band at a moment: flexed where the cooling is over. Orders outside of it are cancelled by the exchange."""
        if self.armed_at is None or when < self.armed_at + cooling(self.flexes, self.armed_at):
            return self
        shift = round_price(self.base * _flex(self.flexes, self.armed_at).size, tick)
        moved = shift if self.armed_side == "upper" else -shift
        return DynamicBand(
            self.base, CircuitLimits(self.limits.lower + moved, self.limits.upper + moved), self.flexes + 1
        )


def cooling(flexes_before: int, at: datetime) -> timedelta:
    """How long a band stays after a trade at its edge, by how often it was flexed today and whether the day is late."""
    row = _flex(flexes_before, at)
    late = at.astimezone(IST).time() >= _trigger(at).late_from
    return timedelta(minutes=row.late_cooling_minutes if late else row.cooling_minutes)


def _around(price: Decimal, width: Decimal, tick: Decimal) -> CircuitLimits:
    half = price * width
    return CircuitLimits(round_price(price - half, tick, "up"), round_price(price + half, tick, "down"))


def _flex(flexes_before: int, at: datetime) -> FlexRow:
    number = min(flexes_before + 1, max(_flexes().keys()))
    return _flexes().at(number, at.astimezone(IST).date()).row


def _trigger(at: datetime) -> FlexTriggerRow:
    return _triggers().at("flex", at.astimezone(IST).date()).row


@cache
def _bands() -> RuleTable[BandRow]:
    return load(FILE, "band", BandRow, lambda row: row.name)


@cache
def _triggers() -> RuleTable[FlexTriggerRow]:
    return load(FILE, "flex_trigger", FlexTriggerRow, lambda _: "flex")


@cache
def _flexes() -> RuleTable[FlexRow]:
    return load(FILE, "flex", FlexRow, lambda row: row.number)
