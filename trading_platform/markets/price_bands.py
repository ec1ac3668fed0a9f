"""Within which prices an order may be: circuit limits, the closing auction's band, and dynamic bands that are flexed.

Circuit limits are read from the broker's quote and never computed: lists change daily and bands during the day. Limits of
0 and 0 (indices) mean that there are none. Rules of dynamic bands: NSE/FAOP/64995, BSE 20241112-10 and -11.
"""

from dataclasses import dataclass, replace
from datetime import datetime, time, timedelta
from decimal import Decimal

from trading_platform.markets.denials import Denial
from trading_platform.markets.sessions import IST
from trading_platform.markets.ticks import round_price

ZERO = Decimal(0)
CLOSING_AUCTION_BAND = Decimal("0.03")
"""NSE/CMTR/73362: +/- 3 % of the reference price, also for stock futures from 15:15."""
FIRST_BAND = Decimal("0.10")
FLEX_WITHIN = Decimal("0.001")
"""A trade at 9.90 % of a 10 % band flexes it (14.90 % of 15 %)."""
LAST_HALF_HOUR = time(15, 0)
LEAST_TRADES, LEAST_CLIENTS, LEAST_MEMBERS = 50, 10, 3
"""On each side, before a band is flexed."""


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


def closing_auction_limits(reference: Decimal, tick: Decimal) -> CircuitLimits:
    """The band of the closing auction around its reference price (the VWAP of 15:00 to 15:15), on the tick inside it."""
    width = reference * CLOSING_AUCTION_BAND
    return CircuitLimits(round_price(reference - width, tick, "up"), round_price(reference + width, tick, "down"))


@dataclass(frozen=True, slots=True)
class Activity:
    """What the exchange wants to see on each side before it flexes a band."""

    trades: int
    clients: int
    members: int

    @property
    def enough(self) -> bool:
        return self.trades >= LEAST_TRADES and self.clients >= LEAST_CLIENTS and self.members >= LEAST_MEMBERS


@dataclass(frozen=True, slots=True)
class DynamicBand:
    """The band of a share with derivatives: it starts at +/- 10 % of the base and slides as a whole when flexed.

    `flexes` counts those of the day. `armed_at` is when a trade last reached the edge; the flex comes after the cooling.
    """

    base: Decimal
    lower: Decimal
    upper: Decimal
    flexes: int = 0
    armed_at: datetime | None = None
    armed_side: str | None = None

    @classmethod
    def of_day(cls, base: Decimal, tick: Decimal) -> "DynamicBand":
        width = base * FIRST_BAND
        return cls(base, round_price(base - width, tick, "up"), round_price(base + width, tick, "down"))

    def traded(self, price: Decimal, at: datetime, buyers: Activity, sellers: Activity) -> "DynamicBand":
        """After a trade: the cooling begins when it is at the edge and both sides are active enough."""
        if self.armed_at is not None or not (buyers.enough and sellers.enough):
            return self
        near = self.base * FLEX_WITHIN
        side = "upper" if price >= self.upper - near else "lower" if price <= self.lower + near else None
        return self if side is None else replace(self, armed_at=at, armed_side=side)

    def at(self, when: datetime, tick: Decimal) -> "DynamicBand":
        """The band at a moment: flexed where the cooling is over. Orders outside of it are cancelled by the exchange."""
        if self.armed_at is None or when < self.armed_at + cooling(self.flexes, self.armed_at):
            return self
        shift = round_price(self.base * flex_size(self.flexes), tick, "nearest")
        moved = shift if self.armed_side == "upper" else -shift
        return DynamicBand(self.base, self.lower + moved, self.upper + moved, self.flexes + 1)


def flex_size(flexes_before: int) -> Decimal:
    """By how much of the base the next flex moves the band: 5 % twice, 3 % twice, then 2 %."""
    return Decimal("0.05") if flexes_before < 2 else Decimal("0.03") if flexes_before < 4 else Decimal("0.02")


def cooling(flexes_before: int, at: datetime) -> timedelta:
    """How long a band stays after a trade at its edge: 15 minutes (5 in the last half hour), then 30, then 60."""
    if flexes_before < 2:
        return timedelta(minutes=5 if at.astimezone(IST).time() >= LAST_HALF_HOUR else 15)
    return timedelta(minutes=30 if flexes_before < 4 else 60)
