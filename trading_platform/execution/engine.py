"""The engine of one user group: signals in, settled orders out.

One process under a lease. It reconciles with the venue before it trades; consumes signals by a cursor that commits with
the intents they led to; writes every intent before it sends it; and tells the market clock only when all of a step is
settled. Whatever goes wrong with PostgreSQL or the venue ends the current session, and the next one begins as after a
kill: take the lease, rebuild from the books, reconcile, trade. Dagster is not involved, and its absence changes nothing.
"""

import asyncio
import contextlib
import gc
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby

import psycopg
import structlog
from sqlalchemy import select
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from trading_platform.compliance.audit import SealBusyError, seal
from trading_platform.execution.accounts import load_portfolios
from trading_platform.execution.at_once import at_once
from trading_platform.execution.breaker_board import BreakerBoard, tell_losses
from trading_platform.execution.clock import MarketClock
from trading_platform.execution.decisions import Decision, decide, flatten, in_turn
from trading_platform.execution.directives import AccountsChanged, Directives
from trading_platform.execution.dispatch import Dispatch
from trading_platform.execution.hedges import HedgeKeeper
from trading_platform.execution.intents import Cursor, StepWriter
from trading_platform.execution.late_fills import take_late_fills
from trading_platform.execution.lease import RENEW_EVERY_SECONDS, GroupLease
from trading_platform.execution.leg_orders import LegOrders
from trading_platform.execution.margin import covered
from trading_platform.execution.portfolio import Portfolio, PositionKey
from trading_platform.execution.positions import write_equity
from trading_platform.execution.reconciliation import Reconciliation, say
from trading_platform.execution.sender import Sender
from trading_platform.execution.slices import cuts
from trading_platform.execution.spreads import SpreadKeeper
from trading_platform.execution.square_off import ending, entered_late
from trading_platform.execution.stops import StopKeeper
from trading_platform.execution.venue_sessions import take_lost_session
from trading_platform.execution.wake import SignalBell
from trading_platform.execution.withdrawal import at_most_held, cancel_entries, held_at_venue, working_options
from trading_platform.identifiers import AccountId, DatasetId, GroupId, Symbol
from trading_platform.markets.instruments import Instrument
from trading_platform.observability import metrics
from trading_platform.observability.heartbeat import beat_async
from trading_platform.storage.control import MarketProgress, Signal
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import SignalCursor
from trading_platform.storage.lease import LeaseLostError, process_name
from trading_platform.venues.port import AuthLostError, QueryFailedError

log = structlog.get_logger(__name__)

BATCH = 4_000
POLL_SECONDS = 0.1
SETTLING_SECONDS = 0.05
IDLE_SECONDS = 1.0
SEAL_EVERY_SECONDS = 5.0
LOOK_AT_BOOKS_EVERY_SECONDS = 5.0
"""In live trading. A replay's books are made from its bars, so they tell nothing that those do not."""
STEP_PART = 100
"""Decisions that are written at once: while they are sent, the next ones are written."""
EQUITY_EVERY_STEPS = 24
RETRY_SECONDS = 1.0
RUNNING, FLATTENING = "RUNNING", "FLATTENING"
RECOVERABLE = (
    LeaseLostError, QueryFailedError, OperationalError, InternalError, InterfaceError, PoolTimeoutError,
    psycopg.OperationalError, psycopg.InternalError, psycopg.InterfaceError, OSError,
)  # fmt: skip


def stay_in_memory() -> None:
    """Let the garbage collector look no more at what a session has loaded.

    A thousand accounts' clients are millions of objects, and a walk over them stops the engine for half a second, in the
    middle of its orders.
    """
    gc.collect()
    gc.freeze()


@dataclass
class Engine:
    """One group on one dataset. `run` is its life."""

    databases: Databases
    group_id: GroupId
    dataset_id: DatasetId
    clock: MarketClock
    live_venue: str | None = None
    """The venue of a live market, whose armed accounts this engine trades."""
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    standby: bool = False
    """Take over from another engine, and never be a group's first."""

    def __post_init__(self) -> None:
        self.lease = GroupLease(self.databases, self.group_id, process_name())
        self.sender = Sender(self.databases, self.lease, self._market_now)
        self.writer = StepWriter(self.databases, self.lease)
        self.stops = StopKeeper(self.sender, self.writer, self.dataset_id)
        legs = LegOrders(self.sender, self.writer, self.dataset_id)
        self.hedges, self.spreads = HedgeKeeper(legs), SpreadKeeper(legs)
        self.reconciliation = Reconciliation(self.sender)
        self._said: list[str] | None = None
        """The differences that the alert tells of."""
        self.portfolios: list[Portfolio] = []
        self.instruments: dict[Symbol, Instrument] = {}
        self.cursor = self._cursor_on_disk = 0
        self.market_time: datetime | None = None
        """Up to which everything is done."""
        self.scored_through: datetime | None = None
        """Up to which the market is known: later than `market_time` while the engine catches up."""
        self.bell = SignalBell(self.databases.settings, self.dataset_id)
        self._acked_at = 0.0
        self.breakers = BreakerBoard(self.group_id)
        self.directives = Directives(
            self.databases, self.group_id, self.dataset_id, self.live_venue, self.clock, self.breakers
        )
        self._steps = 0

    async def run(self) -> None:
        """Trade until asked to stop, through every outage that passes."""
        listening = asyncio.create_task(self.bell.listen())
        try:
            if self.standby:
                await self._warm_up()
            await self._sessions()
        finally:
            listening.cancel()
        with contextlib.suppress(*RECOVERABLE):
            await self.lease.release()

    async def _sessions(self) -> None:
        while not self.stop.is_set():
            keeping: asyncio.Task[None] | None = None
            try:
                if not await self._take_lease():
                    await self._pause(RETRY_SECONDS)
                    continue
                keeping = asyncio.create_task(self._keep())
                await self._session(keeping)
            except AccountsChanged:
                log.info("accounts_changed", group=self.group_id)
            except AuthLostError as lost:
                await self._take_lost_session(lost)
            except RECOVERABLE as error:
                log.warning("engine_session_ends", group=self.group_id, error=f"{type(error).__name__}: {error}"[:400])
                self.lease.state = "HALTED"
                await self._pause(RETRY_SECONDS)
            finally:
                await self._end_session(keeping)

    async def _take_lease(self) -> bool:
        return (not self.standby or await self.lease.is_left()) and await self.lease.acquire()

    async def _warm_up(self) -> None:
        """Connect, and read books and markets once: what a takeover needs is then in memory, and known to work."""
        try:
            await self._load()
            log.info("engine_stands_by", group=self.group_id, accounts=len(self.portfolios))
        except RECOVERABLE as error:
            log.warning("standby_not_warm", group=self.group_id, error=f"{type(error).__name__}: {error}"[:400])
        finally:
            await self._end_session(None)

    async def _take_lost_session(self, lost: AuthLostError) -> None:
        portfolio = next((each for each in self.portfolios if each.account_id == lost.account_id), None)
        try:
            if portfolio is not None:
                await take_lost_session(self.databases, self.group_id, portfolio, str(lost))
        except RECOVERABLE as error:
            log.warning("session_not_renewed", account=lost.account_id, error=str(error)[:300])
            await self._pause(RETRY_SECONDS)

    # --- a session: from lease to trouble ----------------------------------------------------------------------------

    async def _session(self, keeping: "asyncio.Task[None]") -> None:
        await self.lease.show("STARTING", dataset=self.dataset_id, accounts=0)
        await self._load()
        await self._look_around()
        await self.lease.show("RECONCILING", accounts=len(self.portfolios))
        await self._reconcile(self.portfolios)
        looked = 0.0
        while not self.stop.is_set():
            if keeping.done():
                keeping.result()
            if self.directives.stale:
                await self._look_around()
                await self.breakers.keep(self.databases, self.lease)
                await self._withdraw()
                await take_late_fills(self.sender, self.portfolios, self.instruments)
                if self.clock.waits:  # the market may have moved on; in live trading stops are asked for by schedule
                    await self.stops.look(self.portfolios, self.instruments, self._now(), self._clock_seconds())
                elif time.monotonic() - looked > LOOK_AT_BOOKS_EVERY_SECONDS:
                    await self.breakers.look_at_books(self.portfolios, self.instruments, datetime.now(UTC))
                    looked = time.monotonic()
                await self._protect()
            await self._reconcile(self.reconciliation.due(self.portfolios))
            if not await self._consume():
                await self._settle_open()
                if time.monotonic() - self._acked_at > IDLE_SECONDS:
                    await self._idle()
                await self.bell.wait(POLL_SECONDS)

    async def _load(self) -> None:
        """Wait until the group has accounts on the dataset, then build portfolios from the books."""
        while True:
            async with self.databases.group_async(self.group_id) as session:
                cursor = await session.get(SignalCursor, self.dataset_id)
                self.cursor = self._cursor_on_disk = cursor.seq if cursor else 0
                self.market_time = cursor.market_time if cursor else None
                await self.breakers.load(session)
                self.portfolios = await load_portfolios(
                    self.databases, self.group_id, session, self.dataset_id, self.live_venue, self.market_time,
                    self._market_now, self.breakers.venue,
                )  # fmt: skip
            if self.portfolios or self.stop.is_set():
                break
            await self._pause(0.3)
        async with self.databases.control_async() as session:
            progress = await session.get(MarketProgress, self.dataset_id)
            self.scored_through = progress.scored_through if progress else None
        self.instruments = {}
        for venue in {portfolio.kind: portfolio.venue for portfolio in self.portfolios}.values():
            self.instruments |= await venue.instruments()  # one table for all accounts of a kind
        stay_in_memory()

    async def _reconcile(self, portfolios: Sequence[Portfolio]) -> None:
        """Compare accounts with the venue; while nothing matches at all, wait until something does."""
        while portfolios and not self.stop.is_set():
            await self.reconciliation.compare(portfolios, self.instruments, self._now(), self._clock_seconds())
            found = self.reconciliation.result(self.portfolios)
            running = FLATTENING if self.directives.flattening else RUNNING
            await self.lease.show("HALTED" if found.nothing_matches else running, reconciliation=found.shown())
            metrics.ENGINE_STATE.labels(self.group_id).set(not found.nothing_matches)
            if found.differences != self._said:
                self._said = found.differences
                await say(found, self.databases, self.lease, self.dataset_id)
                if found.differences:
                    log.warning("reconciliation_differs", group=self.group_id, **found.shown())
            if not found.nothing_matches:
                return
            await self._pause(RETRY_SECONDS)
            portfolios = self.portfolios

    async def _settle_open(self, *, all_now: bool = False) -> None:
        await at_once(self._settle(portfolio, all_now=all_now) for portfolio in self.portfolios if portfolio.unsettled)

    async def _settle(self, portfolio: Portfolio, *, all_now: bool) -> None:
        await self.sender.settle(portfolio, self.instruments, self._now(), self._clock_seconds(), all_now=all_now)

    # --- signals -----------------------------------------------------------------------------------------------------

    async def _consume(self) -> bool:
        """Take the signals that are there, a market time after the other; False where there were none."""
        async with self.databases.control_async() as session:
            # Progress first: what it covers is then surely among the signals that are read after it.
            progress = await session.get(MarketProgress, self.dataset_id)
            rows = await session.scalars(
                select(Signal)
                .where(Signal.dataset_id == self.dataset_id, Signal.seq > self.cursor)
                .order_by(Signal.seq)
                .limit(BATCH)
            )
            signals = rows.all()
        if progress is not None:
            self.scored_through = progress.scored_through
        if not signals:
            if self.scored_through is not None and (self.market_time is None or self.scored_through > self.market_time):
                self.market_time = self.scored_through
                await self._tell_clock()
            return False
        steps = [list(group) for _, group in groupby(signals, key=lambda signal: signal.available_at)]
        if len(signals) == BATCH:
            steps = steps[:-1]  # the last one may be cut
        for step in steps:
            if self.stop.is_set():
                break
            await self.take(step)
        return True

    async def take(self, signals: Sequence[Signal]) -> None:
        """All signals of one market time: decide, write, send, settle, tell the clock."""
        market_time = signals[0].available_at
        situation = self.directives.situation
        if any(portfolio.working for portfolio in self.portfolios):  # this bar may have filled what rested
            await self._settle_open(all_now=True)
            await self._end_entries({Symbol(signal.symbol) for signal in signals})
        await self.stops.look(self.portfolios, self.instruments, self._now(), self._clock_seconds())
        decisions: list[Decision] = []
        self.breakers.on_signals(signals, market_time)
        exposures = situation.exposures(self.portfolios, market_time)
        now = max(market_time, self.scored_through or market_time)
        for portfolio in self.portfolios:
            followed = [signal for signal in signals if signal.role == self.directives.arm(portfolio, signal, signals)]
            decisions += decide(portfolio, followed, market_time, situation, now, exposures)
        decisions = await self.stops.make_way(decisions, self.instruments, self._now(), self._clock_seconds())
        decisions = await self.spreads.make_way(decisions, situation, market_time, self._clock_seconds())
        decisions = await covered(decisions, market_time, self.breakers.kept_back)
        decisions = await self.hedges.lead(decisions, situation, exposures, market_time, now, self._clock_seconds())
        decisions = await self.spreads.lead(decisions, situation, exposures, market_time, now)
        self._steps += 1
        due = self._steps % EQUITY_EVERY_STEPS == 0
        if decisions or due:
            await self._carry_out(decisions, market_time, signals[-1].seq)
        self.cursor = signals[-1].seq
        self.market_time = market_time
        await self._settle_step()
        await self._protect()
        await self._tell_clock()

    async def _end_entries(self, symbols: set[Symbol]) -> None:
        """Take back what is left of entries whose bar is over: what they filled can then be protected and left."""
        own = [each for each in self.portfolios if each.working]
        await at_once(self._take_back(each, symbols | working_options(each), "its bar is over") for each in own)

    async def _take_back(self, portfolio: Portfolio, symbols: set[Symbol], why: str) -> None:
        if await cancel_entries(self.databases, self.lease, portfolio, why, symbols):
            await self._settle(portfolio, all_now=True)

    async def _protect(self) -> None:
        """A stop under every position; what cannot have one, or ends today, is left at the market; and the legs of sets."""
        if self.market_time is None:
            return
        now = self._market_now()
        late = [(portfolio, symbols) for portfolio in self.portfolios if (symbols := entered_late(portfolio, now))]
        await at_once(self._take_back(portfolio, symbols, "the session ends") for portfolio, symbols in late)
        traded = [each for each in self.portfolios if each.set_aside is None]
        # Refused, it is tried the next minute.
        await self._leave(ending(traded, now), f" {now:%Y-%m-%d %H:%M}")
        staying = [each for each in traded if not self.directives.situation.leaves(each)]
        await self._leave(await self.stops.protect(staying, self.instruments, self.market_time, self._clock_seconds()))
        situation, seconds, known = self.directives.situation, self._clock_seconds(), self._now() or self.market_time
        await self.hedges.follow(traded, situation, self.market_time, seconds)
        await self.spreads.follow(traded, situation, self.market_time, known, seconds)

    async def _settle_step(self) -> None:
        """Where the market stands still for us: wait until nothing of this step is unsettled."""
        await self._settle_open()
        while self.clock.waits and not self.stop.is_set() and any(each.unknown for each in self.portfolios):
            await self._pause(SETTLING_SECONDS)
            await self._settle_open()

    async def _tell_clock(self) -> None:
        self._acked_at = time.monotonic()
        if self.market_time is not None:
            await self.clock.done(self.market_time)

    async def _idle(self) -> None:
        """Now and then: put on disk how far the signals are consumed, and repeat to the clock what it may have missed."""
        if self.cursor > self._cursor_on_disk and self.market_time is not None:
            await self.writer.move_cursor(Cursor(self.dataset_id, self.cursor, self.market_time))
            self._cursor_on_disk = self.cursor
        await self._tell_clock()

    async def _carry_out(self, decisions: Sequence[Decision], market_time: datetime, seq: int) -> None:
        """Write the decisions, and with the last of them the cursor; send what is written while more is being written.

        An engine that dies between two parts decides on the rest again, and finds those written that were.
        """
        issued_at, cut = datetime.now(UTC), cuts(decisions)
        ordered = in_turn(decisions)
        parts = [ordered[start : start + STEP_PART] for start in range(0, max(len(ordered), 1), STEP_PART)]
        async with Dispatch(self.sender, self._clock_seconds()) as out:
            for part in parts:
                cursor = Cursor(self.dataset_id, seq, market_time) if part is parts[-1] else None
                sent_at = self._market_now()
                for order in await self.writer.write(part, self.instruments, market_time, issued_at, sent_at, cursor):
                    out.put(order)
        self._cursor_on_disk = seq
        if denied := sum(decision.denial is not None for decision in decisions):
            metrics.ORDERS.labels(self.group_id, "denied").inc(denied)
            await tell_losses(self.databases, self.group_id, decisions)
        async with self.databases.group_async(self.group_id) as session:
            await self.lease.check(session)
            await write_equity(session, self.portfolios, market_time)
        for each in cut:
            if (following := each.following(self.instruments[each.decision.contract])) is not None:
                there = await held_at_venue(following.portfolio)
                if there is not None and (rest := at_most_held([following], there, self.instruments)):
                    await self._carry_out(rest, market_time, seq)

    async def _withdraw(self) -> None:
        """What halts ask for beside keeping entries back: cancel those that work, and leave what is held."""
        asked = (each for each in self.portfolios if self.directives.latches.asks(each, self.group_id, "cancel"))
        await at_once(cancel_entries(self.databases, self.lease, each, "a halt asks for it") for each in asked)
        await self._flatten()

    async def _flatten(self) -> None:
        leaving = (portfolio for portfolio in self.portfolios if self.directives.situation.leaves(portfolio))
        await self._leave([(portfolio, key) for portfolio in leaving for key in portfolio.holdings])

    async def _leave(self, positions: Sequence[tuple[Portfolio, PositionKey]], occasion: str = "") -> None:
        """Leave positions at the latest bar, without waiting for the next one: no more than the venue says is there."""
        if not positions or self.market_time is None:
            return
        symbols = {symbol for _, (_, symbol) in positions}
        async with self.databases.control_async() as session:
            rows = await session.scalars(
                select(Signal)
                .distinct(Signal.symbol)
                .where(
                    Signal.dataset_id == self.dataset_id, Signal.seq <= self.cursor, Signal.seq > self.cursor - BATCH,
                    Signal.symbol.in_(symbols),
                )
                .order_by(Signal.symbol, Signal.seq.desc())
            )  # fmt: skip
            latest = {Symbol(row.symbol): row for row in rows}
        keys: dict[AccountId, set[PositionKey]] = {}
        for portfolio, key in positions:
            keys.setdefault(portfolio.account_id, set()).add(key)
        leaving = [portfolio for portfolio in self.portfolios if portfolio.account_id in keys]
        exits = await at_once(self._exits(each, keys[each.account_id], latest, occasion) for each in leaving)
        if decisions := [decision for own in exits for decision in own]:
            await self._carry_out(decisions, self.market_time, self.cursor)

    async def _exits(
        self, portfolio: Portfolio, keys: Collection[PositionKey], latest: Mapping[Symbol, Signal], occasion: str
    ) -> list[Decision]:
        """Of one account's positions, without the stops in their way, and of no more than its venue says is there."""
        assert self.market_time is not None
        exits = flatten(portfolio, latest, self.market_time, self.directives.situation, keys, occasion)
        exits = await self.stops.make_way(exits, self.instruments, self._now(), self._clock_seconds())
        exits = await self.spreads.make_way(exits, self.directives.situation, self.market_time, self._clock_seconds())
        there = await held_at_venue(portfolio) if exits else None
        return at_most_held(exits, there, self.instruments) if there is not None else []

    # --- what surrounds trading --------------------------------------------------------------------------------------

    async def _look_around(self) -> None:
        """Read what is to be obeyed, and show it. Raises `AccountsChanged`."""
        await self.directives.read(self.portfolios, self.instruments)
        self.lease.detail["breakers"] = self.breakers.shown()
        self.lease.detail["bans"] = self.directives.bans
        self.lease.detail["halts"] = sorted(f"{scope}:{scope_id}" for scope, scope_id in self.directives.latches.held)
        if self.lease.state in (RUNNING, FLATTENING):
            self.lease.state = FLATTENING if self.directives.flattening else RUNNING

    async def _keep(self) -> None:
        """Renew the lease, beat, seal the audit trail. Raises `LeaseLostError` when another engine took over."""
        sealed_at = 0.0
        while True:
            await asyncio.sleep(RENEW_EVERY_SECONDS)
            self.lease.detail["market_time"] = self.market_time.isoformat() if self.market_time else None
            self.lease.detail["cursor"] = self.cursor
            await self.lease.renew()
            async with self.databases.control_async() as session:
                await beat_async(session, f"engine:{self.group_id}", self.lease.state, self.lease.shown())
            if time.monotonic() - sealed_at > SEAL_EVERY_SECONDS:
                sealed_at = time.monotonic()
                with contextlib.suppress(SealBusyError):
                    await asyncio.to_thread(seal, self.databases, self.group_id)

    async def _end_session(self, keeping: "asyncio.Task[None] | None") -> None:
        if keeping is not None:
            keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError, *RECOVERABLE):
                await keeping
        metrics.ENGINE_STATE.labels(self.group_id).set(0)
        await self.writer.close()
        await asyncio.gather(*(portfolio.venue.close() for portfolio in self.portfolios))
        self.portfolios = []
        gc.unfreeze()

    def _now(self) -> datetime | None:
        """Market time as far as it is known."""
        known = [moment for moment in (self.market_time, self.scored_through) if moment is not None]
        return max(known, default=None)

    def _market_now(self) -> datetime:
        return self.clock.now(self._now())

    def _clock_seconds(self) -> float:
        return self.clock.seconds(self._now() or datetime.now(UTC))

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stop.wait(), seconds)
