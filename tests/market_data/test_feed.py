"""The venue's feed against a real HTTP and WebSocket server that drops, delays and hides: every bar once, in order."""

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta

import pytest

from tests.market_data.exchange import MINUTE_MS, START_MS, Exchange, kline, running_exchange
from trading_platform.identifiers import DatasetId, Symbol
from trading_platform.market_data import feed as feed_module
from trading_platform.market_data.feed import LakeFeed, Step, VenueFeed
from trading_platform.market_data.klines import KlinesRefusedError
from trading_platform.market_data.lake import Lake
from trading_platform.market_data.quality import Reason
from trading_platform.market_data.synthetic import START, generate

BTC, ETH = "BTCUSDT", "ETHUSDT"


@pytest.fixture
async def exchange():
    async with running_exchange() as running:
        yield running


def opened(index: int) -> datetime:
    return datetime.fromtimestamp((START_MS + index * MINUTE_MS) / 1000, UTC)


def available(index: int) -> datetime:
    return opened(index + 1)


def venue_feed(exchange: Exchange, **options) -> VenueFeed:
    symbols = [Symbol("BTC/USDT"), Symbol("ETH/USDT")]
    return VenueFeed(DatasetId("d"), symbols, 60, base_url=exchange.url, **({"grace_seconds": 0.1} | options))


class Taken:
    """Steps as they come, from a feed that runs on the side."""

    def __init__(self, feed: VenueFeed, after: datetime | None) -> None:
        self.steps: list[Step] = []
        self._task = asyncio.create_task(self._take(feed, after))

    async def _take(self, feed: VenueFeed, after: datetime | None) -> None:
        async with contextlib.aclosing(feed.steps(after)) as steps:
            async for step in steps:
                self.steps.append(step)

    async def until(self, count: int) -> list[Step]:
        async with asyncio.timeout(20):
            while len(self.steps) < count:
                if self._task.done():
                    self._task.result()
                await asyncio.sleep(0.01)
        return self.steps

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


def indices(steps: list[Step], symbol: str = "BTC/USDT") -> list[int]:
    return [
        round((bar.open_time - opened(0)) / timedelta(minutes=1))
        for step in steps
        for bar in step.bars
        if bar.symbol == symbol
    ]


async def test_history_by_rest_and_the_stream_join_without_a_seam(exchange: Exchange, monkeypatch):
    monkeypatch.setattr(feed_module, "PAGE", 50)
    for index in range(130):
        exchange.close_bar(index, BTC, ETH)
    taken = Taken(venue_feed(exchange), available(9))
    await taken.until(120)
    for index in range(130, 135):
        await exchange.publish(index, BTC, ETH)
    steps = await taken.until(125)
    await taken.stop()
    assert indices(steps) == list(range(10, 135))
    assert indices(steps, "ETH/USDT") == list(range(10, 135))
    assert [step.available_at for step in steps] == [available(index) for index in range(10, 135)]
    bar, row = steps[-1].bars[0], kline(134, BTC)
    assert (bar.open, bar.high, bar.low, bar.close, bar.volume) == tuple(map(float, row[1:6]))


async def test_a_dropped_connection_is_filled_up_by_rest(exchange: Exchange):
    exchange.close_bar(0, BTC, ETH)
    feed = venue_feed(exchange)
    taken = Taken(feed, available(-1))
    await taken.until(1)
    await exchange.connected()
    await exchange.publish(1, BTC, ETH)
    await taken.until(2)
    await exchange.drop()
    for index in (2, 3, 4):
        exchange.close_bar(index, BTC, ETH)
    await exchange.connected(times=2)
    await taken.until(5)
    await exchange.publish(4, BTC, ETH)  # the venue repeats itself
    await exchange.publish(5, BTC, ETH)
    steps = await taken.until(6)
    await taken.stop()
    assert indices(steps) == indices(steps, "ETH/USDT") == [0, 1, 2, 3, 4, 5]
    assert feed.reconnects == 1


async def test_a_connection_lost_in_the_middle_of_a_step_loses_no_symbol(exchange: Exchange):
    exchange.close_bar(0, BTC, ETH)
    taken = Taken(venue_feed(exchange, grace_seconds=5.0), available(-1))
    await taken.until(1)
    exchange.close_bar(1, BTC, ETH)
    await exchange.publish(1, BTC)
    await exchange.drop()
    steps = await taken.until(2)
    await taken.stop()
    assert indices(steps, "ETH/USDT") == [0, 1]


async def test_an_open_kline_is_not_a_bar(exchange: Exchange):
    exchange.close_bar(0, BTC, ETH)
    taken = Taken(venue_feed(exchange), available(-1))
    await taken.until(1)
    await exchange.send(BTC, kline(1, BTC), is_closed=False)
    await asyncio.sleep(0.3)
    await taken.stop()
    assert indices(taken.steps) == [0]


async def test_a_symbol_in_a_gap_delays_its_step_by_the_grace_at_most(exchange: Exchange):
    exchange.close_bar(0, BTC, ETH)
    taken = Taken(venue_feed(exchange), available(-1))
    await taken.until(1)
    began = asyncio.get_running_loop().time()
    await exchange.publish(1, BTC)
    steps = await taken.until(2)
    waited = asyncio.get_running_loop().time() - began
    await exchange.publish(2, ETH, BTC)
    await taken.until(3)
    await taken.stop()
    assert 0.1 <= waited < 1.0
    assert [bar.symbol for bar in steps[1].bars] == ["BTC/USDT"]
    assert indices(taken.steps, "ETH/USDT") == [0, 2]
    assert [bar.symbol for bar in taken.steps[2].bars] == ["BTC/USDT", "ETH/USDT"]


async def test_a_bar_that_the_stream_lost_is_asked_for(exchange: Exchange):
    """The stream skips a symbol of bar 1 and all of bars 2 and 3; REST has them."""
    exchange.close_bar(0, BTC, ETH)
    taken = Taken(venue_feed(exchange), available(-1))
    await taken.until(1)
    exchange.close_bar(1, ETH)
    await exchange.publish(1, BTC)
    await taken.until(2)
    exchange.close_bar(2, BTC, ETH)
    exchange.close_bar(3, BTC, ETH)
    await exchange.publish(4, BTC, ETH)
    steps = await taken.until(5)
    await taken.stop()
    assert indices(steps) == indices(steps, "ETH/USDT") == [0, 1, 2, 3, 4]


async def test_a_gap_of_the_venue_is_passed_over(exchange: Exchange):
    exchange.close_bar(0, BTC, ETH)
    taken = Taken(venue_feed(exchange), available(-1))
    await taken.until(1)
    await exchange.publish(40, BTC, ETH)
    steps = await taken.until(2)
    await taken.stop()
    assert indices(steps) == [0, 40]


async def test_a_silent_connection_is_given_up(exchange: Exchange):
    """The stream stays open and says nothing, while REST goes on: a half-open connection."""
    exchange.close_bar(0, BTC, ETH)
    feed = venue_feed(exchange, silent_after_seconds=0.3)
    taken = Taken(feed, available(-1))
    await taken.until(1)
    exchange.close_bar(1, BTC, ETH)
    steps = await taken.until(2)
    await taken.stop()
    assert indices(steps) == [0, 1]
    assert feed.reconnects >= 1


async def test_rest_that_fails_for_a_while_is_tried_again(exchange: Exchange):
    exchange.close_bar(0, BTC, ETH)
    exchange.failing_requests = 3
    taken = Taken(venue_feed(exchange), available(-1))
    steps = await taken.until(1)
    await taken.stop()
    assert [bar.symbol for bar in steps[0].bars] == ["BTC/USDT", "ETH/USDT"]


async def test_a_broken_bar_is_set_aside(exchange: Exchange):
    exchange.close_bar(0, BTC, ETH)
    feed = venue_feed(exchange)
    taken = Taken(feed, available(-1))
    await taken.until(1)
    row = kline(1, BTC)
    row[2], row[3] = row[3], row[2]  # high below low
    await exchange.send(BTC, row)
    await exchange.publish(1, ETH)
    steps = await taken.until(2)
    await taken.stop()
    assert [bar.symbol for bar in steps[1].bars] == ["ETH/USDT"]
    assert [(bar.symbol, reason) for bar, reason in feed.set_aside] == [("BTC/USDT", Reason.HIGH_BELOW_LOW)]


async def test_without_a_start_the_feed_begins_with_the_next_bar(exchange: Exchange):
    for index in range(5):
        exchange.close_bar(index, BTC, ETH)
    taken = Taken(venue_feed(exchange), None)
    await exchange.connected()
    await exchange.publish(5, BTC, ETH)
    steps = await taken.until(1)
    await taken.stop()
    assert indices(steps) == [5]


async def test_a_replay_at_full_speed_comes_through_whole(exchange: Exchange):
    """A thousand steps as fast as the socket takes them, the feed joining on the way."""
    for index in range(200):
        exchange.close_bar(index, BTC, ETH)
    taken = Taken(venue_feed(exchange), available(-1))
    await exchange.connected()
    for index in range(200, 1200):
        await exchange.publish(index, BTC, ETH)
    steps = await taken.until(1200)
    await taken.stop()
    assert indices(steps) == indices(steps, "ETH/USDT") == list(range(1200))


async def test_the_lake_replays_its_tail_by_market_time(tmp_path):
    lake = Lake(tmp_path)
    frame = generate(bars=50)
    lake.write_bars(frame)
    dataset_id = frame["dataset_id"][0]
    steps = [step async for step in LakeFeed(lake, dataset_id, start=START + timedelta(hours=40)).steps(None)]
    assert [step.available_at for step in steps] == [START + timedelta(hours=hour) for hour in range(41, 51)]
    assert all([bar.symbol for bar in step.bars] == sorted(set(frame["symbol"])) for step in steps)
    later = [step async for step in LakeFeed(lake, dataset_id).steps(START + timedelta(hours=48))]
    assert [step.available_at for step in later] == [START + timedelta(hours=49), START + timedelta(hours=50)]


async def test_a_symbol_that_the_venue_does_not_list_is_an_error_and_not_an_endless_retry(exchange: Exchange):
    exchange.unlisted = {ETH}
    with pytest.raises(KlinesRefusedError, match="Invalid symbol"):
        await anext(venue_feed(exchange).steps(available(-1)))
