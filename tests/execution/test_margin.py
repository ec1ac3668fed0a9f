"""Margin before an entry: against a sandbox that keeps its own books of what is blocked, and by the official samples."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from tests.execution.test_decisions import NOW, SITUATION, STRATEGY, SYMBOLS, portfolio, signal
from tests.execution.test_hedges import FUTURE, GROUP, INDEX, LOT, Floor, floor
from tests.execution.test_sender_kite import group
from tests.venues.zerodha.conftest import kite
from tests.venues.zerodha.replayed import Replayed, sample
from tests.venues.zerodha.test_door import SYMBOL
from tests.venues.zerodha.test_leaving import venue
from trading_platform.execution import margin
from trading_platform.execution.breaker_board import BreakerBoard
from trading_platform.execution.breakers import BreakerState
from trading_platform.execution.decisions import Decision, decide
from trading_platform.execution.margin import covered
from trading_platform.execution.portfolio import Portfolio, Stake
from trading_platform.identifiers import AccountId, GroupId, Symbol
from trading_platform.markets.kite_orders import KiteOrder
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import Intent
from trading_platform.venues.port import MarginTold, QueryFailedError, Wanted
from trading_platform.venues.zerodha import questions
from trading_platform.venues.zerodha.orders import Acknowledged
from trading_platform.venues.zerodha.venue import ZerodhaVenue

__all__ = ["group", "kite", "venue"]
D = Decimal
ZERO = D(0)


def free(made: Floor) -> Decimal:
    """The sandbox's own ledger, not what it answers."""
    accounts, key = made.sandbox.exchange.books.accounts.values(), of_zerodha(made).transport.api_key
    return next(each for each in accounts if each.api_key == key).balances["INR"].free


def of_zerodha(made: Floor) -> ZerodhaVenue:
    found = made.account.venue
    assert isinstance(found, ZerodhaVenue)
    return found


async def block_by_hand(made: Floor) -> None:
    """Somebody sells as many calls as the broker lets him: that blocks margin, and the cash that risk goes by grows."""
    venue = of_zerodha(made)
    future = venue.listed(FUTURE)
    assert future is not None
    assert future.expiry is not None
    call = venue._book.chain(future.name, future.expiry).by_moneyness(made.level(INDEX), 0, "CE")
    before = (await venue.balances())["INR"]
    one = (await venue.margin([Wanted(Symbol(call.tradingsymbol), "sell", LOT)], sets=False)).needed
    while lots := min(int(free(made) / one / D("1.001")), 27):
        order = KiteOrder(
            "NFO", call.tradingsymbol, "SELL", lots * int(LOT), "NRML", "MARKET", market_protection=D(-1), tag="HAND"
        )
        assert isinstance(await venue.desk.place(order), Acknowledged)
    assert (await venue.balances())["INR"] > before


async def denials(databases: Databases) -> list[str]:
    async with databases.group_async(GROUP) as session:
        return [str(each) for each in await session.scalars(select(Intent.denial).where(Intent.denial.is_not(None)))]


async def test_what_was_asked_is_what_is_blocked(group: Databases, tmp_path: Path) -> None:
    async with floor(group, tmp_path, away=None) as made:
        told = await of_zerodha(made).margin([Wanted(FUTURE, "buy", LOT)], sets=False)
        before = free(made)
        assert told.available == before
        await made.take()
        assert made.held() == {FUTURE: LOT}
        assert abs(before - free(made) - told.needed) < told.needed * margin.HEADROOM, "price, protection, charges"


async def test_an_entry_that_is_not_covered_stays_and_an_exit_goes(group: Databases, tmp_path: Path) -> None:
    async with floor(group, tmp_path, away=None) as made:
        await made.take()
        assert made.held() == {FUTURE: LOT}
        await block_by_hand(made)
        await made.go_on(31)
        await made.take("abstain")
        assert made.held() == {}, "an exit is not asked about"
        await block_by_hand(made)
        await made.go_on()
        told, left, orders = (
            await of_zerodha(made).margin([Wanted(FUTURE, "buy", LOT)], sets=False), free(made), len(made.at_broker()),
        )  # fmt: skip
        assert told.needed > left > 0
        await made.take()
        needed = told.needed * D("1.02")
        assert await denials(group) == [f"MARGIN_SHORT: needed={needed:.2f} available={left:.2f}"]
        assert len(made.at_broker()) == orders


@pytest.mark.parametrize("route", ["POST /margins/orders", "GET /user/margins"])
async def test_a_question_without_an_answer_keeps_an_entry_back_and_no_exit(
    group: Databases, tmp_path: Path, route: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions, "PAUSES", (0.01, 0.01))
    async with floor(group, tmp_path, away=None) as made:
        assert made.sandbox.kite is not None
        broken = {"door": "kite", "kind": "server_error", "route": route, "times": 3}
        made.sandbox.kite.mischief.faults.inject([broken])
        await made.take()
        (denial,) = await denials(group)
        assert denial.startswith("MARGIN_UNKNOWN: why=Zerodha did not answer")
        assert made.at_broker() == []
        await made.go_on()
        await made.take()
        assert made.held() == {FUTURE: LOT}, "the next signal asks again"
        made.sandbox.kite.mischief.faults.inject([broken | {"times": 0}])
        await made.go_on(31)
        await made.take("abstain")
        assert made.held() == {}


async def test_a_hedged_entry_is_asked_about_as_a_basket_and_buys_no_put_that_it_cannot_follow(
    group: Databases, tmp_path: Path
) -> None:
    async with floor(group, tmp_path) as made:
        venue = of_zerodha(made)
        asked: list[tuple[list[Wanted], bool]] = []
        margin_of = venue.margin

        async def noted(orders: Sequence[Wanted], *, sets: bool) -> MarginTold:
            asked.append((list(orders), sets))
            told = await margin_of(orders, sets=sets)
            return replace(told, available=told.needed * D("1.0199"))

        venue.margin = noted  # type: ignore[method-assign]
        await made.take()
        (((put, future), sets),) = asked
        assert (put.contract[-2:], future.contract, put.quantity, sets) == ("PE", FUTURE, LOT, True)
        assert (made.at_broker(), [each.partition(":")[0] for each in await denials(group)]) == ([], ["MARGIN_SHORT"])


# --- which entries are asked about, and how they share what there is ------------------------------------------------------


@dataclass
class Told:
    """A broker in the place of the venue's other side: what each contract needs, and what there is."""

    each: dict[str, Decimal] = field(default_factory=dict)
    available: Decimal = ZERO
    benefit: Decimal = ZERO
    trouble: Exception | None = None
    meet: asyncio.Barrier | None = None
    asked: list[list[Symbol]] = field(default_factory=list)
    now: Any = None
    bans: Any = None

    async def margin(self, orders: Sequence[Wanted], *, sets: bool) -> MarginTold:
        self.asked.append([order.contract for order in orders])
        if self.meet is not None:
            await self.meet.wait()
        if self.trouble is not None:
            raise self.trouble
        alone = tuple(self.each[order.contract] for order in orders)
        return MarginTold(sum(alone, D(0)) - self.benefit, alone, self.available)


@dataclass
class Listing:
    """What is listed as a derivative; all else comes from the venue that is only asked what it trades a symbol as."""

    derivatives: tuple[str, ...]

    def __getattr__(self, name: str) -> Any:
        return getattr(portfolio().venue, name)

    def listed(self, contract: Symbol) -> Any:
        return type("C", (), {"is_derivative": contract in self.derivatives})


def account(broker: Told | None, *derivatives: str, name: str = "one") -> Portfolio:
    stakes = {STRATEGY: Stake(STRATEGY, D("0.1"), False, True)}
    return portfolio(
        account_id=AccountId(name), venue=Listing(derivatives), broker=broker, stakes=stakes, cash=D(10_000)
    )


def entries(*accounts: Portfolio) -> list[Decision]:
    signals = [signal(symbol, "100") for symbol in SYMBOLS]
    return [each for one in accounts for each in decide(one, signals, NOW, SITUATION, NOW)]


def codes(decisions: Sequence[Decision]) -> list[str | None]:
    return [each.denial and each.denial.partition(":")[0] for each in decisions]


BTC, ETH, XRP = SYMBOLS


@pytest.mark.parametrize(
    ("derivatives", "available", "found"),
    [
        ((BTC,), "306", [None] * 3),  # 300 and 2 % on top
        ((BTC,), "305.99", [None] * 3),  # the future comes first, and shares are paid from cash
        ((XRP,), "305.99", [None, None, "MARGIN_SHORT"]),
        ((BTC, ETH, XRP), "204", [None, None, "MARGIN_SHORT"]),
        ((BTC, ETH, XRP), "203.99", [None, "MARGIN_SHORT", "MARGIN_SHORT"]),
        ((BTC, ETH, XRP), "0", ["MARGIN_SHORT"] * 3),
    ],
)
async def test_the_entries_of_a_step_share_what_there_is_in_their_order(
    derivatives: tuple[str, ...], available: str, found: list[str | None]
) -> None:
    broker = Told(dict.fromkeys(SYMBOLS, D(100)), D(available))
    assert codes(await covered(entries(account(broker, *derivatives)), NOW)) == found
    assert broker.asked == [list(SYMBOLS)], "one question for all"


async def test_the_benefit_of_a_set_counts() -> None:
    broker = Told(dict.fromkeys(SYMBOLS, D(100)), D("244.80"), benefit=D(60))
    assert codes(await covered(entries(account(broker, *SYMBOLS)), NOW)) == [None] * 3
    (only,) = await covered(entries(account(broker, *SYMBOLS))[:1], NOW)
    assert only.denial is None


async def test_nobody_is_asked_where_no_derivative_is_entered() -> None:
    broker = Told()
    coins, shares = account(None, *SYMBOLS, name="coins"), account(broker, name="shares")
    decided = entries(coins, shares)
    assert await covered(decided, NOW) == decided
    denied = [replace(each, denial="HALT_ACTIVE: scope=platform") for each in entries(account(broker, *SYMBOLS))]
    leaving = [replace(each, purpose="exit") for each in entries(account(broker, *SYMBOLS))]
    assert await covered([*denied, *leaving], NOW) == [*denied, *leaving]
    assert broker.asked == []


async def test_accounts_are_asked_at_the_same_time() -> None:
    meet = asyncio.Barrier(3)
    accounts = [
        account(Told(dict.fromkeys(SYMBOLS, D(1)), D(10), meet=meet), *SYMBOLS, name=str(number)) for number in range(3)
    ]
    async with asyncio.timeout(margin.ANSWER_WITHIN_SECONDS / 2):
        assert codes(await covered(entries(*accounts), NOW)) == [None] * 9


async def test_silence_denies_derivatives_alone_and_one_account_s_trouble_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(margin, "ANSWER_WITHIN_SECONDS", 0.05)
    silent = account(Told(dict.fromkeys(SYMBOLS, D(1)), D(10), meet=asyncio.Barrier(2)), BTC, name="silent")
    lost = account(Told(trouble=QueryFailedError("AUTH_REQUIRED")), ETH, name="lost")
    fine = account(Told(dict.fromkeys(SYMBOLS, D(1)), D(10)), *SYMBOLS, name="fine")
    found = await covered(entries(silent, lost, fine), NOW)
    assert codes(found) == ["MARGIN_UNKNOWN", None, None, None, "MARGIN_UNKNOWN", None, None, None, None]
    assert found[4].denial == "MARGIN_UNKNOWN: why=AUTH_REQUIRED"


async def test_what_is_kept_back_is_no_probe_of_a_venue_that_is_tried_again() -> None:
    """A breaker lets three entries through to see. Denied, they would prove nothing, and it would wait for ever."""
    board = BreakerBoard(GroupId("g1"))
    watch = board.venue("one")
    watch.breaker = watch.breaker.open("no answers", NOW, timedelta(seconds=15))
    later = NOW + timedelta(seconds=15)
    situation = replace(
        SITUATION, breaker=lambda portfolio, symbol: board.blocks(portfolio.account_id, "zerodha", symbol, later)
    )
    broker = Told(trouble=QueryFailedError("silence"))
    signals = [signal(symbol, "100") for symbol in SYMBOLS]
    for _ in range(2):
        decided = decide(account(broker, *SYMBOLS), signals, NOW, situation, NOW)
        assert codes(decided) == [None] * 3
        assert codes(await covered(decided, NOW, board.kept_back)) == ["MARGIN_UNKNOWN"] * 3
    for _ in range(3):
        watch.on_call(answered=True, seconds=0.1, is_order=True, now=later)
    assert watch.breaker.state is BreakerState.CLOSED


# --- the broker's own samples ----------------------------------------------------------------------------------------


async def test_the_official_samples(kite: Replayed, venue: ZerodhaVenue) -> None:
    share = Wanted(SYMBOL, "buy", D(1))
    told = await venue.margin([share], sets=False)
    assert told == MarginTold(D(1498), (D(1498),), D("99725.05000000002"))
    assert sorted(asked.path for asked in kite.asked) == ["/margins/orders", "/user/margins"]
    told = await venue.margin([share, share], sets=True)
    basket = sample("basket_margins")
    assert told.needed == D(str(basket["final"]["total"]))
    assert told.alone == tuple(D(str(order["total"])) for order in basket["orders"])
    assert told.needed < sum(told.alone, D(0)), "legs that protect each other block less"
    assert [asked.query for asked in kite.asked if asked.path == "/margins/basket"] == [
        [("consider_positions", "false")]
    ]
    with pytest.raises(QueryFailedError, match="1 orders of 2"):
        await venue.margin([share, share], sets=False)
    with pytest.raises(QueryFailedError, match="no margin can be asked for NOBODY"):
        await venue.margin([Wanted(Symbol("NOBODY"), "buy", D(1))], sets=False)
    await venue.close()
