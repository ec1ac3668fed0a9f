"""Reading: whatever the columns' order, names, packing and way of writing times, the same bars come out."""

import gzip
import json
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.market_data.frames import START, walk
from trading_platform.market_data.reading import ReadOptions, interval_name, interval_seconds, read, read_file
from trading_platform.market_data.tables import UnreadableFileError

PRICES = ["open", "high", "low", "close"]
NUMBERS = [*PRICES, "volume"]


def rows_of(frame: pl.DataFrame) -> pl.DataFrame:
    """As freqtrade has them: [ms, open, high, low, close, volume]."""
    return frame.with_columns(pl.col("open_time").dt.epoch("ms"))


def bars_in(name: str, content: bytes, **options) -> pl.DataFrame:
    return read_file(Path(name), content, ReadOptions(**options)).rows.select("open_time", *NUMBERS)


def same(found: pl.DataFrame, expected: pl.DataFrame) -> None:
    assert found["open_time"].to_list() == expected["open_time"].to_list()
    for name in NUMBERS:
        assert found[name].to_list() == pytest.approx(expected[name].to_list(), rel=1e-12), name


@given(
    order=st.permutations(PRICES), seed=st.integers(0, 10_000), price=st.sampled_from([0.00005, 1.0, 150.0, 40_000.0])
)
@settings(max_examples=30, deadline=None)
def test_any_order_of_prices_is_found_without_a_header(order: list[str], seed: int, price: float):
    frame = walk(300, seed, price)
    table = rows_of(frame).select("open_time", *order, "volume")
    same(bars_in("BTC_USDT-1h.csv", table.write_csv(include_header=False).encode()), frame)


@given(names=st.permutations(["open_time", *NUMBERS]), seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_any_order_is_found_by_name(names: list[str], seed: int):
    frame = walk(40, seed)
    same(bars_in("BTC_USDT-1h.csv", rows_of(frame).select(names).write_csv().encode()), frame)


def as_file(frame: pl.DataFrame, kind: str) -> bytes:
    if kind.startswith("json"):
        content = json.dumps([list(row) for row in rows_of(frame).iter_rows()]).encode()
    elif kind.startswith("csv"):
        content = rows_of(frame).write_csv().encode()
    else:
        buffer = BytesIO()
        named = frame.rename({"open_time": "date"})
        named.write_parquet(buffer) if kind == "parquet" else named.write_ipc(buffer)
        content = buffer.getvalue()
    return gzip.compress(content) if kind.endswith(".gz") else content


@pytest.mark.parametrize("kind", ["json", "json.gz", "csv", "csv.gz", "feather", "parquet"])
def test_every_packing_gives_the_same_bars(kind: str):
    frame = walk(60)
    same(bars_in(f"BTC_USDT-1h.{kind}", as_file(frame, kind)), frame)


@pytest.mark.parametrize(
    ("pattern", "zone"),
    [
        ("%Y-%m-%d %H:%M:%S", "UTC"), ("%Y-%m-%dT%H:%M:%S+00:00", None), ("%Y-%m-%d %H:%M:%SZ", None),
        ("%d-%m-%Y %H:%M", "UTC"), ("%d-%b-%Y %H:%M:%S", "UTC"), ("%Y%m%d %H:%M", "UTC"),
        ("%d/%m/%Y %H:%M:%S", "UTC"),
    ],
)  # fmt: skip
def test_ways_of_writing_a_time(pattern: str, zone: str | None):
    frame = walk(800)  # past the 12th of a month, where day and month can be told apart
    text = frame.with_columns(pl.col("open_time").dt.strftime(pattern))
    same(bars_in("BTC_USDT-1h.csv", text.write_csv().encode(), time_zone=zone), frame)


@pytest.mark.parametrize(("unit", "factor"), [("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)])
def test_epochs_of_any_unit(unit: str, factor: int):
    frame = walk(30)
    table = frame.with_columns((pl.col("open_time").dt.epoch("s") * factor).alias("open_time"))
    same(bars_in("BTC_USDT-1h.csv", table.write_csv(include_header=False).encode()), frame)


def test_binance_klines_with_twelve_columns():
    """A row of Binance's own documentation, GET /api/v3/klines, repeated at its interval."""
    day = [1499040000000, "0.01634790", "0.80000000", "0.01575800", "0.01577100", "148976.11427815", 1499644799999,
           "2434.19055334", 308, "1756.87402397", "28.46694368", "0"]  # fmt: skip
    week = 7 * 24 * 3600 * 1000
    rows = [[day[0] + n * week, *day[1:6], day[6] + n * week, *day[7:]] for n in range(4)]
    batch = read_file(Path("ETHBTC-1w-2017.json"), json.dumps(rows).encode(), ReadOptions())
    assert (batch.shape, batch.venue, batch.interval_seconds) == ("binance klines", "binance", 7 * 86_400)
    first = batch.rows.row(0, named=True)
    assert first["symbol"] == "ETH/BTC"
    assert [first[name] for name in NUMBERS] == [0.0163479, 0.8, 0.015758, 0.015771, 148976.11427815]
    assert first["open_time"] == datetime(2017, 7, 3, tzinfo=UTC)


def test_kite_candles():
    """The shape of Kite Connect's historical candles, open interest included."""
    candles = [
        ["2019-12-04T09:15:00+0530", 12009.9, 12019.35, 12001.25, 12001.5, 163275, 13667775],
        ["2019-12-04T09:16:00+0530", 12001, 12003, 11998.25, 12001, 105750, 13667775],
        ["2019-12-04T09:17:00+0530", 12001, 12001, 11995.1, 11998.55, 48450, 13758000],
    ]
    content = json.dumps({"status": "success", "data": {"candles": candles}}).encode()
    batch = read_file(Path("NIFTY_minute.json"), content, ReadOptions())
    assert (batch.venue, batch.interval_seconds) == ("nse", 60)
    first = batch.rows.row(0, named=True)
    assert first["open_time"] == datetime(2019, 12, 4, 3, 45, tzinfo=UTC)
    assert [first[name] for name in NUMBERS] == [12009.9, 12019.35, 12001.25, 12001.5, 163275]


def test_labels_by_end_move_every_bar_back():
    frame = walk(30)
    content = rows_of(frame).write_csv().encode()
    moved = bars_in("BTC_USDT-1h.csv", content, labels="end")
    assert moved["open_time"].to_list() == [moment - timedelta(hours=1) for moment in frame["open_time"]]


def test_newest_first_is_turned_round():
    frame = walk(50)
    batch = read_file(Path("BTC_USDT-1h.csv"), rows_of(frame.reverse()).write_csv().encode(), ReadOptions())
    same(batch.rows, frame)
    assert any("newest" in note for note in batch.notes)


def test_columns_by_hand():
    frame = walk(30)
    table = rows_of(frame).select("volume", "low", "open_time", "high", "close", "open")
    columns = ("volume", "low", "time", "high", "close", "open")
    same(bars_in("BTC_USDT-1h.csv", table.write_csv(include_header=False).encode(), columns=columns), frame)


@pytest.mark.parametrize(
    ("name", "symbol"),
    [
        ("BTC_USDT-1h.csv", "BTC/USDT"), ("BTCUSDT-1h-2021-01.csv", "BTC/USDT"), ("BTCUSD_1m_2013.csv", "BTC/USD"),
        ("1000SATS_USDT-5m.csv", "1000SATS/USDT"),
    ],
)  # fmt: skip
def test_symbols_from_names(name: str, symbol: str):
    batch = read_file(Path(name), rows_of(walk(20)).write_csv().encode(), ReadOptions())
    assert set(batch.rows["symbol"]) == {symbol}


@pytest.mark.parametrize("interval_seconds", [300, 14_400, 86_400])
def test_a_plain_name_is_no_share_where_its_market_never_closes(interval_seconds: int):
    bars = walk(2_000, interval_seconds=interval_seconds)
    batch = read_file(Path("prices.csv"), rows_of(bars).write_csv().encode(), ReadOptions())
    assert batch.venue == "binance"
    assert any("round the clock" in note for note in batch.notes)
    closing = bars.filter(pl.col("open_time").dt.hour().is_in([0, 4, 5, 6, 7, 8]), pl.col("open_time").dt.weekday() < 6)
    batch = read_file(Path("prices.csv"), rows_of(closing).write_csv().encode(), ReadOptions())
    assert (batch.venue, batch.notes) == ("nse", [])


@pytest.mark.parametrize("name", ["M&M", "BAJAJ-AUTO", "MARUTI", "SBIN"])
def test_shares_keep_their_names(name: str):
    text = walk(20, interval_seconds=86_400).with_columns(pl.col("open_time").dt.strftime("%Y-%m-%d 00:00:00+05:30"))
    batch = read_file(Path(f"{name}_day_2000d.csv"), text.write_csv().encode(), ReadOptions())
    assert (batch.rows["symbol"][0], batch.venue, batch.interval_seconds) == (name, "nse", 86_400)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"when,what\n2021-01-01,5\n", r"no column for .*open.*Found columns: when, what.*Expected"),
        (b"1,2,3\n4,5,6\n", r"none of the 3 columns holds times.*--columns"),
        (b"", "empty"),
        (b"time,open,high,low,close,volume\n", "no rows, only the columns time, open"),
    ],
)
def test_a_file_without_bars_is_one_clear_error(content: bytes, told: str, tmp_path: Path):
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(UnreadableFileError, match=told) as caught:
        read(tmp_path, ReadOptions())
    assert "x.csv" in str(caught.value)


def test_random_bytes_are_refused_by_name(tmp_path: Path):
    (tmp_path / "x.parquet").write_bytes(bytes(range(256)))
    with pytest.raises(UnreadableFileError, match=r"x\.parquet"):
        read(tmp_path, ReadOptions())


def test_a_folder_of_one_kind_leaves_the_odd_file_out_and_says_so(tmp_path: Path):
    for symbol in ("BTC", "ETH"):
        (tmp_path / f"{symbol}_USDT-1h.csv").write_text(rows_of(walk(20)).write_csv())
    (tmp_path / "XRP_USDT-5m.csv").write_text(rows_of(walk(20, interval_seconds=300)).write_csv())
    batches, left_out = read(tmp_path, ReadOptions())
    assert [batch.file for batch in batches] == ["BTC_USDT-1h.csv", "ETH_USDT-1h.csv"]
    assert "5m" in left_out["XRP_USDT-5m.csv"]


@given(st.integers(1, 500), st.sampled_from("mhd"))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_an_interval_survives_its_name(count: int, unit: str):
    seconds = interval_seconds(f"{count}{unit}")
    assert interval_seconds(interval_name(seconds)) == seconds


def test_the_interval_is_the_most_frequent_step():
    frame = walk(200, interval_seconds=900).filter(pl.int_range(200) % 7 != 3)
    batch = read_file(Path("BTC_USDT.csv"), rows_of(frame).write_csv().encode(), ReadOptions())
    assert batch.interval_seconds == 900
    assert batch.rows["open_time"][0] == START
