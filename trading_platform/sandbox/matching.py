"""Matching: price-time priority against a book made from the bars.

Around the last close stands a synthetic book: `LEVELS` prices a side, the first half a spread away, one basis point
apart, each with a share of the bar's volume. A market order walks it, so that slippage grows with size, and what the
book does not hold expires. A resting order fills when a later bar trades through its price, in order of price, then of
arrival, out of a share of that bar's volume; at the very price it waits its turn and gets nothing of a bar that only
touched it. Everything follows from bars and orders alone: the same commands give the same books.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from trading_platform.market_data.bar import Bar
from trading_platform.markets.instruments import Instrument
from trading_platform.sandbox.books import Books, Order

BASIS_POINT = Decimal("0.0001")
HALF_SPREAD = BASIS_POINT
LEVELS = 20
SHARE_OF_VOLUME_A_LEVEL = Decimal("0.001")
SHARE_OF_VOLUME_FOR_RESTING = Decimal("0.1")
LEAST_NOTIONAL_A_LEVEL = Decimal(10_000)
"""Quote currency on every level of a bar without volume, so that a quiet hour still has a market."""


@dataclass
class Level:
    price: Decimal
    quantity: Decimal


@dataclass
class Market:
    """One instrument: its last bar and the synthetic book around its close."""

    instrument: Instrument
    last: Decimal | None = None
    bids: list[Level] = field(default_factory=list)
    asks: list[Level] = field(default_factory=list)

    def take(self, bar: Bar) -> None:
        """The book after a bar; what orders had taken out of the old one is back."""
        self.last = _decimal(bar.close)
        depth = max(_decimal(bar.volume) * SHARE_OF_VOLUME_A_LEVEL, LEAST_NOTIONAL_A_LEVEL / self.last)
        quantity = max(self.instrument.round_quantity(depth), self.instrument.step)
        self.asks = [
            Level(self._price(1 + HALF_SPREAD + n * BASIS_POINT, ROUND_CEILING), quantity) for n in range(LEVELS)
        ]
        self.bids = [
            Level(self._price(1 - HALF_SPREAD - n * BASIS_POINT, ROUND_FLOOR), quantity) for n in range(LEVELS)
        ]

    def _price(self, factor: Decimal, rounding: str) -> Decimal:
        assert self.last is not None
        tick = self.instrument.tick
        return max((self.last * factor / tick).to_integral_value(rounding) * tick, tick)

    def worst_price(self, order: Order) -> Decimal:
        """What a unit can cost at most: the last level it can reach, or its own limit."""
        if order.kind != "MARKET":
            return order.price
        return self.asks[-1].price if order.side == "BUY" else self.bids[-1].price

    def available(self, order: Order) -> Decimal:
        """Quantity that an order could take from the book right now."""
        return sum((level.quantity for level in self._reachable(order)), Decimal(0))

    def execute(self, books: Books, order: Order, time: int) -> None:
        """Take from the book what the order can reach; levels shrink until the next bar."""
        for level in self._reachable(order):
            quantity = min(level.quantity, order.remaining)
            if quantity <= 0:
                break
            level.quantity -= quantity
            books.fill(order, level.price, quantity, maker=False, time=time)

    def _reachable(self, order: Order) -> Iterable[Level]:
        side = self.asks if order.side == "BUY" else self.bids
        for level in side:
            within = order.kind == "MARKET" or (
                level.price <= order.price if order.side == "BUY" else level.price >= order.price
            )
            if within and level.quantity > 0:
                yield level


def place(books: Books, market: Market, order: Order, time: int) -> None:
    """Match an order that has been entered, as its type and time in force say; what is left rests, expires or is void."""
    if order.time_in_force == "FOK" and market.available(order) < order.quantity:
        books.finish(order, "EXPIRED", time)
        return
    if order.kind != "LIMIT_MAKER":
        market.execute(books, order, time)
    if order.is_open and (order.kind == "MARKET" or order.time_in_force != "GTC"):
        books.finish(order, "EXPIRED", time)


def would_take(market: Market, order: Order) -> bool:
    """Whether a LIMIT_MAKER would match at once, and must be refused."""
    return order.kind == "LIMIT_MAKER" and market.available(order) > 0


def match_resting(books: Books, bar: Bar, time: int) -> list[Order]:
    """Fill resting orders that a bar traded through; returns those that changed."""
    resting = [
        order
        for account in books.accounts.values()
        for order in account.open_orders(bar.symbol)
        if (_decimal(bar.low) < order.price if order.side == "BUY" else _decimal(bar.high) > order.price)
    ]
    changed = []
    instrument = books.instruments[bar.symbol]
    for side in ("BUY", "SELL"):
        left = instrument.round_quantity(_decimal(bar.volume) * SHARE_OF_VOLUME_FOR_RESTING)
        queue = [order for order in resting if order.side == side]
        queue.sort(key=lambda order: (-order.price if order.side == "BUY" else order.price, order.order_id))
        for order in queue:
            quantity = min(order.remaining, left)
            if quantity > 0:
                books.fill(order, order.price, quantity, maker=True, time=time)
                left -= quantity
                changed.append(order)
    return changed


def _decimal(value: float) -> Decimal:
    return Decimal(repr(value))
