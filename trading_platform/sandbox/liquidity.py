"""The synthetic book: what other people would offer around a price, made from the bar and a seed.

`LEVELS` prices a side, about one basis point apart (one tick at least), the first of them half a spread away. Each
level holds a thousandth of the bar's volume (10,000 of quote currency at least), a tenth more for each level farther
out, times a factor between 0.5 and 1.5. Half spread (0.5 to 1.5 basis points, by symbol) and factors (by bar and
level) follow from the seed, so equal runs meet equal books. What orders take is gone until the next bar.
"""

import random
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from trading_platform.markets.instruments import Instrument
from trading_platform.sandbox.orders import ZERO, Side

BASIS_POINT = Decimal("0.0001")
LEVELS = 20
SHARE_OF_VOLUME = Decimal("0.001")
LEAST_NOTIONAL = Decimal(10_000)
GROWTH = Decimal("0.1")


@dataclass(slots=True)
class Level:
    """A price and what is offered at it."""

    price: Decimal
    quantity: Decimal


@dataclass
class Liquidity:
    """The synthetic book of one instrument. Levels are made when somebody first looks."""

    instrument: Instrument
    seed: int
    last: Decimal | None = None
    """Close of the last bar, or the middle of the last live quote."""
    volume: Decimal = ZERO
    stamp: int = 0
    taken: dict[Side, dict[Decimal, Decimal]] = field(default_factory=lambda: {"BUY": {}, "SELL": {}})
    """Quantity gone from each level since the last bar, by the side of the level."""
    version: int = 0
    """Rises with every change of the book."""
    band: tuple[Decimal, Decimal] | None = None
    """Lowest and highest price of the day: nobody offers beyond them, so a market at a limit is locked."""
    _touch: tuple[Level, Level] | None = None
    _levels: dict[Side, list[Level]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.half_spread = BASIS_POINT * Decimal(random.Random(f"{self.seed}:{self.instrument.symbol}").randint(50, 150)) / 100  # noqa: S311  # fmt: skip

    def refresh(self, price: Decimal, volume: Decimal, stamp: int) -> None:
        """A new book around `price`; `stamp` (the bar's open time) draws its factors."""
        self.last, self.volume, self.stamp = price, volume, stamp
        self._touch = None
        self._renew()

    def limit(self, lower: Decimal, upper: Decimal) -> None:
        """The price band of the day."""
        if self.band != (lower, upper):
            self.band = (lower, upper)
            self._levels = {}
            self.version += 1

    def quote(self, bid: Level, ask: Level) -> None:
        """A live market's best prices: the book stands on them, deeper levels are synthetic."""
        self.last = (bid.price + ask.price) / 2
        self._touch = (bid, ask)
        self._renew()

    def side(self, side: Side) -> list[Level]:
        """Levels of a side, best price first, without what was taken. Empty before the first bar."""
        if side not in self._levels:
            self._levels[side] = self._remaining(side)
        return self._levels[side]

    def take(self, side: Side, price: Decimal, quantity: Decimal) -> None:
        """Somebody took `quantity` from the level at `price`."""
        gone = self.taken[side]
        gone[price] = gone.get(price, ZERO) + quantity
        self._levels.pop(side, None)
        self.version += 1

    def around(self, price: Decimal, side: Side) -> list[Level]:
        """A side of the book as it would be with the market at `price`."""
        tick, outward = self.instrument.tick, 1 if side == "SELL" else -1
        rounding = ROUND_CEILING if side == "SELL" else ROUND_FLOOR
        first = (price * (1 + outward * self.half_spread) / tick).to_integral_value(rounding) * tick
        gap = max(self.instrument.round_price(price * BASIS_POINT), tick)
        base = max(self.volume * SHARE_OF_VOLUME, LEAST_NOTIONAL / price)
        draw = random.Random(f"{self.seed}:{self.instrument.symbol}:{self.stamp}:{side}")  # noqa: S311
        levels = []
        for number in range(LEVELS):
            factor = (1 + GROWTH * number) * Decimal(draw.randint(50, 150)) / 100
            quantity = max(self.instrument.round_quantity(base * factor), self.instrument.step)
            levels.append(Level(first + outward * number * gap, quantity))
        low, high = self.band or (ZERO, None)
        return [
            level
            for level in levels
            if level.price > 0 and level.price >= low and (high is None or level.price <= high)
        ]

    def _renew(self) -> None:
        self.taken = {"BUY": {}, "SELL": {}}
        self._levels = {}
        self.version += 1

    def _remaining(self, side: Side) -> list[Level]:
        if self.last is None:
            return []
        levels = self.around(self.last, side)
        if self._touch is not None:
            best = self._touch[0] if side == "BUY" else self._touch[1]
            beyond = [x for x in levels if (x.price < best.price if side == "BUY" else x.price > best.price)]
            levels = [best, *beyond]
        gone = self.taken[side]
        left = (Level(level.price, level.quantity - gone.get(level.price, ZERO)) for level in levels)
        return [level for level in left if level.quantity > 0]
