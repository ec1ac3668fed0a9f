"""Subscriptions that hold nothing overnight, by the engine's own step at the sandbox's Kite door, and how large an exit may be."""

from dataclasses import replace
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import select

from tests.execution.test_decisions import NOW, SITUATION, STRATEGY, portfolio, signal
from tests.execution.test_hedges import FUTURE, GROUP, INDEX, LOT, MORNING, Floor, floor
from tests.execution.test_sender_kite import group
from tests.venues.zerodha.conftest import kite
from tests.venues.zerodha.replayed import Replayed
from tests.venues.zerodha.test_leaving import INDEX_FUTURE, venue
from tests.venues.zerodha.test_orders import OPEN
from trading_platform.execution.accounts import terms
from trading_platform.execution.decisions import decide
from trading_platform.execution.portfolio import Stake
from trading_platform.execution.square_off import ending
from trading_platform.identifiers import Symbol
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import Intent, Order, Outcome, Subscription
from trading_platform.venues.zerodha.venue import ZerodhaVenue, tag_of

__all__ = ["group", "kite", "venue"]
D = Decimal
IST = ZoneInfo("Asia/Kolkata")
INFY = Symbol("INFY")


def ist(day: date, hour: int, minute: int) -> datetime:
    return datetime.combine(day, time(hour, minute), IST)


def holds_nothing_overnight(made: Floor) -> None:
    made.account.stakes[STRATEGY] = replace(made.account.stakes[STRATEGY], overnight=False)


async def test_a_future_and_its_put_are_left_ahead_of_the_end_and_nothing_is_entered_from_then_on(
    group: Databases, tmp_path: Path
) -> None:
    """15:20 for derivatives in July 2026, which traded to 15:30 then."""
    async with floor(group, tmp_path, start=ist(MORNING.date(), 15, 10)) as made:
        holds_nothing_overnight(made)
        days_later = MORNING + timedelta(days=9)
        await made.take(exit_by=days_later)
        assert len(made.held()) == 2
        await made.go_to(ist(MORNING.date(), 15, 19))
        await made.take("abstain", exit_by=days_later)
        assert len(made.held()) == 2
        await made.go_to(ist(MORNING.date(), 15, 20))
        await made.take("abstain", exit_by=days_later)
        assert (made.held(), await made.venue_holds()) == ({}, {})
        orders = len(made.at_broker())
        await made.go_on()
        await made.take(exit_by=days_later)
        assert (await made.denials(), len(made.at_broker())) == (["SESSION_ENDING"], orders)
        async with group.group_async(GROUP) as session:
            (denial,) = await session.scalars(select(Intent.denial).where(Intent.denial.is_not(None)))
            assert denial == "SESSION_ENDING: since=2026-07-01T09:50:00+00:00"
            assert len((await session.scalars(select(Outcome))).all()) == 2


@pytest.mark.parametrize(("auction", "minute"), [(True, 5), (False, 15)])
async def test_a_share_is_left_before_the_market_or_its_closing_auction_begins_to_close(
    group: Databases, tmp_path: Path, auction: bool, minute: int
) -> None:
    day = date(2026, 11, 20)
    async with floor(group, tmp_path, start=ist(day, 14, 55), away=None, share=D("0.01")) as made:
        holds_nothing_overnight(made)
        venue = made.account.venue
        assert isinstance(venue, ZerodhaVenue)
        venue._has_auction = lambda traded: auction  # type: ignore[method-assign]  the sandbox lists no shares' futures
        await made.take(of=INFY, exit_by=ist(day, 15, 0) + timedelta(days=9))
        assert set(made.held()) == {INFY}
        await made.go_to(ist(day, 15, minute - 1))
        await made.engine._protect()
        assert set(made.held()) == {INFY}
        await made.go_to(ist(day, 15, minute))
        await made.engine._protect()
        assert (made.held(), await made.venue_holds()) == ({}, {}), "between two bars, too"


async def test_a_refused_exit_is_tried_again_the_next_minute_and_not_before(group: Databases, tmp_path: Path) -> None:
    async with floor(group, tmp_path, start=ist(MORNING.date(), 15, 10), away=None) as made:
        holds_nothing_overnight(made)
        await made.take(exit_by=MORNING + timedelta(days=9))
        venue = made.account.venue
        assert isinstance(venue, ZerodhaVenue)
        place, stop = venue.place, made.account.stops
        refused = made.refuse_orders(lambda contract, side: side == "SELL")
        await made.go_to(ist(MORNING.date(), 15, 20))
        for _ in range(3):
            await made.engine._leave(ending([made.account], made.now), f" {made.now:%H:%M}")
        assert (refused, made.held(), stop) == ([FUTURE], {FUTURE: LOT}, {})
        venue.place = place  # type: ignore[method-assign]
        await made.engine._leave(ending([made.account], made.now), f" {made.now:%H:%M}")
        assert made.held() == {FUTURE: LOT}
        await made.go_on()
        await made.engine._protect()
        assert made.held() == {}


async def test_what_nobody_took_before_the_close_is_left_at_the_next_opening(group: Databases, tmp_path: Path) -> None:
    async with floor(group, tmp_path, start=ist(MORNING.date(), 15, 10), away=None) as made:
        holds_nothing_overnight(made)
        await made.take(exit_by=MORNING + timedelta(days=9))
        venue = made.account.venue
        assert isinstance(venue, ZerodhaVenue)
        place = venue.place
        made.refuse_orders(lambda contract, side: side == "SELL")
        await made.go_to(ist(MORNING.date(), 15, 25))
        await made.engine._protect()
        assert made.held() == {FUTURE: LOT}
        venue.place = place  # type: ignore[method-assign]
        await made.go_to(ist(MORNING.date(), 15, 35))
        await made.engine._protect()
        assert await made.denials() == ["SESSION_CLOSED"], "after the close, and before the broker takes orders again"
        await made.go_to(ist(MORNING.date(), 16, 30))
        await made.engine._protect()
        assert (made.account.working, made.held()) == ({INDEX}, {FUTURE: LOT}), "an after-market order waits"
        await made.go_to(ist(MORNING.date() + timedelta(days=1), 9, 17))
        await made.engine._settle_open(all_now=True)
        assert (made.held(), await made.venue_holds()) == ({}, {})


async def test_who_may_hold_overnight_does(group: Databases, tmp_path: Path) -> None:
    async with floor(group, tmp_path, start=ist(MORNING.date(), 15, 15), away=None) as made:
        await made.take(exit_by=MORNING + timedelta(days=9))
        await made.go_to(ist(MORNING.date(), 15, 25))
        await made.take("abstain", exit_by=MORNING + timedelta(days=9))
        assert made.held() == {FUTURE: LOT}


async def test_an_entry_that_rests_is_taken_back_when_the_time_comes(group: Databases, tmp_path: Path) -> None:
    async with floor(group, tmp_path, start=ist(MORNING.date(), 15, 10), away=None) as made:
        holds_nothing_overnight(made)
        venue = made.account.venue
        assert isinstance(venue, ZerodhaVenue)
        place = venue.place

        async def far(order: Any, *, reducing: bool = False) -> Any:
            low = made.level(INDEX) * D("0.97") // 1
            return await place(replace(order, order_type="LIMIT", price=low, market_protection=None), reducing=reducing)

        venue.place = far  # type: ignore[method-assign]
        await made.take()
        assert made.account.working == {INDEX}
        await made.go_to(ist(MORNING.date(), 15, 19))
        await made.engine._protect()
        assert made.account.working == {INDEX}
        await made.go_to(ist(MORNING.date(), 15, 20))
        await made.engine._protect()
        assert (made.account.working, made.held()) == (set(), {})
        assert [order.state for order in made.sandbox.exchange.books.orders.values()] == ["CANCELED"]


@pytest.mark.parametrize(
    ("contract", "day", "clock"),
    [
        ("INFY", date(2026, 11, 20), (15, 5)),  # continuous trading ends at 15:15, then the closing auction
        ("ADANIPORTS", date(2026, 11, 20), (15, 15)),  # lists no future here: trades to 15:30
        ("NIFTY26NOVFUT", date(2026, 11, 20), (15, 25)),  # trades to 15:40 since 2026-08-03
        ("NIFTY26NOVFUT", date(2026, 7, 31), (15, 20)),
        ("INFY", date(2026, 7, 31), (15, 15)),  # before there was a closing auction
        ("NIFTY26NOVFUT", date(2026, 11, 8), (19, 5)),  # Muhurat on a Sunday evening, to 19:15
        ("NIFTY26NOVFUT", date(2026, 11, 21), None),
        ("NOBODY", date(2026, 11, 20), None),
    ],
)
async def test_the_times_of_the_specification(
    kite: Replayed, venue: ZerodhaVenue, contract: str, day: date, clock: tuple[int, int] | None
) -> None:
    _, dump = kite.answers["GET", "/instruments"]
    kite.answers["GET", "/instruments"] = 200, dump + b"\n408065,1594,INFY,INFOSYS,0,,0,0.05,1,EQ,NSE,NSE"
    await venue.instruments()
    due = venue.square_off(Symbol(contract), ist(day, 12, 0))
    assert due == (ist(day, *clock) if clock else None)
    await venue.close()


def test_a_market_that_never_closes_is_not_entered_by_who_holds_nothing_overnight() -> None:
    account = portfolio(stakes={STRATEGY: Stake(STRATEGY, D("0.1"), False, True, overnight=False)})
    (entry,) = decide(account, [signal("BTC/USDT", "100")], NOW, SITUATION, NOW)
    assert entry.denial == "SESSION_ENDING: since=ever: this market never closes"


@pytest.mark.parametrize(("ahead", "denied"), [(0, False), (59, False), (60, True)])
async def test_the_market_s_clock_counts_where_it_is_ahead_of_the_bars(
    kite: Replayed, venue: ZerodhaVenue, ahead: int, denied: bool
) -> None:
    """The bar of 15:24 is decided on at 15:25: what is entered then would be left at once."""
    decided = ist(OPEN.astimezone(IST).date(), 15, 24)
    venue.now = lambda: decided + timedelta(seconds=ahead)
    stakes = {STRATEGY: Stake(STRATEGY, D("0.5"), False, True, overnight=False)}
    account = portfolio(venue=venue, broker=venue, stakes=stakes, cash=D(10_000_000))
    said = signal(INDEX_FUTURE, "26000", at=decided)
    situation = replace(SITUATION, instruments=await venue.instruments())
    (entry,) = decide(account, [said], decided, situation, decided)
    assert str(entry.denial).startswith("SESSION_ENDING") == denied
    await venue.close()


async def test_the_books_say_who_holds_nothing_overnight(group: Databases) -> None:
    async with group.group_async(GROUP) as session:
        for strategy, said in (("a", {"overnight": False}), ("b", {})):
            row = {"user_id": "u", "account_id": "a", "capital_fraction": D("0.1"), "changed_by": "t"}
            session.add(Subscription(strategy_id=strategy, **row, **said))
        await session.flush()
        stakes = (await terms(session)).stakes["u", "a"]
    assert {name: stake.overnight for name, stake in stakes.items()} == {"a": False, "b": True}
    await group.aclose()


# --- exits larger than one order may be ------------------------------------------------------------------------------


async def test_a_position_above_the_freeze_quantity_is_left_in_slices_with_tags_of_their_own(
    group: Databases, tmp_path: Path
) -> None:
    """The exchange lowers the freeze quantity while five lots are held, and only its refusal tells."""
    async with floor(group, tmp_path, away=None, share=D("0.8")) as made:
        await made.take()
        assert made.held() == {FUTURE: 5 * LOT}
        assert made.sandbox.kite is not None
        made.sandbox.kite.desk.freeze.learn("NIFTY", 150)
        await made.go_on(31)
        await made.take("abstain")
        assert made.held() == {FUTURE: 5 * LOT}, "refused as a whole, with the text that names the limit"
        await made.go_on()
        await made.take("abstain", exit_by=made.now)
        assert (made.held(), await made.venue_holds()) == ({}, {})
        assert [units for _, side, units in made.at_broker() if side == "sell"] == [2 * LOT, 2 * LOT, LOT]
        async with group.group_async(GROUP) as session:
            exits = (
                await session.scalars(select(Intent).where(Intent.purpose == "exit", Intent.state == "DONE"))
            ).all()
            outcomes = (await session.scalars(select(Outcome))).all()
        tags = {tag_of(each.client_order_id) for each in exits}
        sold = [each for each in made.sandbox.exchange.books.orders.values() if each.side == "SELL" and each.filled]
        assert tags == {each.request.terms["tag"] for each in sold}
        assert (len(tags), len({each.decision_key for each in exits})) == (3, 3)
        assert [outcome.quantity for outcome in outcomes] == [5 * LOT], "one trade, whatever it took to leave it"


async def test_a_slice_that_is_not_filled_ends_the_row_and_nothing_is_sold_twice(
    group: Databases, tmp_path: Path
) -> None:
    async with floor(group, tmp_path, away=None, share=D("0.8")) as made:
        await made.take()
        venue = made.account.venue
        assert isinstance(venue, ZerodhaVenue)
        venue._freeze.learn("NIFTY", 150)
        second = iter([False, True])
        refused = made.refuse_orders(lambda contract, side: side == "SELL" and next(second, False))
        await made.go_on(31)
        await made.take("abstain")
        assert refused == [FUTURE]
        assert [units for _, side, units in made.at_broker() if side == "sell"] == [2 * LOT]
        assert made.held() == await made.venue_holds() == {FUTURE: 3 * LOT}


async def test_a_position_whose_stop_would_be_above_the_freeze_quantity_is_left_in_slices(
    group: Databases, tmp_path: Path
) -> None:
    """No stop of that size is taken on the next day: the ladder ends with leaving, and that is possible."""
    async with floor(group, tmp_path, away=None, share=D("0.8")) as made:
        await made.take()
        venue, (stop,) = made.account.venue, made.account.stops.values()
        assert isinstance(venue, ZerodhaVenue)
        assert stop.quantity == 5 * LOT
        await venue.cancel(stop.client_order_id, stop.contract)
        venue._freeze.learn("NIFTY", 150)
        for _ in range(3):
            await made.go_on()
            await made.take("abstain")
        assert (made.held(), await made.venue_holds()) == ({}, {})
        assert [units for _, side, units in made.at_broker() if side == "sell"] == [2 * LOT, 2 * LOT, LOT]
        async with group.group_async(GROUP) as session:
            codes = await session.scalars(select(Order.reject_code).where(Order.reject_code.is_not(None)))
            assert codes.all() == ["QUANTITY_FREEZE"] * 2, "two stops, and then the exit"
