"""Real files against the facts that their README states, and against each other."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from trading_platform.market_data.gaps import find_gaps
from trading_platform.market_data.quality import Judged, Reason, judge
from trading_platform.market_data.reading import Batch, ReadOptions, read

IST = ZoneInfo("Asia/Kolkata")


def taken(path: Path, **options) -> tuple[list[Batch], Judged]:
    batches, _ = read(path, ReadOptions(**options))
    return batches, judge(batches, "d")


def test_binance_hours_have_the_gaps_that_are_known(market_data: Path):
    """ "about 127 bars absent in 27 gaps (longest 34 h, exchange maintenance), a few with zero volume"."""
    _, found = taken(market_data / "binance_1h")
    assert set(found.bars["symbol"]) == {"BTC/USDT", "ETH/USDT", "BNB/USDT", "XRP/USDT"}
    assert set(found.bars["venue"]) == {"binance"}
    assert set(found.bars["interval_seconds"]) == {3600}
    assert not found.reasons, "the source is clean"
    gaps = find_gaps(found.bars).filter(pl.col("symbol") == "BTC/USDT")
    assert (len(gaps), gaps["missing"].sum()) == (27, 127)
    longest = gaps.sort("missing").row(-1, named=True)
    assert longest["last"] - longest["first"] + timedelta(hours=2) == timedelta(hours=34)
    btc = found.bars.filter(pl.col("symbol") == "BTC/USDT")
    assert btc["open_time"].min().year == 2017
    assert btc["open_time"].max().strftime("%Y-%m") == "2022-10"
    assert 1 <= btc.filter(pl.col("volume") == 0).height <= 10


def test_bitfinex_is_known_by_its_column_order_and_its_bad_print_is_kept_out(market_data: Path):
    """Columns are ms, open, close, high, low, volume, without a header; the print of 1.06 on 2013-04-11."""
    batches, found = taken(market_data / "bitfinex_dirty")
    assert batches[0].shape == "bitfinex candles"
    assert set(found.bars["symbol"]) == {"BTC/USD"}
    bad = found.quarantine.filter(pl.col("raw").str.contains('"1.06"')).row(0, named=True)
    assert (bad["reason"], bad["open_time"].date()) == (Reason.FAR_AWAY.value, date(2013, 4, 11))
    assert set(found.reasons) == {Reason.FAR_AWAY}
    assert found.rows == len(found.bars) + found.reasons[Reason.FAR_AWAY]
    # The crash of that day, from 266 to about 50 in hours, is real and stays.
    crash = found.bars.filter(pl.col("open_time").dt.date().is_between(date(2013, 4, 10), date(2013, 4, 12)))
    assert crash["high"].max() > 250
    assert 10 < crash["low"].min() < 70


@pytest.fixture(scope="module")
def nifty(market_data: Path) -> tuple[list[Batch], Judged]:
    return taken(market_data / "nifty_1m_2021")


def test_nifty_labels_are_seen_to_be_ends(nifty):
    batches, found = nifty
    assert all(any("END" in note for note in batch.notes) for batch in batches)
    special = [date(2021, 2, 24), date(2021, 11, 4)]
    ends = found.bars.filter(~pl.col("session_date").is_in(special)).group_by("session_date")
    spans = ends.agg(first=pl.col("open_time").min(), last=pl.col("available_at").max())
    assert len(spans) == 246
    assert {moment.astimezone(IST).strftime("%H:%M") for moment in spans["first"]} == {"09:15"}
    assert {moment.astimezone(IST).strftime("%H:%M") for moment in spans["last"]} == {"15:30"}


def test_nifty_s_pre_open_and_closing_prints_are_outside_the_session(nifty, market_data: Path):
    """Counted from the raw text: labels that are no regular minute and lie in no special session."""
    _, found = nifty
    columns = ["symbol", "day", "time", "o", "h", "l", "c", "v", "oi"]
    files = sorted((market_data / "nifty_1m_2021").iterdir())
    raw = pl.concat([pl.read_csv(f, has_header=False, new_columns=columns, infer_schema=False) for f in files])
    regular = pl.col("time").is_between(pl.lit("09:16"), pl.lit("15:30")) & (pl.col("day") != "20211104")
    evening = (pl.col("day") == "20210224") & pl.col("time").is_between(pl.lit("15:46"), pl.lit("17:00"))
    muhurat = (pl.col("day") == "20211104") & pl.col("time").is_between(pl.lit("18:16"), pl.lit("19:15"))
    outside = raw.filter(~(regular | evening | muhurat))
    assert dict(found.reasons) == {Reason.OUTSIDE_SESSION: len(outside)}
    assert len(found.bars) == len(raw) - len(outside)


def test_nifty_s_outage_day_is_a_gap(nifty):
    """NSE stopped on 2021-02-24: its index feed failed at 10:08 and trading came back in the afternoon."""
    _, found = nifty
    gaps = find_gaps(found.bars).sort("missing")
    outage = gaps.row(-1, named=True)
    assert outage["session"] == "2021-02-24 regular"
    assert outage["first"].astimezone(IST).strftime("%H:%M") == "10:08"
    assert outage["last"].astimezone(IST).strftime("%H:%M") == "15:29"
    assert outage["missing"] == 15 * 60 + 29 - (10 * 60 + 8) + 1


def test_ticks_go_in_with_their_dirt_counted(market_data: Path):
    """A file of NIFTY ticks of one day, with duplicates, rows of other days and prints hours after the close."""
    batches, found = taken(market_data / "ticks")
    raw = batches[0].raw.drop("row_number")
    assert found.reasons[Reason.DUPLICATE] == len(raw) - len(raw.unique())
    once = raw.unique()
    assert found.reasons[Reason.OTHER_DAY] == once.filter(~pl.col("timestamp").str.starts_with("2021-04-16")).height
    late = once.filter(
        pl.col("timestamp").str.starts_with("2021-04-16") & (pl.col("timestamp") >= "2021-04-16 15:30:00")
    )
    assert found.reasons[Reason.OUTSIDE_SESSION] == late.height
    assert len(raw) == found.rows
    assert set(found.bars["session_date"]) == {date(2021, 4, 16)}
    assert set(found.bars["symbol"]) == {"NIFTY 50"}
    minute = once.filter(pl.col("timestamp").str.starts_with("2021-04-16 11:00")).sort("timestamp")
    prices = minute["ltp"].cast(pl.Float64)
    bar = found.bars.filter(pl.col("open_time") == datetime(2021, 4, 16, 5, 30, tzinfo=UTC)).row(0, named=True)
    assert (bar["high"], bar["low"]) == (prices.max(), prices.min())


def test_bars_of_ticks_agree_with_the_exchange_s_own_minutes(market_data: Path, nifty):
    """Two independent sources of 2021-04-16: ticks of about a second, and the year's minutes."""
    _, ticks = taken(market_data / "ticks")
    both = ticks.bars.join(nifty[1].bars, on="open_time", suffix="_minute")
    assert len(both) > 360
    away = ((pl.col("close") / pl.col("close_minute")) - 1).abs()
    assert both.select(away.median()).item() < 0.0001
    assert both.select(away.max()).item() < 0.002


def test_daily_shares_and_the_bhavcopy_agree_but_for_corporate_actions(market_data: Path):
    """48 adjusted histories beside the raw bhavcopy of 2022-08-08: 20 of the 48 differ."""
    batches, left_out = read(market_data / "nse_daily", ReadOptions())
    assert len(batches) == 48
    assert list(left_out) == ["sec_bhavdata_full_08082022.csv.gz"]
    daily = judge(batches, "d").bars
    final = datetime(2022, 8, 8, 10, 30, tzinfo=UTC)  # 16:00 IST, when the session after the close has ended
    assert daily.filter(pl.col("session_date") == date(2022, 8, 8))["available_at"].unique().to_list() == [final]
    _, raw = taken(market_data / "nse_daily" / "sec_bhavdata_full_08082022.csv.gz")
    both = daily.join(raw.bars, on=["symbol", "open_time"], suffix="_raw")
    assert len(both) == 48
    assert both.filter((pl.col("close") / pl.col("close_raw") - 1).abs() > 0.001).height == 20


def test_feather_samples_and_trades(market_data: Path):
    folder = market_data / "binance_5m_samples"
    batches, left_out = read(folder, ReadOptions())
    found = judge(batches, "d")
    assert set(found.bars["symbol"]) == {"ADA/BTC", "ETH/BTC", "LTC/BTC"}
    assert (batches[0].interval_seconds, dict(found.reasons)) == (300, {})
    assert list(left_out) == ["XRP_ETH-trades.feather"]
    _, trades = taken(folder / "XRP_ETH-trades.feather")
    raw = pl.read_ipc(folder / "XRP_ETH-trades.feather")
    assert trades.bars["volume"].sum() == pytest.approx(raw["amount"].sum())
    assert (trades.bars["high"].max(), trades.bars["low"].min()) == (raw["price"].max(), raw["price"].min())
    by_minute = raw.with_columns(minute=pl.col("timestamp") // 60_000).group_by("minute", maintain_order=True)
    assert trades.bars["close"].to_list() == by_minute.agg(pl.col("price").last())["price"].to_list()
