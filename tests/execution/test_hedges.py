"""Hedged entries by the engine's own step, on real books and at the sandbox's Kite door: the put first, and never alone."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import select

from tests.execution.test_decisions import STRATEGY, portfolio, signal
from tests.execution.test_sender_kite import GROUP, PLACE, group
from trading_platform.execution.engine import Engine
from trading_platform.execution.limits import Limits
from trading_platform.execution.portfolio import HEDGE, Portfolio, Stake
from trading_platform.execution.reconciliation import compare
from trading_platform.identifiers import DatasetId, Symbol
from trading_platform.sandbox.server import Sandbox
from trading_platform.sandbox.standalone import Wishes, addresses, build
from trading_platform.storage.control import Dataset, ModelVersion, Signal
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import Intent, Outcome
from trading_platform.venues.zerodha.login import open_session
from trading_platform.venues.zerodha.transport import KiteTransport
from trading_platform.venues.zerodha.venue import ZerodhaVenue, tag_of

__all__ = ["group"]
D = Decimal
IST = ZoneInfo("Asia/Kolkata")
INDEX, FUTURE = Symbol("NIFTY 50"), Symbol("NIFTY26JULFUT")
MORNING = datetime(2026, 7, 1, 11, 0, tzinfo=IST)
LAST_DAY = datetime(2026, 7, 28, 14, 30, tzinfo=IST)
PLENTY = Limits(D(50_000_000), D(50_000_000), 8, 10, 500, D(5_000_000))
LOT = D(65)


@dataclass
class SandboxClock:
    """The sandbox's time; nobody is told of anything, since the test moves the market itself."""

    sandbox: Sandbox
    waits: bool = False

    def seconds(self, market_time: datetime) -> float:
        return market_time.timestamp()

    def now(self, market_time: datetime | None) -> datetime:
        return datetime.fromtimestamp(self.sandbox.exchange.now / 1_000, UTC)

    async def done(self, market_time: datetime) -> None:
        pass

    async def close(self) -> None:
        pass


@dataclass
class Floor:
    """An engine that holds its group's lease, with one account, and the exchange that it trades at."""

    databases: Databases
    sandbox: Sandbox
    engine: Engine
    account: Portfolio

    @property
    def now(self) -> datetime:
        return self.engine.clock.now(None)

    def level(self, name: Symbol) -> Decimal:
        return self.sandbox.exchange.markets[FUTURE if name == INDEX else name].last or D(0)

    def refuse_orders(self, of: Callable[[str, str], bool]) -> list[str]:
        """Let the broker refuse, for being far too large, what `of(contract, side)` says; returns what it refused."""
        venue, refused = self.account.venue, list[str]()
        assert isinstance(venue, ZerodhaVenue)
        place = venue.place

        async def picky(order: Any, *, reducing: bool = False) -> Any:
            if of(order.tradingsymbol, order.side):
                refused.append(order.tradingsymbol)
                order = replace(order, quantity=order.quantity * 10_000)
            return await place(order, reducing=reducing)

        venue.place = picky  # type: ignore[method-assign]
        return refused

    def fill_one_lot(self, of: Callable[[str, str], bool]) -> None:
        """Let orders of which `of(contract, side)` says so end with one lot filled, however many were wanted."""
        venue = self.account.venue
        assert isinstance(venue, ZerodhaVenue)
        place = venue.place

        async def thin(order: Any, *, reducing: bool = False) -> Any:
            if not of(order.tradingsymbol, order.side):
                return await place(order, reducing=reducing)
            return replace(await place(replace(order, quantity=int(LOT)), reducing=reducing), state="CANCELLED")

        venue.place = thin  # type: ignore[method-assign]

    async def take(self, state: str = "ok", *, exit_by: datetime | None = None, of: Symbol = INDEX) -> Signal:
        """A bar's signal, through the engine's own step."""
        said = signal(of, str(self.level(of)), state, at=self.now)
        said.available_at, said.seq, said.signal_id = self.now, self.engine.cursor + 1, f"s_{self.now:%d%H%M%S}"
        said.expires_at, said.exit_by = self.now + timedelta(minutes=1), exit_by or self.now + timedelta(minutes=30)
        async with self.databases.control_async() as session:
            await session.merge(said)
        await self.engine.take([said])
        return said

    async def go_on(self, minutes: int = 1) -> None:
        await self.go_to(self.now + timedelta(minutes=minutes))

    async def go_to(self, moment: datetime) -> None:
        await self.sandbox.clock.advance(until=int(moment.timestamp() * 1_000))
        assert await self.engine.lease.acquire(), "the market took its time"

    def at_broker(self) -> list[tuple[str, str, Decimal]]:
        """(contract, side, filled) of every order that filled, in the order in which they came."""
        orders = self.sandbox.exchange.books.orders.values()
        return [(o.request.symbol, o.request.side.lower(), o.filled) for o in orders if o.filled]

    async def venue_holds(self) -> dict[str, Decimal]:
        balances = await self.account.venue.balances()
        return {name: units for name, units in balances.items() if name != "INR" and units}

    def held(self) -> dict[str, Decimal]:
        return {each.contract: each.quantity for each in self.account.holdings.values()}

    async def denials(self) -> list[str]:
        async with self.databases.group_async(GROUP) as session:
            rows = await session.scalars(select(Intent.denial).where(Intent.denial.is_not(None)))
            return [str(denial).partition(":")[0] for denial in rows]

    async def restart(self) -> None:
        """As another engine would find it: portfolios are read from the books by the same code."""
        from trading_platform.execution.accounts import _add_unfinished, _holdings
        from trading_platform.storage.group import Account

        whose = Account(user_id=self.account.user_id, account_id=self.account.account_id)
        for what in (self.account.unknown, self.account.working, self.account.stops, self.account.prices):
            what.clear()
        async with self.databases.group_async(GROUP) as session:
            self.account.holdings = await _holdings(session, whose)
            await _add_unfinished(session, self.account)


@asynccontextmanager
async def floor(
    databases: Databases,
    folder: Path,
    start: datetime = MORNING,
    away: Decimal | None = D("0.005"),
    share: Decimal = D("0.17"),
    spread: Decimal | None = None,
) -> AsyncIterator[Floor]:
    wishes = Wishes(limits=False, seed=3, start=start)
    sandbox, token = build(wishes, folder)
    async with sandbox.running("127.0.0.1", 0):
        await sandbox.clock.advance(steps=5)
        where, clock = addresses(sandbox, wishes, token)["kite"], SandboxClock(sandbox)
        transport = KiteTransport(where["api_key"], None, root=where["root"], timeout_seconds=1.0)
        await open_session(transport, where["request_token"], where["api_secret"])
        venue = ZerodhaVenue(transport, lambda: clock.now(None))
        stakes = {STRATEGY: Stake(STRATEGY, share, True, True, hedge_away=away, spread_away=spread)}
        account = portfolio(venue=venue, broker=venue, currency="INR", cash=D(10_000_000), stakes=stakes, limits=PLENTY)
        async with databases.control_async() as session:
            dataset = {"kind": "synthetic", "venue": "nse", "source": "x", "symbols": {}, "details": {}}
            session.add(Dataset(dataset_id="d", interval_seconds=60, **dataset))
            await session.flush()
            session.add(made_by_hand("d", "v"))
        engine = Engine(databases, GROUP, DatasetId("d"), clock)
        engine.portfolios, engine.instruments = [account], dict(await venue.instruments())
        assert await engine.lease.acquire()
        async with databases.group_async(GROUP) as session:
            await engine.breakers.load(session)
        engine.directives.read = _nothing  # type: ignore[method-assign]
        situation = replace(_situation(engine), instruments=engine.instruments)
        engine.directives._situation = situation
        try:
            yield Floor(databases, sandbox, engine, account)
        finally:
            await venue.close()
            await databases.aclose()


def made_by_hand(dataset: str, version: str) -> ModelVersion:
    return ModelVersion(
        version_id=version, dataset_id=dataset, strategy_id=STRATEGY, kind="logistic", origin="manual", data_version="d",
        feature_hash="f", code_version="c", lock_hash="l", params={}, seed=1, rows=1, metrics={}, artifact_path="none",
        artifact_sha256="none",
    )  # fmt: skip


async def _nothing(*_: Any) -> None:
    """Nobody changes directives here."""


def _situation(engine: Engine) -> Any:
    from tests.execution.test_decisions import SITUATION

    return replace(SITUATION, seconds=engine.clock.seconds)


async def test_the_put_is_bought_first_and_sold_when_its_position_is_left(group: Databases, tmp_path: Path) -> None:
    async with floor(group, tmp_path) as made:
        entry = await made.take()
        (put, _, _), (future, _, _) = made.at_broker()
        assert put.endswith("PE"), "the protective leg goes out first"
        strike = D(put.removeprefix("NIFTY26JUL").removesuffix("PE"))
        assert abs(strike - entry.price * D("0.995")) <= 25, "the listed strike that is nearest to the level"
        assert (future, made.held()) == (FUTURE, {put: LOT, FUTURE: LOT})
        assert await made.venue_holds() == {put: LOT, FUTURE: LOT}
        assert compare(made.account, await made.account.venue.balances(), made.engine.instruments) == []

        await made.go_on()
        await made.take("abstain")
        assert made.held() == {put: LOT, FUTURE: LOT}, "it stays as long as the position does"
        await made.restart()
        await made.go_on()
        await made.take("abstain", exit_by=None)
        assert made.held() == {put: LOT, FUTURE: LOT}, "and whoever takes over knows what belongs together"

        await made.go_on(30)
        await made.take("abstain")
        assert (made.held(), await made.venue_holds()) == ({}, {})
        assert [(side, units) for _, side, units in made.at_broker()] == [("buy", LOT)] * 2 + [("sell", LOT)] * 2
        assert [name for name, side, _ in made.at_broker() if side == "sell"] == [FUTURE, put]
        async with group.group_async(GROUP) as session:
            outcomes = {row.contract: row.arm for row in await session.scalars(select(Outcome))}
        assert outcomes == {FUTURE: "champion", put: HEDGE}


async def test_a_position_that_is_not_to_be_had_leaves_no_put_behind(group: Databases, tmp_path: Path) -> None:
    async with floor(group, tmp_path) as made:
        refused = made.refuse_orders(lambda contract, side: contract == FUTURE and side == "BUY")
        await made.take()
        assert refused == [FUTURE]
        assert (made.held(), await made.venue_holds()) == ({}, {})
        assert [side for _, side, _ in made.at_broker()] == ["buy", "sell"], "bought, and unwound in the same step"


async def test_a_position_is_as_large_as_its_protection(group: Databases, tmp_path: Path) -> None:
    """Two lots are wanted, and one of the put is to be had before its order ends."""
    async with floor(group, tmp_path, share=D("0.33")) as made:
        made.fill_one_lot(lambda contract, side: contract.endswith("PE"))
        await made.take()
        (put, *_), _ = made.at_broker()
        assert made.held() == await made.venue_holds() == {put: LOT, FUTURE: LOT}
        async with group.group_async(GROUP) as session:
            wanted = list(await session.scalars(select(Intent.quantity).where(Intent.contract == put)))
        assert wanted == [2 * LOT]


async def test_without_its_put_nothing_is_entered(group: Databases, tmp_path: Path) -> None:
    async with floor(group, tmp_path) as made:
        made.refuse_orders(lambda contract, side: contract.endswith("PE"))
        await made.take()
        assert (made.at_broker(), made.held()) == ([], {})
        assert await made.denials() == ["LEG_UNPROTECTED"]


async def test_a_put_whose_fate_is_unknown_keeps_its_position_back_and_is_sold_when_it_turns_up(
    group: Databases, tmp_path: Path
) -> None:
    async with floor(group, tmp_path) as made:
        assert made.sandbox.kite is not None
        fault = {"door": "kite", "kind": "timeout_after_acceptance", "route": PLACE, "seconds": 3}
        made.sandbox.kite.mischief.faults.inject([fault])
        await made.take()
        ((put, side, units),) = made.at_broker()
        assert (put[-2:], side, units) == ("PE", "buy", LOT)
        assert await made.denials() == ["LEG_UNPROTECTED"], "the future does not go out on a guess"
        await made.engine._settle_open(all_now=True)
        await made.engine._protect()
        assert (made.held(), await made.venue_holds()) == ({}, {})
        tags = [order.request.terms.get("tag") for order in made.sandbox.exchange.books.orders.values()]
        async with group.group_async(GROUP) as session:
            names = list(await session.scalars(select(Intent.client_order_id).where(Intent.contract == put)))
        assert sorted(map(str, tags)) == sorted(tag_of(name) for name in names), "one order for each of them"


async def test_who_dies_between_the_legs_is_succeeded_by_one_who_enters_on_the_same_put(
    group: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with floor(group, tmp_path) as made:

        async def die(*_: Any) -> None:
            raise ConnectionError("killed between the legs")

        with monkeypatch.context() as patched:
            patched.setattr(made.engine, "_carry_out", die)
            with pytest.raises(ConnectionError):
                await made.take()
        assert [contract[-2:] for contract in made.held()] == ["PE"]
        await made.restart()
        await made.take()
        (put, *_), (future, *_) = made.at_broker()
        assert (put[-2:], future, made.held()) == ("PE", FUTURE, {put: LOT, FUTURE: LOT}), "no second put"


async def test_a_hedge_that_cannot_be_quoted_or_is_not_listed_is_a_denial(group: Databases, tmp_path: Path) -> None:
    async with floor(group, tmp_path) as made:
        legs, quotes = made.engine.hedges.orders, made.engine.hedges.orders.quotes

        async def nobody(*_: Any) -> dict[Symbol, Any]:
            return {}

        legs.quotes = nobody  # type: ignore[method-assign,assignment]
        await made.take()
        assert await made.denials() == ["LEG_UNAVAILABLE"]
        legs.quotes = quotes  # type: ignore[method-assign]
        await made.go_on()
        made.account.venue.hedge_for = lambda *_: None  # type: ignore[method-assign]
        await made.take()
        assert await made.denials() == ["LEG_UNAVAILABLE"] * 2
        assert made.at_broker() == []


async def test_who_does_not_ask_for_a_hedge_gets_none(group: Databases, tmp_path: Path) -> None:
    async with floor(group, tmp_path, away=None) as made:
        await made.take()
        assert made.held() == {FUTURE: LOT}


async def test_what_ends_today_is_left_ahead_of_the_broker(group: Databases, tmp_path: Path) -> None:
    """A future on its last day: nothing new is taken in it, and what is held is sold before the exchange settles it."""
    async with floor(group, tmp_path, start=LAST_DAY, away=None) as made:
        venue, contract_for = made.account.venue, made.account.venue.contract_for
        assert contract_for(INDEX, made.now) == "NIFTY26AUGFUT"
        venue.contract_for = lambda *_: FUTURE  # type: ignore[method-assign]  as on the days before
        later = LAST_DAY + timedelta(days=9)
        await made.take(exit_by=later)
        venue.contract_for = contract_for  # type: ignore[method-assign]
        for moment, still in ((time(15, 4), True), (time(15, 6), False)):
            assert FUTURE in made.held()
            await made.go_to(datetime.combine(LAST_DAY.date(), moment, IST))
            await made.take("abstain", exit_by=later)
            assert (FUTURE in made.held()) == still, f"{moment} IST"
        assert (made.held(), await made.venue_holds()) == ({}, {})
        async with group.group_async(GROUP) as session:
            (outcome,) = (await session.scalars(select(Outcome))).all()
        assert outcome.contract == FUTURE
