"""Matching: price-time priority over customers' orders and the synthetic book together.

- An incoming order takes the best price first; at one price, whoever was there first. A customer's order that joined
  the queue at a synthetic level's price waits for what was `ahead` of it there.
- While a bar forms, orders that rest in the book trade with the market: those whose price it traded *through* share a
  tenth of its volume, in price-time priority; those whose price was its very extreme share a hundredth, after what was
  ahead of them. They get their own limit price.
- An order that was placed while the market was closed trades at the next bar's open, as far as its limit allows.
- Stop prices are compared with the bar's high and low. A triggered order meets the synthetic book as it stands around
  its stop price, or around the bar's open where that is already beyond. If a bar reaches both legs of a
  one-cancels-the-other list, the stop is taken to have come first: the worse of the two.
- Then the book is made anew around the close, and what crosses it trades: the book is never left crossed.

`Matching` decides and posts events; `Market.apply` lets them happen. Equal events and bars give equal decisions.
"""

from bisect import insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal

from trading_platform.markets.instruments import Instrument
from trading_platform.sandbox.books import Books, needed
from trading_platform.sandbox.events import (
    Amended,
    BarClosed,
    Ended,
    Entered,
    Event,
    Filled,
    Moved,
    Post,
    Reserved,
    Rested,
    Triggered,
)
from trading_platform.sandbox.liquidity import Level, Liquidity
from trading_platform.sandbox.orders import ZERO, Order, Side

SHARE_WHEN_TRADED_THROUGH = Decimal("0.1")
SHARE_AT_THE_EXTREME = Decimal("0.01")
OPPOSITE: dict[Side, Side] = {"BUY": "SELL", "SELL": "BUY"}


@dataclass(frozen=True, slots=True)
class Match:
    """What an order would get: from a customer's resting order, else from a level of the synthetic book.

    `standing`: the level is part of the present book, which has less afterwards.
    """

    price: Decimal
    quantity: Decimal
    resting: Order | None = None
    standing: bool = True


@dataclass
class Market:
    """One instrument: the synthetic book, customers' resting orders by priority, and stops that wait."""

    instrument: Instrument
    liquidity: Liquidity
    resting: dict[Side, list[Order]] = field(default_factory=lambda: {"BUY": [], "SELL": []})
    stops: dict[int, Order] = field(default_factory=dict)
    arrivals: int = 0

    @property
    def last(self) -> Decimal | None:
        """The last price: the close of the last bar. None before the first."""
        return self.liquidity.last

    def apply(self, event: Event, order: Order | None) -> None:
        """Let an event happen to the queues; `order` is the one it names, already changed by the books."""
        if isinstance(event, BarClosed):
            self.liquidity.refresh(decimal(event.close), decimal(event.volume), event.open_time)
        if order is None:
            return
        match event:
            case Entered(working=False):
                self.stops[order.order_id] = order
            case Amended():
                self._leave(order)
                if order.working_since is None:
                    self.stops[order.order_id] = order
            case Triggered():
                del self.stops[order.order_id]
            case Rested(ahead=ahead):
                self.arrivals += 1
                order.rank, order.ahead = self.arrivals, ahead
                self.join(order)
            case Moved(ahead=ahead):
                order.ahead = ahead
            case Filled(level=level, quantity=quantity) if level is not None:
                self._take(OPPOSITE[order.side], level, quantity)
            case _:
                pass
        if not order.is_open:
            self._leave(order)
        self.liquidity.version += 1

    def join(self, order: Order) -> None:
        """Queue an order by price, then by arrival."""
        insort(self.resting[order.side], order, key=_priority)

    def waiting_stops(self) -> list[Order]:
        """Stop orders whose price has not been reached, in the order in which they came."""
        return [self.stops[number] for number in sorted(self.stops)]

    def plan(self, side: Side, quantity: Decimal | None, limit: Decimal | None) -> list[Match]:
        """What an order of `side` would get right now, best price first; `quantity` None: all there is."""
        return list(take(self._offers(OPPOSITE[side]), side, quantity, limit))

    def best(self, side: Side) -> Level | None:
        """The best price of a side and all that is offered at it."""
        return next(iter(self.depth(side)), None)

    def depth(self, side: Side) -> list[Level]:
        """Price levels of a side, best first, customers' orders and the synthetic book together."""
        levels: list[Level] = []
        for offer in self._offers(side):
            if levels and levels[-1].price == offer.price:
                levels[-1].quantity += offer.quantity
            else:
                levels.append(Level(offer.price, offer.quantity))
        return levels

    def _offers(self, side: Side) -> Iterator[Match]:
        """All of a side in the order in which it would trade."""
        levels, queue, better = self.liquidity.side(side), self.resting[side], -1 if side == "BUY" else 1
        n = m = 0
        while n < len(levels) or m < len(queue):
            if m == len(queue) or (n < len(levels) and better * (levels[n].price - queue[m].limit) < 0):
                yield Match(levels[n].price, levels[n].quantity)
                n += 1
                continue
            price, level = queue[m].limit, ZERO
            if n < len(levels) and levels[n].price == price:
                level = levels[n].quantity
                n += 1
            before = min(queue[m].ahead, level)
            if before:
                yield Match(price, before)
            while m < len(queue) and queue[m].limit == price:
                yield Match(price, queue[m].remaining, queue[m])
                m += 1
            if level > before:
                yield Match(price, level - before)

    def _take(self, side: Side, price: Decimal, quantity: Decimal) -> None:
        self.liquidity.take(side, price, quantity)
        for order in self.resting[side]:
            if order.limit == price:
                order.ahead = max(order.ahead - quantity, ZERO)

    def _leave(self, order: Order) -> None:
        self.stops.pop(order.order_id, None)
        if order.rank:
            self.resting[order.side].remove(order)
            order.rank = 0


@dataclass
class Matching:
    """Decides over the books and markets of one exchange; every decision is posted."""

    books: Books
    post: Post

    def enter(self, market: Market, order: Order, time: int) -> None:
        """Match a working order that has been entered; what is left rests or expires as its time in force says."""
        self._settle(market, order, market.plan(order.side, order.remaining, order.request.limit_price), time)

    def take_bar(self, market: Market, bar: BarClosed, time: int) -> None:
        """Everything that a bar does to the orders of its symbol."""
        low, high, opened = decimal(bar.low), decimal(bar.high), decimal(bar.open)
        for order in market.waiting_stops():
            if order.is_open and order.request.at_open and order.request.stop_price is None:
                self._trigger(market, order, market.liquidity.around(opened, OPPOSITE[order.side]), False, time)
        waiting: dict[Side, list[Order]] = {"BUY": [*market.resting["BUY"]], "SELL": [*market.resting["SELL"]]}
        for order in market.waiting_stops():
            stop, rises = order.request.stop_price, order.request.stop_rises
            if stop is None:
                continue
            if order.is_open and (high >= stop if rises else low <= stop):
                around = max(stop, opened) if rises else min(stop, opened)
                self._trigger(market, order, market.liquidity.around(around, OPPOSITE[order.side]), False, time)
        self._trade_with_bar(market, waiting["BUY"], low, decimal(bar.volume), time)
        self._trade_with_bar(market, waiting["SELL"], high, decimal(bar.volume), time)
        self.post(bar)
        self._uncross(market, time)

    def take_quote(self, market: Market, bid: Level, ask: Level, time: int) -> None:
        """Everything that a live market's new best prices do."""
        market.liquidity.quote(bid, ask)
        self._uncross(market, time)
        for order in market.waiting_stops():
            stop, rises = order.request.stop_price, order.request.stop_rises
            if stop is None:
                continue
            if order.is_open and (ask.price >= stop if rises else bid.price <= stop):
                self._trigger(market, order, market.liquidity.side(OPPOSITE[order.side]), True, time)
        self._uncross(market, time)

    def at_one_price(self, order: Order, price: Decimal, time: int) -> None:
        """An auction's match: other people's orders are as many as it wants; an order that does not reach `price` ends."""
        if order.reaches(price):
            if order.working_since is None:
                self.post(Triggered(order.order_id, time))
            self._begin(order, time)
            self._fill(order, price, order.remaining, maker=False, level=None, time=time)
        else:
            self.post(Ended(order.order_id, "EXPIRED", "AUCTION_UNMATCHED", time))

    # --- inside ------------------------------------------------------------------------------------------------------

    def _settle(self, market: Market, order: Order, matches: list[Match], time: int) -> None:
        force = order.request.time_in_force
        if force == "FOK" and sum(match.quantity for match in matches) < order.remaining:
            self.post(Ended(order.order_id, "EXPIRED", "UNFILLED_FOK_ORDER_EXPIRED", time))
            return
        for match in matches:
            self._trade(order, match, match.price, maker=False, time=time)
        if not order.is_open:
            return
        if order.request.limit_price is None:
            self.post(Ended(order.order_id, "EXPIRED", "INSUFFICIENT_LIQUIDITY", time))
        elif force == "IOC":
            self.post(Ended(order.order_id, "EXPIRED", "UNFILLED_IOC_QUANTITY_EXPIRED", time))
        else:
            here = (x.quantity for x in market.liquidity.side(order.side) if x.price == order.limit)
            self.post(Rested(order.order_id, next(here, ZERO)))

    def _trigger(self, market: Market, order: Order, levels: list[Level], standing: bool, time: int) -> None:
        self._begin(order, time)
        self.post(Triggered(order.order_id, time))
        offers = (Match(level.price, level.quantity, standing=standing) for level in levels)
        matches = take(offers, order.side, order.remaining, order.request.limit_price)
        if order.side == "BUY" and order.request.limit_price is None:
            matches = within(matches, order.locked, market.instrument)
        self._settle(market, order, list(matches), time)

    def _trade_with_bar(
        self, market: Market, waiting: list[Order], extreme: Decimal, volume: Decimal, time: int
    ) -> None:
        """Fill orders that rested before the bar, best price first, from the bar's volume."""
        left = market.instrument.round_quantity(volume * SHARE_WHEN_TRADED_THROUGH)
        at_extreme = market.instrument.round_quantity(volume * SHARE_AT_THE_EXTREME)
        for order in waiting:
            if not order.is_open or not order.reaches(extreme):
                continue
            if order.limit == extreme:
                left = min(left, at_extreme)  # nothing, where better prices took all there was
                passed = min(order.ahead, left)
                left -= passed
            else:
                passed = order.ahead
            ahead = order.ahead - passed
            quantity = min(order.remaining, left)
            left -= quantity
            if ahead != order.ahead:
                self.post(Moved(order.order_id, ahead))
            if quantity:
                self._begin(order, time)
                self._fill(order, order.limit, quantity, maker=True, level=None, time=time)

    def _uncross(self, market: Market, time: int) -> None:
        """Trade what crosses: a resting order at its own price; of two customers, at the price that stood longer."""
        for side in ("BUY", "SELL"):
            for order in list(market.resting[side]):
                if not order.is_open:
                    continue
                for match in market.plan(order.side, order.remaining, order.limit):
                    older = match.resting is None or order.rank < match.resting.rank
                    self._trade(order, match, order.limit if older else match.price, maker=older, time=time)

    def _trade(self, order: Order, match: Match, price: Decimal, *, maker: bool, time: int) -> None:
        self._begin(order, time)
        if match.resting is None:
            level = match.price if match.standing else None
            self._fill(order, price, match.quantity, maker=maker, level=level, time=time)
        else:
            number = self.books.last_trade_id + 1
            self._begin(match.resting, time)
            self._fill(order, price, match.quantity, maker=maker, level=None, time=time, number=number)
            self._fill(match.resting, price, match.quantity, maker=not maker, level=None, time=time, number=number)

    def _begin(self, order: Order, time: int) -> None:
        """Before a leg of a list trades or triggers: the other leg expires, and its funds are this one's."""
        for sibling in list(self.books.siblings(order)):
            self.post(Ended(sibling.order_id, "EXPIRED", "OCO_TRIGGER", time))
        if order.list_id is not None:
            missing = needed(order.request, order.remaining) - order.locked
            if missing > 0:
                self.post(Reserved(order.order_id, missing))

    def _fill(
        self, order: Order, price: Decimal, quantity: Decimal, *, maker: bool, level: Decimal | None, time: int,
        number: int | None = None,
    ) -> None:  # fmt: skip
        fee = self.books.fee(order.symbol, order.side, price, quantity)
        asset = self.books.received_asset(order.symbol, order.side)
        number = number or self.books.last_trade_id + 1
        margin = self.books.margin_after(order, price, quantity, time)
        self.post(Filled(order.order_id, number, price, quantity, fee, asset, maker, level, time, margin))


def take(offers: Iterable[Match], side: Side, quantity: Decimal | None, limit: Decimal | None) -> Iterator[Match]:
    """The part of `offers` that an order of `side` reaches, up to `quantity`."""
    left = quantity
    for offer in offers:
        if limit is not None and (offer.price > limit if side == "BUY" else offer.price < limit):
            return
        part = offer.quantity if left is None else min(offer.quantity, left)
        if part <= 0:
            return
        yield replace(offer, quantity=part)
        left = None if left is None else left - part


def within(matches: Iterable[Match], budget: Decimal, instrument: Instrument) -> Iterator[Match]:
    """As much of `matches`, in whole steps, as has a value of at most `budget` in quote currency."""
    for match in matches:
        quantity = min(match.quantity, instrument.round_quantity(budget / match.price))
        if quantity > 0:
            yield replace(match, quantity=quantity)
        if quantity < match.quantity:
            return
        budget -= match.price * quantity


def decimal(value: float) -> Decimal:
    """The shortest decimal that is this float: prices as the files wrote them."""
    return Decimal(repr(value))


def _priority(order: Order) -> tuple[Decimal, int]:
    return (-order.limit if order.side == "BUY" else order.limit, order.rank)
