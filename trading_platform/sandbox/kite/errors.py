"""Refusals in the broker's own words."""

from decimal import Decimal

from trading_platform.markets.denials import Denial
from trading_platform.markets.kite_orders import KiteOrder, Surroundings


class KiteError(Exception):
    """What a client gets: an HTTP status, an error type of the broker's, and a text of the broker's shape."""

    def __init__(self, status: int, error_type: str, message: str) -> None:
        super().__init__(message)
        self.status, self.error_type, self.message = status, error_type, message


def bad_input(message: str) -> KiteError:
    return KiteError(400, "InputException", message)


def missing(field: str) -> KiteError:
    return bad_input(f"Missing or empty field `{field}`")


def session_gone() -> KiteError:
    return KiteError(403, "TokenException", "Incorrect `api_key` or `access_token`.")


def denied(denial: Denial, order: KiteOrder, around: Surroundings) -> KiteError:
    """A market rule's refusal. Those that the broker words in its own way are worded so."""
    return bad_input(_words(denial, order, around) or str(denial))


def _words(denial: Denial, order: KiteOrder, around: Surroundings) -> str:
    """The broker's own text for a denial; empty where it has none that is known."""
    contract, lot, side = around.contract, max(around.contract.lot_size, 1), order.side.lower()
    most, where = denial.nearest or Decimal(0), "higher" if order.side == "BUY" else "lower"
    if denial.code == "PRICE_CIRCUIT":
        return _circuit(denial, order, around)
    if denial.code == "SESSION_ORDER_TYPE" and order.order_type != "MARKET":
        return ""
    texts = {
        "MARKET_UNPROTECTED": "Market orders without market protection are not allowed via API. Please set market "
        "protection or use a Limit order.",
        "SESSION_CLOSED": "Your order could not be converted to a After Market Order (AMO).",
        "SESSION_ORDER_TYPE": "Market orders are currently not allowed.",
        "PRICE_TICK": f"Tick size for this script is {contract.tick_size}. Kindly enter price in the multiple of tick size "
        "for this script.",
        "QUANTITY_FREEZE": f"The order quantity {order.quantity} ({order.quantity // lot} lots) is higher than the maximum "
        f"quantity of {most:f} ({most // lot:f} lots) allowed by the exchanges for this instrument.",
        "QUANTITY_LOT": f"Invalid `quantity`: {denial.message}.",
        "ORDER_TAG": "Invalid `tag`. Maximum allowed length is 20.",
        "ICEBERG_LEGS": "Invalid `iceberg_legs`.",
        "TRIGGER_PASSED": f"Trigger price for stoploss {side} orders should be {where} than the last traded price "
        f"({around.last_price}). Try limit order.",
    }  # fmt: skip
    return texts.get(denial.code, "")


def _circuit(denial: Denial, order: KiteOrder, around: Surroundings) -> str:
    bound, side = denial.nearest or Decimal(0), order.side.lower()
    above = around.limits is not None and bound == around.limits.upper
    where, than = ("above the upper", "below") if above else ("below the lower", "above")
    if denial.message.startswith("trigger_price"):
        return f"Trigger price for stoploss {side} orders cannot be {where} circuit price. Please enter a trigger price {than} {bound}."  # fmt: skip
    if order.order_type == "SL":
        return f"Price for stoploss {side} orders cannot be {where} circuit price. Please enter a price {than} {bound}."
    which = "higher than the current upper" if above else "lower than the current lower"
    return f"Your order price is {which} circuit limit of {bound}. Place an order within the daily range."
