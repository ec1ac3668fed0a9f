"""Gaps by the calendar, and their repair from sources that have the bars, have some, have none, or do not answer."""

import socket
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from tests.market_data.exchange import kline, running_exchange
from trading_platform.market_data.gaps import Repair, find_gaps, repair
from trading_platform.market_data.lake import Lake
from trading_platform.market_data.sources import ExchangeSource, as_bars, candles
from trading_platform.markets.calendars import calendar

OPENED = datetime(2024, 3, 1, tzinfo=UTC)


def minutes(*ranges: range) -> pl.DataFrame:
    """Bars of the test exchange, by index."""
    rows = [[row[0], *map(float, row[1:6])] for span in ranges for row in (kline(n, "BTCUSDT") for n in span)]
    return as_bars(
        candles(rows), dataset_id="d", venue="binance", symbol="BTC/USDT", interval_seconds=60, source="file"
    )  # fmt: skip


def nse(day: date, *, without: range = range(0)) -> pl.DataFrame:
    """A day of NIFTY minutes without those counted from the open."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    times = calendar("nse").expected(midnight, midnight + timedelta(hours=23), 60)
    times = times.filter(~pl.Series([n in without for n in range(len(times))]))
    flat = pl.DataFrame({"open_time": times}).with_columns(
        pl.lit(100.0).alias(name) for name in ("open", "high", "low", "close", "volume")
    )
    return as_bars(flat, dataset_id="d", venue="nse", symbol="NIFTY 50", interval_seconds=60, source="file")


@pytest.fixture
async def exchange():
    async with running_exchange() as running:
        for index in range(200):
            running.close_bar(index, "BTCUSDT")
        yield running


def test_a_gap_has_its_first_last_and_count():
    gaps = find_gaps(minutes(range(10), range(13, 20), range(21, 30)))
    assert gaps.select("first", "last", "missing").rows() == [
        (OPENED + timedelta(minutes=10), OPENED + timedelta(minutes=12), 3),
        (OPENED + timedelta(minutes=20), OPENED + timedelta(minutes=20), 1),
    ]


def test_nights_weekends_and_holidays_are_no_gaps():
    """Thursday 2021-01-21 to Thursday 28: a weekend, and Republic Day on Tuesday the 26th."""
    days = [21, 22, 25, 27, 28]
    assert find_gaps(pl.concat([nse(date(2021, 1, day)) for day in days])).is_empty()


def test_a_gap_ends_with_its_session():
    frame = pl.concat([nse(date(2021, 1, 21), without=range(370, 375)), nse(date(2021, 1, 22), without=range(2))])
    gaps = find_gaps(frame)
    assert gaps["missing"].to_list() == [5, 2]
    assert gaps["session"].to_list() == ["2021-01-21 regular", "2021-01-22 regular"]


def test_a_missing_day_is_one_gap():
    frame = pl.concat([nse(date(2021, 1, 21)), nse(date(2021, 1, 25))])
    assert find_gaps(frame).select("missing", "session").rows() == [(375, "2021-01-22 regular")]


async def test_a_gap_is_filled_from_the_venue(exchange, tmp_path):
    lake = Lake(tmp_path)
    whole = minutes(range(100))
    lake.write_bars(minutes(range(40), range(45, 100)))
    source = ExchangeSource("binance", "unused", exchange.url)
    found = await repair(lake, "d", [source])
    await source.close()
    assert found == Repair(found=1, missing=0, repaired=5)
    prices = ["open_time", "open", "high", "low", "close", "volume", "available_at", "session_date"]
    assert lake.bars("d").select(prices).equals(whole.select(prices))
    assert lake.bars("d").filter(pl.col("source") == "binance")["open_time"].to_list() == [
        OPENED + timedelta(minutes=minute) for minute in range(40, 45)
    ]
    record = lake.gaps("d").row(0, named=True)
    assert (record["missing"], record["repaired"], record["tried"]) == (0, 5, "binance: 5 bars")


async def test_what_nobody_has_is_recorded_with_who_was_asked_and_running_again_changes_nothing(exchange, tmp_path):
    lake = Lake(tmp_path)
    lake.write_bars(minutes(range(40), range(46, 100)))
    for index in (42, 43):
        del exchange.bars["BTCUSDT"][index]
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}"
    for _ in range(2):
        sources = [ExchangeSource("binance", "unused", nobody), ExchangeSource("binance", "unused", exchange.url)]
        found = await repair(lake, "d", sources)
        for source in sources:
            await source.close()
        assert found.missing == 2
        gaps = lake.gaps("d").select("first", "missing", "repaired").rows()
        assert gaps == [
            (OPENED + timedelta(minutes=40), 0, 4),
            (OPENED + timedelta(minutes=42), 2, 0),
        ]
    assert lake.gaps("d")["tried"][0] == "binance: no answer; binance: 4 bars"


async def test_a_source_s_bad_bar_is_not_let_in(exchange, tmp_path):
    lake = Lake(tmp_path)
    lake.write_bars(minutes(range(40), range(41, 100)))
    bad = exchange.bars["BTCUSDT"][40]
    bad[2], bad[3] = bad[3], bad[2]
    source = ExchangeSource("binance", "unused", exchange.url)
    found = await repair(lake, "d", [source])
    await source.close()
    assert (found.missing, found.repaired) == (1, 0)


async def test_without_a_source_gaps_are_still_recorded(tmp_path):
    lake = Lake(tmp_path)
    lake.write_bars(minutes(range(40), range(46, 100)))
    assert await repair(lake, "d", []) == Repair(found=1, missing=6, repaired=0)
    assert lake.gaps("d")["tried"].to_list() == ["nobody asked"]
