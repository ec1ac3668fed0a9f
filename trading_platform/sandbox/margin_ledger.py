"""The money of accounts that trade on margin, as an Indian broker keeps it: rupees, positions by product, blocked margin.

Delivery (CNC, MTF) is paid in full and sells only what is held. Everything else opens a position long or short against
blocked money: an order blocks the margin of what it would open, nothing for what it closes; a position blocks the margin of
its cost until it is closed, and what closing it gained or lost is money at once. So at any time

    free + locked rupees = what was paid in - bought + sold + cost of open positions - what was billed

to the last decimal, whatever is traded.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal

from trading_platform.sandbox.events import Converted, Filled, Paid, Settled
from trading_platform.sandbox.orders import ZERO, Order, OrderRequest, Side

RUPEES = "INR"
DELIVERY = frozenset({"CNC", "MTF"})
UNIT = Decimal("1e-8")
DAY_MS = 86_400_000
IST_MS = 19_800_000
MarginOf = Callable[[str, str, Side, Decimal, Decimal, int], Decimal]
"""(symbol, product, side, quantity, value, market time in ms): rupees that a position blocks."""


@dataclass(slots=True)
class Balance:
    """One asset of one account."""

    free: Decimal = ZERO
    locked: Decimal = ZERO


@dataclass(slots=True)
class Position:
    """One contract in one product. `units` and `cost` are negative for a short; `day` is the IST day of the figures of a day."""

    symbol: str
    product: str
    units: Decimal = ZERO
    cost: Decimal = ZERO
    margin: Decimal = ZERO
    realised: Decimal = ZERO
    """Of `day` alone, as everything below."""
    day: int = 0
    opening: Decimal = ZERO
    opening_cost: Decimal = ZERO
    bought: Decimal = ZERO
    bought_value: Decimal = ZERO
    sold: Decimal = ZERO
    sold_value: Decimal = ZERO

    @property
    def average(self) -> Decimal:
        return self.cost / self.units if self.units else ZERO

    def is_closed_by(self, side: Side) -> bool:
        return self.units < 0 if side == "BUY" else self.units > 0

    def roll(self, day: int) -> None:
        """Begin a new day: what is there now was there at its opening."""
        if day != self.day:
            self.day, self.opening, self.opening_cost = day, self.units, self.cost
            self.bought = self.bought_value = self.sold = self.sold_value = self.realised = ZERO

    def trade(self, side: Side, price: Decimal, quantity: Decimal, day: int) -> Decimal:
        """Take a trade; returns what it realised in rupees."""
        self.roll(day)
        sign = 1 if side == "BUY" else -1
        if side == "BUY":
            self.bought, self.bought_value = self.bought + quantity, self.bought_value + price * quantity
        else:
            self.sold, self.sold_value = self.sold + quantity, self.sold_value + price * quantity
        closing = min(quantity, abs(self.units)) if self.units * sign < 0 else ZERO
        removed = self._cost_of(closing)
        realised = -sign * price * closing - removed
        self.units += sign * quantity
        self.cost += sign * price * (quantity - closing) - removed
        self.realised += realised
        return realised

    def take_out(self, units: Decimal) -> Decimal:
        """Remove `units` (signed as the position) at cost, for another product; returns that cost."""
        removed = self._cost_of(abs(units))
        self.units -= units
        self.cost -= removed
        return removed

    def _cost_of(self, quantity: Decimal) -> Decimal:
        if quantity == abs(self.units):
            return self.cost
        return (self.cost * quantity / abs(self.units)).quantize(UNIT) if quantity else ZERO


def day_of(time: int) -> int:
    """The number of an IST day, of market time in milliseconds."""
    return (time + IST_MS) // DAY_MS


def key_of(symbol: str, product: str) -> str:
    return f"{product}:{symbol}"


def is_delivery(request: OrderRequest) -> bool:
    return request.terms.get("product", "CNC") in DELIVERY


def asks(
    margin_of: MarginOf,
    position: Position,
    others_closing: Decimal,
    request: OrderRequest,
    quantity: Decimal,
    time: int,
) -> Decimal:
    """What an order locks: rupees, or for a sale of delivered shares those shares.

    `others_closing`: quantity of the account's other open orders that would close the same position.
    """
    if is_delivery(request):
        return quantity if request.side == "SELL" else quantity * (request.limit_price or ZERO)
    against = -position.units if request.side == "BUY" else position.units
    opening = max(quantity - max(against - others_closing, ZERO), ZERO)
    value = opening * (request.limit_price or ZERO)
    product = request.terms.get("product", "MIS")
    # The premium of what is sold is credited with the trade: no order frees money.
    return max(margin_of(request.symbol, product, request.side, opening, value, time), ZERO) if opening else ZERO


def margin_after(
    margin_of: MarginOf, position: Position, side: Side, price: Decimal, quantity: Decimal, time: int
) -> Decimal:
    """What the position will block after a trade."""
    after = replace(position)
    after.trade(side, price, quantity, day_of(time))
    return margin_for(margin_of, after, time)


def margin_for(margin_of: MarginOf, position: Position, time: int) -> Decimal:
    if not position.units or position.product in DELIVERY:
        return ZERO
    side: Side = "BUY" if position.units > 0 else "SELL"
    return margin_of(position.symbol, position.product, side, abs(position.units), abs(position.cost), time).quantize(
        UNIT
    )


def fill(cash: Balance, shares: Balance, position: Position, order: Order, event: Filled) -> None:
    """Move the money and shares of a fill, whose order has not been told of it yet."""
    price, quantity = event.price, event.quantity
    part = order.locked if quantity == order.remaining else (order.locked * quantity / order.remaining).quantize(UNIT)
    realised = position.trade(order.side, price, quantity, day_of(event.time))
    order.locked -= part
    if is_delivery(order.request):
        if order.side == "SELL":
            shares.locked -= part
            cash.free += price * quantity
        else:
            cash.locked -= part
            cash.free += part - price * quantity
            shares.free += quantity
        return
    cash.locked -= part
    cash.free += part
    _block(cash, position, event.margin or ZERO)
    cash.free += realised


def settle(cash: Balance, position: Position, event: Settled) -> None:
    """A contract ended, or the exchange closed it: everything at one price."""
    side: Side = "SELL" if position.units > 0 else "BUY"
    cash.free += position.trade(side, event.price, abs(position.units), day_of(event.time))
    _block(cash, position, ZERO)


def convert(cash: Balance, shares: Balance, before: Position, after: Position, event: Converted) -> None:
    """Move units from one product to another, at their cost."""
    for position in (before, after):
        position.roll(day_of(event.time))
    cost = before.take_out(event.units)
    after.units += event.units
    after.cost += cost
    if event.units > 0:  # the day's trades go with them, so that both products add up
        before.bought, before.bought_value = before.bought - event.units, before.bought_value - cost
        after.bought, after.bought_value = after.bought + event.units, after.bought_value + cost
    else:
        before.sold, before.sold_value = before.sold + event.units, before.sold_value + cost
        after.sold, after.sold_value = after.sold - event.units, after.sold_value - cost
    _block(cash, before, event.margin_before)
    _block(cash, after, event.margin_after)
    if before.product in DELIVERY:
        shares.free -= event.units
        cash.free += cost
    if after.product in DELIVERY:
        shares.free += event.units
        cash.free -= cost


def pay(cash: Balance, event: Paid) -> None:
    cash.free -= event.amount


def _block(cash: Balance, position: Position, margin: Decimal) -> None:
    cash.locked += margin - position.margin
    cash.free -= margin - position.margin
    position.margin = margin
