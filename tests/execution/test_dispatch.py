"""Steps into the books and many orders out at once: all or nothing under the lease, and every answer booked once."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy import func, select, text, update

from tests.execution.faulty_exchange import FaultyExchange, faulty_exchange
from tests.execution.test_decisions import NOW, SITUATION, portfolio, signal
from trading_platform.accounts.users import NewUser, create_user
from trading_platform.execution import dispatch, trail
from trading_platform.execution.books import Answer
from trading_platform.execution.decisions import Decision, decide, in_turn
from trading_platform.execution.dispatch import Dispatch
from trading_platform.execution.intents import Cursor, StepWriter
from trading_platform.execution.lease import GroupLease
from trading_platform.execution.outgoing import Outgoing
from trading_platform.execution.portfolio import Portfolio
from trading_platform.execution.sender import Sender
from trading_platform.identifiers import AccountId, DatasetId, GroupId, Symbol, UserId
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import (
    AuditRow,
    EngineLease,
    Fill,
    Intent,
    Order,
    Outbox,
    Position,
    SignalCursor,
)
from trading_platform.storage.lease import LeaseLostError
from trading_platform.venues.binance import BinanceVenue
from trading_platform.venues.port import AuthLostError

GROUP, BTC, ACCOUNTS = GroupId("g1"), Symbol("BTC/USDT"), 60
CURSOR = Cursor(DatasetId("d"), 7, NOW)


@dataclass
class Desk:
    databases: Databases
    lease: GroupLease
    writer: StepWriter
    exchange: FaultyExchange
    accounts: Sequence[Portfolio]

    async def write(self, decisions: Sequence[Decision], cursor: Cursor | None = CURSOR) -> list[Outgoing]:
        return await self.writer.write(decisions, SITUATION.instruments, NOW, datetime.now(UTC), NOW, cursor)

    async def dispatch(self, orders: Sequence[Outgoing]) -> None:
        async with Dispatch(Sender(self.databases, self.lease), NOW.timestamp()) as out:
            for order in orders:
                out.put(order)

    async def count(self, table: type) -> int:
        async with self.databases.group_async(GROUP) as session:
            return (await session.scalars(select(func.count()).select_from(table))).one()


def entries(accounts: Sequence[Portfolio], price: str = "100") -> list[Decision]:
    return [each for account in accounts for each in decide(account, [signal(BTC, price)], NOW, SITUATION, NOW)]


@pytest.fixture
def group(platform: Databases) -> Databases:
    person = NewUser("a@example.com", "A", "trader", GROUP, "correct horse battery", user_id=UserId("alice"))
    create_user(platform, person, actor="t")
    return platform


@asynccontextmanager
async def desk(databases: Databases, *faults: str) -> AsyncIterator[Desk]:
    async with faulty_exchange(*faults) as exchange:
        venue = BinanceVenue(exchange.url, "key", "secret")
        accounts = [
            portfolio(user_id=UserId(f"u{number:02}"), account_id=AccountId(f"a{number:02}"), venue=venue)
            for number in range(ACCOUNTS)
        ]
        lease = GroupLease(databases, GROUP, "engine-one")
        assert await lease.acquire()
        writer = StepWriter(databases, lease)
        try:
            yield Desk(databases, lease, writer, exchange, accounts)
        finally:
            await writer.close()
            await venue.close()
            await databases.aclose()


async def test_two_writers_of_one_decision_write_it_once_with_all_that_belongs_to_it(group: Databases) -> None:
    async with desk(group) as made:
        decisions = entries(made.accounts[:3])
        other = StepWriter(group, made.lease)
        written = await asyncio.gather(
            made.write(decisions), other.write(decisions, SITUATION.instruments, NOW, datetime.now(UTC), NOW, CURSOR)
        )
        await other.close()
        assert sorted(len(each) for each in written) == [0, 3]
        assert [await made.count(table) for table in (Intent, Outbox, Order)] == [3, 3, 3]
        async with group.group_async(GROUP) as session:
            told = (await session.execute(select(AuditRow.intent_id, AuditRow.event_type).order_by(AuditRow.seq))).all()
            actors = set(await session.scalars(select(AuditRow.actor)))
            cursor = await session.get_one(SignalCursor, CURSOR.dataset_id)
            rows = {row.intent_id: row for row in await session.scalars(select(Intent))}
        assert actors == {trail.ACTOR}, "the database writes it by itself"
        for decision in decisions:
            row = rows[decision.intent_id]
            assert [event for intent, event in told if intent == decision.intent_id] == ["PLAN", "RISK_PASS", "SEND"]
            assert (row.client_order_id, row.quantity) == (decision.client_order_id, decision.quantity)
            assert (row.target_price, row.stop_price) == (Decimal("110.0"), Decimal("95.00"))
        assert (cursor.seq, cursor.market_time) == (7, NOW)


async def test_a_denied_order_is_kept_for_the_record_and_marked_for_nothing(group: Databases) -> None:
    async with desk(group) as made:
        poor = portfolio(cash=Decimal(1))
        assert await made.write(entries([poor])) == []
        assert [await made.count(table) for table in (Intent, Outbox, Order)] == [1, 0, 0]
        async with group.group_async(GROUP) as session:
            rows = (
                await session.execute(select(AuditRow.event_type, AuditRow.status_message).order_by(AuditRow.seq))
            ).all()
        assert [row.event_type for row in rows] == ["PLAN", "RISK_BLOCK"]
        assert str(rows[1].status_message).startswith("QUANTITY_TOO_SMALL")


async def test_who_has_lost_the_lease_writes_nothing_and_moves_no_cursor(group: Databases) -> None:
    async with desk(group) as made:
        async with group.group_async(GROUP) as session:
            await session.execute(update(EngineLease).values(expires_at=func.now() - timedelta(seconds=1)))
        with pytest.raises(LeaseLostError):
            await made.write(entries(made.accounts[:2]))
        assert await GroupLease(group, GROUP, "engine-two").acquire()
        with pytest.raises(LeaseLostError, match="epoch 1"):
            await made.write(entries(made.accounts[:2]))
        assert [await made.count(table) for table in (Intent, Outbox, Order, SignalCursor, AuditRow)] == [0] * 5


async def test_a_line_that_broke_is_laid_again(group: Databases) -> None:
    async with desk(group) as made:
        await made.write(entries(made.accounts[:1]))
        async with group.group_async(GROUP) as session:
            mine = text(
                "select pg_terminate_backend(pid) from pg_stat_activity where query like '%write_step%' "
                "and datname = current_database() and pid <> pg_backend_pid()"
            )
            assert (await session.scalars(mine)).one()
        await asyncio.sleep(0.2)  # long enough to hear of it
        assert len(await made.write(entries(made.accounts[1:2]))) == 1


async def test_many_accounts_orders_are_sent_once_and_booked_in_few_transactions(
    group: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = list[int]()
    book = Sender.book

    async def counted(self: Sender, answers: Sequence[Answer]) -> None:
        together.append(len(answers))
        await book(self, answers)

    monkeypatch.setattr(Sender, "book", counted)
    async with desk(group, *["throttled"] * 2) as made:
        decisions = entries(made.accounts)
        await made.dispatch(await made.write(decisions))
        assert sum(together) == ACCOUNTS
        assert len(together) <= 2 + 3, f"two by themselves, the others together: {together}"
        assert {len(each) for each in made.exchange.orders.values()} == {1}
        assert await made.count(Fill) == await made.count(Position) == len(made.exchange.all()) == ACCOUNTS - 2
        assert await made.count(Outbox) == 2, "what was throttled goes out again"
        for account in made.accounts:
            if account.unknown:
                assert account.cash == 10_000
            else:
                assert account.cash == Decimal(9_000)
                assert account.holdings[next(iter(account.holdings))].quantity == Decimal("9.999")


async def test_a_transaction_takes_so_many_answers_as_their_fills_allow(
    group: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = list[int]()
    book = Sender.book

    async def counted(self: Sender, answers: Sequence[Answer]) -> None:
        rows.append(sum(1 + len(answer.accepted.fills) for answer in answers if answer.accepted))
        await book(self, answers)

    monkeypatch.setattr(Sender, "book", counted)
    monkeypatch.setattr(dispatch, "MOST_TOGETHER", 9)
    async with desk(group) as made:
        decisions = entries(made.accounts[:13])
        await made.dispatch(await made.write(decisions))
        assert rows == [8, 8, 8, 2], "every answer has one fill: four of nine"
        assert await made.count(Fill) == 13
        monkeypatch.setattr(dispatch, "MOST_TOGETHER", 1)
        await made.dispatch(await made.write(entries(made.accounts[13:15])))
        assert await made.count(Fill) == 15, "an answer that is too long by itself is booked by itself"


async def test_trouble_is_told_when_all_others_are_through(group: Databases, monkeypatch: pytest.MonkeyPatch) -> None:
    async with desk(group) as made:
        orders = await made.write(entries(made.accounts[:4]))
        place = Sender.place

        async def logged_out(self: Sender, order: Outgoing, clock_seconds: float) -> Answer:
            if order.portfolio is made.accounts[0]:
                raise AuthLostError(order.portfolio.account_id, "log in again")
            return await place(self, order, clock_seconds)

        monkeypatch.setattr(Sender, "place", logged_out)
        with pytest.raises(AuthLostError):
            await made.dispatch(orders)
        assert await made.count(Fill) == 3
        assert await made.count(Outbox) == 1, "still SENDING: it is asked for"


def test_users_take_turns_when_a_step_is_written() -> None:
    flood = [portfolio(user_id=UserId("flood"), account_id=AccountId(f"f{number}")) for number in range(5)]
    others = [portfolio(user_id=UserId(name), account_id=AccountId(name)) for name in ("ann", "ben")]
    ordered = [each.portfolio.account_id for each in in_turn(entries([*flood, *others]))]
    assert ordered == ["f0", "ann", "ben", "f1", "f2", "f3", "f4"]


async def test_what_is_written_goes_out_whatever_an_earlier_order_met_with(
    group: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part of a step is written while the one before it is sent: an account that has lost its session there must not
    leave the others' orders SENDING and unsent."""
    async with desk(group) as made:
        first, *others = await made.write(entries(made.accounts[:4]))
        place = Sender.place

        async def logged_out(self: Sender, order: Outgoing, clock_seconds: float) -> Answer:
            if order is first:
                raise AuthLostError(order.portfolio.account_id, "log in again")
            return await place(self, order, clock_seconds)

        async def in_two_parts() -> None:
            async with Dispatch(Sender(group, made.lease), NOW.timestamp()) as out:
                out.put(first)
                await asyncio.sleep(0.05)
                for order in others:
                    out.put(order)

        monkeypatch.setattr(Sender, "place", logged_out)
        with pytest.raises(AuthLostError):
            await in_two_parts()
        assert await made.count(Fill) == 3
