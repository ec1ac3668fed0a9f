"""Sending what has been written, and settling what was sent.

`send` puts one SENDING intent on the wire and takes the answer into the books. An answer that does not come makes the
intent UNKNOWN: it is asked for by its client order id, at growing distances, and sent again only when the venue has
shown that it never arrived; until then nothing new is entered in that symbol. An unknown never decays into a refusal.
"""

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import structlog
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from trading_platform.compliance.audit import record
from trading_platform.execution import books
from trading_platform.execution.lease import GroupLease
from trading_platform.execution.portfolio import Portfolio
from trading_platform.identifiers import ClientOrderId, Symbol
from trading_platform.markets.instruments import Instrument
from trading_platform.observability import metrics
from trading_platform.observability.alerts import raise_alert
from trading_platform.observability.traces import tracer
from trading_platform.storage.control import Halt
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import Intent, Order, Outbox
from trading_platform.venues.port import (
    Accepted,
    Ambiguous,
    AuthLost,
    IpNotAllowed,
    QueryFailedError,
    Refused,
    Result,
    Throttled,
)

log = structlog.get_logger(__name__)

PROBE_AFTER_SECONDS = (1, 3, 7, 15, 30)
THROTTLED_TRIES = 5
ZERO = Decimal(0)


@dataclass
class Sender:
    """The only part of the platform that sends orders."""

    databases: Databases
    lease: GroupLease

    async def send(self, portfolio: Portfolio, intent: Intent, instrument: Instrument) -> None:
        """Send an intent that is SENDING in the books, and take the answer."""
        started = time.perf_counter()
        with tracer(__name__).start_as_current_span("send_order") as span:
            span.set_attribute("client_order_id", intent.client_order_id)
            result = await self._call(portfolio, intent)
        latency = time.perf_counter() - started
        metrics.ORDER_SECONDS.labels("binance").observe(latency)
        portfolio.sent_at.append(time.time())
        portfolio.orders_today += 1
        await self._take(portfolio, intent, instrument, result, latency * 1_000)

    async def _call(self, portfolio: Portfolio, intent: Intent) -> Result:
        """The call itself; only a throttled one is repeated, since it was not executed."""
        result: Result = Ambiguous("not sent")
        for _ in range(THROTTLED_TRIES):
            result = await portfolio.venue.place_market(
                ClientOrderId(intent.client_order_id), Symbol(intent.symbol),
                "buy" if intent.side == "buy" else "sell", intent.quantity,
            )  # fmt: skip
            if not isinstance(result, Throttled):
                return result
            log.warning("venue_throttles", account_id=intent.account_id, wait=result.retry_after.total_seconds())
            await asyncio.sleep(result.retry_after.total_seconds())
        return Refused("THROTTLED", f"the venue throttled {THROTTLED_TRIES} tries")

    async def _take(
        self, portfolio: Portfolio, intent: Intent, instrument: Instrument, result: Result, latency_ms: float | None
    ) -> None:
        """Write what the answer means, in one transaction under the lease."""
        group = self.lease.group_id
        async with self.databases.group_async(group) as session:
            await self.lease.check(session)
            row = await session.get_one(Intent, (intent.user_id, intent.intent_id))
            if isinstance(result, Accepted):
                done = await books.take_answer(session, portfolio, row, result, instrument, latency_ms)
                name = "filled" if done and result.filled else "sent"
            elif isinstance(result, (Refused, AuthLost, IpNotAllowed)):
                code = result.code if isinstance(result, Refused) else type(result).__name__.upper()
                await books.take_refusal(session, row, code, result.text)
                name = "rejected"
            else:
                await self._unknown(session, row, str(getattr(result, "cause", result)))
                name = "unknown"
        metrics.ORDERS.labels(group, name).inc()
        if name == "unknown":
            portfolio.unknown.add(Symbol(intent.symbol))
            log.warning("order_outcome_unknown", intent_id=intent.intent_id, cause=str(result)[:300])
        elif Symbol(intent.symbol) in portfolio.unknown:
            portfolio.unknown.discard(Symbol(intent.symbol))
        if isinstance(result, (AuthLost, IpNotAllowed)):
            await self._halt_account(portfolio, result)

    async def _unknown(self, session: AsyncSession, intent: Intent, cause: str) -> None:
        first_probe = func.now() + timedelta(seconds=PROBE_AFTER_SECONDS[0])
        intent.state = "UNKNOWN"
        intent.updated_at = func.now()
        await session.execute(
            update(Outbox).where(Outbox.intent_id == intent.intent_id).values(state="PROBING", next_try_at=first_probe)
        )
        await session.execute(
            update(Order).where(Order.client_order_id == intent.client_order_id)
            .values(state="UNKNOWN", updated_at=func.clock_timestamp())
        )  # fmt: skip
        record(
            session, user_id=intent.user_id, account_id=intent.account_id, actor=books.ACTOR, event_type="UPDATE",
            intent_id=intent.intent_id, client_order_id=intent.client_order_id, symbol=intent.symbol, status="UNKNOWN",
            status_message=cause[:500], market_time=intent.market_time, dataset_id=intent.dataset_id,
        )  # fmt: skip

    async def _halt_account(self, portfolio: Portfolio, result: AuthLost | IpNotAllowed) -> None:
        """The venue does not know us any more: nothing is sent for the account until a person has looked."""
        async with self.databases.control_async() as session:
            held = await session.scalars(
                select(Halt.halt_id).where(
                    Halt.scope == "account", Halt.scope_id == portfolio.account_id, Halt.cleared_at.is_(None)
                )
            )
            if held.first() is None:
                reason = f"{type(result).__name__}: {result.text[:200]}"
                session.add(Halt(scope="account", scope_id=portfolio.account_id, reason=reason, set_by=books.ACTOR))
            await session.run_sync(
                lambda sync: raise_alert(
                    sync, severity="critical", source="execution", title="The venue refuses an account",
                    detail=result.text[:500], labels={"account": portfolio.account_id},
                )
            )  # fmt: skip

    # --- settling ----------------------------------------------------------------------------------------------------

    async def settle(
        self,
        portfolio: Portfolio,
        instruments: dict[Symbol, Instrument],
        market_time: datetime | None,
        *,
        all_now: bool = False,
    ) -> int:
        """Ask the venue for every order of the account whose outcome is open; returns how many remain open."""
        due = [] if all_now else [Outbox.next_try_at <= func.now()]
        async with self.databases.group_async(self.lease.group_id) as session:
            rows = await session.execute(
                select(Intent, Outbox)
                .join(Outbox, (Outbox.intent_id == Intent.intent_id) & (Outbox.user_id == Intent.user_id))
                .where(Outbox.account_id == portfolio.account_id, *due)
                .order_by(Outbox.created_at)
            )
            pending = rows.tuples().all()
        remaining = 0
        for intent, outbox in pending:
            instrument = instruments.get(Symbol(intent.symbol))
            if instrument is None or not await self._settle_one(portfolio, intent, outbox, instrument, market_time):
                remaining += 1
        return remaining

    async def _settle_one(
        self, portfolio: Portfolio, intent: Intent, outbox: Outbox, instrument: Instrument, market_time: datetime | None
    ) -> bool:
        """Whether one order is settled now."""
        try:
            found = await portfolio.venue.find_order(ClientOrderId(intent.client_order_id), Symbol(intent.symbol))
        except QueryFailedError as error:
            log.warning("probe_unanswered", intent_id=intent.intent_id, error=str(error)[:300])
            await self._probe_later(intent, outbox)
            return False
        if found is not None:
            await self._take(portfolio, intent, instrument, found, None)
            return found.state in ("FILLED", "CANCELLED", "REJECTED", "EXPIRED")
        if not self._proven_absent(portfolio, outbox):
            await self._probe_later(intent, outbox)
            return False
        if intent.purpose == "exit" or not _too_late(intent, market_time):
            await self._resend(portfolio, intent, instrument)
            return Symbol(intent.symbol) not in portfolio.unknown
        async with self.databases.group_async(self.lease.group_id) as session:
            await self.lease.check(session)
            row = await session.get_one(Intent, (intent.user_id, intent.intent_id))
            await books.take_refusal(session, row, "NEVER_ARRIVED", "the venue has no such order", state="ABANDONED")
        portfolio.unknown.discard(Symbol(intent.symbol))
        return True

    def _proven_absent(self, portfolio: Portfolio, outbox: Outbox) -> bool:
        after = portfolio.venue.proves_absence_after
        if after is None or outbox.sent_at is None:
            return False
        return datetime.now(UTC) - outbox.sent_at > after

    async def _resend(self, portfolio: Portfolio, intent: Intent, instrument: Instrument) -> None:
        """The same order, under the same client order id: should the first one turn up after all, the venue has one."""
        async with self.databases.group_async(self.lease.group_id) as session:
            await self.lease.check(session)
            row = await session.get_one(Intent, (intent.user_id, intent.intent_id))
            row.attempts += 1
            row.state = "SENDING"
            await session.execute(
                update(Outbox).where(Outbox.intent_id == intent.intent_id)
                .values(state="SENDING", sent_at=func.clock_timestamp())
            )  # fmt: skip
            record(
                session, user_id=row.user_id, account_id=row.account_id, actor=books.ACTOR, event_type="SEND",
                intent_id=row.intent_id, client_order_id=row.client_order_id, symbol=row.symbol, attempt=row.attempts,
                market_time=row.market_time, dataset_id=row.dataset_id,
            )  # fmt: skip
        await self.send(portfolio, intent, instrument)

    async def _probe_later(self, intent: Intent, outbox: Outbox) -> None:
        waited = (datetime.now(UTC) - (outbox.sent_at or outbox.created_at)).total_seconds()
        pause = next((seconds for seconds in PROBE_AFTER_SECONDS if seconds > waited), PROBE_AFTER_SECONDS[-1])
        async with self.databases.group_async(self.lease.group_id) as session:
            await session.execute(
                update(Outbox).where(Outbox.intent_id == intent.intent_id)
                .values(state="PROBING", next_try_at=func.now() + timedelta(seconds=pause))
            )  # fmt: skip


def _too_late(intent: Intent, market_time: datetime | None) -> bool:
    """An entry is worth sending only at the price it was decided at: within its own bar."""
    return market_time is not None and market_time > intent.market_time
