"""What the exchange refuses: an order's quantity, prices, value, funds and name, checked before anything is written.

A refusal names the rule; wording and numbers are a venue's surface's business.
"""

from collections.abc import Iterable
from decimal import Decimal
from enum import StrEnum

from trading_platform.sandbox.books import Account, Books, needed
from trading_platform.sandbox.margin_ledger import RUPEES
from trading_platform.sandbox.matching import Market, within
from trading_platform.sandbox.orders import OPEN_STATES, OrderRequest

LARGEST_QUANTITY = Decimal(9_000_000)
LARGEST_PRICE = Decimal(10_000_000)
MOST_OPEN_ORDERS = 200
"""Open orders of one account in one symbol."""


class Refusal(StrEnum):
    """The rules by name."""

    UNKNOWN_SYMBOL = "UNKNOWN_SYMBOL"
    NO_MARKET = "NO_MARKET"
    LOT_SIZE = "LOT_SIZE"
    PRICE_FILTER = "PRICE_FILTER"
    NOTIONAL = "NOTIONAL"
    MAX_NUM_ORDERS = "MAX_NUM_ORDERS"
    BALANCE = "BALANCE"
    HOLDINGS = "HOLDINGS"
    DUPLICATE = "DUPLICATE"
    WOULD_TAKE = "WOULD_TAKE"
    WOULD_TRIGGER = "WOULD_TRIGGER"
    NO_LIQUIDITY = "NO_LIQUIDITY"
    LIST_PRICES = "LIST_PRICES"
    UNKNOWN_ORDER = "UNKNOWN_ORDER"


class RefusedError(Exception):
    """The exchange refuses a command; nothing has changed. Where funds are short: how much was wanted and is there."""

    def __init__(self, reason: Refusal, wanted: Decimal | None = None, available: Decimal | None = None) -> None:
        super().__init__(reason.value)
        self.reason, self.wanted, self.available = reason, wanted, available


def check_filters(market: Market, request: OrderRequest) -> None:
    """Quantity, prices and value against the instrument's filters. Raises `RefusedError`."""
    if market.last is None:
        raise RefusedError(Refusal.NO_MARKET)
    instrument = market.instrument
    if not 0 < request.quantity <= LARGEST_QUANTITY or request.quantity % instrument.step:
        raise RefusedError(Refusal.LOT_SIZE)
    prices = [price for price in (request.limit_price, request.stop_price) if price is not None]
    if any(not 0 < price <= LARGEST_PRICE or price % instrument.tick for price in prices):
        raise RefusedError(Refusal.PRICE_FILTER)
    if request.quantity * (prices[0] if prices else market.last) < instrument.minimum_notional:
        raise RefusedError(Refusal.NOTIONAL)


def check_state(market: Market, account: Account, requests: Iterable[OrderRequest], *, own_names: bool = True) -> None:
    """The names, the number and the immediate effect of new orders. Raises `RefusedError`.

    `own_names` False, as at an Indian broker: a name is a tag that any number of orders may have, and their number is
    limited by the day, not by what is open.
    """
    symbol = market.instrument.symbol
    open_here = len(account.open_by[symbol, "BUY"]) + len(account.open_by[symbol, "SELL"])
    names = set()
    for request in requests:
        same = account.by_client_id.get(request.client_order_id)
        if own_names and (request.client_order_id in names or (same is not None and same.state in OPEN_STATES)):
            raise RefusedError(Refusal.DUPLICATE)
        names.add(request.client_order_id)
        open_here += 1
        if own_names and open_here > MOST_OPEN_ORDERS:
            raise RefusedError(Refusal.MAX_NUM_ORDERS)
        if request.post_only and market.plan(request.side, request.quantity, request.limit_price):
            raise RefusedError(Refusal.WOULD_TAKE)
        stop, last = request.stop_price, market.last
        if stop is not None and last is not None and (last >= stop if request.stop_rises else last <= stop):
            raise RefusedError(Refusal.WOULD_TRIGGER)


def check_funds(books: Books, account: Account, request: OrderRequest, amount: Decimal) -> None:
    """`amount` is free. Raises `RefusedError`."""
    asset = books.locks(request)
    free = account.balance(asset).free
    if amount > free:
        shares = books.on_margin(request.symbol) and asset != RUPEES
        raise RefusedError(Refusal.HOLDINGS if shares else Refusal.BALANCE, amount, free)


def funds(
    books: Books, account: Account, market: Market, request: OrderRequest, time: int, besides: int = 0
) -> Decimal:
    """What an order locks: for a market buy exactly what it will cost, else its quantity at its worst price; on margin,
    what the ledger asks. `besides`: the order that it replaces."""
    if books.on_margin(request.symbol):
        return books.margin_asked(account, request, request.quantity, time, besides)
    if request.side == "BUY" and request.kind == "MARKET":
        matches = market.plan(request.side, request.quantity, None)
        return sum((match.price * match.quantity for match in matches), Decimal(0))
    return needed(request, request.quantity)


def quantity_for(market: Market, request: OrderRequest) -> Decimal:
    """The quantity that `quote_quantity` buys, or that must be sold to get it. Raises `RefusedError`."""
    assert request.quote_quantity is not None
    matches = within(market.plan(request.side, None, None), request.quote_quantity, market.instrument)
    quantity = sum((match.quantity for match in matches), Decimal(0))
    if not quantity:
        raise RefusedError(Refusal.NOTIONAL if market.plan(request.side, None, None) else Refusal.NO_LIQUIDITY)
    return quantity


def check_list_prices(market: Market, upper: OrderRequest, lower: OrderRequest) -> None:
    """The upper leg stands above the last price, the lower one below. Raises `RefusedError`."""
    last = market.last
    if last is None:
        raise RefusedError(Refusal.NO_MARKET)
    if not _level(lower) < last < _level(upper):
        raise RefusedError(Refusal.LIST_PRICES)


def _level(request: OrderRequest) -> Decimal:
    price = request.stop_price if request.stop_price is not None else request.limit_price
    assert price is not None
    return price
