import multiprocessing
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.market_data.frames import START, bar_frame
from trading_platform.market_data.lake import BAR_SCHEMA, Lake, Upserted


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


def test_what_is_written_is_read_back_in_order(lake: Lake):
    frame = pl.concat([bar_frame(30, symbol="ETH/USDT", seed=1), bar_frame(30)]).sample(
        fraction=1, shuffle=True, seed=3
    )
    assert lake.write_bars(frame) == Upserted(60, 0, 0)
    read = lake.bars("d")
    assert read.schema == pl.Schema(BAR_SCHEMA)
    assert read.equals(frame.sort("symbol", "open_time").select(list(BAR_SCHEMA)))


def test_adding_the_same_bars_again_adds_nothing_and_writes_no_file(lake: Lake):
    lake.write_bars(bar_frame(50))
    files = DeltaTable(lake.root / "bars").file_uris()
    version = lake.data_version("d")
    assert lake.write_bars(bar_frame(50)) == Upserted(0, 0, 50)
    assert DeltaTable(lake.root / "bars").file_uris() == files
    assert lake.data_version("d") == version


def test_a_changed_bar_gets_the_next_revision_and_the_others_stay(lake: Lake):
    frame = bar_frame(10)
    lake.write_bars(frame)
    before = lake.data_version("d")
    corrected = frame[4:5].with_columns(close=pl.col("close") * 1.001, high=pl.col("high") * 1.01)
    assert lake.write_bars(corrected) == Upserted(0, 1, 0)
    assert lake.write_bars(corrected) == Upserted(0, 0, 1)
    read = lake.bars("d")
    assert read["revision"].to_list() == [0] * 4 + [1] + [0] * 5
    assert read["close"][4] == corrected["close"][0]
    assert lake.data_version("d") != before
    lake.write_bars(frame[4:5])
    assert lake.bars("d")["revision"].to_list()[4] == 2
    assert lake.data_version("d") == before, "the content is as it was"


def test_a_correction_does_not_exist_before_it_was_available(lake: Lake):
    frame = bar_frame(10)
    lake.write_bars(frame)
    seen_then = lake.data_version("d", as_of=START + timedelta(hours=6))
    late = frame[2:3].with_columns(close=pl.lit(99.0), available_at=pl.lit(START + timedelta(hours=8)))
    lake.write_bars(late)
    assert lake.data_version("d", as_of=START + timedelta(hours=6)) == seen_then
    assert lake.bars("d", as_of=START + timedelta(hours=6))["close"][2] == frame["close"][2]
    assert lake.bars("d", as_of=START + timedelta(hours=8))["close"][2] == 99.0


@given(hours=st.integers(0, 40), more=st.integers(1, 20))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_reader_sees_what_was_available_and_later_bars_do_not_change_its_version(lake: Lake, hours: int, more: int):
    moment = START + timedelta(hours=hours)
    lake.write_bars(bar_frame(60)[:40])
    seen = lake.bars("d", as_of=moment)
    assert len(seen) == hours
    version = lake.data_version("d", as_of=moment)
    lake.write_bars(bar_frame(60)[: 40 + more])
    assert lake.data_version("d", as_of=moment) == version


def test_start_is_included_and_end_is_not(lake: Lake):
    lake.write_bars(pl.concat([bar_frame(24), bar_frame(24, symbol="ETH/USDT")]))
    part = lake.bars("d", ["ETH/USDT"], start=START + timedelta(hours=3), end=START + timedelta(hours=5))
    assert part["open_time"].to_list() == [START + timedelta(hours=3), START + timedelta(hours=4)]
    assert set(part["symbol"]) == {"ETH/USDT"}


def test_datasets_do_not_mix(lake: Lake):
    lake.write_bars(bar_frame(5, dataset_id="a"))
    lake.write_bars(bar_frame(7, dataset_id="b"))
    assert (len(lake.bars("a")), len(lake.bars("b")), len(lake.bars("c"))) == (5, 7, 0)
    assert lake.data_version("a") != lake.data_version("b")


def test_an_empty_lake_answers_with_empty_frames(lake: Lake):
    assert lake.bars("d").schema == pl.Schema(BAR_SCHEMA)
    assert lake.gaps("d").is_empty()
    assert lake.quarantined("d").is_empty()
    assert lake.features("d", "h").is_empty()


def test_a_naive_time_is_refused(lake: Lake):
    lake.write_bars(bar_frame(5))
    with pytest.raises(ValueError, match="naive"):
        lake.bars("d", as_of=START.replace(tzinfo=None))


def test_feature_sets_of_different_columns_share_a_table(lake: Lake):
    keys = bar_frame(5).select("dataset_id", "symbol", "open_time", "available_at")
    first = keys.with_columns(feature_hash=pl.lit("one"), momentum=pl.lit(0.5))
    second = keys.with_columns(feature_hash=pl.lit("two"), volatility=pl.lit(0.1), volume_z=pl.lit(1.0))
    assert lake.write_features(first).added == 5
    assert lake.write_features(second).added == 5
    assert lake.write_features(second) == Upserted(0, 0, 5)
    one, two = lake.features("d", "one"), lake.features("d", "two")
    assert "momentum" in one.columns
    assert "volatility" not in one.columns
    assert two["volume_z"].to_list() == [1.0] * 5
    assert len(lake.features("d", "two", as_of=START + timedelta(hours=2))) == 2


def test_compaction_joins_small_files_and_loses_nothing(lake: Lake):
    frame = bar_frame(12)
    for row in range(12):
        lake.write_bars(frame[row : row + 1])
    assert lake.compact()["bars"] == (12, 1)
    assert lake.bars("d").equals(frame.select(list(BAR_SCHEMA)))


def _write_all(root: Path, first: int) -> None:
    lake = Lake(root)
    frame = bar_frame(15)
    for row in range(first, 15):
        lake.write_bars(frame[row : row + 2])


def test_two_writing_processes_add_no_bar_twice(lake: Lake):
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=_write_all, args=(lake.root, first)) for first in (0, 3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    stored = pl.read_delta(str(lake.root / "bars"))
    assert len(stored) == stored.n_unique(["symbol", "open_time"]) == 15
