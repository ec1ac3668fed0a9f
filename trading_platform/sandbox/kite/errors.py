"""Refusals in the broker's own words."""

from decimal import Decimal

from trading_platform.markets.denials import Denial


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


def insufficient_funds(needed: Decimal, available: Decimal) -> KiteError:
    return KiteError(
        400, "MarginException",
        f"Insufficient funds. Required margin is {needed:.2f} but available margin is {available:.2f}.",
    )  # fmt: skip


def insufficient_holdings(wanted: int, held: int, symbol: str) -> KiteError:
    return KiteError(400, "HoldingException", f"Insufficient holdings to sell {wanted} of {symbol}: {held} are there.")


def denied(denial: Denial) -> KiteError:
    """A market rule's refusal. Those that the broker words in its own way are worded so."""
    words = {
        "MARKET_UNPROTECTED": "Market orders without market protection are not allowed via API. Please set market "
        "protection or use a Limit order.",
        "SESSION_CLOSED": "Your order could not be converted to a After Market Order (AMO).",
    }
    if denial.code == "PRICE_TICK":
        return bad_input(f"Tick size for this script does not allow this: {denial.message}. Kindly enter price in the multiple of tick size for this script.")  # fmt: skip
    if denial.code == "QUANTITY_FREEZE":
        return bad_input(f"The order quantity is higher than the maximum quantity of {denial.nearest} allowed by the exchanges. Try placing smaller orders.")  # fmt: skip
    if denial.code == "QUANTITY_LOT":
        return bad_input(f"Invalid `quantity`: {denial.message}.")
    if denial.code == "ORDER_TAG":
        return bad_input("Invalid `tag`. Maximum allowed length is 20.")
    if denial.code == "ICEBERG_LEGS":
        return bad_input("Invalid `iceberg_legs`.")
    return bad_input(words.get(denial.code, str(denial)))
