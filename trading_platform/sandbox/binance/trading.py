"""Signed routes: accounts, orders, order lists, trades, and the keys of user data streams."""

from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

from aiohttp import web

from trading_platform.sandbox.binance import shapes
from trading_platform.sandbox.binance.errors import BinanceError, refused
from trading_platform.sandbox.binance.gateway import Call, Gateway, Security
from trading_platform.sandbox.binance.market_data import API, MOST_ROWS, Symbols
from trading_platform.sandbox.binance.order_lists import legs, legs_of_deprecated
from trading_platform.sandbox.binance.order_types import order_request, side_of
from trading_platform.sandbox.binance.parameters import Parameters
from trading_platform.sandbox.books import Account
from trading_platform.sandbox.exchange import Exchange
from trading_platform.sandbox.orders import Order, OrderList, OrderRequest
from trading_platform.sandbox.rules import RefusedError

RESTRICTIONS = {"ONLY_NEW": "NEW", "ONLY_PARTIALLY_FILLED": "PARTIALLY_FILLED"}


class ListenKeys(Protocol):
    """Where user data streams are kept."""

    def listen_key(self, account: Account) -> str: ...

    def close_listen_key(self, account: Account) -> None: ...


class Timed(Protocol):
    """What has a market time."""

    @property
    def time(self) -> int: ...


Found = TypeVar("Found", bound=Timed)


class Trading:
    """Handlers of the signed routes."""

    def __init__(self, exchange: Exchange, gateway: Gateway, symbols: Symbols, listen_keys: ListenKeys) -> None:
        self.exchange, self.gateway, self.symbols, self.listen_keys = exchange, gateway, symbols, listen_keys

    def routes(self) -> list[web.RouteDef]:
        signed = self._signed
        return [
            signed("GET", "account", self.account, 20),
            signed("GET", "account/commission", self.commission, 20),
            signed("POST", "order", self.place),
            signed("POST", "order/test", self.test),
            signed("GET", "order", self.query, 4),
            signed("DELETE", "order", self.cancel),
            signed("POST", "order/cancelReplace", self.cancel_replace),
            signed("GET", "openOrders", self.open_orders, lambda sent: 6 if "symbol" in sent else 80),
            signed("DELETE", "openOrders", self.cancel_all),
            signed("GET", "allOrders", self.all_orders, 20),
            signed("POST", "order/oco", self.place_deprecated_oco),
            signed("POST", "orderList/oco", self.place_oco),
            signed("GET", "orderList", self.query_list, 4),
            signed("DELETE", "orderList", self.cancel_list),
            signed("GET", "openOrderList", self.open_lists, 6),
            signed("GET", "allOrderList", self.all_lists, 20),
            signed("GET", "myTrades", self.my_trades, lambda sent: 5 if "orderId" in sent else 20),
            signed("GET", "rateLimit/order", self.order_limits, 40),
            signed("POST", "userDataStream", self.open_stream, 2, "key"),
            signed("PUT", "userDataStream", self.keep_stream, 2, "key"),
            signed("DELETE", "userDataStream", self.close_stream, 2, "key"),
        ]

    # --- account -----------------------------------------------------------------------------------------------------

    def account(self, call: Call) -> object:
        omit_zero = call.parameters.get("omitZeroBalances") == "true"
        return shapes.account(call.customer, self.exchange.books, omit_zero=omit_zero)

    def commission(self, call: Call) -> object:
        rate = shapes.number(self.exchange.books.fee_rate)
        none = dict.fromkeys(("maker", "taker", "buyer", "seller"), "0.00000000")
        return {
            "symbol": shapes.venue_symbol(self.symbols.one(call.parameters)),
            "standardCommission": none | {"maker": rate, "taker": rate},
            "specialCommission": none,
            "taxCommission": none,
            "discount": {
                "enabledForAccount": False, "enabledForSymbol": False, "discountAsset": "BNB", "discount": "0.00000000",
            },
        }  # fmt: skip

    def order_limits(self, call: Call) -> object:
        count = len(self.gateway.order_times.get(call.customer.account_id, []))
        return [
            {
                "rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": self.gateway.order_limit,
                "count": count,
            }
        ]  # fmt: skip

    # --- orders ------------------------------------------------------------------------------------------------------

    def place(self, call: Call) -> object:
        request = self._request(call)
        shape = _shape(call.parameters, request)
        self.gateway.count_orders(call.customer, 1)
        return shape(self.exchange.place_order(call.customer, request))

    def test(self, call: Call) -> object:
        self.exchange.checked(call.customer, self._request(call))
        return {}

    def query(self, call: Call) -> object:
        return shapes.order(self._order(call, "orderId", "origClientOrderId", -2013, "Order does not exist."))

    def cancel(self, call: Call) -> object:
        order = self._order(call, "orderId", "origClientOrderId", -2011, "Unknown order sent.")
        _check_restriction(call.parameters, order)
        return self._cancelled(self.exchange.cancel_order(order), call, "newClientOrderId")

    def cancel_all(self, call: Call) -> object:
        symbol = self.symbols.one(call.parameters)
        found = [order for order in call.customer.open.values() if order.symbol == symbol]
        if not found:
            raise BinanceError(-2011, "Unknown order sent.")
        cancelled = self.exchange.cancel_orders(found)
        alone = [shapes.cancelled(order, self._cancel_id(call)) for order in cancelled if order.list_id is None]
        lists = {order.list_id for order in cancelled if order.list_id is not None}
        return alone + [self._cancelled_list(self.exchange.books.lists[number], call) for number in sorted(lists)]

    def cancel_replace(self, call: Call) -> object:
        """Cancel an order and place another; answers 409 where one of the two went wrong, 400 where both did."""
        sent = call.parameters
        mode = sent.choice(
            "cancelReplaceMode", ("STOP_ON_FAILURE", "ALLOW_FAILURE"), -1102,
            "Mandatory parameter 'cancelReplaceMode' was not sent, was empty/null, or malformed.",
        )  # fmt: skip
        request = self._request(call)
        shape = _shape(sent, request)
        order: Order | None
        try:
            order = self._order(call, "cancelOrderId", "cancelOrigClientOrderId", -2011, "Unknown order sent.")
            _check_restriction(sent, order)
        except BinanceError as error:
            if error.code != -2011:
                raise
            order = None
        self.gateway.count_orders(call.customer, 1)
        cancelled, placed = self.exchange.replace_order(
            call.customer, order, request, even_if_done=mode == "ALLOW_FAILURE"
        )
        outcome = {
            "cancelResult": _outcome(cancelled),
            "newOrderResult": _outcome(placed),
            "cancelResponse": refused(cancelled).body if isinstance(cancelled, RefusedError)
            else self._cancelled(cancelled, call, "cancelNewClientOrderId"),
            "newOrderResponse": None if placed is None
            else refused(placed).body if isinstance(placed, RefusedError) else shape(placed),
        }  # fmt: skip
        results = {outcome["cancelResult"], outcome["newOrderResult"]}
        if results == {"SUCCESS"}:
            return outcome
        if "SUCCESS" in results:
            raise BinanceError(-2021, "Order cancel-replace partially failed.", 409, data=outcome)
        raise BinanceError(-2022, "Order cancel-replace failed.", 400, data=outcome)

    def open_orders(self, call: Call) -> object:
        symbol = self.symbols.one(call.parameters) if "symbol" in call.parameters else None
        return [shapes.order(order) for order in call.customer.open.values() if symbol in (None, order.symbol)]

    def all_orders(self, call: Call) -> object:
        symbol, first = self.symbols.one(call.parameters), call.parameters.integer("orderId")
        found = (o for o in call.customer.orders.values() if o.symbol == symbol and o.order_id >= (first or 0))
        return [shapes.order(order) for order in _page(found, call.parameters, forward=first is not None)]

    def my_trades(self, call: Call) -> object:
        symbol, order_id = self.symbols.one(call.parameters), call.parameters.integer("orderId")
        first, account = call.parameters.integer("fromId"), call.customer
        found = (
            trade
            for trade in account.trades
            if trade.symbol == symbol and order_id in (None, trade.order_id) and trade.trade_id >= (first or 0)
        )
        chosen = _page(found, call.parameters, forward=first is not None)
        return [shapes.my_trade(trade, account.orders[trade.order_id].list_id) for trade in chosen]

    # --- order lists -------------------------------------------------------------------------------------------------

    def place_oco(self, call: Call) -> object:
        return self._place_list(call, legs(call.parameters))

    def place_deprecated_oco(self, call: Call) -> object:
        return self._place_list(call, legs_of_deprecated(call.parameters))

    def query_list(self, call: Call) -> object:
        return self._list(self._order_list(call, "origClientOrderId", -2013, "Order list does not exist."))

    def cancel_list(self, call: Call) -> object:
        found = self._order_list(call, "listClientOrderId", -2011, "Unknown order list sent.")
        still_open = [o for o in map(self.exchange.books.orders.__getitem__, found.order_ids) if o.is_open]
        if not still_open:
            raise BinanceError(-2011, "Unknown order list sent.")
        self.exchange.cancel_order(still_open[0])
        return self._cancelled_list(found, call)

    def open_lists(self, call: Call) -> object:
        return [self._list(found) for found in call.customer.lists.values() if self.exchange.is_executing(found)]

    def all_lists(self, call: Call) -> object:
        first = call.parameters.integer("fromId")
        found = (each for each in call.customer.lists.values() if each.list_id >= (first or 0))
        return [self._list(each) for each in _page(found, call.parameters, forward=first is not None)]

    # --- user data streams -------------------------------------------------------------------------------------------

    def open_stream(self, call: Call) -> object:
        return {"listenKey": self.listen_keys.listen_key(call.customer)}

    def keep_stream(self, call: Call) -> object:
        self._check_listen_key(call)
        return {}

    def close_stream(self, call: Call) -> object:
        self._check_listen_key(call)
        self.listen_keys.close_listen_key(call.customer)
        return {}

    # --- inside ------------------------------------------------------------------------------------------------------

    def _signed(
        self, method: str, path: str, handler: Callable[[Call], object],
        weight: int | Callable[[Parameters], int] = 1, security: Security = "signed",
    ) -> web.RouteDef:  # fmt: skip
        return self.gateway.route(method, f"{API}/{path}", handler, weight, security)

    def _request(self, call: Call) -> OrderRequest:
        symbol = self.symbols.one(call.parameters)
        client_id = call.parameters.client_id("newClientOrderId", self._new_id())
        return order_request(call.parameters, symbol, side_of(call.parameters), client_id)

    def _new_id(self, ahead: int = 1) -> str:
        """An id for an order whose customer gave none; it follows from the order's number."""
        return f"sb{self.exchange.books.last_order_id + ahead:020d}"

    def _cancel_id(self, call: Call, name: str = "newClientOrderId") -> str:
        return call.parameters.client_id(name, f"cancel{self.exchange.books.last_order_id:016d}")

    def _order(self, call: Call, number: str, client_id: str, code: int, message: str) -> Order:
        """The customer's order that a request names by number, by client order id, or by both."""
        symbol, sent = self.symbols.one(call.parameters), call.parameters
        order_id = sent.integer(number)
        if order_id is None and client_id not in sent:
            raise BinanceError(-1102, f"Param '{client_id}' or '{number}' must be sent, but both were empty/null!")
        found = (
            call.customer.by_client_id.get(sent[client_id]) if order_id is None else call.customer.orders.get(order_id)
        )
        if (
            found is None
            or found.symbol != symbol
            or sent.get(client_id, found.client_order_id) != found.client_order_id
        ):
            raise BinanceError(code, message)
        return found

    def _cancelled(self, cancelled: list[Order], call: Call, id_name: str) -> dict[str, Any]:
        order = cancelled[0]
        if order.list_id is not None and len(cancelled) > 1:
            return self._cancelled_list(self.exchange.books.lists[order.list_id], call)
        return shapes.cancelled(order, self._cancel_id(call, id_name))

    def _place_list(self, call: Call, pair: tuple[Parameters, Parameters]) -> object:
        symbol, side = self.symbols.one(call.parameters), side_of(call.parameters)
        requests = [
            order_request(
                leg.updated(quantity=call.parameters.required("quantity")), symbol, side,
                leg.client_id("clientOrderId", self._new_id(number)),
            )
            for number, leg in enumerate(pair, 1)
        ]  # fmt: skip
        client_id = call.parameters.client_id("listClientOrderId", f"list{self.exchange.books.last_list_id + 1:018d}")
        self.gateway.count_orders(call.customer, 2)
        placed = self.exchange.place_list(call.customer, client_id, requests[0], requests[1])
        orders = [self.exchange.books.orders[number] for number in placed.order_ids]
        return self._list(placed) | {"orderReports": [shapes.result(order) for order in orders]}

    def _order_list(self, call: Call, client_id: str, code: int, message: str) -> OrderList:
        number, sent = call.parameters.integer("orderListId"), call.parameters
        if number is None and client_id not in sent:
            raise BinanceError(-1102, f"Param '{client_id}' or 'orderListId' must be sent, but both were empty/null!")
        for found in reversed(call.customer.lists.values()):
            if number in (None, found.list_id) and sent.get(client_id, found.client_id) == found.client_id:
                return found
        raise BinanceError(code, message)

    def _list(self, found: OrderList) -> dict[str, Any]:
        return shapes.order_list(found, self.exchange.books, executing=self.exchange.is_executing(found))

    def _cancelled_list(self, found: OrderList, call: Call) -> dict[str, Any]:
        orders = [self.exchange.books.orders[number] for number in found.order_ids]
        return self._list(found) | {
            "orderReports": [shapes.cancelled(order, self._cancel_id(call)) for order in orders]
        }

    def _check_listen_key(self, call: Call) -> None:
        if call.parameters.required("listenKey") != self.listen_keys.listen_key(call.customer):
            raise BinanceError(-1125, "This listenKey does not exist.")


def _shape(sent: Parameters, request: OrderRequest) -> Callable[[Order], dict[str, Any]]:
    """ACK, RESULT or FULL, as asked for; by default FULL for market and limit orders, else ACK."""
    simple = request.kind in ("MARKET", "LIMIT") and not request.post_only
    kind = sent.get("newOrderRespType", "FULL" if simple else "ACK")
    shape = {"ACK": shapes.acknowledged, "RESULT": shapes.result, "FULL": shapes.full}.get(kind)
    if shape is None:
        raise BinanceError(-1102, "Mandatory parameter 'newOrderRespType' was not sent, was empty/null, or malformed.")
    return shape


def _page(found: Iterable[Found], sent: Parameters, *, forward: bool) -> list[Found]:
    """Within startTime and endTime; the oldest `limit` where a beginning was given, else the newest."""
    since, until = sent.integer("startTime"), sent.integer("endTime")
    kept = [x for x in found if (since is None or x.time >= since) and (until is None or x.time <= until)]
    limit = max(min(sent.integer("limit") or 500, MOST_ROWS), 1)
    return kept[:limit] if forward or since is not None else kept[-limit:]


def _check_restriction(sent: Parameters, order: Order) -> None:
    wanted = sent.get("cancelRestrictions")
    if wanted is None:
        return
    if wanted not in RESTRICTIONS:
        raise BinanceError(-1145, "Invalid cancelRestrictions")
    if order.state != RESTRICTIONS[wanted]:
        raise BinanceError(-2011, "Order was not canceled due to cancel restrictions.")


def _outcome(what: object) -> str:
    return "NOT_ATTEMPTED" if what is None else "FAILURE" if isinstance(what, RefusedError) else "SUCCESS"
