"""One-cancels-the-other lists as Binance asks for them, in both of its ways."""

from trading_platform.sandbox.binance.errors import BinanceError
from trading_platform.sandbox.binance.parameters import Parameters

LEGS = ("STOP_LOSS_LIMIT", "STOP_LOSS", "LIMIT_MAKER", "TAKE_PROFIT", "TAKE_PROFIT_LIMIT")
LIMIT_LEGS = frozenset({"LIMIT_MAKER", "TAKE_PROFIT", "TAKE_PROFIT_LIMIT"})


def legs(sent: Parameters) -> tuple[Parameters, Parameters]:
    """(upper, lower) of POST /orderList/oco: the parameters that begin with `above` and `below`.

    One of the two must be a limit or take-profit order, the other a stop-loss order; on which side of the price each
    must stand depends on the list's side.
    """
    upper, lower = sent.with_prefix("above"), sent.with_prefix("below")
    for name, leg in (("aboveType", upper), ("belowType", lower)):
        if leg.get("type") not in LEGS:
            if "type" not in leg:
                raise BinanceError(-1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")
            raise BinanceError(-1158, "Order type not supported in OCO.")
    limit_leg, stop_leg = (upper, lower) if sent.get("side") == "SELL" else (lower, upper)
    if limit_leg["type"] in LIMIT_LEGS and stop_leg["type"] not in LIMIT_LEGS:
        return upper, lower
    if {upper["type"], lower["type"]} <= LIMIT_LEGS:
        raise BinanceError(-1168, "At least one OCO order must be contingent.")
    if sent.get("side") == "SELL":
        raise BinanceError(-1197, "A stop loss order in a sell OCO must be below.")
    raise BinanceError(-1196, "A stop loss order in a buy OCO must be above.")


def legs_of_deprecated(sent: Parameters) -> tuple[Parameters, Parameters]:
    """(upper, lower) of POST /order/oco: a limit maker at `price`, and a stop loss at `stopPrice`."""
    if "trailingDelta" in sent:
        raise BinanceError(-1013, "Trailing stop orders are not supported for this symbol.")
    limit_leg = Parameters(
        values={
            "type": "LIMIT_MAKER",
            "price": sent.required("price"),
            "clientOrderId": sent.get("limitClientOrderId", ""),
        }
    )
    stop = {"type": "STOP_LOSS", "stopPrice": sent.required("stopPrice")}
    if "stopLimitPrice" in sent:
        stop |= {
            "type": "STOP_LOSS_LIMIT",
            "price": sent["stopLimitPrice"],
            "timeInForce": sent.required("stopLimitTimeInForce"),
        }
    stop_leg = Parameters(values=stop | {"clientOrderId": sent.get("stopClientOrderId", "")})
    return (limit_leg, stop_leg) if sent.get("side") == "SELL" else (stop_leg, limit_leg)
