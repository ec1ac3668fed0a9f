"""One account of a group that does not match, or is not answered for, beside others that do."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest
from aiohttp import web
from sqlalchemy import func, select

from tests.execution.test_decisions import NOW, SITUATION, portfolio, signal
from trading_platform.accounts.users import NewUser, create_user
from trading_platform.execution import reconciliation as reconciliation_module
from trading_platform.execution.decisions import decide
from trading_platform.execution.lease import GroupLease
from trading_platform.execution.portfolio import Holding, Portfolio
from trading_platform.execution.reconciliation import Reconciliation, say
from trading_platform.execution.sender import Sender
from trading_platform.identifiers import AccountId, DatasetId, GroupId, StrategyId, Symbol, UserId
from trading_platform.storage.control import Alert
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import AuditRow
from trading_platform.venues.binance import BinanceVenue
from trading_platform.venues.port import QueryFailedError

GROUP, BTC, ETH = GroupId("g1"), Symbol("BTC/USDT"), Symbol("ETH/USDT")


@dataclass
class Exchange:
    """What each API key owns; a key that is not in it is refused, as one that its owner has deleted."""

    owned: dict[str, dict[str, str]] = field(default_factory=dict)
    open_orders: dict[str, list[str]] = field(default_factory=dict)
    asked: int = 0
    url: str = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.asked += 1
        if request.path.endswith("/time"):
            return web.json_response({"serverTime": 1_709_294_400_000})
        key = request.headers["X-MBX-APIKEY"]
        if key not in self.owned:
            refusal = {"code": -2015, "msg": "Invalid API-key, IP, or permissions for action."}
            return web.json_response(refusal, status=401)
        if request.path.endswith("/openOrders"):
            return web.json_response([{"clientOrderId": name} for name in self.open_orders.get(key, [])])
        rows = [{"asset": asset, "free": amount, "locked": "0"} for asset, amount in self.owned[key].items()]
        return web.json_response({"balances": rows})


@asynccontextmanager
async def exchange(**owned: dict[str, str]) -> AsyncIterator[Exchange]:
    made = Exchange(dict(owned))
    application = web.Application()
    application.router.add_get("/{rest:.*}", made.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield made
    finally:
        await runner.cleanup()


@asynccontextmanager
async def group(
    databases: Databases, market: Exchange, *names: str
) -> AsyncIterator[tuple[Reconciliation, list[Portfolio]]]:
    person = NewUser("a@example.com", "A", "trader", GROUP, "correct horse battery", user_id=UserId("alice"))
    create_user(databases, person, actor="t")
    lease = GroupLease(databases, GROUP, "engine-one")
    assert await lease.acquire()
    accounts = [
        portfolio(user_id=UserId(name), account_id=AccountId(name), venue=BinanceVenue(market.url, name, "secret"))
        for name in names
    ]
    try:
        yield Reconciliation(Sender(databases, lease)), accounts
    finally:
        for account in accounts:
            await account.venue.close()
        await databases.aclose()


async def compare(made: Reconciliation, accounts: list[Portfolio]) -> None:
    await made.compare(accounts, SITUATION.instruments, NOW, NOW.timestamp())


def holds(account: Portfolio, symbol: Symbol, quantity: str) -> None:
    held = Holding(
        symbol, symbol, StrategyId(signal(symbol, "1").strategy_id), Decimal(quantity), Decimal(100), "i", "v", "champion", "g", target=Decimal(110),
        stop=Decimal(95), exit_by=NOW,
    )  # fmt: skip
    account.holdings[held.key] = held


async def test_an_account_whose_key_is_refused_is_set_aside_alone_and_comes_back(platform: Databases) -> None:
    async with exchange(ann={"USDT": "500"}, ben={"USDT": "7"}) as market:
        async with group(platform, market, "ann", "ben", "cyd") as (made, accounts):
            ann, ben, cyd = accounts
            await compare(made, accounts)
            found = made.result(accounts)
            assert [each.set_aside for each in accounts] == [None, None, "the venue does not answer"]
            assert (found.matches, found.nothing_matches, found.set_aside) == (False, False, 1)
            assert (ann.cash, ben.cash) == (500, 7)
            assert "cyd: not compared" in found.differences[0]
            assert "-2015" in found.differences[0]
            assert [each.account_id for each in made.due(accounts)] == []
            market.owned["cyd"] = {"USDT": "3"}
            await compare(made, [cyd])
            assert (cyd.set_aside, cyd.cash) == (None, 3)
            assert made.result(accounts).matches


async def test_what_the_books_have_and_the_venue_does_not_sets_its_account_aside(platform: Databases) -> None:
    async with exchange(ann={"USDT": "500", "BTC": "2"}, ben={"USDT": "500", "BTC": "0.5"}) as market:
        market.open_orders = {"ann": ["mine", "web_1"], "ben": ["tp_0000000000000000000000000000"]}
        async with group(platform, market, "ann", "ben") as (made, accounts):
            ann, ben = accounts
            for account in accounts:
                holds(account, BTC, "1")
            await compare(made, accounts)
            found = made.result(accounts)
            assert (ann.set_aside, ben.set_aside) == (None, "books and venue differ")
            assert found.foreign_orders == 2
            assert found.differences == [
                "ben: 1 BTC held by the books, 0.5 at the venue",
                "ben: order tp_0000000000000000000000000000 works at the venue, but the books have never heard of it",
            ]
            lease = made.sender.lease
            await say(found, platform, lease, DatasetId("d"))
            with platform.control() as session:
                assert session.scalar(select(func.count()).select_from(Alert).where(Alert.resolved_at.is_(None))) == 1
            with platform.group(GROUP) as session:
                assert session.scalars(select(AuditRow.detail)).one() == {"differences": found.differences}


async def test_a_venue_that_answers_for_nobody_is_an_outage(platform: Databases) -> None:
    async with exchange() as market, group(platform, market, "ann", "ben") as (made, accounts):
        await compare(made, accounts)
        with pytest.raises(QueryFailedError):
            made.result(accounts)


async def test_many_accounts_take_turns_and_those_set_aside_come_first(
    platform: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"a{number:02}" for number in range(40)]
    async with exchange(**{name: {"USDT": "1"} for name in names}) as market:
        async with group(platform, market, *names) as (made, accounts):
            assert len(made.due(accounts)) == reconciliation_module.LANES
            await compare(made, accounts)
            clock = [reconciliation_module.time.monotonic()]
            monkeypatch.setattr(reconciliation_module.time, "monotonic", lambda: clock[0])
            accounts[7].set_aside = "books and venue differ"
            clock[0] += reconciliation_module.AGAIN_SECONDS + 1
            assert made.due(accounts) == [accounts[7]]
            clock[0] += reconciliation_module.SECONDS_AN_ACCOUNT * len(names) - 10
            assert made.due(accounts) == [accounts[7]], "forty accounts are not compared every minute"
            clock[0] += 10
            turns = made.due(accounts)
            assert len(turns) == reconciliation_module.LANES
            before = market.asked
            await compare(made, turns)
            assert market.asked - before == 3 * len(turns)
            assert not {each.account_id for each in turns} & {each.account_id for each in made.due(accounts)}


def test_nothing_is_decided_for_an_account_that_is_set_aside() -> None:
    aside: Any = portfolio(set_aside="books and venue differ")
    holds(aside, ETH, "1")
    decisions = decide(aside, [signal(BTC, "100"), signal(ETH, "500")], NOW, SITUATION, NOW)
    assert [(each.purpose, each.denial) for each in decisions] == [
        ("entry", "BOOKS_DIFFER: why=books and venue differ")
    ]
