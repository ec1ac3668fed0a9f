"""Accounts, balances, orders and trades: what the exchange owes to whom. Exact decimals; no protocol of any venue."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

from trading_platform.markets.instruments import Instrument

Side = Literal["BUY", "SELL"]
ZERO = Decimal(0)
OPEN_STATES = frozenset({"NEW", "PARTIALLY_FILLED"})


class InsufficientBalanceError(Exception):
    """The free balance does not cover the order."""


@dataclass
class Balance:
    """One asset of one account."""

    free: Decimal = ZERO
    locked: Decimal = ZERO


@dataclass(frozen=True)
class Trade:
    """One execution of an order. `fee` is in `fee_asset`, taken out of what was received."""

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
    """Market time, milliseconds since the epoch."""

    @property
    def quote_quantity(self) -> Decimal:
        return self.price * self.quantity


@dataclass
class Order:
    """An order and what has become of it. Times are market time in milliseconds."""

    order_id: int
    client_order_id: str
    account_id: str
    symbol: str
    side: Side
    kind: Literal["MARKET", "LIMIT", "LIMIT_MAKER"]
    time_in_force: Literal["GTC", "IOC", "FOK"]
    quantity: Decimal
    price: Decimal
    """Zero for a market order."""
    time: int
    updated: int
    state: str = "NEW"
    filled: Decimal = ZERO
    quote_filled: Decimal = ZERO
    locked: Decimal = ZERO
    """What is still locked for it, in quote currency for a buy, in base for a sell."""
    trades: list[Trade] = field(default_factory=list)

    @property
    def remaining(self) -> Decimal:
        return self.quantity - self.filled

    @property
    def is_open(self) -> bool:
        return self.state in OPEN_STATES


@dataclass
class Account:
    """A customer: key, secret, balances, orders in the order they came."""

    account_id: str
    api_key: str
    api_secret: str
    balances: dict[str, Balance] = field(default_factory=dict)
    orders: dict[int, Order] = field(default_factory=dict)
    trades: list[Trade] = field(default_factory=list)
    by_client_id: dict[str, Order] = field(default_factory=dict)
    """The newest order of each client order id; an id may be used again once its order is done, as on Binance."""

    def balance(self, asset: str) -> Balance:
        return self.balances.setdefault(asset, Balance())

    def open_orders(self, symbol: str | None = None) -> Iterable[Order]:
        return (o for o in self.orders.values() if o.is_open and symbol in (None, o.symbol))


@dataclass
class Books:
    """All accounts. Numbers given to orders and trades rise by one, so that a rebuilt exchange gives the same."""

    instruments: dict[str, Instrument]
    fee_rate: Decimal
    accounts: dict[str, Account] = field(default_factory=dict)
    by_key: dict[str, Account] = field(default_factory=dict)
    last_order_id: int = 0
    last_trade_id: int = 0

    def open_account(self, account_id: str, api_key: str, api_secret: str, balances: dict[str, str]) -> Account:
        """Open an account, or give the existing one a new key; its balances stay what they are."""
        account = self.accounts.get(account_id)
        if account is None:
            account = Account(account_id, api_key, api_secret)
            for asset, amount in balances.items():
                account.balance(asset).free = Decimal(amount)
            self.accounts[account_id] = account
        self.by_key.pop(account.api_key, None)
        account.api_key, account.api_secret = api_key, api_secret
        self.by_key[api_key] = account
        return account

    def add_order(self, account: Account, order: Order, worst_price: Decimal) -> None:
        """Enter an order and lock what it can cost at most. Raises `InsufficientBalanceError`, changing nothing."""
        instrument = self.instruments[order.symbol]
        asset = instrument.quote if order.side == "BUY" else instrument.base
        amount = order.quantity * worst_price if order.side == "BUY" else order.quantity
        balance = account.balance(asset)
        if amount > balance.free:
            raise InsufficientBalanceError
        balance.free -= amount
        balance.locked += amount
        order.locked = amount
        self.last_order_id = order.order_id
        account.orders[order.order_id] = order
        account.by_client_id[order.client_order_id] = order

    def fill(self, order: Order, price: Decimal, quantity: Decimal, *, maker: bool, time: int) -> Trade:
        """Execute a part of an order at a price."""
        account, instrument = self.accounts[order.account_id], self.instruments[order.symbol]
        paid, received = (
            (instrument.quote, instrument.base) if order.side == "BUY" else (instrument.base, instrument.quote)
        )
        spent = price * quantity if order.side == "BUY" else quantity
        gained = quantity if order.side == "BUY" else price * quantity
        fee = gained * self.fee_rate
        account.balance(paid).locked -= spent
        account.balance(received).free += gained - fee
        order.locked -= spent
        order.filled += quantity
        order.quote_filled += price * quantity
        order.updated = time
        self.last_trade_id += 1
        trade = Trade(
            self.last_trade_id, order.order_id, order.symbol, order.side, price, quantity, fee, received, maker, time
        )
        order.trades.append(trade)
        account.trades.append(trade)
        if order.remaining == 0:
            self.finish(order, "FILLED", time)
        else:
            order.state = "PARTIALLY_FILLED"
        return trade

    def finish(self, order: Order, state: str, time: int) -> None:
        """End an order and give back what is still locked for it."""
        account, instrument = self.accounts[order.account_id], self.instruments[order.symbol]
        balance = account.balance(instrument.quote if order.side == "BUY" else instrument.base)
        balance.locked -= order.locked
        balance.free += order.locked
        order.locked = ZERO
        order.state = state
        order.updated = time
