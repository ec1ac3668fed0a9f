"""What an order is: asked for, entered, filled, ended. Exact decimals; no protocol of any venue.

A venue's order types are combinations of three things: a limit price or none, a stop price or none, and whether the
order may take. Binance's TAKE_PROFIT_LIMIT, or an SL order of another venue, is spelled by that venue's surface.
"""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

Side = Literal["BUY", "SELL"]
TimeInForce = Literal["GTC", "IOC", "FOK"]
State = Literal["NEW", "PARTIALLY_FILLED", "FILLED", "CANCELED", "EXPIRED", "REJECTED"]
OPEN_STATES = frozenset({"NEW", "PARTIALLY_FILLED"})
ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class OrderRequest:
    """An order as its customer asked for it.

    `quantity` is in base currency; 0 together with `quote_quantity` means as much as that amount of quote currency
    buys, or as must be sold to get it. Without `limit_price` it is a market order. With `stop_price` it waits until
    the price has risen (`stop_rises`) or fallen to it. `post_only`: refused where it would take.
    """

    symbol: str
    side: Side
    quantity: Decimal
    client_order_id: str
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    stop_rises: bool = False
    time_in_force: TimeInForce = "GTC"
    post_only: bool = False
    quote_quantity: Decimal | None = None
    at_open: bool = False
    """Placed while the market was closed: it waits for the next bar's open."""
    queued: bool = False
    """Waits for an auction, whatever bars do."""
    terms: dict[str, str] = field(default_factory=dict)
    """What a venue's surface wants to remember of the order in its own words: product, variety, tag."""

    @property
    def kind(self) -> str:
        """MARKET, LIMIT, STOP_MARKET or STOP_LIMIT."""
        return ("STOP_" if self.stop_price is not None else "") + ("MARKET" if self.limit_price is None else "LIMIT")


@dataclass(frozen=True, slots=True)
class Trade:
    """One execution of an order. The fee is taken out of what was received. `time`: market time, milliseconds."""

    trade_id: int
    order_id: int
    symbol: str
    side: Side
    price: Decimal
    quantity: Decimal
    fee: Decimal
    fee_asset: str
    maker: bool
    time: int

    @property
    def quote_quantity(self) -> Decimal:
        return self.price * self.quantity


@dataclass(slots=True, eq=False)
class Order:
    """An order and what has become of it. Times are market time in milliseconds."""

    order_id: int
    account_id: str
    request: OrderRequest
    time: int
    updated: int
    locked: Decimal
    """What is locked for it: quote currency for a buy, base for a sell."""
    list_id: int | None = None
    state: State = "NEW"
    reason: str = ""
    """Why it ended unfilled: USER_CANCELED, OCO_TRIGGER, INSUFFICIENT_LIQUIDITY, ..."""
    filled: Decimal = ZERO
    quote_filled: Decimal = ZERO
    working_since: int | None = None
    """None while its stop price has not been reached."""
    rank: int = 0
    """Time priority among orders of equal price: the number of its arrival in the book; 0 is not in it."""
    ahead: Decimal = ZERO
    """Queue position: how much of the synthetic book's quantity at its price comes before it."""
    trades: list[Trade] = field(default_factory=list)

    @property
    def symbol(self) -> str:
        return self.request.symbol

    @property
    def side(self) -> Side:
        return self.request.side

    @property
    def client_order_id(self) -> str:
        return self.request.client_order_id

    @property
    def remaining(self) -> Decimal:
        return self.request.quantity - self.filled

    @property
    def is_open(self) -> bool:
        return self.state in OPEN_STATES

    @property
    def limit(self) -> Decimal:
        """The limit price of an order that has one."""
        assert self.request.limit_price is not None
        return self.request.limit_price

    def reaches(self, price: Decimal) -> bool:
        """Whether its limit price, if any, allows trading at `price`."""
        limit = self.request.limit_price
        return limit is None or (price <= limit if self.side == "BUY" else price >= limit)


@dataclass(frozen=True, slots=True)
class OrderList:
    """One cancels the other: two orders on the same funds. When one begins to trade the other expires."""

    list_id: int
    account_id: str
    client_id: str
    symbol: str
    order_ids: list[int]
    time: int
