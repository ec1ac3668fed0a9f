"""Binance's names for orders, and the orders they stand for.

STOP_LOSS sells when the price falls to the stop price and buys when it rises to it; TAKE_PROFIT the other way round.
A LIMIT_MAKER is a limit order that must not take.
"""

from decimal import Decimal

from trading_platform.sandbox.binance.errors import BinanceError
from trading_platform.sandbox.binance.parameters import Parameters
from trading_platform.sandbox.orders import OrderRequest, Side, TimeInForce

TYPES = ("LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS", "STOP_LOSS_LIMIT", "TAKE_PROFIT", "TAKE_PROFIT_LIMIT")
STOPS = TYPES[3:]
FORCES = ("GTC", "IOC", "FOK")
NOT_OFFERED = {
    "icebergQty": "Iceberg orders are not supported for this symbol.",
    "trailingDelta": "Trailing stop orders are not supported for this symbol.",
    "pegPriceType": "Pegged orders are not supported for this symbol.",
}


def order_type(request: OrderRequest) -> str:
    """Binance's name of an order."""
    if request.post_only:
        return "LIMIT_MAKER"
    if request.stop_price is None:
        return "MARKET" if request.limit_price is None else "LIMIT"
    name = "STOP_LOSS" if request.stop_rises == (request.side == "BUY") else "TAKE_PROFIT"
    return name if request.limit_price is None else f"{name}_LIMIT"


def side_of(parameters: Parameters) -> Side:
    return "BUY" if parameters.choice("side", ("BUY", "SELL"), -1117, "Invalid side.") == "BUY" else "SELL"


def order_request(parameters: Parameters, symbol: str, side: Side, client_id: str) -> OrderRequest:
    """The order that a request's parameters describe. Raises `BinanceError`."""
    kind = parameters.choice("type", TYPES, -1116, "Invalid orderType.")
    for name, message in NOT_OFFERED.items():
        if name in parameters:
            raise BinanceError(-1013, message)
    quote_quantity = None
    if kind == "MARKET" and "quantity" not in parameters:
        if "quoteOrderQty" not in parameters:
            raise BinanceError(-1102, "Mandatory parameter 'quantity' was not sent, was empty/null, or malformed.")
        quantity, quote_quantity = Decimal(0), parameters.amount("quoteOrderQty")
    elif "quoteOrderQty" in parameters:
        raise BinanceError(-1106, "Parameter 'quoteOrderQty' sent when not required.")
    else:
        quantity = parameters.amount("quantity")
    limit = _amount_if("LIMIT" in kind, parameters, "price")
    stop = _amount_if(kind in STOPS, parameters, "stopPrice")
    return OrderRequest(
        symbol, side, quantity, client_id, limit, stop,
        stop_rises=kind.startswith("STOP_LOSS") == (side == "BUY") if stop is not None else False,
        time_in_force=_time_in_force(parameters, kind),
        post_only=kind == "LIMIT_MAKER",
        quote_quantity=quote_quantity,
    )  # fmt: skip


def _time_in_force(parameters: Parameters, kind: str) -> TimeInForce:
    if kind not in ("LIMIT", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT"):
        if "timeInForce" in parameters:
            raise BinanceError(-1106, "Parameter 'timeInForce' sent when not required.")
        return "GTC"
    force = parameters.choice("timeInForce", FORCES, -1115, "Invalid timeInForce.")
    return "IOC" if force == "IOC" else "FOK" if force == "FOK" else "GTC"


def _amount_if(needed: bool, parameters: Parameters, name: str) -> Decimal | None:
    """An amount that must be there, or must not."""
    if needed:
        return parameters.amount(name)
    if name in parameters:
        raise BinanceError(-1106, f"Parameter '{name}' sent when not required.")
    return None
