"""A live market is passed through. The market here is another sandbox, which speaks as Binance does."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from tests.sandbox.markets import START_MS, bars
from tests.sandbox.served import Served, serving
from trading_platform.sandbox import live

HOUR_MS = 3_600_000


async def shown(served: Served, count: int) -> list[list]:
    """All klines, once there are `count`."""
    async with asyncio.timeout(10):
        while True:
            _, rows = await served.public("klines", symbol="BTCUSDT", interval="1h", limit=1000)
            if len(rows) >= count:
                return rows
            await asyncio.sleep(0.02)


async def test_bars_are_filled_in_streamed_and_filled_in_again_after_a_break(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "FIRST_PAUSE", 0.05)
    async with serving(tmp_path / "venue") as venue:
        await venue.steps(3)
        known = bars(60).filter(pl.col("open_time") < datetime.fromtimestamp((START_MS + 28 * HOUR_MS) / 1_000, UTC))
        details = {"base_url": venue.url}
        async with serving(tmp_path / "live", kind="venue", details=details, frame=known) as served:
            assert (await served.control("GET", "status"))["mode"] == "live"
            missed = await shown(served, 33)
            assert missed == (await venue.public("klines", symbol="BTCUSDT", interval="1h", limit=1000))[1]
            while len(venue.sandbox.streams.listening) < 4:
                await asyncio.sleep(0.01)
            await venue.steps(2)
            assert len(await shown(served, 35)) == 35
            for connection in list(venue.sandbox.streams.connections):
                connection.abort()
            await venue.steps(2)
            rows = await shown(served, 37)
            assert rows == (await venue.public("klines", symbol="BTCUSDT", interval="1h", limit=1000))[1]
            assert (await served.control("GET", "status"))["steps_done"] == 9, "each step once"


async def test_orders_meet_the_venues_best_prices_and_stay_here(tmp_path: Path) -> None:
    async with serving(tmp_path / "venue") as venue:
        await venue.steps(1)
        details = {"base_url": venue.url}
        known = bars(31)
        async with serving(tmp_path / "live", kind="venue", details=details, frame=known) as served:
            await served.open_account()
            while len(venue.sandbox.streams.listening) < 4:
                await asyncio.sleep(0.01)
            _, stop = await served.signed(
                "POST", "order", symbol="BTCUSDT", side="SELL", type="STOP_LOSS", quantity="0.2", stopPrice="40100"
            )
            _, resting = await served.signed(
                "POST", "order", symbol="BTCUSDT", side="BUY", type="LIMIT", timeInForce="GTC", quantity="0.1", price="40200"
            )  # fmt: skip
            await venue.steps(9)  # the saw falls from 40,400 to 40,000
            await shown(served, 40)
            _, best = await venue.public("ticker/bookTicker", symbol="BTCUSDT")
            assert (await served.public("ticker/bookTicker", symbol="BTCUSDT"))[1] == best
            _, bought = await served.signed(
                "POST", "order", symbol="BTCUSDT", side="BUY", type="MARKET", quantity="0.001"
            )
            assert bought["fills"][0]["price"] == best["askPrice"]
            _, found = await served.signed("GET", "order", symbol="BTCUSDT", orderId=resting["orderId"])
            assert (found["status"], float(found["cummulativeQuoteQty"])) == ("FILLED", pytest.approx(4_020))
            _, found = await served.signed("GET", "order", symbol="BTCUSDT", orderId=stop["orderId"])
            assert found["status"] == "FILLED"
            assert 40_000 < float(found["cummulativeQuoteQty"]) / 0.2 <= 40_100
            assert (await venue.control("GET", "status"))["orders"] == 0
        async with serving(tmp_path / "live", kind="venue", details=details, frame=known) as again:
            states = [order["state"] for order in await again.control("GET", "books/orders?account_id=alice")]
            assert states == ["FILLED", "FILLED", "FILLED"]
