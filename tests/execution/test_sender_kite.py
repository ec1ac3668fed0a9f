"""Orders at a broker that has no client order id and never proves absence: one order a decision, whatever it answers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from tests.execution.test_decisions import SITUATION, portfolio, signal
from trading_platform.accounts.users import NewUser, create_user
from trading_platform.execution.decisions import decide
from trading_platform.execution.intents import Cursor, StepWriter
from trading_platform.execution.lease import GroupLease
from trading_platform.execution.outgoing import made_out
from trading_platform.execution.portfolio import Portfolio
from trading_platform.execution.sender import Sender
from trading_platform.identifiers import DatasetId, GroupId, Symbol, UserId
from trading_platform.markets.sessions import session_of
from trading_platform.sandbox.server import Sandbox
from trading_platform.sandbox.standalone import Wishes, addresses, build
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import Fill, Intent, Order, Position
from trading_platform.venues.zerodha.login import open_session
from trading_platform.venues.zerodha.transport import KiteTransport
from trading_platform.venues.zerodha.venue import ZerodhaVenue, tag_of

D = Decimal
GROUP, INFY = GroupId("g1"), Symbol("INFY")
PLACE = "POST /orders/*"


@dataclass
class Desk:
    """One account at the sandbox's Kite door, with an intent that is written and about to be sent."""

    databases: Databases
    sandbox: Sandbox
    sender: Sender
    writer: StepWriter
    account: Portfolio
    intent: Intent
    issued_at: datetime
    instruments: dict[Symbol, Any]
    clock: list[datetime]
    """The market's, as venue and sender see it."""

    def fault(self, **fault: Any) -> None:
        assert self.sandbox.kite is not None
        self.sandbox.kite.mischief.faults.inject([{"door": "kite", **fault}])

    async def send(self) -> None:
        order = made_out(self.account, self.intent, self.instruments[INFY], self.issued_at)
        await self.sender.send(order, self.issued_at.timestamp())

    async def settle(self) -> int:
        now = datetime.now(UTC)
        return await self.sender.settle(self.account, self.instruments, now, now.timestamp(), all_now=True)

    async def books(self) -> tuple[str, str, Decimal, Decimal]:
        """(the intent's state, the order's state, what fills add up to, what is held)"""
        async with self.databases.group_async(GROUP) as session:
            intent, order = (await session.scalars(select(Intent))).one(), (await session.scalars(select(Order))).one()
            fills = sum((fill.quantity for fill in await session.scalars(select(Fill))), D(0))
            held = sum((position.quantity for position in await session.scalars(select(Position))), D(0))
            return intent.state, order.state, fills, held

    @property
    def at_broker(self) -> list[str]:
        """The broker's own book: the states of all orders of the tag."""
        tag = tag_of(self.intent.client_order_id)
        return [
            order.state
            for order in self.sandbox.exchange.books.orders.values()
            if order.request.terms.get("tag") == tag
        ]


@asynccontextmanager
async def desk(
    databases: Databases, folder: Path, down: timedelta = timedelta(0), start: datetime | None = None
) -> AsyncIterator[Desk]:
    """`down`: how long after its decision the order is sent, by the market's clock, which begins at `start`."""
    wishes = Wishes(limits=False, seed=3, start=start)
    sandbox, token = build(wishes, folder)
    async with sandbox.running("127.0.0.1", 0):
        await sandbox.clock.advance(steps=20)
        where = addresses(sandbox, wishes, token)["kite"]
        transport = KiteTransport(where["api_key"], None, root=where["root"], timeout_seconds=1.0)
        await open_session(transport, where["request_token"], where["api_secret"])
        market_time = datetime.fromtimestamp(sandbox.exchange.now / 1_000, UTC)
        clock = [market_time + down]
        venue = ZerodhaVenue(transport, lambda: clock[0])
        instruments = dict(await venue.instruments())
        account = portfolio(venue=venue, currency="INR", cash=D(100_000))
        last = sandbox.exchange.markets[INFY].last
        lease = GroupLease(databases, GROUP, "engine-one")
        assert await lease.acquire()
        situation = replace(SITUATION, instruments=instruments)
        decisions = decide(account, [signal(INFY, str(last), at=market_time)], market_time, situation, market_time)
        issued_at = datetime.now(UTC)
        writer, cursor = StepWriter(databases, lease), Cursor(DatasetId("d"), 1, market_time)
        (order,) = await writer.write(decisions, instruments, market_time, issued_at, clock[0], cursor)
        try:
            sender = Sender(databases, lease, lambda: clock[0])
            yield Desk(databases, sandbox, sender, writer, account, order.intent, issued_at, instruments, clock)
        finally:
            await writer.close()
            await venue.close()
            await databases.aclose()


@pytest.fixture
def group(platform: Databases) -> Databases:
    person = NewUser("a@example.com", "A", "trader", GROUP, "correct horse battery", user_id=UserId("alice"))
    create_user(platform, person, actor="t")
    return platform


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "timeout_after_acceptance", "route": PLACE, "seconds": 3},
        {"kind": "timed_out_400", "route": PLACE},
        {"kind": "server_error", "route": PLACE, "status": 504, "accepted": True},
        {"kind": "disconnect", "route": PLACE, "accepted": True},
        {"kind": "malformed_json", "route": PLACE},
    ],
    ids=lambda fault: str(fault["kind"]),
)
async def test_an_order_that_was_taken_is_found_by_its_tag_and_never_sent_again(
    group: Databases, tmp_path: Path, fault: dict[str, Any]
) -> None:
    async with desk(group, tmp_path) as made:
        made.fault(**fault)
        await made.send()
        assert (await made.books())[:2] == ("UNKNOWN", "UNKNOWN")
        assert INFY in made.account.unknown, "nothing new is entered in it"
        assert await made.settle() == 0
        state, order, fills, held = await made.books()
        assert (state, order) == ("DONE", "FILLED")
        assert fills == made.intent.quantity
        assert D(0) < held <= fills
        assert made.at_broker == ["FILLED"], "one order, however often it was asked for"
        assert made.account.unknown == set()


async def test_an_order_that_shows_late_stays_unknown_until_it_does(group: Databases, tmp_path: Path) -> None:
    async with desk(group, tmp_path) as made:
        made.fault(kind="hide_order", seconds=2.5)
        made.fault(kind="timed_out_400", route=PLACE)
        await made.send()
        for _ in range(3):
            assert await made.settle() == 1, "not in the book: that proves nothing"
            assert (await made.books())[:2] == ("UNKNOWN", "UNKNOWN")
        await asyncio.sleep(2.6)
        assert await made.settle() == 0
        assert (await made.books())[1] == "FILLED"
        assert made.at_broker == ["FILLED"]


async def test_an_order_that_never_arrived_is_not_sent_again_by_itself(group: Databases, tmp_path: Path) -> None:
    async with desk(group, tmp_path) as made:
        made.fault(kind="server_error", route=PLACE, status=502, accepted=False)
        await made.send()
        for _ in range(5):
            assert await made.settle() == 1
        assert (await made.books())[:2] == ("UNKNOWN", "UNKNOWN"), "an unknown never becomes a refusal by waiting"
        assert made.at_broker == []


async def test_what_was_sent_late_is_proven_absent_by_the_book_of_the_day_it_was_sent_on(
    group: Databases, tmp_path: Path
) -> None:
    """An engine that was down for a week catches up: what it decides on is last week's, what it sends is of today."""
    async with desk(group, tmp_path, timedelta(days=7)) as made:
        made.fault(kind="server_error", route=PLACE, status=502, accepted=False)
        await made.send()
        closes = session_of("NSE", made.clock[0].date())[-1].ends
        for after_close, unknown in ((4, 1), (6, 0)):
            made.clock[0] = closes + timedelta(minutes=after_close)
            assert await made.settle() == unknown
        assert (await made.books())[0] == "ABANDONED"
        assert made.at_broker == []


async def test_too_many_requests_were_not_executed_and_go_out_again(group: Databases, tmp_path: Path) -> None:
    async with desk(group, tmp_path) as made:
        made.fault(kind="too_many_requests", route=PLACE)
        await made.send()
        assert made.at_broker == []
        await asyncio.sleep(1.1)
        await made.sender.settle(
            made.account, made.instruments, made.intent.market_time, datetime.now(UTC).timestamp(), all_now=True
        )
        assert made.at_broker == ["FILLED"]
        assert (await made.books())[1] == "FILLED"
