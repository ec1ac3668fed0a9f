"""The command `sandbox serve`, as the supervisor starts it, on a real database and lake."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import aiohttp
import polars as pl
import pytest

from tests.sandbox.markets import TOKEN
from tests.sandbox.served import Served
from trading_platform.market_data import synthetic
from trading_platform.market_data.lake import Lake
from trading_platform.stack.servers import free_port
from trading_platform.storage.control import Dataset, ServiceStatus
from trading_platform.storage.databases import Databases

BARS, TAIL = 300, 200
SYMBOL = "ALPHA/USDT"


@pytest.fixture
def dataset_id(platform: Databases) -> str:
    """A small synthetic dataset in the lake, two thirds of it to be replayed."""
    frame = synthetic.generate(bars=BARS)
    name = str(frame["dataset_id"][0])
    Lake(platform.settings.lake_dir).write_bars(frame)
    details = {
        "seed": synthetic.SEED, "start": synthetic.START.isoformat(), "bars": BARS, "symbols": list(synthetic.SYMBOLS),
        "interval_seconds": synthetic.INTERVAL_SECONDS,
    }  # fmt: skip
    with platform.control() as session:
        session.add(
            Dataset(
                dataset_id=name, kind="synthetic", venue="binance", source="seed", symbols={},
                interval_seconds=synthetic.INTERVAL_SECONDS, details={"synthetic": details},
                replay_from=synthetic.START + timedelta(hours=BARS - TAIL),
            )
        )  # fmt: skip
    return name


@asynccontextmanager
async def process(
    platform: Databases, dataset_id: str, *options: str
) -> AsyncIterator[tuple[Served, subprocess.Popen]]:
    """`trading-platform sandbox serve` on a free port, ready to be asked; killed at the end if it still runs."""
    port, settings = free_port(), platform.settings
    assert settings.database_url is not None
    env = {
        **os.environ, "TP_HOME_DIR": str(settings.home), "TP_SANDBOX_ADMIN_TOKEN": TOKEN,
        "TP_DATABASE_URL": settings.database_url.get_secret_value(), "TP_LOG_LEVEL": "WARNING",
    }  # fmt: skip
    command = [Path(sys.executable).parent / "trading-platform", "sandbox", "serve", "--dataset", dataset_id]
    with subprocess.Popen([*command, "--port", str(port), *options], env=env) as child:
        async with aiohttp.ClientSession() as session:
            served = Served(None, f"http://127.0.0.1:{port}", session)  # type: ignore[arg-type]
            try:
                await _ready(served, child)
                yield served, child
            finally:
                if child.poll() is None:
                    child.kill()


async def _ready(served: Served, child: subprocess.Popen) -> None:
    deadline = time.monotonic() + 60
    while True:
        assert child.poll() is None, "the sandbox ended instead of serving"
        assert time.monotonic() < deadline
        try:
            await served.public("ping")
        except aiohttp.ClientError:
            await asyncio.sleep(0.05)
        else:
            return


async def test_a_synthetic_market_goes_on_after_its_tail_with_its_own_series(
    platform: Databases, dataset_id: str
) -> None:
    longer = synthetic.generate(bars=BARS + 40).filter(pl.col("symbol") == SYMBOL)
    async with process(platform, dataset_id, "--pace", "50") as (served, child):
        await served.control("POST", "replay/start", {"participants": [], "speed": "max"})
        async with asyncio.timeout(20):
            while (status := await served.control("GET", "status"))["steps_done"] < TAIL + 10:
                await asyncio.sleep(0.02)
        assert (status["state"], status["steps_total"]) == ("running", TAIL)
        child.send_signal(signal.SIGTERM)
        assert child.wait(10) == 0
    async with process(platform, dataset_id, "--pace", "50") as (served, child):
        async with asyncio.timeout(20):
            while (await served.control("GET", "status"))["steps_done"] < TAIL + 20:
                await asyncio.sleep(0.02)
        _, rows = await served.public("klines", symbol="ALPHAUSDT", interval="1h", limit=1000)
        expected = longer.head(len(rows))
        assert [row[0] for row in rows] == expected["open_time"].dt.timestamp("ms").to_list()
        assert [float(row[4]) for row in rows] == expected["close"].to_list()
        with platform.control() as session:
            beat = session.get(ServiceStatus, "sandbox")
        assert beat is not None
        assert beat.detail["dataset_id"] == dataset_id
