"""Handlers of /orders and /trades: a form in, the desk's work, rows out."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from trading_platform.sandbox.books import Account
from trading_platform.sandbox.exchange import Exchange
from trading_platform.sandbox.kite.desk import Desk
from trading_platform.sandbox.kite.door import Call, Door
from trading_platform.sandbox.kite.errors import KiteError, bad_input
from trading_platform.sandbox.kite.forms import new_order
from trading_platform.sandbox.kite.mischief import Mischief
from trading_platform.sandbox.kite.portfolio import Portfolio
from trading_platform.sandbox.kite.rows import Rows, local, number_of
from trading_platform.sandbox.orders import Order

IST = ZoneInfo("Asia/Kolkata")
DAY_DIGITS = 6


@dataclass
class Orders:
    """`mischief`: faults that concern single orders."""

    exchange: Exchange
    desk: Desk
    rows: Rows
    portfolio: Portfolio
    door: Door
    mischief: Mischief

    def routes(self) -> Iterator[Any]:
        route = self.door.route
        yield route("POST", "/orders/{variety}", self.place, "order")
        yield route("PUT", "/orders/{variety}/{order_id}", self.modify, "order")
        yield route("DELETE", "/orders/{variety}/{order_id}", self.cancel, "order")
        yield route("GET", "/orders", self.day)
        yield route("GET", "/orders/{order_id}", self.history)
        yield route("GET", "/orders/{order_id}/trades", self.trades_of)
        yield route("GET", "/trades", self.trades)

    def place(self, call: Call) -> dict[str, object]:
        order = new_order(call.path["variety"], call.fields)
        if order.side == "SELL" and order.product in ("CNC", "MTF"):
            self.portfolio.require_authorised(call.account)
        if order.autoslice and order.variety == "regular":
            contract = self.desk.contract(order.exchange, order.tradingsymbol)
            most = self.desk.freeze.max_order(contract, self.desk.bands.now.astimezone(IST).date())
            if most and order.quantity > most and order.quantity % max(contract.lot_size, 1) == 0:
                return self.desk.place_slices(call.account, order, contract)
        placed = self.desk.place(call.account, order)
        self.mischief.placed(placed)
        self.desk.follow_up()
        return {"order_id": number_of(placed)}

    def modify(self, call: Call) -> dict[str, str]:
        order = self._find(call)
        self._require_variety(call, order)
        self.desk.modify(order, dict(call.fields))
        self.desk.follow_up()
        return {"order_id": number_of(order)}

    def cancel(self, call: Call) -> dict[str, str]:
        order = self._find(call)
        self._require_variety(call, order)
        if not order.is_open and order.request.terms["variety"] == "co":
            order = self._open_child(call.account, order) or order
        if not self.mischief.cancels_late(order):
            self.desk.cancel(order)
        return {"order_id": number_of(order)}

    def day(self, call: Call) -> list[dict[str, Any]]:
        """The book of the day: orders that were placed or that lived today, oldest first."""
        return [self.rows.order(order) for order in self._todays(call.account) if self.mischief.shows(order)]

    def history(self, call: Call) -> list[dict[str, Any]]:
        return self.rows.history(self._find(call))

    def trades_of(self, call: Call) -> list[dict[str, Any]]:
        order = self._find(call)
        return [self.rows.trade(trade, order) for trade in order.trades]

    def trades(self, call: Call) -> list[dict[str, Any]]:
        today, books = self._today(), self.exchange.books
        return [
            self.rows.trade(trade, books.orders[trade.order_id]) for trade in call.account.trades
            if local(trade.time).date() == today and self.mischief.shows(books.orders[trade.order_id])
        ]  # fmt: skip

    # --- inside ------------------------------------------------------------------------------------------------------

    def _today(self) -> Any:
        return datetime.fromtimestamp(self.exchange.now / 1_000, IST).date()

    def _find(self, call: Call) -> Order:
        text = call.path["order_id"]
        plain = text.isascii() and text.isdigit() and DAY_DIGITS < len(text) < 32
        order = call.account.orders.get(int(text[DAY_DIGITS:])) if plain else None
        if order is None or number_of(order) != text or "variety" not in order.request.terms or not self.mischief.shows(order):  # fmt: skip
            raise KiteError(404, "GeneralException", "Couldn't find that `order_id`.")
        return order

    def _require_variety(self, call: Call, order: Order) -> None:
        """An after-market order that was released is changed as a regular one; under its old name the call times out."""
        asked, was = call.path["variety"], order.request.terms["variety"]
        released = was == "amo" and (order.working_since is not None or not order.request.at_open)
        if released and asked == "amo":
            raise KiteError(503, "NetworkException", "request to the order management system timed out")
        if asked != ("regular" if released else was):
            raise bad_input("Invalid `variety`.")

    def _open_child(self, account: Account, order: Order) -> Order | None:
        number = number_of(order)
        return next((each for each in account.open.values() if each.request.terms.get("parent") == number), None)

    def _todays(self, account: Account) -> list[Order]:
        today = self._today()
        return [
            order for order in account.orders.values()
            if "variety" in order.request.terms
            and (order.is_open or today in (local(order.time).date(), local(order.updated).date()))
        ]  # fmt: skip
