"""Faults that concern single orders: one that is seen only after a while, and one that is filled after its cancellation."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from trading_platform.sandbox.exchange import Exchange
from trading_platform.sandbox.faults import Faults
from trading_platform.sandbox.kite.rows import Rows
from trading_platform.sandbox.orders import Order


@dataclass
class Mischief:
    """`hidden` and `late`: order id to the wall time (monotonic seconds) at which it ends."""

    exchange: Exchange
    rows: Rows
    faults: Faults
    hidden: dict[int, float] = field(default_factory=dict)
    late: dict[int, float] = field(default_factory=dict)
    now: Callable[[], float] = time.monotonic

    def placed(self, order: Order) -> None:
        if fault := self.faults.strike(frozenset({"hide_order"}), "kite", "order"):
            self.hidden[order.order_id] = self.now() + fault.seconds

    def shows(self, order: Order) -> bool:
        until = self.hidden.get(order.order_id)
        if until is None:
            return True
        if self.now() < until:
            return False
        del self.hidden[order.order_id]
        return True

    def cancels_late(self, order: Order) -> bool:
        """Whether the cancellation is only for show: the order is filled after it."""
        if not order.is_open or not (fault := self.faults.strike(frozenset({"late_fill"}), "kite", "order")):
            return False
        self.rows.looks_cancelled.add(order.order_id)
        self.late[order.order_id] = self.now() + fault.seconds
        return True

    def due(self) -> bool:
        """Fill what was to be filled late and whose time has come; whether there was any."""
        ripe = [number for number, until in self.late.items() if self.now() >= until]
        for number in ripe:
            del self.late[number]
            self.rows.looks_cancelled.discard(number)
            order = self.exchange.books.orders[number]
            price = order.request.limit_price or self.exchange.markets[order.symbol].last
            if order.is_open and price is not None:
                self.exchange.auction([order], price)
        return bool(ripe)
