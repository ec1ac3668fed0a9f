"""The breakers of one group: fed by signals and venues, asked before every entry, kept in the group's schema.

The engine that holds the lease is the only writer, and what it wrote opens again after a restart. A change raises or
resolves an alert with the row, so what is shown, told and obeyed is the same. A breaker that waits for a person is armed
by a request in its row (`request_arming`), which the engine takes up at its next look.
"""

import asyncio
import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.dialects.postgresql.dml import Insert
from sqlalchemy.ext.asyncio import AsyncSession

from trading_platform.compliance.audit import record
from trading_platform.execution.breakers import BookWatch, Breaker, BreakerState, SymbolWatch, VenueBreaker
from trading_platform.execution.decisions import Decision
from trading_platform.execution.denial_codes import Denial
from trading_platform.execution.lease import GroupLease
from trading_platform.execution.portfolio import Portfolio
from trading_platform.identifiers import GroupId, Symbol
from trading_platform.markets.instruments import Instrument
from trading_platform.markets.market_halts import MarketHalt, MarketState
from trading_platform.markets.sessions import IST
from trading_platform.observability.alerts import raise_alert_async, resolve_alert_async
from trading_platform.storage.control import Signal
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import BreakerRow
from trading_platform.venues.port import QueryFailedError

MARKET_WIDE = "market:*"
INDICES = ("NIFTY 50", "SENSEX")
"""A move of either stops all Indian exchanges; the rule and its source are in markets/data/market_halts.toml."""
BOOKS_WITHIN_SECONDS = 2.0
"""Trading waits no longer for a look at the books."""
TITLE = "A circuit breaker is open"
LOSS_STOPS = (Denial.LOSS_DAILY, Denial.LOSS_DRAWDOWN)


@dataclass
class BreakerBoard:
    """All breakers of a group."""

    group_id: GroupId
    symbols: dict[Symbol, SymbolWatch] = field(default_factory=dict)
    books: dict[Symbol, BookWatch] = field(default_factory=dict)
    venues: dict[str, VenueBreaker] = field(default_factory=dict)
    market: Breaker = field(default_factory=lambda: Breaker(MARKET_WIDE))
    halt: MarketHalt | None = None
    _closes: dict[str, tuple[datetime, Decimal]] = field(default_factory=dict)
    _kept: dict[str, Breaker] = field(default_factory=dict)

    # --- what happens ------------------------------------------------------------------------------------------------

    def on_signals(self, signals: Iterable[Signal], at: datetime) -> None:
        """The prices of one market time."""
        for signal in signals:
            symbol = Symbol(signal.symbol)
            self._symbol(symbol).on_price(signal.price, at)
            if symbol in INDICES:
                self._on_index(symbol, signal.price, at)
        if self.halt is not None:
            self._follow_halt(at)

    async def look_at_books(
        self, portfolios: Iterable[Portfolio], instruments: Mapping[Symbol, Instrument], now: datetime
    ) -> None:
        """Look at the books of every symbol that signals came for, through one account of each venue. `now`: wall time.

        A venue that does not answer opens its own breaker; of the books nothing new is known then.
        """
        for venue in {portfolio.kind: portfolio.venue for portfolio in portfolios}.values():
            symbols = {venue.contract_for(symbol, now): symbol for symbol in self.symbols}
            listed = [contract for contract in symbols if contract in instruments]
            with contextlib.suppress(QueryFailedError, TimeoutError):
                async with asyncio.timeout(BOOKS_WITHIN_SECONDS):
                    books = await venue.books(listed)
                for contract, book in books.items():
                    self._book(symbols[contract]).on_book(book, now)

    def venue(self, account_id: str) -> VenueBreaker:
        """The breaker of an account's venue, the same one through reconnections."""
        name = f"venue:{account_id}"
        return self.venues.setdefault(account_id, VenueBreaker(self._kept.get(name, Breaker(name))))

    def blocks(self, account_id: str, exchange: str, symbol: Symbol, now: datetime) -> str | None:
        """The name of the breaker that keeps an account from entering a symbol. `now`: wall time. Ask once an order."""
        if exchange == "zerodha" and self.market.state is not BreakerState.CLOSED:
            return self.market.name
        watches: tuple[SymbolWatch | BookWatch | None, ...] = (self.symbols.get(symbol), self.books.get(symbol))
        for watch in watches:
            if watch is not None and watch.breaker.state is not BreakerState.CLOSED:
                return watch.breaker.name
        venue = self.venues.get(account_id)
        return venue.breaker.name if venue is not None and not venue.allows_entry(now) else None

    def kept_back(self, account_id: str) -> None:
        """An entry that `blocks` let through was denied afterwards."""
        if (venue := self.venues.get(account_id)) is not None:
            venue.kept_back()

    def _symbol(self, symbol: Symbol) -> SymbolWatch:
        if symbol not in self.symbols:
            name = f"market:{symbol}"
            self.symbols[symbol] = SymbolWatch(self._kept.get(name, Breaker(name)))
        return self.symbols[symbol]

    def _book(self, symbol: Symbol) -> BookWatch:
        name = f"book:{symbol}"
        return self.books.setdefault(symbol, BookWatch(self._kept.get(name, Breaker(name))))

    def _on_index(self, symbol: str, price: Decimal, at: datetime) -> None:
        """The last price of the day before is what a day's moves are counted from."""
        before = self._closes.get(symbol)
        self._closes[symbol] = (at, price)
        if before is not None and before[0].astimezone(IST).date() < at.astimezone(IST).date():
            closes = dict(self.halt.previous_closes) if self.halt is not None else {}
            self.halt = MarketHalt.of_day(closes | {symbol: before[1]})
        if self.halt is not None:
            self.halt = self.halt.on_index(symbol, price, at)

    def _follow_halt(self, at: datetime) -> None:
        assert self.halt is not None
        self.halt = self.halt.at(at)
        state = self.halt.state
        halted = state in (MarketState.HALTED, MarketState.PRE_OPEN, MarketState.CLOSED)
        if halted and not self.market.waits_for_a_person:
            self.market = self.market.open(self.halt.why, at, None)
        elif state is MarketState.WARNING and self.market.state is BreakerState.CLOSED:
            self.market = Breaker(MARKET_WIDE, BreakerState.HALF_OPEN, "near the first level of a market-wide halt", at)
        elif state is MarketState.OPEN and self.market.state is BreakerState.HALF_OPEN:
            self.market = self.market.close()

    def shown(self) -> dict[str, str]:
        """{name: why} of those that keep entries back, for the lease's detail."""
        return {name: each.reason for name, each in self.all.items() if each.state is not BreakerState.CLOSED}

    # --- what is kept ------------------------------------------------------------------------------------------------

    @property
    def all(self) -> Mapping[str, Breaker]:
        """Every breaker, by name."""
        watches: list[SymbolWatch | BookWatch | VenueBreaker] = [
            *self.symbols.values(), *self.books.values(), *self.venues.values()
        ]  # fmt: skip
        return {each.name: each for each in (*(watch.breaker for watch in watches), self.market)}

    async def load(self, session: AsyncSession) -> None:
        """What an engine before this one left open. What this one wrote itself it knows better."""
        for row in await session.scalars(select(BreakerRow)):
            kept = Breaker(row.name, BreakerState(row.state), row.reason, row.opened_at, row.arms_at, row.trips)
            if self._kept.get(row.name) == kept:
                continue
            self._kept[row.name] = kept
            kind, _, what = row.name.partition(":")
            if row.name == MARKET_WIDE:
                self.market = kept
            elif kind == "market":
                self._symbol(Symbol(what)).breaker = kept
            elif kind == "book":
                self._book(Symbol(what)).breaker = kept
            else:
                self.venue(what).breaker = kept

    async def keep(self, databases: Databases, lease: GroupLease) -> None:
        """Take up requests to arm, then write, audit and tell what has changed since the last time."""
        await self._arm_requested(databases, lease)
        changed = [each for name, each in self.all.items() if self._kept.get(name, Breaker(name)) != each]
        if not changed:
            return
        async with databases.group_async(self.group_id) as session:
            await lease.check(session)
            for breaker in changed:
                await session.execute(_upsert(breaker))
                if self._kept.get(breaker.name, Breaker(breaker.name)).state is not breaker.state:
                    record(
                        session, user_id="*", actor="engine", event_type=f"BREAKER_{breaker.state}",
                        detail={"breaker": breaker.name, "reason": breaker.reason, "trips": breaker.trips},
                    )  # fmt: skip
        async with databases.control_async() as session:
            for breaker in changed:
                await self._tell(session, breaker)
        self._kept |= {each.name: each for each in changed}

    async def _arm_requested(self, databases: Databases, lease: GroupLease) -> None:
        async with databases.group_async(self.group_id) as session:
            await lease.check(session)
            asked = update(BreakerRow).where(BreakerRow.arming_requested_by.is_not(None))
            rows = await session.scalars(asked.values(arming_requested_by=None).returning(BreakerRow.name))
            for name in rows.all():
                self._arm(name)

    def _arm(self, name: str) -> None:
        kind, _, what = name.partition(":")
        if name == MARKET_WIDE:
            self.market, self.halt = self.market.close(), None
        elif kind == "market":
            self._symbol(Symbol(what)).breaker = Breaker(name)
        elif kind == "book":
            self._book(Symbol(what)).breaker = Breaker(name)
        else:
            self.venue(what).breaker = Breaker(name)

    async def _tell(self, session: AsyncSession, breaker: Breaker) -> None:
        source, labels = f"engine:{self.group_id}", {"breaker": breaker.name}
        if breaker.state is BreakerState.CLOSED:
            await resolve_alert_async(session, source=source, title=TITLE, labels=labels)
            return
        person = " A person arms it again." if breaker.waits_for_a_person else ""
        await raise_alert_async(
            session, severity="critical" if person else "warning", source=source, title=TITLE,
            detail=f"{breaker.name}: {breaker.reason}.{person}", labels=labels,
        )  # fmt: skip


async def tell_losses(databases: Databases, group_id: GroupId, decisions: Iterable[Decision]) -> None:
    """Raise an alert for every scope that is stopped because it lost as much as allowed; equal ones count up."""
    stopped = {
        (decision.portfolio.user_id, decision.denial)
        for decision in decisions
        if decision.denial is not None and decision.denial.startswith(LOSS_STOPS)
    }
    if not stopped:
        return
    async with databases.control_async() as session:
        for user_id, denial in sorted(stopped):
            await raise_alert_async(
                session, severity="warning", source=f"engine:{group_id}", title="A loss limit stops entries",
                detail=denial, labels={"user": user_id, "limit": denial.partition(":")[0]},
            )  # fmt: skip


async def request_arming(session: AsyncSession, name: str, actor: str) -> bool:
    """Ask the engine to close a breaker; audited. False where there is none of that name that is open."""
    asked = await session.execute(
        update(BreakerRow)
        .where(BreakerRow.name == name, BreakerRow.state != BreakerState.CLOSED)
        .values(arming_requested_by=actor)
        .returning(BreakerRow.name)
    )
    if asked.first() is None:
        return False
    record(session, user_id="*", actor=actor, event_type="BREAKER_ARM_REQ", detail={"breaker": name})
    return True


def _upsert(breaker: Breaker) -> Insert:
    values = {
        "state": str(breaker.state), "reason": breaker.reason, "opened_at": breaker.opened_at,
        "arms_at": breaker.arms_at, "trips": breaker.trips, "updated_at": func.now(),
    }  # fmt: skip
    row = insert(BreakerRow).values(name=breaker.name, **values)
    return row.on_conflict_do_update(index_elements=[BreakerRow.name], set_=values)
