"""Accounts, balances, orders and trades: what the exchange owes to whom. Events are the only way to change them.

Whatever is locked is locked under one order, so free + locked changes by trades and fees alone. A limit buy has its
limit price locked for every unit that is left; what a better price saves is free at once. Where `margin_of` is given,
what is traded for rupees goes by `margin_ledger` instead: positions, long and short, against blocked money.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import ROUND_DOWN, Decimal
from typing import Any

from trading_platform.markets.instruments import Instrument
from trading_platform.sandbox import margin_ledger
from trading_platform.sandbox.events import (
    AccountOpened,
    Amended,
    Converted,
    Ended,
    Entered,
    Event,
    Filled,
    Kept,
    Listed,
    Paid,
    Reserved,
    Settled,
    Triggered,
)
from trading_platform.sandbox.margin_ledger import RUPEES, Balance, MarginOf, Position, key_of
from trading_platform.sandbox.orders import ZERO, Order, OrderList, OrderRequest, Side, Trade

FEE_UNIT = Decimal("1e-8")
STOP_MARKET_ALLOWANCE = Decimal("1.05")
"""A stop-market buy locks so much times its stop price; it never spends more, however far the market gaps."""


@dataclass(eq=False)
class Account:
    """A customer: key, secret, balances, orders and trades in the order they came."""

    account_id: str
    api_key: str
    api_secret: str
    balances: dict[str, Balance] = field(default_factory=dict)
    orders: dict[int, Order] = field(default_factory=dict)
    open: dict[int, Order] = field(default_factory=dict)
    open_by: dict[tuple[str, Side], dict[int, Order]] = field(default_factory=lambda: defaultdict(dict))
    """The same by (symbol, side): checks of a new order must not look at all the others."""
    trades: list[Trade] = field(default_factory=list)
    lists: dict[int, OrderList] = field(default_factory=dict)
    by_client_id: dict[str, Order] = field(default_factory=dict)
    """The newest order of each client order id: an id may be used again once its order is done, as on Binance."""
    positions: dict[str, Position] = field(default_factory=dict)
    """By product and symbol; of accounts on margin alone."""
    billed: Decimal = ZERO
    """What was taken by bills so far: charges are no part of a trade's price."""
    kept: dict[str, dict[str, Any]] = field(default_factory=dict)
    """{kind: {key: document}}: what a venue's surface keeps here."""
    updated: int = 0

    def file(self, order: Order) -> None:
        """Put an order among the open ones."""
        self.open[order.order_id] = self.open_by[order.symbol, order.side][order.order_id] = order

    def unfile(self, order: Order) -> None:
        del self.open[order.order_id], self.open_by[order.symbol, order.side][order.order_id]

    def position(self, symbol: str, product: str) -> Position:
        return self.positions.setdefault(key_of(symbol, product), Position(symbol, product))

    def balance(self, asset: str) -> Balance:
        return self.balances.setdefault(asset, Balance())


@dataclass
class Books:
    """All accounts and orders. Numbers of orders, trades and lists rise by one."""

    instruments: dict[str, Instrument]
    fee_rate: Decimal
    margin_of: MarginOf | None = None
    accounts: dict[str, Account] = field(default_factory=dict)
    by_key: dict[str, Account] = field(default_factory=dict)
    orders: dict[int, Order] = field(default_factory=dict)
    lists: dict[int, OrderList] = field(default_factory=dict)
    last_order_id: int = 0
    last_trade_id: int = 0
    last_list_id: int = 0

    def apply(self, event: Event) -> None:
        """Let an event happen. Events that concern queues and prices alone change nothing here."""
        match event:
            case Filled():
                self._fill(event)
            case Entered():
                self._enter(event)
            case Amended():
                self._amend(event)
            case Ended():
                order = self.orders[event.order_id]
                order.state, order.reason = event.state, event.reason
                self._close(order, event.time)
            case Reserved():
                self._reserve(self.orders[event.order_id], event.amount)
            case Triggered():
                order = self.orders[event.order_id]
                order.working_since = order.updated = event.time
            case AccountOpened():
                self._open_account(event)
            case Listed(order_list):
                self.lists[order_list.list_id] = order_list
                self.accounts[order_list.account_id].lists[order_list.list_id] = order_list
                self.last_list_id = max(self.last_list_id, order_list.list_id)
            case Settled() | Converted() | Paid() | Kept():
                self._of_account(event)
            case _:
                pass

    def on_margin(self, symbol: str) -> bool:
        """Whether what is traded in it goes by the margin ledger."""
        return self.margin_of is not None and self.instruments[symbol].quote == RUPEES

    def locks(self, request: OrderRequest) -> str:
        """The asset that an order locks."""
        if self.on_margin(request.symbol) and not (request.side == "SELL" and margin_ledger.is_delivery(request)):
            return RUPEES
        return self.paid_asset(request.symbol, request.side)

    def margin_asked(self, account: Account, request: OrderRequest, quantity: Decimal, time: int, besides: int = 0) -> Decimal:  # fmt: skip
        """What an order on margin would lock; `besides`: the order that it replaces."""
        assert self.margin_of is not None
        product = request.terms.get("product", "CNC")
        position = account.positions.get(key_of(request.symbol, product)) or Position(request.symbol, product)
        others = ZERO
        if not margin_ledger.is_delivery(request) and position.is_closed_by(request.side):
            same_way = account.open_by[request.symbol, request.side].values()
            others = sum(
                (
                    each.remaining for each in same_way
                    if each.order_id != besides and each.request.terms.get("product", "CNC") == product
                ),
                ZERO,
            )  # fmt: skip
        return margin_ledger.asks(self.margin_of, position, others, request, quantity, time)

    def margin_after(self, order: Order, price: Decimal, quantity: Decimal, time: int) -> Decimal | None:
        """What the position of an order blocks after a fill; None for what is paid in full."""
        if not self.on_margin(order.symbol) or margin_ledger.is_delivery(order.request):
            return None
        assert self.margin_of is not None
        position = self.accounts[order.account_id].position(order.symbol, order.request.terms["product"])
        return margin_ledger.margin_after(self.margin_of, position, order.side, price, quantity, time)

    def paid_asset(self, symbol: str, side: Side) -> str:
        """What an order gives away, and therefore locks."""
        instrument = self.instruments[symbol]
        return instrument.quote if side == "BUY" else instrument.base

    def received_asset(self, symbol: str, side: Side) -> str:
        instrument = self.instruments[symbol]
        return instrument.base if side == "BUY" else instrument.quote

    def fee(self, symbol: str, side: Side, price: Decimal, quantity: Decimal) -> Decimal:
        """Taken from what is received, cut to eight decimals. Accounts on margin are billed at the day's end instead."""
        if self.on_margin(symbol):
            return ZERO
        received = quantity if side == "BUY" else price * quantity
        return (received * self.fee_rate).quantize(FEE_UNIT, ROUND_DOWN)

    def siblings(self, order: Order) -> Iterator[Order]:
        """The other open orders of its list."""
        if order.list_id is not None and order.list_id in self.lists:
            for number in self.lists[order.list_id].order_ids:
                if number != order.order_id and self.orders[number].is_open:
                    yield self.orders[number]

    # --- inside ------------------------------------------------------------------------------------------------------

    def _open_account(self, event: AccountOpened) -> None:
        account = self.accounts.get(event.account_id)
        if account is None:
            account = Account(event.account_id, event.api_key, event.api_secret)
            account.balances = {asset: Balance(amount) for asset, amount in event.balances.items()}
            for asset, amount in event.balances.items():
                if asset in self.instruments and self.on_margin(asset):
                    account.positions[key_of(asset, "CNC")] = Position(asset, "CNC", amount)
            self.accounts[event.account_id] = account
        if self.by_key.get(account.api_key) is account:
            del self.by_key[account.api_key]
        account.api_key, account.api_secret = event.api_key, event.api_secret
        self.by_key[event.api_key] = account

    def _enter(self, event: Entered) -> None:
        order = Order(
            event.order_id, event.account_id, event.request, event.time, event.time, ZERO, event.list_id,
            working_since=event.time if event.working else None,
        )  # fmt: skip
        self.add(order)
        self._reserve(order, event.locked)

    def add(self, order: Order) -> None:
        """File an order under all its names; its locked funds are not moved."""
        account = self.accounts[order.account_id]
        self.orders[order.order_id] = account.orders[order.order_id] = order
        account.by_client_id[order.client_order_id] = order
        if order.is_open:
            account.file(order)
        self.last_order_id = max(self.last_order_id, order.order_id)

    def _amend(self, event: Amended) -> None:
        order = self.orders[event.order_id]
        balance = self._paying(order)
        balance.locked -= order.locked
        balance.free += order.locked
        order.locked, order.request, order.updated = ZERO, event.request, event.time
        self._reserve(order, event.locked)

    def _reserve(self, order: Order, amount: Decimal) -> None:
        balance = self._paying(order)
        if amount > balance.free:
            raise ArithmeticError(f"order {order.order_id} wants {amount} locked, but {balance.free} is free")
        balance.free -= amount
        balance.locked += amount
        order.locked += amount
        self.accounts[order.account_id].updated = order.time

    def _fill(self, event: Filled) -> None:
        order = self.orders[event.order_id]
        account = self.accounts[order.account_id]
        price, quantity = event.price, event.quantity
        if self.on_margin(order.symbol):
            position = account.position(order.symbol, order.request.terms.get("product", "CNC"))
            cash, shares = account.balance(RUPEES), account.balance(self.instruments[order.symbol].base)
            margin_ledger.fill(cash, shares, position, order, event)
        else:
            self._exchange(order, account, event)
        order.filled += quantity
        order.quote_filled += price * quantity
        self.last_trade_id = max(self.last_trade_id, event.trade_id)
        trade = Trade(
            event.trade_id, order.order_id, order.symbol, order.side, price, quantity, event.fee, event.fee_asset,
            event.maker, event.time,
        )  # fmt: skip
        order.trades.append(trade)
        account.trades.append(trade)
        order.state = "FILLED" if order.remaining == 0 else "PARTIALLY_FILLED"
        order.updated = account.updated = event.time
        if not order.is_open:
            self._close(order, event.time)

    def _exchange(self, order: Order, account: Account, event: Filled) -> None:
        """A spot fill: one asset for another."""
        price, quantity = event.price, event.quantity
        spent = price * quantity if order.side == "BUY" else quantity
        gained = quantity if order.side == "BUY" else price * quantity
        released = spent if order.side == "SELL" else (order.request.limit_price or price) * quantity
        paying = self._paying(order)
        paying.locked -= released
        paying.free += released - spent
        order.locked -= released
        account.balance(event.fee_asset).free += gained - event.fee

    def _of_account(self, event: Settled | Converted | Paid | Kept) -> None:
        account = self.accounts[event.account_id]
        if isinstance(event, Kept):
            kept = account.kept.setdefault(event.kind, {})
            if event.value is None:
                kept.pop(event.key, None)
            else:
                kept[event.key] = event.value
            return
        cash = account.balance(RUPEES)
        match event:
            case Settled():
                margin_ledger.settle(cash, account.position(event.symbol, event.product), event)
            case Converted():
                before, after = (account.position(event.symbol, each) for each in (event.product, event.into))
                shares = account.balance(self.instruments[event.symbol].base)
                margin_ledger.convert(cash, shares, before, after, event)
            case Paid():
                margin_ledger.pay(cash, event)
                account.billed += event.amount
        account.updated = event.time

    def _close(self, order: Order, time: int) -> None:
        balance = self._paying(order)
        balance.locked -= order.locked
        balance.free += order.locked
        order.locked = ZERO
        order.updated = time
        account = self.accounts[order.account_id]
        account.updated = time
        account.unfile(order)

    def _paying(self, order: Order) -> Balance:
        return self.accounts[order.account_id].balance(self.locks(order.request))


def needed(request: OrderRequest, quantity: Decimal) -> Decimal:
    """What must be locked for `quantity` of a limit or stop order: quote currency for a buy, base for a sell."""
    if request.side == "SELL":
        return quantity
    if request.limit_price is not None:
        return quantity * request.limit_price
    assert request.stop_price is not None
    return quantity * request.stop_price * STOP_MARKET_ALLOWANCE
