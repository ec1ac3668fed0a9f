"""Protected exits: a stop at the venue under every position, which holds also while no engine runs.

A strategy leaves at closes, by its own barriers. The stop under them is for what comes between: a fall inside a bar, an
engine that is down, a network that is gone. It stands half a barrier's distance beyond the strategy's stop, so that
it goes off only where waiting for the close has cost more than was meant.

It climbs a ladder from incident logs of automated traders: place the stop; believe it only when the venue shows it
waiting; refused, price it anew once with limit and trigger closer together; refused again, or the price is through
already, leave the position at the market (but where the day's price band ends above the stop, there is nothing to fear
below it, and it is placed when the bands are drawn anew); still there after a few tries, stop the account and call a person. Where the
ladder stands is counted from the books, so a restart climbs on and never starts anew. Before anything else is sold the
stop is cancelled and its end is known, for two orders would sell twice.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import structlog
from sqlalchemy import select

from trading_platform.execution import trail
from trading_platform.execution.at_once import at_once, by_account
from trading_platform.execution.decisions import OUR_PREFIX, Decision
from trading_platform.execution.dispatch import Dispatch
from trading_platform.execution.intents import StepWriter, intent_of
from trading_platform.execution.kill_switch import Target, set_halt
from trading_platform.execution.outgoing import made_out
from trading_platform.execution.portfolio import BEYOND, BOUGHT, Holding, Portfolio, PositionKey
from trading_platform.execution.sender import Sender
from trading_platform.identifiers import ClientOrderId, DatasetId, IntentId, Symbol, content_id
from trading_platform.markets.instruments import Instrument
from trading_platform.observability.alerts import raise_alert_async, resolve_alert_async
from trading_platform.storage.group import Intent, Order
from trading_platform.venues.port import QueryFailedError, Refused

ZERO = Decimal(0)
ROOM = (Decimal("0.01"), Decimal("0.0025"))
"""How far beyond its trigger a stop may fill, as a fraction of it: first, and after a refusal. Exchanges limit how far
limit and trigger may be apart."""
MOST_EXITS = 3
CANCELS, BETWEEN_SECONDS = 3, 0.25
REFUSED = "REJECTED"
IN_THE_WAY = "A stop stands in the way of an exit"
OUT_OF_BAND = frozenset({"STOP_PRICE_CIRCUIT", "TRIGGER_CIRCUIT", "PRICE_CIRCUIT"})
"""Refusals that say that nothing trades so low today: there is nothing to protect from, until the bands are drawn anew."""
log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Terms:
    """A stop as it is to be sent: it sells `quantity` at `limit` or better once the price has fallen to `trigger`."""

    quantity: Decimal
    trigger: Decimal
    limit: Decimal


def terms_of(held: Holding, instrument: Instrument, refused: int) -> Terms | None:
    """The stop of a position after so many refusals; None where there is nothing that a stop could sell, or may.

    A spread has none: its loss is bounded by what was paid for it, and a stop that sold its bought leg would leave the sold
    one bare.

    >>> from trading_platform.identifiers import Venue
    >>> instrument = Instrument(Venue("binance"), Symbol("A/USDT"), "A", "USDT", Decimal("0.1"), Decimal("0.01"), ZERO)
    >>> moment = datetime(2026, 1, 1, tzinfo=UTC)
    >>> held = Holding(Symbol("A/USDT"), Symbol("A/USDT"), "s", Decimal("1.006"), Decimal(100), "i", "v", "champion", "g",
    ...                target=Decimal(104), stop=Decimal(98), exit_by=moment)
    >>> terms_of(held, instrument, 0)
    Terms(quantity=Decimal('1.00'), trigger=Decimal('97.0'), limit=Decimal('96.0'))
    """
    if held.stop <= ZERO or held.arm == BOUGHT:
        return None
    distance = max(held.average_price - held.stop, ZERO)
    trigger = instrument.round_price(held.stop - BEYOND * distance)
    limit = instrument.round_price(trigger * (1 - ROOM[min(refused, len(ROOM) - 1)]))
    quantity = instrument.round_quantity(held.quantity)
    if limit <= ZERO or quantity <= ZERO or quantity * limit < instrument.minimum_notional:
        return None
    return Terms(quantity, trigger, limit)


@dataclass
class Ladder:
    """How often the stops of a position were refused one after the other, how often its exits, and how many there were."""

    stops: int = 0
    exits: int = 0
    sent: int = 0
    out_of_reach: bool = False
    """Whether today's price band keeps the market from falling to the stop."""
    broken: bool = False
    """Whether a stop further back was not refused: what came before it counts no more."""

    def take(self, purpose: str, state: str, code: str | None = None, *, today: bool = True) -> None:
        """One more order of the position, from the newest to the oldest; `code`: of its refusal, `today`: of this day."""
        if purpose == "exit":
            self.exits += state == REFUSED
            return
        self.sent += 1
        self.broken |= state != REFUSED or (code in OUT_OF_BAND and not today)
        if not self.broken:
            self.stops += 1
            self.out_of_reach |= code in OUT_OF_BAND


@dataclass
class StopKeeper:
    """Keeps the stops of a group's positions at their venues, for the engine that holds the lease."""

    sender: Sender
    writer: StepWriter
    dataset_id: DatasetId
    handed_over: set[str] = field(default_factory=set)
    """Entries of positions that a person was called for."""
    in_the_way: set[tuple[str, PositionKey]] = field(default_factory=set)
    """Accounts and positions that cannot be left for their stop."""

    async def look(
        self, portfolios: Sequence[Portfolio], instruments: Mapping[Symbol, Instrument], now: datetime | None,
        clock_seconds: float,
    ) -> None:  # fmt: skip
        """Take into the books what became of stops that wait at their venue no more: one question an account."""

        async def one(portfolio: Portfolio) -> None:
            try:
                waiting = await portfolio.venue.open_client_order_ids(
                    {stop.contract for stop in portfolio.stops.values()}
                )
            except QueryFailedError as error:  # nothing is known of them, and nothing is sold beside them
                log.warning("stops_not_seen", account=portfolio.account_id, error=str(error)[:300])
                return
            if any(stop.client_order_id not in waiting for stop in portfolio.stops.values()):
                await self.sender.settle(portfolio, instruments, now, clock_seconds, all_now=True)

        await at_once(one(portfolio) for portfolio in portfolios if portfolio.stops)

    async def make_way(
        self, decisions: Sequence[Decision], instruments: Mapping[Symbol, Instrument], now: datetime | None,
        clock_seconds: float,
    ) -> list[Decision]:  # fmt: skip
        """The decisions without the stops that stand in the way of their exits.

        A stop that has gone off in the meantime leaves less to sell, or nothing; the exit of a stop whose end is not known
        waits for the next bar, protected by it.
        """

        async def freed(after: list[Decision], place: int) -> Decision | None:
            return await self._freed(after[place], instruments, now, clock_seconds)

        return await by_account(decisions, _waits_for_its_stop, freed)

    async def _freed(
        self, decision: Decision, instruments: Mapping[Symbol, Instrument], now: datetime | None, clock_seconds: float
    ) -> Decision | None:
        """An exit whose stop is out of the way; None where there is nothing more to sell, or the stop would not go."""
        held, portfolio = decision.holding, decision.portfolio
        assert held is not None
        await self._withdraw(portfolio, held.key, instruments, now, clock_seconds)
        left = portfolio.holdings.get(held.key)
        if left is None or left.symbol in portfolio.unsettled or held.key in portfolio.stops:
            log.info("exit_left_to_stop", account=portfolio.account_id, symbol=held.symbol)
            return None
        quantity = min(decision.quantity, instruments[left.contract].round_quantity(left.quantity))
        return replace(decision, quantity=quantity)

    async def protect(
        self, portfolios: Sequence[Portfolio], instruments: Mapping[Symbol, Instrument], market_time: datetime,
        clock_seconds: float,
    ) -> list[tuple[Portfolio, PositionKey]]:  # fmt: skip
        """Give every position its stop, of the size that is held now.

        Returns the positions that no stop is to be had for: they are to be left at the market.
        """
        bare = [
            (portfolio, held)
            for portfolio in portfolios
            for held in list(portfolio.holdings.values())
            if await self._is_bare(portfolio, held, instruments, market_time, clock_seconds)
        ]
        if not bare:
            return []
        ladders = await self._ladders([held.entry_intent_id for _, held in bare], market_time)
        stops, leave = [], []
        for portfolio, held in bare:
            ladder = ladders[held.entry_intent_id]
            if ladder.exits >= MOST_EXITS:
                await self._call_a_person(portfolio, held)
            elif ladder.stops >= len(ROOM):
                if not ladder.out_of_reach:
                    leave.append((portfolio, held.key))
            elif (terms := terms_of(held, instruments[held.contract], ladder.stops)) is not None:
                stops.append((portfolio, held, terms, ladder.sent))
        if stops:
            await self._place(stops, instruments, market_time, clock_seconds)
        return leave

    async def _is_bare(
        self, portfolio: Portfolio, held: Holding, instruments: Mapping[Symbol, Instrument], market_time: datetime,
        clock_seconds: float,
    ) -> bool:  # fmt: skip
        """Whether a position wants a stop that its venue takes now; one of another size than it is withdrawn first."""
        if held.symbol in portfolio.unsettled or held.contract not in instruments:
            return False
        terms, resting = terms_of(held, instruments[held.contract], 0), portfolio.stops.get(held.key)
        if resting is not None and (terms is None or resting.quantity != terms.quantity):
            await self._withdraw(portfolio, held.key, instruments, market_time, clock_seconds)
        wanted = terms is not None and held.key not in portfolio.stops and held.key in portfolio.holdings
        return wanted and portfolio.venue.takes_stops(held.contract)

    # --- steps -------------------------------------------------------------------------------------------------------

    async def _place(
        self, stops: Sequence[tuple[Portfolio, Holding, Terms, int]], instruments: Mapping[Symbol, Instrument],
        market_time: datetime, clock_seconds: float,
    ) -> None:  # fmt: skip
        """Write them all down, then send them."""
        issued_at = datetime.now(UTC)
        rows = [self._columns(portfolio, held, terms, sent, market_time) for portfolio, held, terms, sent in stops]
        entries = (trail.protected(portfolio, terms.trigger) for portfolio, _, terms, _ in stops)
        # What is missing was written by a life of this engine that has ended, and is being asked for.
        new = await self.writer.write_rows(rows, entries, issued_at, self.sender.market_now())
        async with Dispatch(self.sender, clock_seconds) as out:
            for (portfolio, held, _, _), row in zip(stops, rows, strict=True):
                if row["intent_id"] in new:
                    out.put(made_out(portfolio, intent_of(row), instruments[held.contract], issued_at))

    def _columns(
        self, portfolio: Portfolio, held: Holding, terms: Terms, sent: int, market_time: datetime
    ) -> dict[str, Any]:
        decision = content_id("d", portfolio.account_id, held.entry_intent_id, "stop", sent)
        return {
            "user_id": portfolio.user_id,
            "intent_id": IntentId(content_id("i", decision)),
            "decision_key": decision,
            "client_order_id": ClientOrderId(content_id(OUR_PREFIX.rstrip("_"), decision, length=30)),
            "account_id": portfolio.account_id,
            "dataset_id": self.dataset_id,
            "strategy_id": held.strategy_id,
            "version_id": held.version_id,
            "arm": held.arm,
            "signal_id": held.signal_id,
            "purpose": "stop",
            "entry_intent_id": held.entry_intent_id,
            "symbol": held.symbol,
            "contract": held.contract,
            "side": "sell",
            "order_type": "STOP_LIMIT",
            "quantity": terms.quantity,
            "reference_price": terms.limit,
            "stop_price": terms.trigger,
            "market_time": market_time,
            "state": "SENDING",
            "epoch": self.sender.lease.epoch,
        }

    async def _ladders(self, entries: Collection[str], market_time: datetime) -> dict[str, Ladder]:
        """Where each position stands, by its entry."""
        found = {entry: Ladder() for entry in entries}
        async with self.sender.databases.group_async(self.sender.lease.group_id) as session:
            rows = await session.execute(
                select(Intent.entry_intent_id, Intent.purpose, Intent.state, Order.reject_code, Intent.market_time)
                .outerjoin(Order, (Order.intent_id == Intent.intent_id) & (Order.user_id == Intent.user_id))
                .where(Intent.entry_intent_id.in_(found))
                .order_by(Intent.created_at.desc(), Intent.epoch.desc())
            )
            for entry, purpose, state, code, decided_at in rows.tuples():
                found[str(entry)].take(purpose, state, code, today=decided_at.date() == market_time.date())
        return found

    async def _withdraw(
        self, portfolio: Portfolio, key: PositionKey, instruments: Mapping[Symbol, Instrument], now: datetime | None,
        clock_seconds: float,
    ) -> None:  # fmt: skip
        """Cancel a stop and learn its end; it stays among the portfolio's stops where that is not to be had now."""
        for attempt in range(CANCELS):
            stop = portfolio.stops.get(key)
            if stop is None:
                break
            if attempt:
                await asyncio.sleep(BETWEEN_SECONDS)
            await self._note_cancel(portfolio, stop.intent_id)
            answer = await portfolio.venue.cancel(stop.client_order_id, stop.contract)
            if isinstance(answer, Refused):
                log.info("stop_not_cancelled", intent_id=stop.intent_id, code=answer.code, text=answer.text[:200])
            await self.sender.settle(portfolio, instruments, now, clock_seconds, all_now=True)
        if key in portfolio.stops:
            log.warning("stop_stands_in_the_way", account=portfolio.account_id, symbol=key[1])
        await self._say_in_the_way(portfolio, key)

    async def _say_in_the_way(self, portfolio: Portfolio, key: PositionKey) -> None:
        """Call a person where a position cannot be left for a stop whose end nobody tells: one of an earlier day's book."""
        stop, labels = portfolio.stops.get(key), {"account": portfolio.account_id, "symbol": key[1]}
        if (stop is not None) == ((portfolio.account_id, key) in self.in_the_way):
            return
        async with self.sender.databases.control_async() as session:
            if stop is None:
                self.in_the_way.discard((portfolio.account_id, key))
                await resolve_alert_async(session, source="execution", title=IN_THE_WAY, labels=labels)
                return
            self.in_the_way.add((portfolio.account_id, key))
            detail = (
                f"{stop.contract} of account {portfolio.account_id} is to be left, and neither can its stop be cancelled nor "
                "does the venue say how it ended. Look at the venue's order book or contract note, then: trading-platform "
                f"orders settle {stop.client_order_id} --group {self.sender.lease.group_id} --as ended"
            )
            await raise_alert_async(
                session, severity="critical", source="execution", title=IN_THE_WAY, detail=detail, labels=labels
            )

    async def _note_cancel(self, portfolio: Portfolio, intent_id: str) -> None:
        """The request is in the audit trail before it is sent."""
        lease = self.sender.lease
        async with self.sender.databases.group_async(lease.group_id) as session:
            await lease.check(session)
            intent = await session.get_one(Intent, (portfolio.user_id, intent_id))
            trail.note(session, portfolio, intent, "CANCEL_REQ", "SENDING", "the position is left or has another size")

    async def _call_a_person(self, portfolio: Portfolio, held: Holding) -> None:
        """Neither protected nor to be left: stop the account's entries and say so, once."""
        if held.entry_intent_id in self.handed_over:
            return
        self.handed_over.add(held.entry_intent_id)
        detail = (
            f"{held.quantity} {held.contract} of account {portfolio.account_id} have no stop at the venue and could not be "
            f"left in {MOST_EXITS} tries; close the position at the venue, then clear the halt"
        )
        group = self.sender.lease.group_id
        async with self.sender.databases.control_async() as session:
            await raise_alert_async(
                session, severity="critical", source="execution", title="A position has no protection", detail=detail,
                labels={"account": portfolio.account_id, "symbol": held.symbol},
            )  # fmt: skip
        await set_halt(
            self.sender.databases, Target("account", portfolio.account_id, portfolio.user_id, (group,)), detail,
            trail.ACTOR, "block", set_by=trail.ACTOR,
        )  # fmt: skip


def _waits_for_its_stop(decision: Decision) -> bool:
    held = decision.holding
    return held is not None and decision.denial is None and held.key in decision.portfolio.stops
