"""Reading an account: orders, trades, positions, holdings and money, all as values.

The broker keeps orders and trades for the day alone: what is not written down by evening is gone. Times are aware UTC,
money is Decimal, order numbers are opaque strings (new ones exceed 2**53). Of an order believe `filled` and its trades:
pending and cancelled quantities of ended orders are not consistent.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, cast

from trading_platform.identifiers import TradeId, VenueOrderId
from trading_platform.markets.kite_orders import KiteOrder
from trading_platform.markets.sessions import IST, Phase, Segment, phase_at
from trading_platform.venues.zerodha.errors import found_state
from trading_platform.venues.zerodha.questions import ask, money, part, read, rows_of
from trading_platform.venues.zerodha.statuses import Lifecycle, lifecycle_of
from trading_platform.venues.zerodha.transport import KiteTransport

PROTECTED = "mktp"
"""The broker's own tag on a market order that it turned into a limit order."""
EXCHANGES = frozenset({"NSE", "BSE", "NFO", "BFO", "CDS", "BCD", "MCX"})


@dataclass(frozen=True, slots=True)
class BookOrder:
    """One row of the order book, or one step of an order's history."""

    order_id: VenueOrderId
    exchange_order_id: str | None
    """None: it never reached the exchange."""
    parent_order_id: str | None
    status: str
    lifecycle: Lifecycle
    variety: str
    exchange: str
    tradingsymbol: str
    side: str
    product: str
    order_type: str
    validity: str
    quantity: int
    filled: int
    price: Decimal
    trigger_price: Decimal
    average_price: Decimal
    tags: frozenset[str]
    """Ours and the broker's own (`mktp`, `autoslice:<parent>`)."""
    message: str | None
    raw_message: str | None
    placed_by: str | None
    placed_at: datetime | None
    updated_at: datetime | None

    @property
    def was_protected_market(self) -> bool:
        return PROTECTED in self.tags

    def is_of(self, order: KiteOrder) -> bool:
        """Whether this is what was sent, by what the broker leaves alone: a protected market order is shown as a limit."""
        return (
            order.tag in self.tags
            and (self.exchange, self.tradingsymbol) == (order.exchange, order.tradingsymbol)
            and (self.side, self.quantity, self.product) == (order.side, order.quantity, order.product)
        )


@dataclass(frozen=True, slots=True)
class BookTrade:
    """One trade of the day. `quantity` in units (lots at MCX)."""

    trade_id: TradeId
    order_id: VenueOrderId
    exchange: str
    tradingsymbol: str
    side: str
    product: str
    quantity: int
    price: Decimal
    filled_at: datetime


@dataclass(frozen=True, slots=True)
class BookPosition:
    """A net or day position; `quantity` negative for short."""

    exchange: str
    tradingsymbol: str
    product: str
    quantity: int
    overnight_quantity: int
    multiplier: int
    average_price: Decimal
    last_price: Decimal
    pnl: Decimal


@dataclass(frozen=True, slots=True)
class BookHolding:
    """Shares in the depository, and on their way to it (`t1`)."""

    exchange: str
    tradingsymbol: str
    isin: str
    quantity: int
    t1_quantity: int
    used_quantity: int
    collateral_quantity: int
    authorised_quantity: int
    average_price: Decimal
    last_price: Decimal
    discrepancy: bool

    def sellable(self, *, standing_authority: bool, before_delivery: bool = False) -> int:
        """How many may be sold today.

        Without a standing authority (DDPI) only what was authorised today; `before_delivery`: also what was bought
        yesterday, at the risk of an auction if it is not delivered.
        """
        free = self.quantity - self.used_quantity - self.collateral_quantity
        if not standing_authority:
            free = min(free, self.authorised_quantity)
        return max(free, 0) + (self.t1_quantity if before_delivery else 0)


@dataclass(frozen=True, slots=True)
class Funds:
    """Money of one segment. `usable` is what checks go by: the lower of the broker's two figures."""

    enabled: bool
    net: Decimal
    live_balance: Decimal
    collateral: Decimal
    span: Decimal
    exposure: Decimal
    option_premium: Decimal

    @property
    def usable(self) -> Decimal:
        return min(self.net, self.live_balance)


@dataclass
class Books:
    """The reading side of one account. All raise `QueryFailedError`."""

    transport: KiteTransport

    async def orders(self) -> list[BookOrder]:
        """The whole book of the day, in the broker's order, ended orders too."""
        return rows_of(await ask(self.transport, "/orders"), order_of)

    async def history(self, order_id: VenueOrderId) -> list[BookOrder]:
        """Every state that an order was in, the oldest first."""
        return rows_of(await ask(self.transport, f"/orders/{order_id}"), order_of)

    async def trades(self, order_id: VenueOrderId | None = None) -> list[BookTrade]:
        path = "/trades" if order_id is None else f"/orders/{order_id}/trades"
        return rows_of(await ask(self.transport, path), _trade)

    async def positions(self, *, of_day: bool = False) -> list[BookPosition]:
        """Net positions; `of_day`: the day's trading alone. Shares held overnight are holdings."""
        found = await ask(self.transport, "/portfolio/positions")
        return rows_of(part(found, "day" if of_day else "net"), _position)

    async def holdings(self) -> list[BookHolding]:
        return rows_of(await ask(self.transport, "/portfolio/holdings"), _holding)

    async def auctions(self) -> dict[str, BookHolding]:
        """{auction number: holding that may be offered in it}."""
        found = await ask(self.transport, "/portfolio/holdings/auctions")
        return dict(rows_of(found, lambda row: (str(row["auction_number"]), _holding(row))))

    async def funds(self) -> dict[str, Funds]:
        """{segment: money}, `equity` (which derivatives share) and `commodity`."""
        found = await ask(self.transport, "/user/margins")
        return read(found, lambda data: {name: _funds(row) for name, row in data.items()})

    async def profile(self) -> Mapping[str, Any]:
        return read(await ask(self.transport, "/user/profile"), dict)


def order_of(row: Mapping[str, Any]) -> BookOrder:
    """A row of the book, of a history, of the stream or of a postback. Raises KeyError, TypeError, ValueError."""
    tags = {str(tag) for tag in row.get("tags") or ()} | ({str(row["tag"])} if row.get("tag") else set())
    return BookOrder(
        order_id=VenueOrderId(str(row["order_id"])),
        exchange_order_id=_text(row.get("exchange_order_id")),
        parent_order_id=_text(row.get("parent_order_id")),
        status=str(row["status"]),
        lifecycle=lifecycle_of(row),
        variety=str(row["variety"]),
        exchange=str(row["exchange"]),
        tradingsymbol=str(row["tradingsymbol"]),
        side=str(row["transaction_type"]),
        product=str(row["product"]),
        order_type=str(row["order_type"]),
        validity=str(row["validity"]),
        quantity=int(row["quantity"]),
        filled=int(row["filled_quantity"] or 0),
        price=money(row["price"]),
        trigger_price=money(row["trigger_price"]),
        average_price=money(row["average_price"]),
        tags=frozenset(tags),
        message=_text(row.get("status_message")),
        raw_message=_text(row.get("status_message_raw")),
        placed_by=_text(row.get("placed_by")),
        placed_at=ist(row.get("order_timestamp")),
        updated_at=ist(row.get("exchange_update_timestamp") or row.get("exchange_timestamp")),
    )


def lapse_of(order: BookOrder, *, cancelled_by_us: bool, closing_auction: bool = False) -> str | None:
    """Why an order that nobody cancelled was cancelled, for the record (catalogue no. 42); None for all others.

    By the time at which it happened: at the day's end, after the closing auction that did not match it, or during the
    session, when a price band moved away from it or the broker acted.
    """
    if cancelled_by_us or order.lifecycle not in (Lifecycle.CANCELLED, Lifecycle.CANCELLED_PARTIAL):
        return None
    code = found_state("cancelled_by_exchange").code
    if order.updated_at is None or order.exchange not in EXCHANGES:
        return f"{code}: when is not known"
    phase = phase_at(cast(Segment, order.exchange), order.updated_at, closing_auction=closing_auction).phase
    causes = {
        Phase.CLOSED: "the day ended", Phase.POST_CLOSE: "the day ended", Phase.CAS_MATCH: "the closing auction did not match it",
        Phase.CAS_REFERENCE: "the closing auction does not take it", Phase.CONTINUOUS: "a price band moved, or the broker acted",
    }  # fmt: skip
    return f"{code}: {causes.get(phase, f'during {phase}')}"


def ist(text: str | None) -> datetime | None:
    """The broker's "YYYY-MM-DD HH:MM:SS", which is Indian time, as aware UTC."""
    return datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=IST).astimezone(UTC) if text else None


def _trade(row: Mapping[str, Any]) -> BookTrade:
    filled_at = ist(row["fill_timestamp"])
    if filled_at is None:
        raise ValueError("a trade without fill_timestamp")
    return BookTrade(
        TradeId(str(row["trade_id"])), VenueOrderId(str(row["order_id"])), row["exchange"], row["tradingsymbol"],
        row["transaction_type"], row["product"], int(row["quantity"]), money(row["average_price"]), filled_at,
    )  # fmt: skip


def _position(row: Mapping[str, Any]) -> BookPosition:
    return BookPosition(
        row["exchange"], row["tradingsymbol"], row["product"], int(row["quantity"]), int(row["overnight_quantity"]),
        int(row["multiplier"]), money(row["average_price"]), money(row["last_price"]), money(row["pnl"]),
    )  # fmt: skip


def _holding(row: Mapping[str, Any]) -> BookHolding:
    return BookHolding(
        row["exchange"], row["tradingsymbol"], row["isin"], int(row["quantity"]), int(row["t1_quantity"]),
        int(row.get("used_quantity") or 0), int(row["collateral_quantity"] or 0), int(row["authorised_quantity"] or 0),
        money(row["average_price"]), money(row["last_price"]), bool(row["discrepancy"]),
    )  # fmt: skip


def _funds(row: Mapping[str, Any]) -> Funds:
    available, used = row["available"], row["utilised"]
    return Funds(
        bool(row["enabled"]), money(row["net"]), money(available["live_balance"]), money(available["collateral"]),
        money(used["span"]), money(used["exposure"]), money(used["option_premium"]),
    )  # fmt: skip


def _text(value: object) -> str | None:
    return str(value) if value not in (None, "") else None
