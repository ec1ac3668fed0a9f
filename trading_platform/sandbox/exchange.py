"""The exchange: commands come in, go to the journal, change the books, and only then is anybody told.

Four commands change anything: open an account, place an order, cancel one, take a step of market time. Each is written
as it was asked for; doing them again in order gives the same books, so a start after a kill is a replay of the journal.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import structlog

from trading_platform.identifiers import DatasetId, Symbol, Venue
from trading_platform.market_data.bar import Bar
from trading_platform.market_data.feed import Step
from trading_platform.markets.instruments import Instrument
from trading_platform.sandbox.books import OPEN_STATES, Account, Books, Order
from trading_platform.sandbox.candles import Candles, milliseconds
from trading_platform.sandbox.journal import Journal, Record
from trading_platform.sandbox.matching import Market, match_resting, place, would_take

log = structlog.get_logger(__name__)

FEE_RATE = Decimal("0.001")
Listener = Callable[[Step], None]


class RefusedError(Exception):
    """An order that the exchange's rules refuse; `reason` is one of the rules below, for a venue's surface to word."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


UNKNOWN_SYMBOL, LOT_SIZE, PRICE_FILTER, NOTIONAL = "UNKNOWN_SYMBOL", "LOT_SIZE", "PRICE_FILTER", "NOTIONAL"
BALANCE, DUPLICATE, WOULD_TAKE, NO_MARKET, UNKNOWN_ORDER = (
    "BALANCE",
    "DUPLICATE",
    "WOULD_TAKE",
    "NO_MARKET",
    "UNKNOWN_ORDER",
)


class Exchange:
    """Books, markets and market time of one dataset."""

    def __init__(
        self, dataset_id: DatasetId, interval_seconds: int, instruments: dict[str, Instrument], journal: Journal
    ) -> None:
        self.dataset_id = dataset_id
        self.interval_seconds = interval_seconds
        self.instruments = instruments
        self.journal = journal
        self.books = Books(instruments, FEE_RATE)
        self.markets = {symbol: Market(instrument) for symbol, instrument in instruments.items()}
        self.candles = {symbol: Candles(interval_seconds) for symbol in instruments}
        self.market_time: datetime | None = None
        self.steps = 0
        self.replay: Record | None = None
        """The last command that started the replay, so that a restarted exchange goes on by itself."""
        self.listeners: list[Listener] = []

    # --- commands ----------------------------------------------------------------------------------------------------

    def rebuild(self) -> int:
        """Do every command of the journal again. Returns how many there were."""
        count = 0
        for record in self.journal.records():
            self._do(record)
            count += 1
        return count

    async def open_account(self, account_id: str, api_key: str, api_secret: str, balances: dict[str, str]) -> Account:
        existing = self.books.accounts.get(account_id)
        if existing is None or (existing.api_key, existing.api_secret) != (api_key, api_secret):
            self._write(
                {"c": "account", "account": account_id, "key": api_key, "secret": api_secret, "balances": balances}
            )
        await self.journal.durable()
        return self.books.accounts[account_id]

    async def place_order(self, account: Account, wanted: dict[str, Any]) -> Order:
        """`wanted`: symbol, side, kind, time_in_force, quantity, price, client_order_id. Raises `RefusedError`."""
        number = self.books.last_order_id + 1
        record = {"c": "order", "account": account.account_id, "id": number, **wanted}
        self._check(account, record)
        self._write(record)
        await self.journal.durable()
        return account.orders[number]

    async def cancel_order(self, account: Account, order: Order) -> Order:
        """Raises `RefusedError` where the order is done."""
        if not order.is_open:
            raise RefusedError(UNKNOWN_ORDER)
        self._write({"c": "cancel", "account": account.account_id, "id": order.order_id})
        await self.journal.durable()
        return order

    async def start_replay(self, command: Record) -> None:
        self._write({"c": "start", **command})
        await self.journal.durable()

    async def step(self, step: Step) -> None:
        """Let market time pass: new bars, resting orders filled, listeners told once all of it is on disk."""
        bars = [
            [bar.symbol, milliseconds(bar), bar.open, bar.high, bar.low, bar.close, bar.volume] for bar in step.bars
        ]
        self._write({"c": "step", "t": int(step.available_at.timestamp() * 1_000), "bars": bars})
        await self.journal.durable()
        for listener in self.listeners:
            listener(step)

    @property
    def now_ms(self) -> int:
        """Market time in milliseconds; 0 before the first step."""
        return 0 if self.market_time is None else int(self.market_time.timestamp() * 1_000)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _write(self, record: Record) -> None:
        self.journal.append(record)
        self._do(record)

    def _do(self, record: Record) -> None:
        {
            "account": self._do_account,
            "order": self._do_order,
            "cancel": self._do_cancel,
            "step": self._do_step,
            "start": self._do_start,
        }[record["c"]](record)

    def _do_account(self, record: Record) -> None:
        self.books.open_account(record["account"], record["key"], record["secret"], record["balances"])

    def _do_start(self, record: Record) -> None:
        self.replay = record

    def _do_step(self, record: Record) -> None:
        self.market_time = datetime.fromtimestamp(record["t"] / 1_000, UTC)
        self.steps += 1
        for symbol, opened, o, h, low, c, v in record["bars"]:
            bar = self._bar(symbol, opened, (o, h, low, c, v))
            self.candles[symbol].add(bar)
            match_resting(self.books, bar, record["t"])
            self.markets[symbol].take(bar)

    def _bar(self, symbol: str, opened: int, values: tuple[float, float, float, float, float]) -> Bar:
        open_time = datetime.fromtimestamp(opened / 1_000, UTC)
        assert self.market_time is not None
        return Bar(
            self.dataset_id, Venue("binance"), Symbol(symbol), self.interval_seconds, open_time, *values,
            open_time.date(), self.market_time,
        )  # fmt: skip

    def _do_cancel(self, record: Record) -> None:
        order = self.books.accounts[record["account"]].orders[record["id"]]
        self.books.finish(order, "CANCELED", self.now_ms)

    def _do_order(self, record: Record) -> None:
        account = self.books.accounts[record["account"]]
        market = self.markets[record["symbol"]]
        order = self._order(record)
        self.books.add_order(account, order, market.worst_price(order))
        place(self.books, market, order, self.now_ms)

    def _order(self, record: Record) -> Order:
        return Order(
            order_id=record["id"],
            client_order_id=record["client_order_id"],
            account_id=record["account"],
            symbol=record["symbol"],
            side=record["side"],
            kind=record["kind"],
            time_in_force=record["time_in_force"],
            quantity=Decimal(record["quantity"]),
            price=Decimal(record["price"]),
            time=self.now_ms,
            updated=self.now_ms,
        )

    def _check(self, account: Account, record: Record) -> None:
        """Every rule an order can break, before it is written down."""
        market = self.markets.get(record["symbol"])
        if market is None:
            raise RefusedError(UNKNOWN_SYMBOL)
        if market.last is None:
            raise RefusedError(NO_MARKET)
        instrument, order = market.instrument, self._order(record)
        if order.quantity <= 0 or order.quantity % instrument.step:
            raise RefusedError(LOT_SIZE)
        if order.kind != "MARKET" and (order.price <= 0 or order.price % instrument.tick):
            raise RefusedError(PRICE_FILTER)
        price = market.last if order.kind == "MARKET" else order.price
        if order.quantity * price < instrument.minimum_notional:
            raise RefusedError(NOTIONAL)
        same = account.by_client_id.get(order.client_order_id)
        if same is not None and same.state in OPEN_STATES:
            raise RefusedError(DUPLICATE)
        if would_take(market, order):
            raise RefusedError(WOULD_TAKE)
        asset = instrument.quote if order.side == "BUY" else instrument.base
        needed = order.quantity * market.worst_price(order) if order.side == "BUY" else order.quantity
        if needed > account.balance(asset).free:
            raise RefusedError(BALANCE)
