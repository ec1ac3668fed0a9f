"""The collector as a service: real PostgreSQL, a real exchange over sockets, and as a process with signals."""

import asyncio
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from tests.market_data.exchange import MINUTE_MS, START_MS, kline, running_exchange
from trading_platform.identifiers import DatasetId
from trading_platform.market_data.collector import Collector, UnknownDatasetError, venue_feed
from trading_platform.market_data.datasets import symbol_spans
from trading_platform.market_data.lake import Lake
from trading_platform.market_data.sources import as_bars, candles
from trading_platform.storage.control import Dataset, Lease, ServiceStatus
from trading_platform.storage.databases import Databases
from trading_platform.storage.lease import LeaseLostError

BTC, ETH = "BTCUSDT", "ETHUSDT"
LEASE = "collector:binance_1m"


@pytest.fixture
async def exchange():
    async with running_exchange() as running:
        for index in range(20):
            running.close_bar(index, BTC, ETH)
        yield running


@pytest.fixture
def dataset(platform: Databases, exchange) -> DatasetId:
    """A live dataset of two symbols whose lake holds the exchange's first 20 minutes."""
    lake = Lake(platform.settings.lake_dir)
    for name, symbol in ((BTC, "BTC/USDT"), (ETH, "ETH/USDT")):
        rows = [[row[0], *map(float, row[1:6])] for row in exchange.bars[name].values()]
        lake.write_bars(
            as_bars(
                candles(rows),
                dataset_id="binance_1m",
                venue="binance",
                symbol=symbol,
                interval_seconds=60,
                source="rest",
            )
        )
    with platform.control() as session:
        session.add(
            Dataset(
                dataset_id="binance_1m", kind="venue", venue="binance", source="binance", interval_seconds=60,
                symbols=symbol_spans(lake.bars("binance_1m")), details={"base_url": exchange.url},
            )
        )  # fmt: skip
    return DatasetId("binance_1m")


def opened(index: int) -> datetime:
    return datetime.fromtimestamp((START_MS + index * MINUTE_MS) / 1000, UTC)


async def until(condition, seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.1)


async def test_bars_arrive_in_the_lake_and_the_lease_is_given_back(platform: Databases, exchange, dataset: DatasetId):
    lake = Lake(platform.settings.lake_dir)
    for index in (20, 21):
        exchange.close_bar(index, BTC, ETH)  # missed while no collector ran
    feed, after = venue_feed(platform, lake, dataset)
    collector = Collector(platform, lake, dataset, feed, after, flush_seconds=0.2)
    running = asyncio.create_task(collector.run())
    await until(lambda: len(lake.bars(dataset)) == 44)
    await exchange.publish(22, BTC, ETH)
    broken = kline(23, BTC)
    broken[3] = "-1"
    await exchange.send(BTC, broken)
    await exchange.publish(23, ETH)
    await until(lambda: len(lake.bars(dataset)) == 47)
    collector.stop()
    await running
    assert lake.bars(dataset, ["ETH/USDT"])["open_time"].to_list() == [opened(index) for index in range(24)]
    assert lake.quarantined(dataset).select("symbol", "reason").rows() == [("BTC/USDT", "price_not_positive")]
    with platform.control() as session:
        row, status, lease = session.get(Dataset, dataset), session.get(ServiceStatus, LEASE), session.get(Lease, LEASE)
        now = session.scalar(text("select now()"))
        assert row.symbols["ETH/USDT"]["last"] == opened(23).isoformat()
        assert (status.state, status.detail["collected"]) == ("stopped", 7)
        assert lease.expires_at <= now, "the next one need not wait"
    await platform.aclose()


async def test_a_second_collector_stands_by_until_the_first_one_s_lease_is_free(
    platform: Databases, exchange, dataset: DatasetId
):
    lake = Lake(platform.settings.lake_dir)
    collectors = []
    for number in (1, 2):
        feed, after = venue_feed(platform, lake, dataset)
        collectors.append(Collector(platform, lake, dataset, feed, after, flush_seconds=0.2, holder=f"c{number}"))
    first = asyncio.create_task(collectors[0].run())
    await exchange.connected()
    second = asyncio.create_task(collectors[1].run())
    await exchange.publish(20, BTC, ETH)
    await until(lambda: len(lake.bars(dataset)) == 42)
    assert exchange.connections == 1
    collectors[0].stop()
    await first
    await exchange.connected(times=2)
    await exchange.publish(21, BTC, ETH)
    await until(lambda: len(lake.bars(dataset)) == 44)
    collectors[1].stop()
    await second
    with platform.control() as session:
        assert (session.get(Lease, LEASE).holder, session.get(Lease, LEASE).epoch) == ("c2", 2)
    await platform.aclose()


async def test_a_collector_whose_lease_is_taken_stops(
    platform: Databases, exchange, dataset: DatasetId, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("trading_platform.market_data.collector.RENEW_EVERY_SECONDS", 0.2)
    lake = Lake(platform.settings.lake_dir)
    feed, after = venue_feed(platform, lake, dataset)
    running = asyncio.create_task(Collector(platform, lake, dataset, feed, after, flush_seconds=0.2).run())
    await exchange.connected()
    async with platform.control_async() as session:
        await session.execute(text("update control.leases set holder = 'other', epoch = epoch + 1"))
    with pytest.raises(LeaseLostError, match="collector:binance_1m"):
        await asyncio.wait_for(running, 10)
    with platform.control() as session:
        lease = session.get(Lease, LEASE)
        assert lease.holder == "other"
        assert lease.expires_at > session.scalar(text("select now()")), "it did not release what is not its own"
    await platform.aclose()


def test_an_unknown_dataset_is_named(platform: Databases):
    with pytest.raises(UnknownDatasetError, match=r"'nothing'.*ingest"):
        venue_feed(platform, Lake(platform.settings.lake_dir), DatasetId("nothing"))


async def test_the_process_ends_in_order_on_sigterm(platform: Databases, exchange, dataset: DatasetId):
    """Bars that arrived just before the signal are in the lake when the process has gone."""
    settings = platform.settings
    environment = os.environ | {
        "TP_HOME_DIR": str(settings.home),
        "TP_DATABASE_URL": settings.database_url.get_secret_value(),
    }
    command = [sys.executable, "-m", "trading_platform.cli", "collector", "--dataset", dataset, "--flush-seconds", "60"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        async with asyncio.timeout(60):
            while not exchange.sockets:
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.3)
        await exchange.publish(20, BTC, ETH)
        await asyncio.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        output, _ = await asyncio.to_thread(process.communicate, timeout=10)
    finally:
        process.kill()
    assert process.returncode == 0, output.decode()
    lake = Lake(settings.lake_dir)
    assert lake.bars(dataset)["open_time"].max() == opened(20)
    assert lake.bars(dataset, start=opened(20), end=opened(20) + timedelta(minutes=1)).height == 2
