"""Each rule on rows broken on purpose; what is not broken comes through untouched."""

import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.market_data.frames import bar_frame, walk
from trading_platform.market_data.quality import Judged, Reason, TooMuchLostError, judge, judge_live
from trading_platform.market_data.reading import ReadOptions, read_file

MS = ["open_time", "open", "high", "low", "close", "volume"]


def table(bars: int = 200) -> list[list]:
    return [list(row) for row in walk(bars).with_columns(pl.col("open_time").dt.epoch("ms")).select(MS).iter_rows()]


def judged(rows: list[list], **options) -> Judged:
    text = "\n".join(",".join("" if value is None else str(value) for value in row) for row in [MS, *rows])
    return judge([read_file(Path("BTC_USDT-1h.csv"), text.encode(), ReadOptions())], "d", **options)


BREAKS = {
    Reason.NO_TIME: lambda row: ["yesterday", *row[1:]],
    Reason.NOT_A_NUMBER: lambda row: [row[0], row[1], "n/a", *row[3:]],
    Reason.WRONG_DATE: lambda row: [1000, *row[1:]],
    Reason.NOT_POSITIVE: lambda row: [*row[:3], -row[3], *row[4:]],
    Reason.NEGATIVE_VOLUME: lambda row: [*row[:5], -1.0],
    Reason.HIGH_BELOW_LOW: lambda row: [row[0], row[1], row[3], row[2], *row[4:]],
    Reason.OUTSIDE_RANGE: lambda row: [*row[:4], row[2] * 1.01, row[5]],
    Reason.FAR_AWAY: lambda row: [row[0], *(value * 0.09 for value in row[1:5]), row[5]],
}


@pytest.mark.parametrize("reason", list(BREAKS))
@pytest.mark.parametrize("at", [0, 57, 199])
def test_a_broken_row_is_set_aside_under_its_reason_with_the_row_as_it_was(reason: Reason, at: int):
    rows = table()
    rows[at] = BREAKS[reason](rows[at])
    found = judged(rows)
    assert found.reasons == Counter({reason: 1})
    kept = found.quarantine.row(0, named=True)
    assert (kept["row_number"], kept["file"], kept["reason"]) == (at + 1, "BTC_USDT-1h.csv", reason.value)
    assert list(json.loads(kept["raw"]).values()) == [str(value) for value in rows[at]]
    assert len(found.bars) == 199


def test_ten_times_too_high_is_as_far_as_a_tenth():
    rows = table()
    rows[80] = [rows[80][0], *(value * 11 for value in rows[80][1:5]), rows[80][5]]
    assert judged(rows).reasons == Counter({Reason.FAR_AWAY: 1})


def test_a_lasting_fall_of_nine_tenths_is_not_a_bad_print():
    rows = [
        [row[0], *(value * (0.05 if n >= 100 else 1) for value in row[1:5]), row[5]] for n, row in enumerate(table())
    ]
    assert not judged(rows).reasons


def test_zero_volume_is_allowed():
    rows = [[*row[:5], 0] for row in table()]
    assert len(judged(rows).bars) == 200


def test_an_identical_row_is_a_duplicate_and_a_different_one_a_conflict():
    rows = table()
    rows.insert(11, rows[10])
    rows.insert(51, [*rows[50][:5], rows[50][5] + 1])
    found = judged(rows)
    assert found.reasons == Counter({Reason.DUPLICATE: 1, Reason.CONFLICTING: 1})
    assert found.lost == 1
    assert len(found.bars) == 200


@given(st.lists(st.integers(0, 199), unique=True, max_size=8), st.randoms())
@settings(max_examples=30, deadline=None)
def test_every_row_is_a_bar_or_in_quarantine(where: list[int], random):
    rows = table()
    for at in where:
        rows[at] = BREAKS[random.choice(list(BREAKS))](rows[at])
    found = judged(rows, accept_loss=True)
    assert found.rows == 200 == len(found.bars) + len(found.quarantine)
    assert sorted(found.quarantine["row_number"].to_list()) == sorted(at + 1 for at in where)


def test_one_stamp_too_late_condemns_itself_and_not_the_rest():
    rows = table()
    rows[20] = [rows[150][0] + 1, *rows[20][1:]]
    found = judged(rows)
    assert found.reasons == Counter({Reason.OUT_OF_ORDER: 1})
    assert found.quarantine["row_number"].to_list() == [21]


def test_swapped_rows_lose_the_fewest():
    rows = table()
    rows[30], rows[31] = rows[31], rows[30]
    assert judged(rows).reasons == Counter({Reason.OUT_OF_ORDER: 1})


def test_more_than_a_twentieth_lost_is_refused_and_an_explicit_flag_lets_it_in():
    rows = table()
    for at in range(11):
        rows[at] = BREAKS[Reason.HIGH_BELOW_LOW](rows[at])
    with pytest.raises(TooMuchLostError, match=r"11 of 200 rows \(6%\).*at most 5%.*high_below_low 11.*--accept-loss"):
        judged(rows)
    assert len(judged(rows, accept_loss=True).bars) == 189
    assert len(judged(rows[:10] + table()[10:]).bars) == 190  # ten are a twentieth


def test_a_wrong_time_zone_shows_as_rows_outside_the_sessions():
    times = [f"2021-02-23 {9 + n // 60:02}:{n % 60:02}" for n in range(15, 390)]
    text = "\n".join(["datetime,open,high,low,close,volume", *(f"{time},10,11,9,10,0" for time in times)])

    def judge_in(zone: str) -> Judged:
        batch = read_file(Path("NIFTY_1m.csv"), text.encode(), ReadOptions(time_zone=zone, venue="nse", labels="start"))
        return judge([batch], "d")

    assert len(judge_in("Asia/Kolkata").bars) == 375
    with pytest.raises(TooMuchLostError, match=r"outside the venue's sessions.*--time-zone"):
        judge_in("UTC")


def test_ticks_become_bars_and_bad_ticks_are_counted():
    lines = ["timestamp,ltp,volume"]
    for second in range(0, 180, 10):
        lines.append(f"2021-04-16 09:{15 + second // 60}:{second % 60:02},{100 + second / 10},2")
    lines += [
        "1970-01-01 05:30:00,100,1", "2021-04-19 09:15:13,100,1", "2021-04-16 15:30:00,100,1",
        "2021-04-16 09:17:50,117.0,2", "2021-04-16 09:15:05,100.5,1", "2021-04-16 09:17:55,-3,1",
    ]  # fmt: skip
    batch = read_file(Path("Nifty_16_April.csv"), "\n".join(lines).encode(), ReadOptions())
    found = judge([batch], "d", accept_loss=True)
    assert found.reasons == Counter({
        Reason.WRONG_DATE: 1, Reason.OTHER_DAY: 1, Reason.OUTSIDE_SESSION: 1, Reason.DUPLICATE: 1,
        Reason.OUT_OF_ORDER: 1, Reason.NOT_POSITIVE: 1,
    })  # fmt: skip
    bars = found.bars.select("open_time", "open", "high", "low", "close", "volume").rows()
    assert bars == [
        (datetime(2021, 4, 16, 3, 45 + minute, tzinfo=UTC), 100.0 + 6 * minute, 105.0 + 6 * minute,
         100.0 + 6 * minute, 105.0 + 6 * minute, 12.0)
        for minute in range(3)
    ]  # fmt: skip


def test_a_live_bar_is_judged_beside_the_ones_before_it():
    frame = bar_frame(40)
    far = frame[39:].with_columns(pl.col("open", "high", "low", "close") / 20)
    good, bad = judge_live(frame[39:], frame[:39])
    assert (len(good), len(bad)) == (1, 0)
    good, bad = judge_live(far, frame[:39])
    assert good.is_empty()
    assert bad["reason"].to_list() == [Reason.FAR_AWAY.value]
