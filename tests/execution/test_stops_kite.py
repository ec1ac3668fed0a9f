"""Stops at a broker whose orders end with the day: put under a position again when the market takes them, not before."""

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from sqlalchemy import func, select, update

from tests.execution.test_decisions import SITUATION, signal
from tests.execution.test_sender_kite import GROUP, INFY, Desk, desk, group
from trading_platform.execution.decisions import Decision, flatten
from trading_platform.execution.stops import StopKeeper
from trading_platform.execution.verdicts import ENDED, verdict
from trading_platform.identifiers import DatasetId
from trading_platform.markets.sessions import next_open
from trading_platform.storage.control import Alert
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import Intent, Outbox

IST = ZoneInfo("Asia/Kolkata")
__all__ = ["group"]


async def stops_of(databases: Databases) -> list[tuple[str, str]]:
    """(state, client order id) of every stop, the first first."""
    async with databases.group_async(GROUP) as session:
        rows = await session.scalars(select(Intent).where(Intent.purpose == "stop").order_by(Intent.created_at))
        return [(each.state, each.client_order_id) for each in rows]


async def go_to(made: Desk, moment: datetime) -> datetime:
    await made.sandbox.clock.advance(until=int(moment.timestamp() * 1_000))
    made.clock[0] = datetime.fromtimestamp(made.sandbox.exchange.now / 1_000, UTC)
    assert made.clock[0] == moment, "also where no bar ends"
    assert await made.sender.lease.acquire(), "the market took its time"
    return made.clock[0]


async def test_a_stop_that_ended_with_the_day_waits_for_the_evening_and_stands_at_the_opening(
    group: Databases, tmp_path: Path
) -> None:
    async with desk(group, tmp_path, start=datetime(2026, 7, 1, 15, 20, tzinfo=IST)) as made:
        await made.send()
        keeper, venue = StopKeeper(made.sender, made.writer, DatasetId("d")), made.account.venue

        async def look_and_protect(now: datetime) -> None:
            await keeper.look([made.account], made.instruments, now, now.timestamp())
            assert await keeper.protect([made.account], made.instruments, now, now.timestamp()) == []

        await look_and_protect(made.clock[0])
        ((state, first),) = await stops_of(group)
        assert (state, await venue.open_client_order_ids()) == ("SUBMITTED", {first})

        day = made.clock[0].astimezone(IST).date()
        for minute in (31, 45, 59):
            await look_and_protect(await go_to(made, datetime.combine(day, time(15, minute), IST)))
        assert [state for state, _ in await stops_of(group)] == ["DONE"], "nothing is sent that cannot be taken"
        assert await venue.open_client_order_ids() == set()

        await look_and_protect(await go_to(made, datetime.combine(day, time(16, 1), IST)))
        (_, (state, second)) = await stops_of(group)
        assert (state, await venue.open_client_order_ids()) == ("SUBMITTED", {second})
        opening = next_open("NSE", made.clock[0])
        for after in (timedelta(minutes=1), timedelta(minutes=16)):
            await look_and_protect(await go_to(made, opening + after))
        assert len(await stops_of(group)) == 2, "the evening's stop is the morning's"
        assert await venue.open_client_order_ids() == {second}


async def test_a_stop_that_no_book_tells_of_any_more_calls_a_person_whose_word_frees_the_exit(
    group: Databases, tmp_path: Path
) -> None:
    """An engine was down while the stop ended with its day: it may have sold, so nothing is sold beside it."""
    async with desk(group, tmp_path, start=datetime(2026, 7, 1, 15, 20, tzinfo=IST)) as made:
        await made.send()
        keeper = StopKeeper(made.sender, made.writer, DatasetId("d"))
        assert await keeper.protect([made.account], made.instruments, made.clock[0], made.clock[0].timestamp()) == []
        opening = next_open("NSE", made.clock[0])
        now = await go_to(made, next_open("NSE", opening + timedelta(hours=12)) + timedelta(minutes=16))

        async def leave() -> list[Decision]:
            latest = {INFY: signal(INFY, "1500", at=now)}
            exits = flatten(made.account, latest, now, replace(SITUATION, instruments=made.instruments))
            return await keeper.make_way(exits, made.instruments, now, now.timestamp())

        async def alerts() -> list[tuple[str, bool]]:
            async with group.control_async() as session:
                rows = (await session.scalars(select(Alert).order_by(Alert.alert_id))).all()
            return [(row.detail, row.resolved_at is None) for row in rows]

        assert (await leave(), await leave()) == ([], [])
        ((_, stop),) = await stops_of(group)
        ((detail, is_open),) = await alerts()
        assert is_open
        assert f"orders settle {stop} --group {GROUP} --as ended" in detail, "what to do is in it"
        async with group.group_async(GROUP) as session:
            await session.execute(update(Outbox).values(verdict=verdict(ENDED, (), "ann"), next_try_at=func.now()))
        (exit_,) = await leave()
        assert (exit_.side, exit_.quantity) == ("sell", made.intent.quantity)
        assert [is_open for _, is_open in await alerts()] == [False]
