"""Bull call spreads by the engine's own step, on real books and at the sandbox's Kite door: never more sold than bought."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, time, timedelta
from decimal import Decimal
from itertools import accumulate
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from tests.execution.test_decisions import SITUATION, STRATEGY, VENUE, portfolio, signal
from tests.execution.test_hedges import FUTURE, INDEX, LOT, MORNING, PLENTY, Floor, floor
from tests.execution.test_sender_kite import GROUP, PLACE, group
from trading_platform.execution.accounts import terms
from trading_platform.execution.breaker_board import BreakerBoard
from trading_platform.execution.decisions import decide
from trading_platform.execution.leg_orders import LegOrders
from trading_platform.execution.portfolio import BOUGHT, SOLD, Stake
from trading_platform.execution.reconciliation import compare
from trading_platform.execution.spreads import SpreadKeeper
from trading_platform.execution.watched_venue import WatchedVenue
from trading_platform.identifiers import ClientOrderId, Symbol
from trading_platform.markets.contracts import Contract
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import Intent, Outcome, Position, Subscription
from trading_platform.venues.port import Accepted, Side
from trading_platform.venues.zerodha.venue import ZerodhaVenue

__all__ = ["group"]
D = Decimal
IST = ZoneInfo("Asia/Kolkata")
AWAY = D("0.005")


@asynccontextmanager
async def spread_floor(
    databases: Databases, folder: Path, *, lots: int = 1, start: datetime = MORNING
) -> AsyncIterator[Floor]:
    async with floor(databases, folder, start, away=None, share=D("0.17") * lots, spread=AWAY) as made:
        yield made
        assert_never_bare(made)


def assert_never_bare(made: Floor) -> None:
    """By the exchange's own tape: at no moment was more sold than was bought, nor anything sold twice."""
    units = [quantity if side == "buy" else -quantity for _, side, quantity in made.at_broker()]
    assert all(together >= 0 for together in accumulate(units)), made.at_broker()


def strike(call: str) -> Decimal:
    assert call.endswith("CE")
    return D(call.removeprefix("NIFTY26JUL").removesuffix("CE"))


def steps(made: Floor, bought: str, sold: str) -> list[tuple[str, str, Decimal]]:
    names = {bought: BOUGHT, sold: SOLD}
    return [(names[contract], side, units / LOT) for contract, side, units in made.at_broker()]


def calls(made: Floor) -> tuple[Symbol, Symbol]:
    venue = made.account.venue
    assert isinstance(venue, ZerodhaVenue)
    price = made.level(INDEX)
    names = venue.spread_for(INDEX, made.now, price, price * (1 + AWAY))
    assert names is not None
    return names


def equity_at_exchange(made: Floor) -> Decimal:
    """From the exchange's own ledger: money, and what positions have gained since they were opened."""
    venue = made.account.venue
    assert isinstance(venue, ZerodhaVenue)
    account = made.sandbox.exchange.books.by_key[venue.transport.api_key]
    rupees = account.balance("INR")
    gained = sum(
        (each.units * (made.sandbox.exchange.markets[each.symbol].last or D(0)) - each.cost for each in account.positions.values()),
        D(0),
    )  # fmt: skip
    return rupees.free + rupees.locked + gained


async def equity_of(made: Floor) -> Decimal:
    """As the platform counts it: cash that the venue tells, and holdings at the exchange's last prices."""
    cash = (await made.account.venue.balances())["INR"]
    for held in made.account.holdings.values():
        made.account.prices[held.priced_by] = made.sandbox.exchange.markets[held.contract].last or D(0)
    return cash + made.account.holdings_value


async def die_after(made: Floor, orders: int, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Kill the engine once so many orders are at the broker, before it has heard of the last one."""
    venue, sent = made.account.venue, Counter[str]()
    place = venue.place_market

    async def fatal(*args: Any, **named: Any) -> Any:
        answer = await place(*args, **named)
        sent["orders"] += 1
        if sent["orders"] == orders:
            raise ConnectionError(f"killed after order {orders}")
        return answer

    monkeypatch.setattr(venue, "place_market", fatal)
    return sent


async def succeed(made: Floor) -> None:
    """What an engine that takes over does before it trades: books, unfinished orders, then what is left of sets."""
    await made.restart()
    await made.engine._settle_open(all_now=True)
    made.engine.market_time = made.now
    await made.engine._protect()


# --- entering --------------------------------------------------------------------------------------------------------


async def test_the_bought_call_goes_first_and_the_sold_one_comes_back_first(group: Databases, tmp_path: Path) -> None:
    async with spread_floor(group, tmp_path) as made:
        before = equity_at_exchange(made)
        entry = await made.take()
        (bought, *_), (sold, *_) = made.at_broker()
        assert steps(made, bought, sold) == [(BOUGHT, "buy", 1), (SOLD, "sell", 1)]
        assert abs(strike(bought) - entry.price) <= 25, "the strike nearest to the market"
        assert abs(strike(sold) - entry.price * (1 + AWAY)) <= 25, "and the one nearest to the level"
        assert made.held() == await made.venue_holds() == {bought: LOT, sold: -LOT}
        assert compare(made.account, await made.account.venue.balances(), made.engine.instruments) == []
        assert await equity_of(made) == equity_at_exchange(made)
        assert made.account.stops == {}, "no stop may sell the bought call under the sold one"

        await made.go_on()
        await made.take("ok")
        assert made.held() == {bought: LOT, sold: -LOT}, "one position: another signal does not enter it again"
        assert await equity_of(made) == equity_at_exchange(made)
        await made.restart()
        await made.go_on()
        await made.take("abstain")
        assert made.held() == {bought: LOT, sold: -LOT}, "whoever takes over knows what belongs together"

        await made.go_on(30)
        await made.take("abstain")
        assert steps(made, bought, sold)[2:] == [(SOLD, "buy", 1), (BOUGHT, "sell", 1)]
        assert (made.held(), await made.venue_holds()) == ({}, {})
        async with group.group_async(GROUP) as session:
            outcomes = {row.contract: row for row in await session.scalars(select(Outcome))}
            positions = (await session.scalars(select(Position.quantity))).all()
        assert {name: (row.arm, row.quantity, row.exit_reason) for name, row in outcomes.items()} == {
            bought: (BOUGHT, LOT, "time"), sold: (SOLD, -LOT, "time")
        }  # fmt: skip
        assert set(positions) == {D(0)}
        fills = {(o.request.symbol, o.request.side): o for o in made.sandbox.exchange.books.orders.values()}
        paid = {key: sum(trade.price * trade.quantity for trade in order.trades) for key, order in fills.items()}
        gross = paid[sold, "SELL"] - paid[sold, "BUY"] + paid[bought, "SELL"] - paid[bought, "BUY"]
        assert sum(row.gross_pnl for row in outcomes.values()) == gross
        assert equity_at_exchange(made) - before == gross


async def test_as_much_is_sold_as_was_bought(group: Databases, tmp_path: Path) -> None:
    """Two lots are wanted, and one of the bought call is to be had before its order ends."""
    async with spread_floor(group, tmp_path, lots=2) as made:
        bought, sold = calls(made)
        made.fill_one_lot(lambda contract, side: contract == bought and side == "BUY")
        await made.take()
        assert made.held() == await made.venue_holds() == {bought: LOT, sold: -LOT}


async def test_what_is_sold_in_part_leaves_no_more_bought_than_that(group: Databases, tmp_path: Path) -> None:
    async with spread_floor(group, tmp_path, lots=2) as made:
        bought, sold = calls(made)
        made.fill_one_lot(lambda contract, side: contract == sold and side == "SELL")
        await made.take()
        assert steps(made, bought, sold) == [(BOUGHT, "buy", 2), (SOLD, "sell", 1), (BOUGHT, "sell", 1)]
        assert made.held() == await made.venue_holds() == {bought: LOT, sold: -LOT}


async def test_a_sold_call_that_is_refused_leaves_nothing_behind(group: Databases, tmp_path: Path) -> None:
    async with spread_floor(group, tmp_path) as made:
        bought, sold = calls(made)
        refused = made.refuse_orders(lambda contract, side: contract == sold)
        await made.take()
        assert refused == [sold]
        assert steps(made, bought, sold) == [(BOUGHT, "buy", 1), (BOUGHT, "sell", 1)], "in the same step"
        assert (made.held(), await made.venue_holds()) == ({}, {})


async def test_the_sold_call_waits_for_the_bought_one_and_for_nothing_else(
    group: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with spread_floor(group, tmp_path) as made:
        bought, sold = calls(made)
        with monkeypatch.context() as patched:
            patched.setattr(made.engine.spreads, "follow", _nothing)
            await made.take()
        for asked_for in (INDEX, sold):
            made.account.working = {asked_for}
            await made.engine._protect()
            assert made.held() == {bought: LOT}, "its order may fill more of it, or may be the sold one"
        made.account.working = {Symbol("SBIN")}
        await made.engine._protect()
        assert made.held() == {bought: LOT, sold: -LOT}


async def _nothing(*_: Any) -> None:
    """As if the engine had not come so far yet."""


async def test_a_sold_call_that_rests_is_taken_back_with_its_bar(group: Databases, tmp_path: Path) -> None:
    async with spread_floor(group, tmp_path) as made:
        venue, (bought, sold) = made.account.venue, calls(made)
        assert isinstance(venue, ZerodhaVenue)
        place, high = venue.place, (made.level(sold) * D("1.3")).quantize(D("0.1"))

        async def far(order: Any, *, reducing: bool = False) -> Any:
            if order.tradingsymbol == sold:
                order = replace(order, order_type="LIMIT", price=high, market_protection=None)
            return await place(order, reducing=reducing)

        venue.place = far  # type: ignore[method-assign]
        await made.take()
        assert (made.held(), made.account.working) == ({bought: LOT}, {sold})
        await made.go_on()
        await made.take("abstain")
        assert (made.held(), await made.venue_holds(), made.account.working) == ({}, {}, set())
        assert await venue.open_client_order_ids() == set()


async def test_a_halt_between_the_legs_keeps_the_sold_one_back(group: Databases, tmp_path: Path) -> None:
    """Selling is an entry as far as halts go; unwinding is none."""
    async with spread_floor(group, tmp_path) as made:
        bought, sold = calls(made)
        follow, situation = made.engine.spreads.follow, made.engine.directives.situation
        halted = replace(situation, halted=lambda portfolio: "account")
        made.engine.spreads.follow = lambda portfolios, _, *rest: follow(portfolios, halted, *rest)  # type: ignore[method-assign]
        await made.take()
        assert steps(made, bought, sold) == [(BOUGHT, "buy", 1), (BOUGHT, "sell", 1)]
        assert await made.denials() == ["HALT_ACTIVE"]


async def test_a_spread_that_is_not_to_be_had_is_a_denial(group: Databases, tmp_path: Path) -> None:
    async with spread_floor(group, tmp_path) as made:
        legs, quotes = made.engine.spreads.orders, made.engine.spreads.orders.quotes
        sold = calls(made)[1]

        async def no_bid(portfolio: Any, contracts: Any) -> dict[Symbol, Any]:
            found = dict(await quotes(portfolio, contracts))
            return found | {sold: replace(found[sold], bid=D(0))}

        legs.quotes = no_bid  # type: ignore[method-assign,assignment]
        await made.take()
        legs.quotes = quotes  # type: ignore[method-assign]
        await made.go_on()
        made.account.venue.spread_for = lambda *_: None  # type: ignore[attr-defined]
        await made.take()
        assert await made.denials() == ["LEG_UNAVAILABLE"] * 2
        assert made.at_broker() == []


async def test_a_sold_call_that_would_be_denied_keeps_the_bought_one_back(group: Databases, tmp_path: Path) -> None:
    """One position more is allowed, and a spread is two: nothing is bought only to be unwound."""
    async with spread_floor(group, tmp_path) as made:
        made.account.limits = replace(PLENTY, max_open_positions=1)
        await made.take()
        assert (made.at_broker(), await made.denials()) == ([], ["LEG_UNAVAILABLE"])
        made.account.limits = replace(PLENTY, max_open_positions=2)
        await made.go_on()
        await made.take()
        assert sorted(made.held().values()) == [-LOT, LOT]


@pytest.mark.parametrize("watched", [False, True])
async def test_spot_is_never_sold_short_for_a_spread(watched: bool) -> None:
    """A venue without contracts has no legs: the entry stays what it was, and is denied before anything is sent."""
    venue = WatchedVenue(VENUE, BreakerBoard(GROUP).venue("paper_1")) if watched else VENUE
    stakes = {STRATEGY: Stake(STRATEGY, D("0.1"), False, True, spread_away=AWAY)}
    account, said = portfolio(stakes=stakes, venue=venue), signal("BTC/USDT", "100")
    counts = SITUATION.exposures([account], said.available_at)
    decisions = decide(account, [said], said.available_at, SITUATION, said.available_at, counts)
    keeper = SpreadKeeper(LegOrders(None, None, None))  # type: ignore[arg-type]  # nobody is asked
    (led,) = await keeper.lead(decisions, SITUATION, counts, said.available_at, said.available_at)
    assert (led.side, str(led.denial).partition(":")[0]) == ("buy", "LEG_UNAVAILABLE")


async def test_a_watched_venue_has_the_spreads_of_its_own(group: Databases, tmp_path: Path) -> None:
    async with spread_floor(group, tmp_path) as made:
        watched = WatchedVenue(made.account.venue, made.engine.breakers.venue("paper_1"))
        price = made.level(INDEX)
        assert watched.spread_for(INDEX, made.now, price, price * (1 + AWAY)) == calls(made)
        made.account.venue = watched
        await made.take()
        assert sorted(made.held().values()) == [-LOT, LOT]


async def test_a_subscription_asks_for_a_hedge_or_a_spread_and_never_for_both(group: Databases) -> None:
    row = {"user_id": "u", "account_id": "a", "capital_fraction": D("0.1"), "changed_by": "u"}
    async with group.group_async(GROUP) as session:
        session.add(Subscription(**row, strategy_id="s", spread_away=AWAY))
        session.add(Subscription(**row, strategy_id="h", hedge_away=AWAY))
    async with group.group_async(GROUP) as session:
        stakes = (await terms(session)).stakes["u", "a"]
    assert {name: (each.hedge_away, each.spread_away) for name, each in stakes.items()} == {
        "s": (None, AWAY),
        "h": (AWAY, None),
    }
    with pytest.raises(IntegrityError, match="ck_subscriptions_hedge_or_spread"):
        async with group.group_async(GROUP) as session:
            session.add(Subscription(**row, strategy_id="b", hedge_away=AWAY, spread_away=AWAY))


# --- being killed ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orders", [1, 2, 3, 4])
async def test_who_dies_after_any_order_is_succeeded_by_one_who_goes_on_from_the_books(
    group: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, orders: int
) -> None:
    """Bought, sold, bought back, sold: the order is at the broker, and the engine that sent it never heard of it."""
    async with spread_floor(group, tmp_path) as made:
        bought, sold = calls(made)
        sent = await die_after(made, orders, monkeypatch)
        lives = 1
        for state, minutes in (("ok", 0), ("abstain", 31), ("abstain", 1)):
            await made.go_on(minutes) if minutes else None
            try:
                await made.take(state)
            except ConnectionError:
                lives += 1
                await succeed(made)
            assert await made.venue_holds() == made.held()
            if state == "ok":
                assert made.held() == {bought: LOT, sold: -LOT}, "completed, not begun anew"
        assert (made.held(), sent["orders"], lives) == ({}, 4, 2)
        assert steps(made, bought, sold) == [
            (BOUGHT, "buy", 1), (SOLD, "sell", 1), (SOLD, "buy", 1), (BOUGHT, "sell", 1)
        ]  # fmt: skip


async def test_a_bought_call_that_is_found_too_late_is_unwound(
    group: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with spread_floor(group, tmp_path) as made:
        bought, sold = calls(made)
        await die_after(made, 1, monkeypatch)
        with pytest.raises(ConnectionError):
            await made.take()
        await made.go_on(2)  # the signal has run out
        made.engine.scored_through = made.now
        await succeed(made)
        assert steps(made, bought, sold) == [(BOUGHT, "buy", 1), (BOUGHT, "sell", 1)]
        assert await made.denials() == ["SIGNAL_STALE"]


async def test_a_sold_call_whose_fate_is_unknown_keeps_the_bought_one_where_it_is(
    group: Databases, tmp_path: Path
) -> None:
    async with spread_floor(group, tmp_path) as made:
        bought, sold = calls(made)
        place, fault = (
            made.account.venue.place_market,
            {"kind": "timeout_after_acceptance", "route": PLACE, "seconds": 3},
        )

        async def faulty(client_order_id: Any, contract: Symbol, *args: Any, **named: Any) -> Any:
            if contract == sold and made.sandbox.kite is not None:
                made.sandbox.kite.mischief.faults.inject([{"door": "kite", **fault}])
            return await place(client_order_id, contract, *args, **named)

        made.account.venue.place_market = faulty  # type: ignore[method-assign]
        await made.take()
        assert made.held() == {bought: LOT}, "which may be what a sold call stands on"
        assert sold in made.account.unknown
        exits = await made.engine.spreads.make_way(
            decide(made.account, [signal(INDEX, "1", at=made.now)], made.now, made.engine.directives.situation, made.now),
            made.engine.directives.situation, made.now, 0.0,
        )  # fmt: skip
        assert exits == [], "nor is it left by a barrier"
        await made.engine._settle_open(all_now=True)
        await made.engine._protect()
        assert made.held() == await made.venue_holds() == {bought: LOT, sold: -LOT}


async def test_a_sold_call_that_was_written_and_never_sent_holds_the_bought_one(
    group: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the day nothing proves at Kite that it will not turn up: it is not sent again, and nothing is left under it."""
    async with spread_floor(group, tmp_path) as made:
        (bought, sold), place = calls(made), made.account.venue.place_market

        async def dies(name: Any, contract: Symbol, *rest: Any, **named: Any) -> Any:
            if contract == sold:
                raise ConnectionError("killed before the order was sent")
            return await place(name, contract, *rest, **named)

        with monkeypatch.context() as patched:
            patched.setattr(made.account.venue, "place_market", dies)
            with pytest.raises(ConnectionError):
                await made.take()
        await succeed(made)
        await made.go_on(31)
        await made.take("abstain")
        assert made.account.unknown == {sold}
        assert made.held() == await made.venue_holds() == {bought: LOT}


# --- leaving ---------------------------------------------------------------------------------------------------------


async def test_the_bought_call_stays_until_the_sold_one_is_back(group: Databases, tmp_path: Path) -> None:
    async with spread_floor(group, tmp_path) as made:
        bought, sold = calls(made)
        await made.take()
        place = made.account.venue.place
        refused = made.refuse_orders(lambda contract, side: contract == sold and side == "BUY")
        await made.go_on(31)
        await made.take("abstain")
        assert refused == [sold]
        assert made.held() == {bought: LOT, sold: -LOT}
        made.account.venue.place = place  # type: ignore[attr-defined]
        await made.go_on()
        await made.take("abstain")
        assert steps(made, bought, sold)[2:] == [(SOLD, "buy", 1), (BOUGHT, "sell", 1)]


async def test_what_is_back_in_part_lets_as_much_go(group: Databases, tmp_path: Path) -> None:
    async with spread_floor(group, tmp_path, lots=2) as made:
        bought, sold = calls(made)
        await made.take()
        assert made.held() == {bought: 2 * LOT, sold: -2 * LOT}
        made.fill_one_lot(lambda contract, side: contract == sold and side == "BUY")
        await made.go_on(31)
        await made.take("abstain")
        assert made.held() == await made.venue_holds() == {bought: LOT, sold: -LOT}
        await made.go_on()
        await made.take("abstain")
        assert (made.held(), await made.venue_holds()) == ({}, {})


async def test_a_halt_that_flattens_leaves_both_legs_in_order(group: Databases, tmp_path: Path) -> None:
    async with spread_floor(group, tmp_path) as made:
        bought, sold = calls(made)
        await made.take()
        situation = replace(made.engine.directives.situation, leaving=lambda portfolio: True)
        made.engine.directives._situation = situation
        await made.engine._flatten()
        assert steps(made, bought, sold)[2:] == [(SOLD, "buy", 1), (BOUGHT, "sell", 1)]
        assert (made.held(), await made.venue_holds()) == ({}, {})


async def test_what_somebody_bought_back_by_hand_is_not_bought_back_again(group: Databases, tmp_path: Path) -> None:
    """The books say one short, the venue none: it is a difference, and a flatten sells the bought call alone."""
    async with spread_floor(group, tmp_path) as made:
        bought, sold = calls(made)
        await made.take()
        venue, by_hand = made.account.venue, "tp_by_hand"
        answer = await venue.place_market(by_hand, sold, "buy", LOT, made.now, reducing=True)  # type: ignore[arg-type]
        assert isinstance(answer, Accepted)
        assert await made.venue_holds() == {bought: LOT}
        (line,) = compare(made.account, await venue.balances(), made.engine.instruments)
        assert f"-65 {sold} held by the books, 0 at the venue" in line
        situation = replace(made.engine.directives.situation, leaving=lambda portfolio: True)
        made.engine.directives._situation = situation
        await made.engine._flatten()
        assert await made.venue_holds() == {}
        assert made.held() == {sold: -LOT}, "what the books have wrong a person puts right"


async def test_a_spread_that_ends_today_is_left_ahead_of_the_broker(group: Databases, tmp_path: Path) -> None:
    afternoon = MORNING.replace(hour=14, minute=30)
    async with spread_floor(group, tmp_path, start=afternoon) as made:
        later, (bought, sold) = made.now + timedelta(days=9), calls(made)
        await made.take(exit_by=later)
        legs, listed = made.held(), made.account.venue.listed

        def ending(name: Symbol) -> Contract | None:
            contract = listed(name)
            return replace(contract, expiry=afternoon.date()) if contract else None

        made.account.venue.listed = ending  # type: ignore[method-assign]  as on its last day
        for moment, still in ((time(15, 4), True), (time(15, 6), False)):
            await made.go_to(datetime.combine(afternoon.date(), moment, IST))
            await made.take("abstain", exit_by=later)
            assert (made.held() == legs) == still, f"{moment} IST"
        assert steps(made, bought, sold)[2:] == [(SOLD, "buy", 1), (BOUGHT, "sell", 1)]
        assert (made.held(), await made.venue_holds()) == ({}, {})


async def test_the_trail_knows_every_leg_as_an_intent(group: Databases, tmp_path: Path) -> None:
    async with spread_floor(group, tmp_path) as made:
        await made.take()
        async with group.group_async(GROUP) as session:
            rows = (await session.scalars(select(Intent).order_by(Intent.created_at))).all()
        assert [(row.arm, row.purpose, row.side, row.signal_id) for row in rows] == [
            (BOUGHT, "entry", "buy", rows[0].signal_id), (SOLD, "entry", "sell", rows[0].signal_id)
        ]  # fmt: skip
        assert (rows[0].symbol, rows[1].symbol) == (INDEX, rows[1].contract)


# --- the account's money ---------------------------------------------------------------------------------------------


async def test_cash_and_holdings_are_the_accounts_equity_whatever_is_held(group: Databases, tmp_path: Path) -> None:
    """Long and short options and futures: when they are traded, after the market has moved, on the next day, half left."""
    async with floor(group, tmp_path, MORNING.replace(hour=15, minute=20), away=None) as made:
        venue, (call, higher) = made.account.venue, calls(made)
        put = venue.hedge_for(INDEX, made.now, made.level(INDEX))
        assert put is not None
        positions: dict[Symbol, Side] = {call: "buy", higher: "sell", put: "buy", FUTURE: "sell"}

        async def trade(contract: Symbol, side: Side, quantity: Decimal) -> None:
            name = ClientOrderId(f"tp_{contract}_{quantity}")
            answer = await venue.place_market(name, contract, side, quantity, made.now)
            assert isinstance(answer, Accepted), answer
            assert answer.state == "FILLED"

        async def check(lots: int) -> None:
            balances = await venue.balances()
            held = {name: lots * LOT * (1 if side == "buy" else -1) for name, side in positions.items()}
            assert {name: units for name, units in balances.items() if name != "INR"} == held
            worth = sum(units * (made.sandbox.exchange.markets[name].last or D(0)) for name, units in held.items())
            assert abs(balances["INR"] + worth - equity_at_exchange(made)) < D("0.01")

        for contract, side in positions.items():
            await trade(contract, side, 2 * LOT)
        await check(2)
        await made.go_on(3)
        await check(2)
        await made.go_to(made.now + timedelta(hours=18))
        await check(2)
        for contract, side in positions.items():
            await trade(contract, "sell" if side == "buy" else "buy", LOT)
        await check(1)
