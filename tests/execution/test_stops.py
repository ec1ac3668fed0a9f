"""Stops under positions: at the sandbox over a socket, with real books, while the market falls and while nobody looks."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from tests.execution.test_decisions import SITUATION, STRATEGY, holding, portfolio, signal
from tests.sandbox.alone import Alone, alone
from trading_platform.accounts.users import NewUser, create_user
from trading_platform.execution.decisions import decide
from trading_platform.execution.intents import StepWriter
from trading_platform.execution.lease import GroupLease
from trading_platform.execution.portfolio import Portfolio
from trading_platform.execution.sender import Sender
from trading_platform.execution.stops import Ladder, StopKeeper, terms_of
from trading_platform.identifiers import DatasetId, GroupId, Symbol, UserId, Venue
from trading_platform.markets.instruments import Instrument
from trading_platform.storage.control import Alert, Halt
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import Fill, Intent, Outcome
from trading_platform.venues.binance import BinanceVenue

D = Decimal
GROUP, BTC, KEY = GroupId("g1"), Symbol("BTC/USDT"), (STRATEGY, Symbol("BTC/USDT"))
START = datetime(2024, 3, 1, tzinfo=UTC)
CRASH = 40
"""Hours of a calm market at 100, until a bar falls from 99 to 80."""


def test_the_stop_lies_beyond_the_strategys_own_on_tick_and_step() -> None:
    instrument = Instrument(Venue("binance"), BTC, "BTC", "USDT", D("0.1"), D("0.01"), D(10))
    held = holding("BTC/USDT", quantity=D("1.239"), average_price=D("100.07"), stop=D("97.9"))
    terms = terms_of(held, instrument, 0)
    assert terms is not None
    assert (terms.quantity, terms.trigger, terms.limit) == (D("1.23"), D("96.8"), D("95.8"))
    again = terms_of(held, instrument, 1)
    assert again is not None
    assert (again.trigger, again.limit) == (D("96.8"), D("96.5"))
    assert terms_of(replace(held, quantity=D("0.1")), instrument, 0) is None, "9.58 are less than the smallest order"
    assert terms_of(replace(held, stop=D(0)), instrument, 0) is None, "a strategy without a stop"
    gapped = terms_of(replace(held, average_price=D("97.0")), instrument, 0)
    assert gapped is not None
    assert gapped.trigger == D("97.9"), "bought below the stop: it stands where the strategy's does"


@pytest.mark.parametrize(
    ("newest_first", "stops", "exits"),
    [
        (["REJECTED", "REJECTED"], 2, 0),
        (["REJECTED", "DONE", "REJECTED", "REJECTED"], 1, 0),
        (["DONE", "REJECTED", "REJECTED"], 0, 0),
        (["exit", "REJECTED", "exit"], 1, 2),
    ],
)
def test_refusals_count_until_a_stop_was_taken(newest_first: list[str], stops: int, exits: int) -> None:
    ladder = Ladder()
    for each in newest_first:
        ladder.take("exit" if each == "exit" else "stop", "REJECTED" if each == "exit" else each)
    assert (ladder.stops, ladder.exits) == (stops, exits)


def test_a_stop_below_the_days_price_band_is_no_reason_to_leave() -> None:
    ladder = Ladder()
    for _ in range(2):
        ladder.take("stop", "REJECTED", "STOP_PRICE_CIRCUIT")
    assert (ladder.stops, ladder.out_of_reach) == (2, True)
    tomorrow = Ladder()
    for _ in range(2):
        tomorrow.take("stop", "REJECTED", "STOP_PRICE_CIRCUIT", today=False)
    assert (tomorrow.stops, tomorrow.out_of_reach) == (0, False), "the bands are drawn anew"


# --- at the sandbox --------------------------------------------------------------------------------------------------


@dataclass
class Room:
    """An account that has bought one bitcoin or so at 100, and the keeper of its stops."""

    databases: Databases
    market: Alone
    account: Portfolio
    keeper: StopKeeper
    instruments: dict[Symbol, Instrument]

    @property
    def now(self) -> datetime:
        return datetime.fromisoformat(self.market.admin("/clock")["market_time"].replace("Z", "+00:00"))

    async def protect(self) -> list[Any]:
        return await self.keeper.protect([self.account], self.instruments, self.now, self.now.timestamp())

    async def look(self) -> None:
        await self.keeper.look([self.account], self.instruments, self.now, self.now.timestamp())

    async def crash(self) -> None:
        """The market falls while nobody looks."""
        self.market.admin("/clock", {"to": (START + timedelta(hours=CRASH + 1)).isoformat()})
        assert await self.keeper.sender.lease.acquire(), "the market took its time"

    async def working(self) -> set[str]:
        return await self.account.venue.open_client_order_ids()

    async def intents(self, purpose: str) -> list[Intent]:
        async with self.databases.group_async(GROUP) as session:
            rows = await session.scalars(select(Intent).where(Intent.purpose == purpose).order_by(Intent.created_at))
            return list(rows.all())

    async def decide(self, *, price: str, state: str) -> None:
        """What an engine does with one signal."""
        now = self.now
        found = decide(self.account, [signal("BTC/USDT", price, state, at=now)], now, self.situation(), now)
        found = await self.keeper.make_way(found, self.instruments, now, now.timestamp())
        sender, issued_at = self.keeper.sender, datetime.now(UTC)
        for order in await self.keeper.writer.write(found, self.instruments, now, issued_at, now):
            await sender.send(order, now.timestamp())

    def situation(self) -> Any:
        return replace(SITUATION, instruments=self.instruments)


@asynccontextmanager
async def room(databases: Databases, tmp_path: Path) -> AsyncIterator[Room]:
    create_user(
        databases, NewUser("a@example.com", "A", "trader", GROUP, "correct horse battery", user_id=UserId("alice")), actor="t"
    )  # fmt: skip
    start = (START + timedelta(hours=CRASH - 2)).isoformat()
    with alone("--data", str(bars(tmp_path)), "--no-limits", "--start", start) as market:
        market.admin("/clock", {"run": False})
        info = market.info["binance"]
        venue = BinanceVenue(info["rest"], info["api_key"], info["api_secret"])
        lease = GroupLease(databases, GROUP, "engine-one")
        assert await lease.acquire()
        account = portfolio(venue=venue)
        account.cash = (await venue.balances())["USDT"]
        keeper = StopKeeper(Sender(databases, lease), StepWriter(databases, lease), DatasetId("d"))
        made = Room(databases, market, account, keeper, dict(await venue.instruments()))
        try:
            await made.decide(price="100", state="ok")
            assert KEY in account.holdings
            yield made
        finally:
            await keeper.writer.close()
            await venue.close()
            await databases.aclose()


def bars(folder: Path) -> Path:
    """A calm market that falls by a fifth within an hour, and stays there."""
    lines = ["open_time,open,high,low,close,volume"]
    for hour in range(CRASH + 30):
        prices = "100,100.2,99.8,100"
        if hour == CRASH:
            prices = "99,99.1,80,82"
        elif hour > CRASH:
            prices = "82,82.2,81.8,82"
        lines.append(f"{(START + timedelta(hours=hour)).isoformat()},{prices},100000")
    path = folder / "BTCUSDT_1h.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


async def test_a_position_is_left_by_its_stop_while_no_engine_looks(platform: Databases, tmp_path: Path) -> None:
    async with room(platform, tmp_path) as made:
        assert await made.protect() == []
        (stop,) = await made.intents("stop")
        held = made.account.holdings[KEY]
        assert stop.quantity == made.instruments[BTC].round_quantity(held.quantity)
        assert stop.stop_price is not None
        assert abs(stop.stop_price - (95 - (held.average_price - 95) / 2)) < D("0.001"), "half the way beyond 95"
        assert abs(stop.reference_price / stop.stop_price - D("0.99")) < D("0.0001")
        assert await made.working() == {stop.client_order_id}
        assert await made.protect() == [], "running it again changes nothing"
        assert len(await made.intents("stop")) == 1

        await made.crash()
        assert await made.working() == set()
        assert KEY in made.account.holdings, "nobody has looked yet"
        await made.look()
        assert (made.account.holdings, made.account.stops) == ({}, {})
        async with platform.group_async(GROUP) as session:
            (outcome,) = (await session.scalars(select(Outcome))).all()
            fills = (await session.scalars(select(Fill).where(Fill.client_order_id == stop.client_order_id))).all()
        assert outcome.exit_reason == "stop"
        assert stop.reference_price <= outcome.exit_price <= stop.stop_price, "within the hour, where its close was 82"
        assert sum(fill.quantity for fill in fills) == stop.quantity
        assert await made.protect() == []


async def test_a_stop_makes_way_for_the_exit_and_nothing_is_sold_twice(platform: Databases, tmp_path: Path) -> None:
    async with room(platform, tmp_path) as made:
        await made.protect()
        units = (await made.account.venue.balances())["BTC"]
        await made.decide(price="111", state="abstain")
        assert (made.account.holdings, made.account.stops, await made.working()) == ({}, {}, set())
        (stop,), (leaving,) = await made.intents("stop"), await made.intents("exit")
        assert (stop.state, leaving.state, leaving.quantity) == ("DONE", "DONE", stop.quantity)
        assert (await made.account.venue.balances())["BTC"] == units - stop.quantity
        async with platform.group_async(GROUP) as session:
            sold = (await session.scalars(select(Fill).where(Fill.side == "sell"))).all()
        assert {fill.client_order_id for fill in sold} == {leaving.client_order_id}


async def test_an_exit_that_comes_after_the_stop_sells_nothing_more(platform: Databases, tmp_path: Path) -> None:
    async with room(platform, tmp_path) as made:
        await made.protect()
        await made.crash()
        await made.decide(price="82", state="abstain")
        assert made.account.holdings == {}
        assert await made.intents("exit") == []


async def test_a_stop_has_the_size_of_what_is_held(platform: Databases, tmp_path: Path) -> None:
    async with room(platform, tmp_path) as made:
        await made.protect()
        made.account.holdings[KEY].quantity -= D("0.5")
        await made.protect()
        first, second = await made.intents("stop")
        assert (first.state, first.quantity - second.quantity) == ("DONE", D("0.5"))
        assert await made.working() == {second.client_order_id}


async def test_a_stop_that_is_refused_twice_is_replaced_by_leaving(platform: Databases, tmp_path: Path) -> None:
    """The price is through the stop already: the exchange would trigger it at once, and says so."""
    async with room(platform, tmp_path) as made:
        made.account.holdings[KEY].stop = made.account.holdings[KEY].average_price = D(120)
        assert await made.protect() == []
        assert await made.protect() == []
        assert [each.state for each in await made.intents("stop")] == ["REJECTED", "REJECTED"]
        assert await made.protect() == [(made.account, KEY)]
        assert await made.working() == set()


async def test_a_position_that_can_neither_be_protected_nor_left_is_a_persons(
    platform: Databases, tmp_path: Path
) -> None:
    async with room(platform, tmp_path) as made:
        (entry,) = await made.intents("entry")
        async with platform.group_async(GROUP) as session:
            for number in range(3):
                values = {column.key: getattr(entry, column.key) for column in Intent.__table__.columns}
                session.add(
                    Intent(**values | {
                        "intent_id": f"i{number}", "decision_key": f"d{number}", "client_order_id": f"tp_{number}",
                        "purpose": "exit", "side": "sell", "entry_intent_id": entry.intent_id, "state": "REJECTED",
                    })
                )  # fmt: skip
        for _ in range(2):
            assert await made.protect() == []
        async with platform.control_async() as session:
            (halt,) = (await session.scalars(select(Halt))).all()
            (alert,) = (await session.scalars(select(Alert))).all()
        assert (halt.scope, halt.scope_id, halt.action) == ("account", "paper_1", "block")
        assert (alert.severity, alert.title) == ("critical", "A position has no protection")
