"""The engine of one user group: signals in, settled orders out.

One process under a lease. It reconciles with the venue before it trades; consumes signals by a cursor that commits with
the intents they led to; writes every intent before it sends it; and tells the market clock only when all of a step is
settled. Whatever goes wrong with PostgreSQL or the venue ends the current session, and the next one begins as after a
kill: take the lease, rebuild from the books, reconcile, trade. Dagster is not involved, and its absence changes nothing.
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import structlog
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from trading_platform.compliance.audit import SealBusyError, record, seal
from trading_platform.execution import books
from trading_platform.execution.accounts import account_ids, load_portfolios
from trading_platform.execution.clock import MarketClock
from trading_platform.execution.decisions import Decision, Situation, decide
from trading_platform.execution.lease import RENEW_EVERY_SECONDS, GroupLease
from trading_platform.execution.portfolio import Portfolio
from trading_platform.execution.reconciliation import reconcile
from trading_platform.execution.sender import Sender
from trading_platform.identifiers import DatasetId, GroupId, Symbol
from trading_platform.learning.arms import arm_of
from trading_platform.markets.instruments import Instrument
from trading_platform.observability import metrics
from trading_platform.observability.alerts import raise_alert, resolve_alert
from trading_platform.observability.heartbeat import beat_async
from trading_platform.storage.control import Experiment, Group, Halt, MarketProgress, Signal
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import EquityPoint, Intent, Order, Outbox, SignalCursor
from trading_platform.storage.lease import LeaseLostError, process_name
from trading_platform.venues.port import QueryFailedError

log = structlog.get_logger(__name__)

BATCH = 4_000
LOOK_AGAIN_SECONDS = 1.0
"""How old halts, desired state, experiments and the list of accounts may be."""
IDLE_SECONDS = 0.05
RECONCILE_EVERY_SECONDS = 60.0
SEAL_EVERY_SECONDS = 5.0
EQUITY_EVERY_STEPS = 24
RETRY_SECONDS = 1.0
RECOVERABLE = (LeaseLostError, QueryFailedError, OperationalError, InterfaceError, OSError)


class AccountsChanged(Exception):
    """An account was opened or closed: portfolios must be built anew."""


@dataclass
class Engine:
    """One group on one dataset. `run` is its life."""

    databases: Databases
    group_id: GroupId
    dataset_id: DatasetId
    clock: MarketClock
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.lease = GroupLease(self.databases, self.group_id, process_name())
        self.sender = Sender(self.databases, self.lease)
        self.portfolios: list[Portfolio] = []
        self.instruments: dict[Symbol, Instrument] = {}
        self.cursor = 0
        self.market_time: datetime | None = None
        self._situation: Situation | None = None
        self._arms: dict[tuple[str, str], str] = {}
        self._experiments: list[Experiment] = []
        self._looked_at = 0.0
        self._steps = 0

    async def run(self) -> None:
        """Trade until asked to stop, through every outage that passes."""
        while not self.stop.is_set():
            keeping: asyncio.Task[None] | None = None
            try:
                if not await self.lease.acquire():
                    await self._pause(RETRY_SECONDS)
                    continue
                keeping = asyncio.create_task(self._keep())
                await self._session(keeping)
            except AccountsChanged:
                log.info("accounts_changed", group=self.group_id)
            except RECOVERABLE as error:
                log.warning("engine_session_ends", group=self.group_id, error=f"{type(error).__name__}: {error}"[:400])
                await self._pause(RETRY_SECONDS)
            finally:
                await self._end_session(keeping)
        with contextlib.suppress(*RECOVERABLE):
            await self.lease.release()

    # --- a session: from lease to trouble ----------------------------------------------------------------------------

    async def _session(self, keeping: "asyncio.Task[None]") -> None:
        await self.lease.show("STARTING", dataset=self.dataset_id, accounts=0)
        await self._load()
        await self._look_around()
        await self.lease.show("RECONCILING", accounts=len(self.portfolios))
        await self._reconcile()
        reconciled = time.monotonic()
        while not self.stop.is_set():
            if keeping.done():
                keeping.result()
            if time.monotonic() - self._looked_at > LOOK_AGAIN_SECONDS:
                await self._look_around()
            if time.monotonic() - reconciled > RECONCILE_EVERY_SECONDS:
                await self._reconcile()
                reconciled = time.monotonic()
            if not await self._consume():
                await self._settle_open()
                await self._pause(IDLE_SECONDS)

    async def _load(self) -> None:
        """Wait until the group has accounts on the dataset, then build portfolios from the books."""
        while True:
            async with self.databases.group_async(self.group_id) as session:
                cursor = await session.get(SignalCursor, self.dataset_id)
                self.cursor = cursor.seq if cursor else 0
                self.market_time = cursor.market_time if cursor else None
                self.portfolios = await load_portfolios(
                    session, self.databases.settings, self.dataset_id, self.market_time
                )
            if self.portfolios or self.stop.is_set():
                break
            await self._pause(0.3)
        for portfolio in self.portfolios:
            self.instruments = dict(await portfolio.venue.instruments())

    async def _reconcile(self) -> None:
        """Compare with the venue; trade only while everything matches."""
        while not self.stop.is_set():
            found = await reconcile(self.sender, self.portfolios, self.instruments, self.market_time)
            state = "RUNNING" if found.matches else "HALTED"
            await self.lease.show(state, reconciliation=found.shown())
            metrics.ENGINE_STATE.labels(self.group_id).set(found.matches)
            await self._say_reconciled(found.differences)
            if found.matches:
                return
            log.warning("reconciliation_differs", group=self.group_id, **found.shown())
            await self._pause(RETRY_SECONDS)

    async def _say_reconciled(self, differences: list[str]) -> None:
        title, labels = "Books and venue differ", {"group": self.group_id}
        async with self.databases.control_async() as session:
            if differences:
                await session.run_sync(
                    lambda sync: raise_alert(
                        sync, severity="critical", source="reconciliation", title=title,
                        detail="; ".join(differences)[:1000], labels=labels,
                    )
                )  # fmt: skip
            else:
                await session.run_sync(
                    lambda sync: resolve_alert(sync, source="reconciliation", title=title, labels=labels)
                )
        if differences:
            async with self.databases.group_async(self.group_id) as session:
                await self.lease.check(session)
                record(
                    session, user_id="*", actor=books.ACTOR, event_type="RECON", status="DIFFERS",
                    detail={"differences": differences}, dataset_id=self.dataset_id,
                )  # fmt: skip

    async def _settle_open(self) -> None:
        for portfolio in self.portfolios:
            if portfolio.unknown:
                await self.sender.settle(portfolio, self.instruments, self.market_time)

    # --- signals -----------------------------------------------------------------------------------------------------

    async def _consume(self) -> bool:
        """Take the signals that are there, a market time after the other; False where there were none."""
        async with self.databases.control_async() as session:
            rows = await session.scalars(
                select(Signal)
                .where(Signal.dataset_id == self.dataset_id, Signal.seq > self.cursor)
                .order_by(Signal.seq)
                .limit(BATCH)
            )
            signals = rows.all()
            progress = await session.get(MarketProgress, self.dataset_id)
        if not signals:
            if progress is not None and (self.market_time is None or progress.scored_through > self.market_time):
                self.market_time = progress.scored_through
                await self.clock.done(progress.scored_through)
            return False
        steps = [list(group) for _, group in itertools.groupby(signals, key=lambda signal: signal.available_at)]
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
        assert self._situation is not None
        decisions: list[Decision] = []
        for portfolio in self.portfolios:
            followed = [signal for signal in signals if signal.role == self._arm(portfolio, signal, signals)]
            decisions += decide(portfolio, followed, market_time, self._situation)
        self._steps += 1
        due = self._steps % EQUITY_EVERY_STEPS == 0
        if decisions or due:
            intents = await self._write(decisions, market_time, signals[-1].seq)
            await self._send(decisions, intents)
            await self._write_equity(market_time)
        self.cursor = signals[-1].seq
        self.market_time = market_time
        await self._settle_open()
        await self.clock.done(market_time)

    def _arm(self, portfolio: Portfolio, signal: Signal, signals: Sequence[Signal]) -> str:
        """Whose signal this user's money follows; the champion's where no challenger scored the bar."""
        key = (portfolio.user_id, signal.strategy_id)
        if key not in self._arms:
            experiment = next((each for each in self._experiments if each.strategy_id == signal.strategy_id), None)
            self._arms[key] = (
                arm_of(experiment.experiment_id, portfolio.user_id, experiment.split_basis_points)
                if experiment is not None
                else "champion"
            )
        arm = self._arms[key]
        scored = {each.role for each in signals if each.strategy_id == signal.strategy_id}
        return arm if arm in scored else "champion"

    async def _write(self, decisions: Sequence[Decision], market_time: datetime, seq: int) -> dict[str, Intent]:
        """One transaction: the cursor, the intents that are new, their outbox rows, orders and audit entries."""
        written: dict[str, Intent] = {}
        async with self.databases.group_async(self.group_id) as session:
            await self.lease.check(session)
            cursor = insert(SignalCursor).values(dataset_id=self.dataset_id, seq=seq, market_time=market_time)
            await session.execute(
                cursor.on_conflict_do_update(
                    index_elements=[SignalCursor.dataset_id], set_={"seq": seq, "market_time": market_time}
                )
            )
            for decision in decisions:
                if await self._insert_intent(session, decision, market_time):
                    intent = await session.get_one(Intent, (decision.portfolio.user_id, decision.intent_id))
                    books.plan_entries(session, intent, decision.signal)
                    if decision.denial is None:
                        self._add_order(session, intent)
                        written[intent.intent_id] = intent
        denied = sum(decision.denial is not None for decision in decisions)
        if denied:
            metrics.ORDERS.labels(self.group_id, "denied").inc(denied)
        return written

    async def _insert_intent(self, session: AsyncSession, decision: Decision, market_time: datetime) -> bool:
        """Whether the decision is new; the unique decision key makes a second one impossible."""
        signal, held = decision.signal, decision.holding
        row = insert(Intent).values(
            user_id=decision.portfolio.user_id,
            intent_id=decision.intent_id,
            decision_key=decision.decision_key,
            client_order_id=decision.client_order_id,
            account_id=decision.portfolio.account_id,
            dataset_id=self.dataset_id,
            strategy_id=signal.strategy_id,
            version_id=held.version_id if held else signal.version_id,
            arm=held.arm if held else signal.role,
            signal_id=signal.signal_id,
            purpose=decision.purpose,
            entry_intent_id=held.entry_intent_id if held else None,
            symbol=signal.symbol,
            side=decision.side,
            order_type="MARKET",
            quantity=decision.quantity,
            reference_price=signal.price,
            target_price=signal.target_price if held is None else None,
            stop_price=signal.stop_price if held is None else None,
            exit_by=signal.exit_by if held is None else None,
            market_time=market_time,
            state=decision.state,
            denial=decision.denial,
            epoch=self.lease.epoch,
            trace_id=signal.trace_id,
        )
        inserted = await session.execute(row.on_conflict_do_nothing().returning(Intent.intent_id))
        return inserted.scalar_one_or_none() is not None

    def _add_order(self, session: AsyncSession, intent: Intent) -> None:
        now = func.clock_timestamp()
        session.add(
            Outbox(
                intent_id=intent.intent_id, user_id=intent.user_id, account_id=intent.account_id, state="SENDING",
                epoch=self.lease.epoch, sent_at=now,
            )
        )  # fmt: skip
        session.add(
            Order(
                user_id=intent.user_id, client_order_id=intent.client_order_id, intent_id=intent.intent_id,
                account_id=intent.account_id, symbol=intent.symbol, side=intent.side, order_type=intent.order_type,
                quantity=intent.quantity, state="SUBMITTED", market_time=intent.market_time, sent_at=now,
                epoch=self.lease.epoch,
            )
        )  # fmt: skip

    async def _send(self, decisions: Sequence[Decision], intents: dict[str, Intent]) -> None:
        """Accounts at the same time, the orders of one account in order."""

        async def account(portfolio: Portfolio) -> None:
            for decision in decisions:
                intent = intents.get(decision.intent_id)
                if decision.portfolio is portfolio and intent is not None:
                    await self.sender.send(portfolio, intent, self.instruments[Symbol(intent.symbol)])

        await asyncio.gather(*(account(portfolio) for portfolio in self.portfolios))

    async def _write_equity(self, market_time: datetime) -> None:
        points = [
            {
                "user_id": portfolio.user_id,
                "account_id": portfolio.account_id,
                "market_time": market_time,
                "cash": portfolio.cash,
                "positions_value": portfolio.holdings_value,
                "equity": portfolio.equity,
                "currency": portfolio.currency,
            }
            for portfolio in self.portfolios
        ]
        async with self.databases.group_async(self.group_id) as session:
            await self.lease.check(session)
            await session.execute(insert(EquityPoint).on_conflict_do_nothing(), points)

    # --- what surrounds trading --------------------------------------------------------------------------------------

    async def _look_around(self) -> None:
        """Halts, desired state, experiments, accounts: rows that others write and an engine obeys."""
        self._looked_at = time.monotonic()
        async with self.databases.control_async() as session:
            group = await session.get_one(Group, self.group_id)
            halts = (await session.scalars(select(Halt).where(Halt.cleared_at.is_(None)))).all()
            running = await session.scalars(
                select(Experiment)
                .where(Experiment.dataset_id == self.dataset_id, Experiment.ended_at.is_(None))
                .order_by(Experiment.started_at.desc())
            )
            self._experiments = list(running.all())
        async with self.databases.group_async(self.group_id) as session:
            accounts = await account_ids(session, self.dataset_id)
        if accounts != {portfolio.account_id for portfolio in self.portfolios}:
            raise AccountsChanged
        self._arms.clear()
        scopes = {(halt.scope, halt.scope_id) for halt in halts}
        self._situation = Situation(
            self.instruments,
            group.desired_state == "FLATTEN",
            lambda portfolio: _halt_of(portfolio, self.group_id, scopes),
        )

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
        for portfolio in self.portfolios:
            await portfolio.venue.close()
        self.portfolios = []

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stop.wait(), seconds)


def _halt_of(portfolio: Portfolio, group_id: GroupId, scopes: set[tuple[str, str]]) -> str | None:
    """The halt that applies to an account: the widest one is named."""
    for scope, scope_id in (
        ("platform", "*"), ("group", group_id), ("user", portfolio.user_id), ("account", portfolio.account_id),
    ):  # fmt: skip
        if (scope, scope_id) in scopes:
            return scope
    return None
