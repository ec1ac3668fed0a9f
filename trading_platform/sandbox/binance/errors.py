"""What Binance answers where it refuses: {"code": ..., "msg": ...} and an HTTP status."""

from typing import Any

from trading_platform.sandbox.rules import Refusal, RefusedError

REFUSALS = {
    Refusal.UNKNOWN_SYMBOL: (-1121, "Invalid symbol."),
    Refusal.NO_MARKET: (-1013, "Market is closed."),
    Refusal.LOT_SIZE: (-1013, "Filter failure: LOT_SIZE"),
    Refusal.PRICE_FILTER: (-1013, "Filter failure: PRICE_FILTER"),
    Refusal.NOTIONAL: (-1013, "Filter failure: NOTIONAL"),
    Refusal.MAX_NUM_ORDERS: (-1013, "Filter failure: MAX_NUM_ORDERS"),
    Refusal.BALANCE: (-2010, "Account has insufficient balance for requested action."),
    Refusal.HOLDINGS: (-2010, "Account has insufficient balance for requested action."),
    Refusal.DUPLICATE: (-2010, "Duplicate order sent."),
    Refusal.WOULD_TAKE: (-2010, "Order would immediately match and take."),
    Refusal.WOULD_TRIGGER: (-2010, "Order would trigger immediately."),
    Refusal.NO_LIQUIDITY: (-2010, "Order book liquidity is less than symbol minimum quantity."),
    Refusal.LIST_PRICES: (-2010, "The relationship of the prices for the orders is not correct."),
    Refusal.UNKNOWN_ORDER: (-2011, "Unknown order sent."),
}


class BinanceError(Exception):
    """A refusal in Binance's form. `data` goes beside code and message, `headers` into the answer's head."""

    def __init__(
        self, code: int, message: str, status: int = 400, *, data: Any = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.code, self.message, self.status, self.data, self.headers = code, message, status, data, headers or {}

    @property
    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = {"code": self.code, "msg": self.message}
        return body if self.data is None else body | {"data": self.data}


def refused(refusal: RefusedError) -> BinanceError:
    """The exchange's refusal as Binance words it."""
    return BinanceError(*REFUSALS[refusal.reason])
