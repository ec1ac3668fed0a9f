"""The exchange: a command is checked, matching decides, the events change the books, and the journal has them.

Every method here is synchronous and whole: it changes the books and appends one record to the journal. Whoever answers
a customer awaits `durable()` first, so that nobody is ever told of what is not on disk, reads included.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

import structlog

from trading_platform.markets.instruments import Instrument
from trading_platform.sandbox import rules
from trading_platform.sandbox.books import Account, Books
from trading_platform.sandbox.candles import Candles
from trading_platform.sandbox.events import (
    AccountOpened,
    Amended,
    BarClosed,
    Ended,
    Entered,
    Event,
    Listed,
    OfAccount,
    OfOrder,
    as_record,
    from_record,
    revive,
)
from trading_platform.sandbox.journal import Journal, Record
from trading_platform.sandbox.liquidity import Level, Liquidity
from trading_platform.sandbox.margin_ledger import MarginOf
from trading_platform.sandbox.matching import Market, Matching
from trading_platform.sandbox.orders import Order, OrderList, OrderRequest
from trading_platform.sandbox.rules import Refusal, RefusedError
from trading_platform.sandbox.snapshot import restore, take
from trading_platform.sandbox.sources import Step

log = structlog.get_logger(__name__)

FEE_RATE = Decimal("0.001")
FORMAT = 1


class OtherExchangeError(RuntimeError):
    """The journal belongs to an exchange of another dataset, or of a later release."""


@dataclass(frozen=True)
class Genesis:
    """What an exchange is, decided when its journal began; a later start with other wishes changes none of it."""

    dataset_id: str
    interval_seconds: int
    seed: int
    instruments: list[Instrument]
    fee_rate: Decimal = FEE_RATE
    format: int = FORMAT
    watched: list[str] = field(default_factory=list)
    """Symbols whose bars are shown and that nobody can trade: indices."""
    on_margin: bool = False
    """Whether what is traded for rupees goes by positions and blocked margin, instead of being paid in full."""


class Listener(Protocol):
    """Somebody who passes on what happened."""

    def committed(self, events: list[Event], time: int) -> Callable[[], None] | None:
        """Called at once, while the books are as the events left them; returns what to do once they are on disk."""
        ...


class Exchange:
    """Books, markets and market time of one dataset. Times are milliseconds since the epoch, UTC."""

    def __init__(
        self,
        genesis: Genesis,
        journal: Journal,
        now: Callable[[], int] | None = None,
        margin_of: MarginOf | None = None,
    ) -> None:
        self.genesis = genesis
        self.journal = journal
        self._now = now
        """The clock of a live market; None: market time is that of the last step."""
        self.instruments: dict[str, Instrument] = {instrument.symbol: instrument for instrument in genesis.instruments}
        self.books = Books(dict(self.instruments), genesis.fee_rate, margin_of if genesis.on_margin else None)
        self.markets = {
            symbol: Market(instrument, Liquidity(instrument, genesis.seed))
            for symbol, instrument in self.instruments.items()
        }
        self.candles = {symbol: Candles(genesis.interval_seconds) for symbol in [*self.instruments, *genesis.watched]}
        self.matching = Matching(self.books, self._post)
        self.market_time: int | None = None
        self.steps = 0
        self.replay: Record | None = None
        """The last command that let time run, so that a restarted exchange goes on by itself."""
        self.listeners: list[Listener] = []
        self.pauses: Callable[[str, int], bool] = lambda symbol, time: False
        """(symbol, end of a bar): whether nothing trades then; the bar is shown all the same. Halts, auctions."""
        self._events: list[Event] = []

    @classmethod
    def open(
        cls, folder: Path, genesis: Genesis, now: Callable[[], int] | None = None, margin_of: MarginOf | None = None
    ) -> "Exchange":
        """The exchange of a journal folder, its books rebuilt; a new one where the folder is empty.

        `margin_of`: what positions block, where the genesis is `on_margin`. Raises `OtherExchangeError`, `JournalDamagedError`, `JournalInUseError`.
        """
        journal = Journal(folder)
        records = journal.records()
        first = next(records, None)
        if first is None:
            exchange = cls(genesis, journal, now, margin_of)
            journal.append({"c": "genesis", "genesis": genesis})
            return exchange
        found = first.get("genesis", {})
        if found.get("dataset_id") != genesis.dataset_id or found.get("format") != FORMAT:
            raise OtherExchangeError(
                f"the journal in {folder} is of dataset {found.get('dataset_id')!r} in format {found.get('format')!r}; "
                f"expected {genesis.dataset_id!r} in format {FORMAT}. Choose another folder with --journal."
            )
        exchange = cls(revive(Genesis, found), journal, now, margin_of)
        count = sum(1 for _ in map(exchange._redo, records))
        log.info("books_rebuilt", records=count, orders=len(exchange.books.orders), market_time=exchange.market_time)
        return exchange

    @property
    def now(self) -> int:
        """Market time in milliseconds; 0 before the first step."""
        return self._now() if self._now is not None else self.market_time or 0

    async def durable(self) -> None:
        """Return once all that has been done is on disk."""
        await self.journal.durable()

    # --- commands ----------------------------------------------------------------------------------------------------

    def open_account(self, account_id: str, api_key: str, api_secret: str, balances: dict[str, Decimal]) -> Account:
        """Open an account, or give an existing one a new key. The same again changes nothing."""
        existing = self.books.accounts.get(account_id)
        if existing is None or (existing.api_key, existing.api_secret) != (api_key, api_secret):
            self._post(AccountOpened(account_id, api_key, api_secret, balances))
            self._commit("account")
        return self.books.accounts[account_id]

    def place_order(self, account: Account, request: OrderRequest) -> Order:
        """Place an order and match it. Raises `RefusedError`."""
        request = self.checked(account, request)
        order = self._enter(account, request)
        self._commit("order")
        return order

    def checked(self, account: Account, request: OrderRequest) -> OrderRequest:
        """The order as it would be placed now, its quantity worked out. Raises `RefusedError`."""
        market = self._market(request.symbol)
        request = self._with_quantity(market, request)
        rules.check_filters(market, request)
        rules.check_state(market, account, [request], own_names=not self.books.on_margin(request.symbol))
        rules.check_funds(self.books, account, request, self._funds(account, market, request))
        return request

    def reject_order(self, account: Account, request: OrderRequest, reason: str) -> Order:
        """Take an order into the books and reject it there, as an exchange does with what a broker let through."""
        number = self.books.last_order_id + 1
        self._post(Entered(number, account.account_id, request, Decimal(0), False, None, self.now))
        self._post(Ended(number, "REJECTED", reason, self.now))
        self._commit("reject")
        return self.books.orders[number]

    def record(self, *events: OfAccount) -> None:
        """Let something happen to an account that is no order: a bill, a conversion, a document of the surface's."""
        for event in events:
            self._post(event)
        self._commit("record")

    def auction(self, orders: Iterable[Order], price: Decimal) -> None:
        """Match waiting orders at one price, all at once; what does not reach it ends."""
        for order in orders:
            if order.is_open:
                self.matching.at_one_price(order, price, self.now)
        self._commit("auction")

    def place_list(self, account: Account, client_id: str, upper: OrderRequest, lower: OrderRequest) -> OrderList:
        """Place two orders of which one cancels the other, on the same funds. Raises `RefusedError`."""
        market = self._market(upper.symbol)
        for request in (upper, lower):
            rules.check_filters(market, request)
        rules.check_list_prices(market, upper, lower)
        rules.check_state(market, account, [upper, lower])
        if any(listed.client_id == client_id and self.is_executing(listed) for listed in account.lists.values()):
            raise RefusedError(Refusal.DUPLICATE)
        dearer = max(upper, lower, key=lambda leg: self._funds(account, market, leg))
        rules.check_funds(self.books, account, dearer, self._funds(account, market, dearer))
        number, list_id = self.books.last_order_id, self.books.last_list_id + 1
        ids = {id(upper): number + 1, id(lower): number + 2}
        listed = OrderList(list_id, account.account_id, client_id, upper.symbol, [number + 1, number + 2], self.now)
        for leg in (upper, lower):
            locked = self._funds(account, market, leg) if leg is dearer else Decimal(0)
            working = leg.stop_price is None
            self._post(Entered(ids[id(leg)], account.account_id, leg, locked, working, list_id, self.now))
        self._post(Listed(listed))
        for leg in (upper, lower):
            if leg.stop_price is None:
                self.matching.enter(market, self.books.orders[ids[id(leg)]], self.now)
        self._commit("list")
        return listed

    def amend_order(self, order: Order, request: OrderRequest) -> Order:
        """Change an open order, which keeps its number and loses its place in the queue. Raises `RefusedError`.

        `request.quantity` is the new total, of which what has been filled already is a part.
        """
        market = self._market(request.symbol)
        if not order.is_open or request.quantity <= order.filled:
            raise RefusedError(Refusal.UNKNOWN_ORDER)
        rules.check_filters(market, request)
        account = self.books.accounts[order.account_id]
        left = replace(request, quantity=request.quantity - order.filled)
        locked = rules.funds(self.books, account, market, left, self.now, order.order_id)
        free = account.balance(self.books.locks(request)).free
        if locked > free + order.locked:
            raise RefusedError(Refusal.BALANCE, locked, free + order.locked)
        self._post(Amended(order.order_id, request, locked, self.now))
        if order.working_since is not None:
            self.matching.enter(market, order, self.now)
        self._commit("amend")
        return order

    def hand_over(self, orders: Iterable[Order]) -> None:
        """Stops that waited for the opening are orders of the session from now on, and end with it."""
        for order in orders:
            self._post(Amended(order.order_id, replace(order.request, at_open=False), order.locked, self.now))
        self._commit("hand over")

    def expire_orders(self, orders: Iterable[Order], reason: str) -> None:
        """End open orders whose time is over."""
        for order in orders:
            if order.is_open:
                self._post(Ended(order.order_id, "EXPIRED", reason, self.now))
        self._commit("expire")

    def cancel_order(self, order: Order) -> list[Order]:
        """Cancel an order, and with it the rest of its list. Raises `RefusedError` where it is done."""
        cancelled = self._cancel(order)
        self._commit("cancel")
        return cancelled

    def cancel_orders(self, orders: Iterable[Order]) -> list[Order]:
        """Cancel all of several orders that are open."""
        cancelled = [each for order in orders if order.is_open for each in self._cancel(order)]
        self._commit("cancel")
        return cancelled

    def replace_order(
        self, account: Account, order: Order | None, request: OrderRequest, *, even_if_done: bool
    ) -> tuple[list[Order] | RefusedError, Order | RefusedError | None]:
        """Cancel an order and place another, in one record: (what became of the cancel, what of the new order).

        Without `even_if_done` the new one is not tried (None) where the cancel is refused. Raises `RefusedError` where
        the new one breaks a filter: then nothing is done.
        """
        market = self._market(request.symbol)
        rules.check_filters(market, self._with_quantity(market, request))
        cancelled: list[Order] | RefusedError
        placed: Order | RefusedError | None = None
        try:
            if order is None:
                raise RefusedError(Refusal.UNKNOWN_ORDER)
            cancelled = self._cancel(order)
        except RefusedError as refusal:
            cancelled = refusal
        if even_if_done or not isinstance(cancelled, RefusedError):
            try:
                placed = self._enter(account, self.checked(account, request))
            except RefusedError as refusal:
                placed = refusal
        self._commit("replace")
        return cancelled, placed

    def start_replay(self, command: Record) -> None:
        """Remember how time is to run."""
        self.replay = command
        self.journal.append({"c": "start", "start": command}, None)

    def step(self, step: Step) -> None:
        """Let market time pass: new bars, and all they do to orders."""
        self.market_time = step.time
        self.steps += 1
        for bar in step.bars:
            if bar.symbol in self.markets and not self.pauses(bar.symbol, step.time):
                self.matching.take_bar(self.markets[bar.symbol], bar, self.now)
            elif bar.symbol in self.candles:
                self._post(bar)
        self._commit("step", step=step.time)
        if self.journal.wants_compaction:
            self.journal.compact(self.snapshot())

    def quote(self, symbol: str, bid: Level, ask: Level) -> None:
        """A live market's best prices. Written down only where they made something happen."""
        self.matching.take_quote(self.markets[symbol], bid, ask, self.now)
        self._commit("quote")

    # --- reading -----------------------------------------------------------------------------------------------------

    def is_executing(self, listed: OrderList) -> bool:
        """Whether an order of the list is open."""
        return any(self.books.orders[number].is_open for number in listed.order_ids)

    def snapshot(self) -> Iterator[Record]:
        """The whole state as records that `open` understands."""
        yield {"c": "genesis", "genesis": self.genesis}
        if self.replay is not None:
            yield {"c": "start", "start": self.replay}
        yield from take(self.books, self.markets, self.candles, {"time": self.market_time, "steps": self.steps})

    # --- inside ------------------------------------------------------------------------------------------------------

    def _enter(self, account: Account, request: OrderRequest) -> Order:
        market = self.markets[request.symbol]
        number = self.books.last_order_id + 1
        working = request.stop_price is None and not (request.at_open or request.queued)
        locked = self._funds(account, market, request)
        self._post(Entered(number, account.account_id, request, locked, working, None, self.now))
        order = self.books.orders[number]
        if working:
            self.matching.enter(market, order, self.now)
        return order

    def _cancel(self, order: Order) -> list[Order]:
        if not order.is_open:
            raise RefusedError(Refusal.UNKNOWN_ORDER)
        orders = [order, *self.books.siblings(order)]
        for each in orders:
            self._post(Ended(each.order_id, "CANCELED", "USER_CANCELED", self.now))
        return sorted(orders, key=lambda each: each.order_id)

    def _funds(self, account: Account, market: Market, request: OrderRequest) -> Decimal:
        return rules.funds(self.books, account, market, request, self.now)

    def _market(self, symbol: str) -> Market:
        if symbol not in self.markets:
            raise RefusedError(Refusal.UNKNOWN_SYMBOL)
        return self.markets[symbol]

    def _with_quantity(self, market: Market, request: OrderRequest) -> OrderRequest:
        if request.quote_quantity is None:
            return request
        if market.last is None:
            raise RefusedError(Refusal.NO_MARKET)
        return replace(request, quantity=rules.quantity_for(market, request))

    def _post(self, event: Event) -> None:
        self._apply(event)
        self._events.append(event)

    def _apply(self, event: Event) -> None:
        self.books.apply(event)
        if isinstance(event, BarClosed):
            self.candles[event.symbol].add(event)
            if event.symbol in self.markets:
                self.markets[event.symbol].apply(event, None)
        elif isinstance(event, OfOrder):
            order = self.books.orders[event.order_id]
            self.markets[order.symbol].apply(event, order)

    def _commit(self, command: str, **more: Any) -> None:
        """One record of the events since the last commit, and word to the listener once it is on disk."""
        events, self._events = self._events, []
        if not events and not more:
            return
        told = [then for each in self.listeners if (then := each.committed(events, self.now)) is not None]

        def tell() -> None:
            for then in told:
                then()

        self.journal.append({"c": command, **more, "e": [as_record(event) for event in events]}, tell if told else None)

    def _redo(self, record: Record) -> None:
        """Let a record of the journal happen again; it is not written again."""
        if record["c"] == "start":
            self.replay = record["start"]
            return
        if record["c"] == "snapshot":
            clock = restore(self.books, self.markets, self.candles, record)
            self.market_time, self.steps = clock.get("time", self.market_time), clock.get("steps", self.steps)
            return
        if "step" in record:
            self.market_time = record["step"]
            self.steps += 1
        for event in record["e"]:
            self._apply(from_record(event))
