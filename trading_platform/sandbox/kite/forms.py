"""From the fields of a form to an order, and back: what a client may write in each of them."""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, cast

from trading_platform.markets.kite_orders import KiteOrder
from trading_platform.sandbox.kite.errors import bad_input, missing
from trading_platform.sandbox.orders import Order

REQUIRED = ("exchange", "tradingsymbol", "transaction_type", "quantity", "product", "order_type")
VARIETIES = frozenset({"regular", "amo", "iceberg", "co", "auction"})
VALUES = {
    "exchange": ("NSE", "BSE", "NFO", "BFO", "CDS", "BCD", "MCX"), "transaction_type": ("BUY", "SELL"),
    "product": ("CNC", "MIS", "NRML", "MTF"), "order_type": ("MARKET", "LIMIT", "SL", "SL-M"),
    "validity": ("DAY", "IOC", "TTL"),
}  # fmt: skip
CHANGEABLE = (
    "quantity", "price", "trigger_price", "order_type", "validity", "validity_ttl", "disclosed_quantity",
    "market_protection",
)  # fmt: skip
LARGEST = Decimal("1e12")


def new_order(variety: str, fields: Mapping[str, str]) -> KiteOrder:
    """The order that a form wants placed. Raises `KiteError` for what is missing or is not a value of its field."""
    if variety not in VARIETIES:
        raise bad_input("Invalid `variety`.")
    for name in REQUIRED:
        if not fields.get(name):
            raise missing(name)
    return read(variety, fields)


def read(variety: str, fields: Mapping[str, str]) -> KiteOrder:
    for name, allowed in VALUES.items():
        if fields.get(name) and fields[name] not in allowed:
            raise bad_input(f"Invalid `{name}`.")
    return KiteOrder(
        fields["exchange"], fields["tradingsymbol"], cast(Any, fields["transaction_type"]),
        whole(fields, "quantity") or 0, cast(Any, fields["product"]), cast(Any, fields["order_type"]),
        variety=cast(Any, variety), validity=cast(Any, fields.get("validity") or "DAY"),
        price=amount(fields, "price"), trigger_price=amount(fields, "trigger_price"),
        market_protection=amount(fields, "market_protection"),
        disclosed_quantity=whole(fields, "disclosed_quantity"), validity_ttl=whole(fields, "validity_ttl"),
        iceberg_legs=whole(fields, "iceberg_legs"), auction_number=fields.get("auction_number") or None,
        autoslice=fields.get("autoslice") in ("true", "True", "1"), tag=fields.get("tag") or None,
        algo_id=fields.get("algo_id") or None,
    )  # fmt: skip


def whole(fields: Mapping[str, str], name: str) -> int | None:
    value = amount(fields, name)
    if value is not None and value != value.to_integral_value():
        raise bad_input(f"Invalid `{name}`.")
    return int(value) if value is not None else None


def amount(fields: Mapping[str, str], name: str) -> Decimal | None:
    """None for a field that is absent, empty or zero, as the official client sends what is not set."""
    try:
        value = Decimal(fields.get(name) or "0")
    except InvalidOperation as problem:
        raise bad_input(f"Invalid `{name}`.") from problem
    if not value.is_finite() or abs(value) > LARGEST:
        raise bad_input(f"Invalid `{name}`.")
    return value or None


def terms_of(order: KiteOrder) -> dict[str, str]:
    """What the exchange is to remember of the order in the broker's words."""
    kept = {
        "exchange": order.exchange, "product": order.product, "variety": order.variety, "validity": order.validity,
        "order_type": order.order_type, "tag": order.tag,
        "disclosed_quantity": str(order.disclosed_quantity) if order.disclosed_quantity else None,
        "validity_ttl": str(order.validity_ttl) if order.validity_ttl else None,
        "auction_number": order.auction_number,
    }  # fmt: skip
    return {name: value for name, value in kept.items() if value is not None}


def fields_of(order: Order) -> dict[str, str]:
    """An order of the book as the form that would place it."""
    request, terms = order.request, order.request.terms
    found = {
        **terms, "tradingsymbol": request.symbol, "transaction_type": request.side, "quantity": f"{request.quantity:f}",
        "order_type": terms.get("shown_as", terms["order_type"]),
    }  # fmt: skip
    if request.limit_price is not None:
        found["price"] = f"{request.limit_price:f}"
    if request.stop_price is not None:
        found["trigger_price"] = f"{request.stop_price:f}"
    return found


def changed(order: Order, fields: Mapping[str, str]) -> KiteOrder:
    """An order of the book as a modification wants it. A market order keeps no price, a limit order no protection."""
    asked = {name: value for name, value in fields.items() if name in CHANGEABLE and value not in ("", "0")}
    merged = {**fields_of(order), **asked}
    if merged["order_type"] in ("MARKET", "SL-M"):
        merged.pop("price", None)
        if order.request.terms.get("protection"):  # from one protected order to another
            merged.setdefault("market_protection", order.request.terms["protection"])
    if merged["order_type"] in ("MARKET", "LIMIT"):
        merged.pop("trigger_price", None)
    if merged["validity"] != "TTL":
        merged.pop("validity_ttl", None)
    return read(order.request.terms["variety"], merged)
