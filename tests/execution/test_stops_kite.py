"""Stops at a broker whose orders end with the day: put under a position again when the market takes them, not before."""

from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from sqlalchemy import select

from tests.execution.test_sender_kite import GROUP, Desk, desk, group
from trading_platform.execution.stops import StopKeeper
from trading_platform.identifiers import DatasetId
from trading_platform.markets.sessions import next_open
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import Intent

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
