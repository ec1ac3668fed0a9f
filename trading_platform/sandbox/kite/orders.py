"""Orders as Kite Connect takes and shows them, on the sandbox's matching engine.

A market order with protection becomes a limit order around the last price at once, and is shown as one, with the broker's
own tags. An order placed after the market waits for the next open. What the broker's pre-check refuses is HTTP 400 and
leaves no row in the book.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, cast
from zoneinfo import ZoneInfo

from trading_platform.markets.contracts import Contract, ContractBook, UnknownContractError
from trading_platform.markets.kite_orders import KiteOrder, Surroundings, check, check_modification
from trading_platform.markets.quantities import FreezeTable
from trading_platform.markets.sessions import Phase, Segment, phase_at
from trading_platform.markets.ticks import round_price
from trading_platform.sandbox.books import Account
from trading_platform.sandbox.exchange import Exchange
from trading_platform.sandbox.kite.door import Call, Door
from trading_platform.sandbox.kite.errors import KiteError, bad_input, denied, insufficient_holdings, missing
from trading_platform.sandbox.orders import Order, OrderRequest, Trade

IST = ZoneInfo("Asia/Kolkata")
REQUIRED = ("exchange", "tradingsymbol", "transaction_type", "quantity", "product", "order_type")
VARIETIES = frozenset({"regular", "amo", "iceberg", "co", "auction"})
SERVED = frozenset({"regular", "amo"})
BANDS = ((Decimal(100), Decimal(2)), (Decimal(500), Decimal(1)))
LAST_BAND = Decimal("0.5")
"""The broker's own protection in percent: 2 below 100 rupees, 1 up to 500, a half above (from general knowledge)."""


@dataclass
class Orders:
    """Handlers of /orders and /trades."""

    exchange: Exchange
    book: ContractBook
    door: Door

    def routes(self) -> Iterator[Any]:
        route = self.door.route
        yield route("POST", "/orders/{variety}", self.place, "order")
        yield route("PUT", "/orders/{variety}/{order_id}", self.modify, "order")
        yield route("DELETE", "/orders/{variety}/{order_id}", self.cancel, "order")
        yield route("GET", "/orders", self.day)
        yield route("GET", "/orders/{order_id}", self.history)
        yield route("GET", "/orders/{order_id}/trades", self.trades_of)
        yield route("GET", "/trades", self.trades)

    # --- writing -----------------------------------------------------------------------------------------------------

    def place(self, call: Call) -> dict[str, str]:
        variety = call.path["variety"]
        if variety not in VARIETIES:
            raise bad_input("Invalid `variety`.")
        if variety not in SERVED:
            raise KiteError(400, "InputException", f"Variety `{variety}` is not served by this sandbox.")
        for name in REQUIRED:
            if not call.fields.get(name):
                raise missing(name)
        order = _order(variety, call.fields)
        contract = self._contract(order.exchange, order.tradingsymbol)
        around = Surroundings(contract, self._now(), freeze=FreezeTable(), last_price=self._last(contract))
        if denial := check(order, around):
            raise denied(denial)
        if order.side == "SELL":
            self._require_held(call.account, contract, order.quantity)
        placed = self.exchange.place_order(call.account, self._request(order, contract))
        return {"order_id": number_of(placed)}

    def modify(self, call: Call) -> dict[str, str]:
        order = self._find(call)
        asked = {
            name: value for name, value in call.fields.items()
            if name in ("quantity", "price", "trigger_price", "order_type", "validity", "disclosed_quantity", "market_protection")
        }  # fmt: skip
        was = order.request.terms
        modified = int(was.get("modified", "0"))
        kite = _order(was["variety"], {**_fields(order), **asked})
        contract = self._contract(kite.exchange, kite.tradingsymbol)
        if denial := check_modification(kite, modified):
            raise KiteError(400, "NetworkException", f"Maximum allowed order modifications exceeded. {denial.message}")
        around = Surroundings(contract, self._now(), freeze=FreezeTable())
        if denial := check(replace(kite, variety=self._variety_now(order)), around):
            raise denied(denial)
        request = self._request(kite, contract)
        terms = {**request.terms, "modified": str(modified + 1)}
        self.exchange.amend_order(order, replace(request, client_order_id=order.client_order_id, terms=terms))
        return {"order_id": number_of(order)}

    def cancel(self, call: Call) -> dict[str, str]:
        order = self._find(call)
        self.exchange.cancel_order(order)
        return {"order_id": number_of(order)}

    def end_of_session(self) -> None:
        """After a step: orders of the day end with it, those of an after-market window go on to the next open."""
        ended = []
        for order in self.exchange.books.orders.values():
            if order.is_open and order.request.terms and order.working_since is not None:
                segment = cast(Segment, order.request.terms["exchange"])
                if phase_at(segment, self._now()).phase in (Phase.CLOSED, Phase.POST_CLOSE):
                    ended.append(order)
        if ended:
            self.exchange.expire_orders(ended, "DAY_OVER")

    # --- reading -----------------------------------------------------------------------------------------------------

    def day(self, call: Call) -> list[dict[str, Any]]:
        """The book of the day: orders that were placed or that lived today, oldest first."""
        return [self.row(order) for order in self._todays(call.account)]

    def history(self, call: Call) -> list[dict[str, Any]]:
        order = self._find(call)
        return [self.row(order, status) for status in statuses_of(order)]

    def trades_of(self, call: Call) -> list[dict[str, Any]]:
        return [self._trade(trade) for trade in self._find(call).trades]

    def trades(self, call: Call) -> list[dict[str, Any]]:
        today = self._now().astimezone(IST).date()
        return [self._trade(trade) for trade in call.account.trades if _local(trade.time).date() == today]

    # --- inside ------------------------------------------------------------------------------------------------------

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.exchange.now / 1_000, UTC)

    def _contract(self, exchange: str, symbol: str) -> Contract:
        try:
            return self.book.get(exchange, symbol)
        except UnknownContractError as problem:
            raise bad_input(
                "The instrument you are placing an order for has either expired or does not exist."
            ) from problem

    def _last(self, contract: Contract) -> Decimal | None:
        market = self.exchange.markets.get(contract.tradingsymbol)
        return market.last if market else None

    def _require_held(self, account: Account, contract: Contract, quantity: int) -> None:
        held = account.balance(contract.tradingsymbol).free
        if quantity > held:
            raise insufficient_holdings(quantity, int(held), contract.tradingsymbol)

    def _request(self, order: KiteOrder, contract: Contract) -> OrderRequest:
        """The order in the exchange's own terms."""
        last = self._last(contract)
        limit, terms = order.price, _terms(order)
        if order.order_type in ("MARKET", "SL-M"):
            around = order.trigger_price if order.order_type == "SL-M" else last
            if around is None:
                raise bad_input("LTP cannot be validated for this instrument.")
            percent = _protection(order.market_protection or Decimal(-1), around)
            factor = 1 + percent / 100 * (1 if order.side == "BUY" else -1)
            limit = round_price(around * factor, contract.tick_size, "up" if order.side == "BUY" else "down")
            terms |= {"shown_as": "LIMIT" if order.order_type == "MARKET" else "SL", "protection": f"{percent:.2f}"}
        return OrderRequest(
            contract.tradingsymbol, order.side, Decimal(order.quantity), order.tag or "", limit,
            stop_price=order.trigger_price, stop_rises=order.side == "BUY",
            time_in_force="IOC" if order.validity == "IOC" else "GTC", at_open=order.variety == "amo", terms=terms,
        )  # fmt: skip

    def _find(self, call: Call) -> Order:
        text = call.path["order_id"]
        order = call.account.orders.get(int(text[6:])) if text.isdigit() and len(text) > 6 else None
        if order is None or number_of(order) != text:
            raise KiteError(404, "GeneralException", "Couldn't find that `order_id`.")
        return order

    def _variety_now(self, order: Order) -> Any:
        """An after-market order that was released is a regular one."""
        waits = order.request.terms["variety"] == "amo" and order.working_since is None
        return "amo" if waits else "regular"

    def _todays(self, account: Account) -> list[Order]:
        today = self._now().astimezone(IST).date()
        return [
            order for order in account.orders.values()
            if order.is_open or today in (_local(order.time).date(), _local(order.updated).date())
        ]  # fmt: skip

    def row(self, order: Order, status: str | None = None) -> dict[str, Any]:
        request, terms = order.request, order.request.terms
        contract = self.book.get(terms["exchange"], request.symbol)
        whole = status is None
        filled = int(order.filled) if whole or status in ("COMPLETE", "CANCELLED") else 0
        quantity = int(request.quantity)
        ended = not order.is_open
        return {
            "placed_by": order.account_id[:6].upper(),
            "order_id": number_of(order),
            "exchange_order_id": str(1_000_000_000_000_000 + order.order_id)
            if order.working_since is not None
            else None,
            "parent_order_id": None,
            "status": status or statuses_of(order)[-1],
            "status_message": None,
            "status_message_raw": None,
            "order_timestamp": _stamp(order.time),
            "exchange_update_timestamp": _stamp(order.updated),
            "exchange_timestamp": _stamp(order.updated) if order.working_since is not None else None,
            "variety": terms["variety"],
            "modified": terms.get("modified", "0") != "0",
            "exchange": terms["exchange"],
            "tradingsymbol": request.symbol,
            "instrument_token": contract.instrument_token,
            "order_type": terms.get("shown_as", terms["order_type"]),
            "transaction_type": request.side,
            "validity": terms["validity"],
            "validity_ttl": 0,
            "product": terms["product"],
            "quantity": quantity,
            "disclosed_quantity": int(terms.get("disclosed_quantity", "0")),
            "price": float(request.limit_price or 0),
            "trigger_price": float(request.stop_price or 0),
            "average_price": float(order.quote_filled / order.filled) if order.filled else 0,
            "filled_quantity": filled,
            "pending_quantity": 0 if ended else quantity - filled,
            "cancelled_quantity": quantity - filled if ended else 0,
            "market_protection": 0,
            "meta": {},
            "tag": terms.get("tag"),
            "tags": [*([terms["tag"]] if "tag" in terms else []), *_broker_tags(terms)],
            "guid": f"{order.order_id}XsandboxX",
        }

    def _trade(self, trade: Trade) -> dict[str, Any]:
        order = self.exchange.books.orders[trade.order_id]
        terms = order.request.terms
        return {
            "trade_id": str(trade.trade_id),
            "order_id": number_of(order),
            "exchange": terms["exchange"],
            "tradingsymbol": trade.symbol,
            "instrument_token": self.book.get(terms["exchange"], trade.symbol).instrument_token,
            "product": terms["product"],
            "average_price": float(trade.price),
            "quantity": int(trade.quantity),
            "exchange_order_id": str(1_000_000_000_000_000 + order.order_id),
            "transaction_type": trade.side,
            "fill_timestamp": _stamp(trade.time),
            "order_timestamp": _stamp(order.time)[11:],
            "exchange_timestamp": _stamp(trade.time),
        }


def number_of(order: Order) -> str:
    """Kite's numbers begin with the day and are text: newer ones do not fit a float."""
    return f"{_local(order.time):%y%m%d}{order.order_id:09d}"


def statuses_of(order: Order) -> list[str]:
    """The lifecycle of an order up to now, in the broker's words."""
    terms = order.request.terms
    hops = ["PUT ORDER REQ RECEIVED"]
    if terms["variety"] == "amo":
        hops.append("AMO REQ RECEIVED")
        if order.working_since is None and order.is_open:
            return hops
    hops += ["VALIDATION PENDING", "OPEN PENDING"]
    if order.request.stop_price is not None:
        hops.append("TRIGGER PENDING")
    if terms.get("modified", "0") != "0":
        hops += ["MODIFY VALIDATION PENDING", "MODIFY PENDING", "MODIFIED"]
    if order.working_since is not None:
        hops.append("OPEN")
    if not order.is_open:
        hops.append("COMPLETE" if order.state == "FILLED" else "CANCELLED")
    return hops


def _order(variety: str, fields: Mapping[str, str]) -> KiteOrder:
    """The order that a form asks for. Raises `KiteError` for what is not a value of its field."""
    known = {
        "exchange": ("NSE", "BSE", "NFO", "BFO", "CDS", "BCD", "MCX"), "transaction_type": ("BUY", "SELL"),
        "product": ("CNC", "MIS", "NRML", "MTF"), "order_type": ("MARKET", "LIMIT", "SL", "SL-M"),
        "validity": ("DAY", "IOC", "TTL"),
    }  # fmt: skip
    for name, allowed in known.items():
        if name in fields and fields[name] not in allowed:
            raise bad_input(f"Invalid `{name}`.")
    return KiteOrder(
        fields["exchange"], fields["tradingsymbol"], cast(Any, fields["transaction_type"]),
        _whole(fields, "quantity") or 0, cast(Any, fields["product"]), cast(Any, fields["order_type"]),
        variety=cast(Any, variety), validity=cast(Any, fields.get("validity") or "DAY"),
        price=_amount(fields, "price"), trigger_price=_amount(fields, "trigger_price"),
        market_protection=_amount(fields, "market_protection"),
        disclosed_quantity=_whole(fields, "disclosed_quantity"), validity_ttl=_whole(fields, "validity_ttl"),
        iceberg_legs=_whole(fields, "iceberg_legs"), auction_number=fields.get("auction_number"),
        autoslice=fields.get("autoslice") == "true", tag=fields.get("tag") or None, algo_id=fields.get("algo_id"),
    )  # fmt: skip


def _whole(fields: Mapping[str, str], name: str) -> int | None:
    value = _amount(fields, name)
    if value is not None and value != value.to_integral_value():
        raise bad_input(f"Invalid `{name}`.")
    return int(value) if value is not None else None


def _amount(fields: Mapping[str, str], name: str) -> Decimal | None:
    """None for a field that is absent, empty or zero, as the official client sends what is not set."""
    text = fields.get(name) or "0"
    try:
        value = Decimal(text)
    except InvalidOperation as problem:
        raise bad_input(f"Invalid `{name}`.") from problem
    if not value.is_finite() or abs(value) > Decimal("1e12"):
        raise bad_input(f"Invalid `{name}`.")
    return value or None


def _terms(order: KiteOrder) -> dict[str, str]:
    kept = {
        "exchange": order.exchange, "product": order.product, "variety": order.variety, "validity": order.validity,
        "order_type": order.order_type, "tag": order.tag,
        "disclosed_quantity": str(order.disclosed_quantity) if order.disclosed_quantity else None,
    }  # fmt: skip
    return {name: value for name, value in kept.items() if value is not None}


def _fields(order: Order) -> dict[str, str]:
    """An order of the book as the form that would place it."""
    request, terms = order.request, order.request.terms
    found = {
        **terms, "tradingsymbol": request.symbol, "transaction_type": request.side, "quantity": f"{request.quantity:f}",
    }  # fmt: skip
    kind = terms.get("shown_as", terms["order_type"])
    found["order_type"] = kind
    if request.limit_price is not None:
        found["price"] = f"{request.limit_price:f}"
    if request.stop_price is not None:
        found["trigger_price"] = f"{request.stop_price:f}"
    return found


def _protection(asked: Decimal, around: Decimal) -> Decimal:
    if asked > 0:
        return asked
    return next((percent for below, percent in BANDS if around < below), LAST_BAND)


def _broker_tags(terms: Mapping[str, str]) -> list[str]:
    return ["mktp", f"mktp:{terms['protection']}"] if "protection" in terms else []


def _local(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1_000, IST)


def _stamp(milliseconds: int) -> str:
    return f"{_local(milliseconds):%Y-%m-%d %H:%M:%S}"
