"""The board of a group on real databases: what is kept, told, restored, and armed by request."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import select

from tests.execution.test_decisions import NOW, SITUATION, portfolio, signal
from tests.sandbox.served import serving
from trading_platform.accounts.users import ensure_group
from trading_platform.execution.breaker_board import MARKET_WIDE, BreakerBoard, request_arming, tell_losses
from trading_platform.execution.breakers import BreakerState
from trading_platform.execution.decisions import decide
from trading_platform.execution.lease import GroupLease
from trading_platform.execution.watched_venue import WatchedVenue
from trading_platform.identifiers import GroupId, Symbol
from trading_platform.storage.control import Alert
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import AuditRow, BreakerRow
from trading_platform.venues.binance import BinanceVenue

G1 = GroupId("g1")
BTC, NIFTY = Symbol("BTC/USDT"), Symbol("NIFTY 50")
NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
async def lease(platform: Databases) -> AsyncIterator[GroupLease]:
    ensure_group(platform, G1)
    taken = GroupLease(platform, G1, "test")
    assert await taken.acquire()
    yield taken
    await platform.aclose()


async def restored(databases: Databases) -> BreakerBoard:
    board = BreakerBoard(G1)
    async with databases.group_async(G1) as session:
        await board.load(session)
    return board


async def test_an_open_breaker_is_kept_told_audited_and_obeyed_after_a_restart(
    platform: Databases, lease: GroupLease
) -> None:
    board = BreakerBoard(G1)
    for minute, price in ((0, "100"), (10, "115")):
        board.on_signals([signal(BTC, price)], NOON + timedelta(minutes=minute))
    now = datetime.now(UTC)
    assert board.blocks("acc", "binance", BTC, now) == "market:BTC/USDT"
    assert board.blocks("acc", "binance", Symbol("ETH/USDT"), now) is None
    await board.keep(platform, lease)
    await board.keep(platform, lease)
    with platform.control() as session:
        alerts = session.scalars(select(Alert)).all()
        assert [(each.severity, each.labels, each.count) for each in alerts] == [
            ("warning", {"breaker": "market:BTC/USDT"}, 1)
        ]
    other = await restored(platform)
    assert other.blocks("acc", "binance", BTC, now) == "market:BTC/USDT"
    other.on_signals([signal(BTC, "115")], NOON + timedelta(hours=3))
    assert other.blocks("acc", "binance", BTC, now) is None
    await other.keep(platform, lease)
    with platform.control() as session:
        assert session.scalars(select(Alert).where(Alert.resolved_at.is_(None))).all() == []
    with platform.group(G1) as session:
        events = session.scalars(select(AuditRow.event_type).order_by(AuditRow.seq)).all()
        assert events == ["BREAKER_OPEN", "BREAKER_CLOSED"]


async def test_a_market_wide_halt_stops_the_exchange_and_a_person_arms_it(
    platform: Databases, lease: GroupLease
) -> None:
    """NIFTY 50 ten percent below the close of the day before, at 11:00 IST: halted for 45 minutes, then a pre-open."""
    board = BreakerBoard(G1)
    friday, monday = datetime(2026, 7, 24, 10, tzinfo=UTC), datetime(2026, 7, 27, 5, 30, tzinfo=UTC)
    board.on_signals([signal(NIFTY, "24000")], friday)
    board.on_signals([signal(NIFTY, "23900")], monday - timedelta(minutes=5))
    now = datetime.now(UTC)
    assert board.blocks("acc", "zerodha", Symbol("INFY"), now) is None
    board.on_signals([signal(NIFTY, "21600.01")], monday - timedelta(minutes=1))
    assert board.market.state is BreakerState.HALF_OPEN  # near the level: nothing new
    assert board.blocks("acc", "zerodha", Symbol("INFY"), now) == MARKET_WIDE
    board.on_signals([signal(NIFTY, "21600")], monday)
    assert board.market.waits_for_a_person
    assert board.blocks("acc", "binance", BTC, now) is None
    await board.keep(platform, lease)
    board.on_signals([signal(NIFTY, "23900")], monday + timedelta(hours=3))
    assert board.blocks("acc", "zerodha", Symbol("INFY"), now) == MARKET_WIDE
    async with platform.group_async(G1) as session:
        assert await request_arming(session, MARKET_WIDE, "admin:root")
        assert not await request_arming(session, "market:none", "admin:root")
    await board.keep(platform, lease)
    assert board.blocks("acc", "zerodha", Symbol("INFY"), now) is None
    with platform.group(G1) as session:
        row = session.get_one(BreakerRow, MARKET_WIDE)
        assert (row.state, row.arming_requested_by) == ("CLOSED", None)
    with platform.control() as session:
        told = {each.labels["breaker"]: each.severity for each in session.scalars(select(Alert))}
        assert told == {MARKET_WIDE: "critical", "market:NIFTY 50": "warning"}


async def test_an_emptied_book_keeps_entries_out_until_it_is_filled_again(
    platform: Databases, lease: GroupLease, tmp_path: Path
) -> None:
    """At the sandbox's Binance: all that is offered is bought, and the next bar brings new offers."""
    async with serving(tmp_path) as served:
        await served.steps(1)
        venue = BinanceVenue(served.url, "key", "secret")
        board, account, now = BreakerBoard(G1), portfolio(venue=venue), datetime.now(UTC)
        board.on_signals([signal(BTC, "100"), signal("GONE/USDT", "1")], NOON)
        try:
            listed = await venue.instruments()
            await board.look_at_books([account], listed, now)
            assert board.blocks("acc", "binance", BTC, now) is None
            market = served.sandbox.exchange.markets[BTC]
            for level in market.depth("SELL"):
                market.liquidity.take("SELL", level.price, level.quantity)
            await board.look_at_books([account], listed, now)
            assert board.blocks("acc", "binance", BTC, now) == "book:BTC/USDT"
            assert board.blocks("acc", "binance", Symbol("ETH/USDT"), now) is None
            await served.steps(1)
            await board.look_at_books([account], listed, now + timedelta(seconds=59))
            await board.keep(platform, lease)
            assert (await restored(platform)).blocks("acc", "binance", BTC, now) == "book:BTC/USDT"
            await board.look_at_books([account], listed, now + timedelta(seconds=60))
            assert board.blocks("acc", "binance", BTC, now) is None
        finally:
            await venue.close()
        nobody = portfolio(venue=WatchedVenue(BinanceVenue("http://127.0.0.1:9", "k", "s"), board.venue("acc")))
        for _ in range(10):
            await board.look_at_books([nobody], listed, now)
        await nobody.venue.close()
        assert board.blocks("acc", "binance", BTC, now) == "venue:acc", "of the books nothing is known"


async def test_a_venue_that_does_not_answer_keeps_its_account_alone_from_entering(
    platform: Databases, lease: GroupLease
) -> None:
    board, now = BreakerBoard(G1), datetime.now(UTC)
    for _ in range(10):
        board.venue("acc").on_call(answered=False, seconds=5.0, is_order=True, now=now)
    assert board.blocks("acc", "binance", BTC, now) == "venue:acc"
    assert board.blocks("other", "binance", BTC, now) is None
    await board.keep(platform, lease)
    again = await restored(platform)
    assert again.blocks("acc", "binance", BTC, now) == "venue:acc"
    assert again.blocks("acc", "binance", BTC, now + timedelta(seconds=15)) is None
    assert Decimal(again.venue("acc").breaker.trips) == 1


async def test_a_loss_limit_that_stops_entries_is_told_once(platform: Databases, lease: GroupLease) -> None:
    lost, fine = portfolio(net_today=Decimal(-5_000)), portfolio(net_today=Decimal("-4999.99"))
    lost.trading_day = fine.trading_day = NOW.date()
    for account, count in ((fine, 0), (lost, 1), (lost, 2)):
        decisions = decide(account, [signal(BTC, "100")], NOW, SITUATION, NOW)
        await tell_losses(platform, G1, decisions)
        with platform.control() as session:
            alerts = session.scalars(select(Alert)).all()
            assert [each.count for each in alerts] == ([count] if count else [])
    assert alerts[0].labels == {"user": "alice", "limit": "LOSS_DAILY"}
