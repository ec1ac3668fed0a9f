"""Orders over a connection that fails, and leases that change hands: one order a decision, and the books know it."""

import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import func, select, update

from tests.execution.faulty_exchange import FaultyExchange, faulty_exchange
from tests.execution.test_decisions import NOW, SITUATION, portfolio, signal
from trading_platform.accounts.users import NewUser, create_user
from trading_platform.execution import books
from trading_platform.execution.books import Answer
from trading_platform.execution.decisions import decide
from trading_platform.execution.intents import Cursor, StepWriter
from trading_platform.execution.lease import GroupLease
from trading_platform.execution.outgoing import made_out
from trading_platform.execution.portfolio import Portfolio
from trading_platform.execution.sender import Sender
from trading_platform.identifiers import DatasetId, GroupId, Symbol, TradeId, UserId, VenueOrderId
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import AuditRow, EngineLease, Fill, Intent, Order, Outbox, Position
from trading_platform.storage.lease import LeaseLostError
from trading_platform.venues.binance import BinanceVenue
from trading_platform.venues.port import Accepted, VenueFill

D = Decimal
GROUP, BTC = GroupId("g1"), Symbol("BTC/USDT")


@dataclass
class Desk:
    """One account with an intent that is written and about to be sent."""

    databases: Databases
    exchange: FaultyExchange
    sender: Sender
    account: Portfolio
    intent: Intent
    issued_at: datetime

    async def send(self) -> None:
        order = made_out(self.account, self.intent, SITUATION.instruments[BTC], self.issued_at)
        await self.sender.send(order, NOW.timestamp())

    async def settle(self, now: datetime = NOW) -> int:
        instruments = dict(SITUATION.instruments)
        return await self.sender.settle(self.account, instruments, now, NOW.timestamp(), all_now=True)

    async def state(self) -> tuple[str, str, int]:
        """(intent's, order's, number of fills)"""
        async with self.databases.group_async(GROUP) as session:
            intent = (await session.scalars(select(Intent))).one()
            order = (await session.scalars(select(Order))).one()
            return intent.state, order.state, len((await session.scalars(select(Fill))).all())

    async def long_ago(self, seconds: float) -> None:
        """Pretend that the order was issued earlier than it was."""
        async with self.databases.group_async(GROUP) as session:
            row = (await session.scalars(select(Outbox))).one()
            row.sent_at -= timedelta(seconds=seconds)
            row.next_try_at -= timedelta(seconds=seconds)


@pytest.fixture
def group(platform: Databases) -> Databases:
    create_user(
        platform, NewUser("a@example.com", "A", "trader", GROUP, "correct horse battery", user_id=UserId("alice")), actor="t"
    )  # fmt: skip
    return platform


@asynccontextmanager
async def desk(databases: Databases, *faults: str) -> AsyncIterator[Desk]:
    async with faulty_exchange(*faults) as exchange:
        account = portfolio(venue=BinanceVenue(exchange.url, "key", "secret"))
        lease = GroupLease(databases, GROUP, "engine-one")
        assert await lease.acquire()
        decisions = decide(account, [signal(BTC, "100")], NOW, SITUATION, NOW)
        issued_at = datetime.now(UTC)
        writer = StepWriter(databases, lease)
        cursor = Cursor(DatasetId("d"), 1, NOW)
        (order,) = await writer.write(decisions, SITUATION.instruments, NOW, issued_at, NOW, cursor)
        try:
            yield Desk(databases, exchange, Sender(databases, lease), account, order.intent, issued_at)
        finally:
            await writer.close()
            await account.venue.close()
            await databases.aclose()


async def test_an_answer_that_was_lost_is_asked_for_and_the_order_is_not_sent_again(group: Databases) -> None:
    async with desk(group, "unanswered") as made:
        await made.send()
        assert await made.state() == ("UNKNOWN", "UNKNOWN", 0)
        assert made.account.unknown == {BTC}
        assert await made.settle() == 0
        assert await made.state() == ("DONE", "FILLED", 1)
        assert (made.account.unknown, made.exchange.calls, len(made.exchange.all())) == (set(), 1, 1)
        assert made.account.holdings[made.intent.strategy_id, BTC].quantity == D("9.999")  # type: ignore[index]
        assert made.account.cash == D(9_000)


async def test_an_order_is_sent_again_only_when_it_can_no_longer_arrive(group: Databases) -> None:
    async with desk(group, "lost") as made:
        await made.send()
        assert await made.settle() == 1  # absent, but it might be on its way
        assert (made.exchange.calls, (await made.state())[0]) == (1, "UNKNOWN")
        await made.long_ago(11)
        assert await made.settle() == 0
        assert await made.state() == ("DONE", "FILLED", 1)
        assert list(made.exchange.orders) == [made.intent.client_order_id]
        assert len(made.exchange.all()) == 1


async def test_an_entry_that_never_arrived_is_given_up_when_its_bar_is_over(group: Databases) -> None:
    async with desk(group, "lost") as made:
        await made.send()
        await made.long_ago(11)
        assert await made.settle(NOW + timedelta(hours=1)) == 0
        assert await made.state() == ("ABANDONED", "REJECTED", 0)
        assert (made.account.unknown, made.exchange.calls) == (set(), 1)


async def test_a_sender_that_was_asleep_cannot_send_what_was_shown_to_be_absent(group: Databases) -> None:
    """It wakes up after the probe: the order it then sends carries the old time, and the venue refuses it."""
    async with desk(group) as made:
        venue, stale = made.account.venue, datetime.now(UTC) - timedelta(seconds=11)
        assert await venue.find_order(made.intent.client_order_id, BTC) is None  # type: ignore[arg-type]
        answer = await venue.place_market(made.intent.client_order_id, BTC, "buy", D(1), stale)  # type: ignore[arg-type]
        assert getattr(answer, "code", None) == "-1021"
        assert made.exchange.all() == []
        made.issued_at = stale  # an order that only waited behind others is stamped anew, and goes out
        await made.send()
        assert await made.state() == ("DONE", "FILLED", 1)


async def test_a_throttled_order_waits_for_its_turn_and_blocks_its_symbol(group: Databases) -> None:
    async with desk(group, "throttled") as made:
        await made.send()
        assert (await made.state())[0] == "PLANNED"
        assert made.account.unknown == {BTC}
        assert (await made.settle(), made.exchange.calls) == (1, 1)  # not before the venue allows
        await made.long_ago(2)
        assert (await made.settle(), made.exchange.calls) == (0, 2)
        assert await made.state() == ("DONE", "FILLED", 1)


async def test_a_successors_lease_fences_the_predecessor_out(group: Databases) -> None:
    async with desk(group) as made:
        second = GroupLease(group, GROUP, "engine-two")
        assert not await second.acquire()
        async with group.group_async(GROUP) as session:
            await session.execute(update(EngineLease).values(expires_at=func.now()))
        assert await second.acquire()
        assert second.epoch == made.sender.lease.epoch + 1
        with pytest.raises(LeaseLostError):
            await made.send()  # it is executed, but the predecessor may not book it
        successor = Sender(group, second)
        made.account = portfolio(venue=made.account.venue)
        made.sender = successor
        assert await made.settle() == 0
        assert await made.state() == ("DONE", "FILLED", 1)
        assert len(made.exchange.all()) == 1


async def test_fills_are_booked_once_in_whatever_pieces_and_order_they_come(group: Databases) -> None:
    """Twenty tellings of one order: a growing, repeated, shuffled list of its trades ends in the same books."""
    generator = random.Random(7)
    pieces = [D(1), D(2), D("3.5"), D("2.5"), D(1)]
    fills = [
        VenueFill(TradeId(str(n)), D(100) + n, quantity, quantity / 1_000, "BTC", NOW)
        for n, quantity in enumerate(pieces)
    ]
    async with desk(group) as made:
        instrument = SITUATION.instruments[BTC]
        for telling in range(20):
            known = generator.sample(fills, k=min(len(fills), 1 + telling // 3))
            filled = sum((fill.quantity for fill in known), D(0))
            state = "FILLED" if len(known) == len(fills) else "PARTIALLY_FILLED"
            told = Accepted(VenueOrderId("100"), state, filled, known, complete=True)  # type: ignore[arg-type]
            async with group.group_async(GROUP) as session:
                await books.take_answers(session, [Answer(made.account, made.intent, instrument, told)])
        async with group.group_async(GROUP) as session:
            position = (await session.scalars(select(Position))).one()
            entries = (await session.scalars(select(AuditRow.trade_id).where(AuditRow.event_type == "FILL"))).all()
            left = (await session.scalars(select(Outbox))).all()
    spent = sum((fill.price * fill.quantity for fill in fills), D(0))
    assert position.quantity == D(10) - D("0.01")
    assert made.account.cash == D(10_000) - spent
    assert sorted(entries) == ["0", "1", "2", "3", "4"]
    assert left == []
    assert abs(position.average_price - spent / 10) < D("1e-9")  # fees in kind are a thousandth of every piece


async def test_an_order_of_very_many_fills_is_booked_in_parts_whatever_breaks_between_them(
    group: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    fills = [VenueFill(TradeId(str(n)), D(100), D("0.01"), D("0.00001"), "BTC", NOW) for n in range(1_000)]
    told = Accepted(VenueOrderId("100"), "FILLED", D(10), fills, complete=True)
    book, booked = books.take_answers, 0

    async def broken_at_the_third(*given: Any) -> Iterator[bool]:
        nonlocal booked
        booked += 1
        if booked == 3:
            raise ConnectionError("the server is gone")
        return await book(*given)

    monkeypatch.setattr(books, "take_answers", broken_at_the_third)
    async with desk(group) as made:
        with pytest.raises(ConnectionError):
            await made.sender.take(made.account, made.intent, SITUATION.instruments[BTC], told)
        state, _, count = await made.state()
        assert (state, count) == ("SUBMITTED", 500), "not done, and what was booked stays"
        async with group.group_async(GROUP) as session:
            assert (await session.scalars(select(Outbox.state))).one() == "PROBING", "it is asked for again"
        await made.sender.take(made.account, made.intent, SITUATION.instruments[BTC], told)
        assert await made.state() == ("DONE", "FILLED", 1_000)
        async with group.group_async(GROUP) as session:
            position = (await session.scalars(select(Position))).one()
            entries = (await session.scalars(select(AuditRow.trade_id).where(AuditRow.event_type == "FILL"))).all()
    assert position.quantity == D(10) - D("0.01")
    assert len(entries) == len(set(entries)) == 1_000
