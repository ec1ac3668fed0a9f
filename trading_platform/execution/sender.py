"""Sending what has been written, and settling what was sent.

`send` puts one SENDING intent on the wire and takes the answer into the books. An answer that does not come makes the
intent UNKNOWN: it is asked for by its client order id, at growing distances, and sent again only when the venue has
shown that it never arrived; until then nothing new is entered in that symbol. An unknown never decays into a refusal, and
an order that the venue once had is never sent again. Where nothing can be shown any more, an operator may say how the
order ended (`order_commands.py`); the venue is asked once more before he is believed.

The order carries the time at which it was issued, which is in the books, too: the venue refuses it when it comes later
than its receive window. So "no such order" after that window holds for good, even if the sender was only asleep.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from trading_platform.execution import books, trail
from trading_platform.execution.books import Answer, OnTheWire
from trading_platform.execution.lease import GroupLease
from trading_platform.execution.order_states import PARTIALLY_FILLED, SUBMITTED, UNKNOWN, WORKING, Cause, allowed, move
from trading_platform.execution.outgoing import Outgoing, made_out
from trading_platform.execution.portfolio import Portfolio, RestingStop
from trading_platform.execution.probes import FIRST_PROBE_SECONDS, next_probe
from trading_platform.execution.verdicts import ENDED, as_told
from trading_platform.identifiers import ClientOrderId, StrategyId, Symbol
from trading_platform.markets.instruments import Instrument
from trading_platform.observability import metrics
from trading_platform.observability.alerts import raise_alert
from trading_platform.observability.traces import continued, tracer
from trading_platform.storage.control import Halt
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import Fill, Intent, Order, Outbox
from trading_platform.venues.port import (
    Accepted,
    Ambiguous,
    AuthLost,
    AuthLostError,
    IpNotAllowed,
    QueryFailedError,
    Refused,
    Result,
    Throttled,
)

log = structlog.get_logger(__name__)

QUEUED = "QUEUED"
RESTING = (WORKING, PARTIALLY_FILLED)
FRESH = timedelta(seconds=2)
"""An order that waited longer behind others is issued anew before it is sent."""
MOST_FILLS = 250
"""In one transaction, which must be over long before the lease is."""


@dataclass
class Sender:
    """The only part of the platform that sends orders."""

    databases: Databases
    lease: GroupLease
    market_now: Callable[[], datetime] = lambda: datetime.now(UTC)
    """The market's clock: in whose session an order is sent."""

    async def send(self, order: Outgoing, clock_seconds: float) -> None:
        """`place` an order and `book` the answer."""
        await self.book([await self.place(order, clock_seconds)])

    async def place(self, order: Outgoing, clock_seconds: float) -> Answer:
        """Send an order whose intent is SENDING in the books; the answer has to be booked.

        `clock_seconds`: now, by the clock that orders per second are counted by.
        """
        portfolio, intent, instrument = order.portfolio, order.intent, order.instrument
        if datetime.now(UTC) - order.issued_at > FRESH:
            issued_at = await self._issue(portfolio, intent, attempt=False)
            order = made_out(portfolio, intent, instrument, issued_at)
        portfolio.count_order(clock_seconds)
        sent_at, started = time.time_ns(), time.perf_counter_ns()
        result = await order.sending
        return Answer(portfolio, intent, instrument, result, OnTheWire(sent_at, time.perf_counter_ns() - started))

    async def book(self, answers: Sequence[Answer]) -> None:
        """Write what answers mean, all in one transaction under the lease; before it, what would make that one long.

        Raises `LeaseLostError`, and `AuthLostError` for an account whose owner has to log in again.
        """
        for answer in answers:
            _tell(answer)  # here, where no order waits for it
        shortened = [await self._shortened(answer) for answer in answers]
        done: list[bool] = []
        async with self.databases.group_async(self.lease.group_id) as session:
            await self.lease.check(session)
            ended = await books.take_answers(session, [each for each in shortened if each.accepted is not None])
            for answer in shortened:
                done.append(next(ended) if answer.accepted is not None else await self._take_other(session, answer))
        for answer, over in zip(shortened, done, strict=True):
            self._remember(answer, done=over)
        for answer in shortened:
            await self._take_lost_access(answer)

    async def _shortened(self, answer: Answer) -> Answer:
        """The answer, with no more fills than one transaction can book: those before are booked, in parts."""
        accepted = answer.accepted
        if accepted is None or len(accepted.fills) <= MOST_FILLS:
            return answer
        *parts, last = await self._parts(answer.intent, accepted)
        for part in parts:
            async with self.databases.group_async(self.lease.group_id) as session:
                await self.lease.check(session)
                await books.take_answers(session, [replace(answer, result=part)])
        return replace(answer, result=last)

    async def _take_other(self, session: AsyncSession, answer: Answer) -> bool:
        """Book an answer by which the venue does not have the order, or may not; returns whether the order is over."""
        portfolio, result = answer.portfolio, answer.result
        row = await session.get_one(Intent, (answer.intent.user_id, answer.intent.intent_id))
        if isinstance(result, Throttled):
            return await self._queue(session, portfolio, row, result.retry_after)
        if isinstance(result, Ambiguous):
            return await self._unknown(session, portfolio, row, result.cause)
        assert not isinstance(result, Accepted)
        code = result.code if isinstance(result, Refused) else type(result).__name__.upper()
        await books.take_refusal(session, portfolio, row, code, result.text)
        return True

    def _remember(self, answer: Answer, *, done: bool) -> None:
        """Let the portfolio know of what is booked."""
        portfolio, intent, result = answer.portfolio, answer.intent, answer.result
        symbol = Symbol(intent.symbol)
        portfolio.unknown.discard(symbol)
        portfolio.working.discard(symbol)
        protected = (StrategyId(intent.strategy_id), symbol)
        resting = portfolio.stops.get(protected)
        if resting is not None and resting.intent_id == intent.intent_id:
            del portfolio.stops[protected]
        if intent.purpose == "stop" and not done and isinstance(result, Accepted) and result.complete:
            portfolio.stops[protected] = RestingStop(
                intent.intent_id, ClientOrderId(intent.client_order_id), Symbol(intent.contract),
                intent.quantity - result.filled,
            )  # fmt: skip
        elif not done and isinstance(result, Accepted) and result.complete and result.state in RESTING:
            portfolio.working.add(symbol)
        elif not done:
            portfolio.unknown.add(symbol)
            log.warning("order_not_settled", intent_id=intent.intent_id, answer=str(result)[:300])
        metrics.ORDERS.labels(self.lease.group_id, _named(result, done=done)).inc()

    async def _take_lost_access(self, answer: Answer) -> None:
        portfolio, result = answer.portfolio, answer.result
        if isinstance(result, AuthLost) and portfolio.venue.needs_login:
            raise AuthLostError(portfolio.account_id, result.text)
        if isinstance(result, (AuthLost, IpNotAllowed)):
            await self._halt_account(portfolio, result)

    async def _parts(self, intent: Intent, accepted: Accepted) -> list[Accepted]:
        """An answer with very many fills as several with some of those that are new: all but the last are incomplete."""
        async with self.databases.group_async(self.lease.group_id) as session:
            rows = await session.scalars(
                select(Fill.trade_id).where(
                    Fill.user_id == intent.user_id, Fill.client_order_id == intent.client_order_id
                )
            )
            known = set(rows.all())
        new = [fill for fill in accepted.fills if fill.trade_id not in known]
        starts = range(0, max(len(new), 1), MOST_FILLS)
        return [replace(accepted, fills=new[start : start + MOST_FILLS]) for start in starts]

    async def _queue(self, session: AsyncSession, portfolio: Portfolio, intent: Intent, wait: timedelta) -> bool:
        """Throttled: the venue does not have it. It goes out again when the venue allows, if it is then still wanted."""
        intent.state = "PLANNED"
        intent.updated_at = func.now()
        await session.execute(
            update(Outbox).where(Outbox.intent_id == intent.intent_id)
            .values(state=QUEUED, next_try_at=func.now() + wait)
        )  # fmt: skip
        trail.note(session, portfolio, intent, "UPDATE", "THROTTLED", f"again after {wait.total_seconds():.0f} s")
        return False

    async def _unknown(self, session: AsyncSession, portfolio: Portfolio, intent: Intent, cause: str) -> bool:
        first_probe = func.now() + timedelta(seconds=FIRST_PROBE_SECONDS)
        await session.execute(
            update(Outbox).where(Outbox.intent_id == intent.intent_id).values(state="PROBING", next_try_at=first_probe)
        )
        await self._say_unknown(session, portfolio, intent, cause)
        return False

    async def _say_unknown(self, session: AsyncSession, portfolio: Portfolio, intent: Intent, cause: str) -> None:
        """UNKNOWN in the books, once: also for what a predecessor left SENDING."""
        order = await session.get_one(Order, (intent.user_id, intent.client_order_id))
        if not allowed(order.state, UNKNOWN, Cause.SILENCE):
            return
        order.state, order.updated_at = UNKNOWN, func.clock_timestamp()
        intent.state, intent.updated_at = "UNKNOWN", func.now()
        trail.note(session, portfolio, intent, "UPDATE", "UNKNOWN", cause)

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
                session.add(Halt(scope="account", scope_id=portfolio.account_id, reason=reason, set_by=trail.ACTOR))
            await session.run_sync(
                lambda sync: raise_alert(
                    sync, severity="critical", source="execution", title="The venue refuses an account",
                    detail=result.text[:500], labels={"account": portfolio.account_id},
                )
            )  # fmt: skip

    # --- settling ----------------------------------------------------------------------------------------------------

    async def settle(
        self, portfolio: Portfolio, instruments: Mapping[Symbol, Instrument], now: datetime | None, clock_seconds: float,
        *, all_now: bool = False,
    ) -> int:  # fmt: skip
        """Ask the venue for every unfinished order of the account; returns of how many the outcome remains unknown.

        `now`: market time as far as it is known. `all_now`: without waiting for the next probe's turn.
        """
        due = [] if all_now else [Outbox.next_try_at <= func.now()]
        async with self.databases.group_async(self.lease.group_id) as session:
            rows = await session.execute(
                select(Intent, Outbox, Order.venue_order_id)
                .join(Outbox, (Outbox.intent_id == Intent.intent_id) & (Outbox.user_id == Intent.user_id))
                .join(Order, (Order.intent_id == Intent.intent_id) & (Order.user_id == Intent.user_id))
                .where(Outbox.account_id == portfolio.account_id, Outbox.state != books.SETTLING, *due)
                .order_by(Outbox.created_at, Intent.purpose.desc(), Intent.intent_id)
            )
            pending = rows.tuples().all()
        remaining = 0
        for intent, outbox, venue_order_id in pending:
            instrument = instruments.get(Symbol(intent.contract))
            settled = instrument is not None and await self._settle_one(
                portfolio, intent, outbox, venue_order_id, instrument, now, clock_seconds
            )
            remaining += not settled and Symbol(intent.symbol) not in portfolio.working
        return remaining

    async def _settle_one(
        self, portfolio: Portfolio, intent: Intent, outbox: Outbox, venue_order_id: str | None, instrument: Instrument,
        now: datetime | None, clock_seconds: float,
    ) -> bool:  # fmt: skip
        """Whether one order is settled now."""
        symbol = Symbol(intent.symbol)
        if outbox.state == QUEUED:
            if outbox.next_try_at > datetime.now(UTC):
                return False
        elif not await self._shown_absent(portfolio, intent, outbox, venue_order_id, instrument):
            return symbol not in portfolio.unsettled
        if not _too_late(intent, now):
            issued_at = await self._issue(portfolio, intent, attempt=True)
            await self.send(made_out(portfolio, intent, instrument, issued_at), clock_seconds)
            return symbol not in portfolio.unsettled
        await self._give_up(portfolio, intent, "NEVER_ARRIVED", "the venue has no such order", Cause.ABSENCE)
        return True

    async def _shown_absent(
        self, portfolio: Portfolio, intent: Intent, outbox: Outbox, venue_order_id: str | None, instrument: Instrument
    ) -> bool:
        """Ask the venue and book what comes of it; True where it showed that the order never arrived and never will."""
        try:
            found = await portfolio.venue.find_order(ClientOrderId(intent.client_order_id), Symbol(intent.contract))
        except QueryFailedError as error:
            log.warning("probe_unanswered", intent_id=intent.intent_id, error=str(error)[:300])
            await self._probe_later(portfolio, intent, outbox)
            return False
        if found is not None:
            await self.take(portfolio, intent, instrument, found)
        elif outbox.verdict:
            await self._believe(portfolio, intent, outbox.verdict, venue_order_id, instrument)
        # What the venue once had is not absent, whatever it says now: it is asked again, and never sent again.
        elif venue_order_id is not None or not self._proven_absent(portfolio, intent, outbox):
            await self._probe_later(portfolio, intent, outbox)
        else:
            return True
        return False

    async def take(self, portfolio: Portfolio, intent: Intent, instrument: Instrument, found: Accepted) -> None:
        """Book what the venue said of an order that it was asked for."""
        await self.book([Answer(portfolio, intent, instrument, found)])

    async def _believe(
        self, portfolio: Portfolio, intent: Intent, verdict: Mapping[str, Any], venue_order_id: str | None,
        instrument: Instrument,
    ) -> None:  # fmt: skip
        """The venue knows nothing of the order: let it end as the operator says."""
        if verdict["outcome"] != ENDED:
            text = f"{verdict['by']} says that the venue never had it"
            await self._give_up(portfolio, intent, "SETTLED_BY_OPERATOR", text, Cause.OPERATOR)
            return
        async with self.databases.group_async(self.lease.group_id) as session:
            await self.lease.check(session)
            told = as_told(verdict, venue_order_id, intent.market_time)
            await books.take_answers(session, [Answer(portfolio, intent, instrument, told, cause=Cause.OPERATOR)])
        portfolio.stops = {key: stop for key, stop in portfolio.stops.items() if stop.intent_id != intent.intent_id}
        portfolio.unknown.discard(Symbol(intent.symbol))
        portfolio.working.discard(Symbol(intent.symbol))

    async def _give_up(self, portfolio: Portfolio, intent: Intent, code: str, text: str, cause: Cause) -> None:
        """The venue does not have the order, and it is not wanted any more."""
        async with self.databases.group_async(self.lease.group_id) as session:
            await self.lease.check(session)
            row = await session.get_one(Intent, (intent.user_id, intent.intent_id))
            await books.take_refusal(session, portfolio, row, code, text, cause)
        portfolio.unknown.discard(Symbol(intent.symbol))
        portfolio.working.discard(Symbol(intent.symbol))

    def _proven_absent(self, portfolio: Portfolio, intent: Intent, outbox: Outbox) -> bool:
        contract, sent_at, market_sent_at = Symbol(intent.contract), outbox.sent_at, outbox.market_sent_at
        return bool(sent_at and market_sent_at and portfolio.venue.proves_absence(contract, sent_at, market_sent_at))

    async def _issue(self, portfolio: Portfolio, intent: Intent, *, attempt: bool) -> datetime:
        """Stamp an order anew, in the books first; `attempt`: it was on the wire before.

        The client order id stays the same: should the first one turn up after all, it is known for what it is.
        """
        issued_at = datetime.now(UTC)
        async with self.databases.group_async(self.lease.group_id) as session:
            await self.lease.check(session)
            row = await session.get_one(Intent, (intent.user_id, intent.intent_id))
            order = await session.get_one(Order, (intent.user_id, intent.client_order_id))
            row.attempts += attempt
            row.state, row.updated_at = "SENDING", func.now()
            order.state = move(order.state, SUBMITTED, Cause.SENDER)
            order.sent_at, order.epoch, order.updated_at = issued_at, self.lease.epoch, func.clock_timestamp()
            await session.execute(
                update(Outbox).where(Outbox.intent_id == intent.intent_id)
                .values(
                    state="SENDING", sent_at=issued_at, market_sent_at=self.market_now(), epoch=self.lease.epoch
                )
            )  # fmt: skip
            if attempt:
                trail.note(session, portfolio, row, "SEND", "SENDING", f"attempt {row.attempts + 1}")
        return issued_at

    async def _probe_later(self, portfolio: Portfolio, intent: Intent, outbox: Outbox) -> None:
        waited = (datetime.now(UTC) - (outbox.sent_at or outbox.created_at)).total_seconds()
        async with self.databases.group_async(self.lease.group_id) as session:
            await self.lease.check(session)
            row = await session.get_one(Intent, (intent.user_id, intent.intent_id))
            await session.execute(
                update(Outbox).where(Outbox.intent_id == intent.intent_id)
                .values(state="PROBING", next_try_at=func.now() + timedelta(seconds=next_probe(waited)))
            )  # fmt: skip
            await self._say_unknown(session, portfolio, row, "sent, and not answered for")
            order = await session.get_one(Order, (intent.user_id, intent.client_order_id))
        if order.state == UNKNOWN:
            portfolio.unknown.add(Symbol(intent.symbol))


def _tell(answer: Answer) -> None:
    """The span and the latency of an order that was on the wire."""
    if answer.wire is None:
        return
    intent, wire = answer.intent, answer.wire
    metrics.ORDER_SECONDS.labels(answer.portfolio.venue.route.exchange).observe(wire.nanoseconds / 1e9)
    span = tracer(__name__).start_span("send_order", continued(intent.trace_id), start_time=wire.sent_at)
    span.set_attribute("client_order_id", intent.client_order_id)
    span.set_attribute("result", type(answer.result).__name__)
    span.end(wire.sent_at + wire.nanoseconds)


def _named(result: Result, *, done: bool) -> str:
    """What became of an order, for the metrics."""
    if isinstance(result, Accepted):
        return "filled" if done and result.filled else "sent"
    if isinstance(result, Throttled):
        return "throttled"
    return "unknown" if isinstance(result, Ambiguous) else "rejected"


def _too_late(intent: Intent, now: datetime | None) -> bool:
    """An entry is worth sending only at the price it was decided at: before the next bar is known. An exit always is; a
    stop never, for another is made that fits what is held by then."""
    if intent.purpose == "exit":
        return False
    return intent.purpose == "stop" or (now is not None and now > intent.market_time)
