import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from tests.market_data.exchange import running_exchange
from tests.market_data.frames import walk
from trading_platform.market_data import commands
from trading_platform.market_data.datasets import IngestOptions, IngestReport, VenueUnreachableError, ingest, resolve
from trading_platform.market_data.lake import Lake
from trading_platform.market_data.reading import ReadOptions
from trading_platform.market_data.synthetic import START
from trading_platform.storage.control import Dataset
from trading_platform.storage.databases import Databases

OFFLINE = "http://127.0.0.1:9"


@pytest.fixture
def lake(platform: Databases) -> Lake:
    return Lake(platform.settings.lake_dir)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two symbols of 400 hours; one row is broken."""
    files = tmp_path / "hours"
    files.mkdir()
    for seed, symbol in enumerate(("BTC", "ETH")):
        frame = walk(400, seed).with_columns(pl.col("open_time").dt.epoch("ms"))
        text = frame.write_csv()
        if symbol == "ETH":
            lines = text.splitlines()
            lines[100] = lines[100].rsplit(",", 1)[0] + ",-5"
            text = "\n".join(lines)
        (files / f"{symbol}_USDT-1h.csv").write_text(text)
    return files


def quick(**options) -> IngestOptions:
    return IngestOptions(repair=False, **options)


def row_of(platform: Databases, report: IngestReport) -> Dataset:
    with platform.control() as session:
        row = session.get(Dataset, report.dataset_id)
    assert row is not None
    return row


def test_a_folder_becomes_a_dataset_and_a_second_time_adds_nothing(platform: Databases, lake: Lake, folder: Path):
    first = ingest(platform, lake, str(folder), quick())
    version = lake.data_version(first.dataset_id)
    assert (first.rows, first.bars, first.added, first.quarantined) == (800, 799, 799, {"negative_volume": 1})
    assert (first.gaps_found, first.bars_missing) == (1, 1)
    again = ingest(platform, lake, str(folder), quick())
    assert (again.dataset_id, again.added, again.changed, again.bars) == (first.dataset_id, 0, 0, 799)
    assert lake.data_version(first.dataset_id) == version
    assert len(lake.quarantined(first.dataset_id)) == 1
    assert len(lake.gaps(first.dataset_id)) == 1
    row = row_of(platform, first)
    assert (row.kind, row.venue, row.interval_seconds) == ("files", "binance", 3600)
    assert row.symbols["ETH/USDT"]["bars"] == 399
    assert row.details["quarantined"] == {"negative_volume": 1}


def test_the_replay_tail_is_a_tenth_at_most(platform: Databases, lake: Lake, folder: Path):
    report = ingest(platform, lake, str(folder), quick())
    assert report.replay_from == report.last - timedelta(hours=39)
    short = ingest(platform, lake, str(folder), quick(replay_bars=10))
    assert short.replay_from == short.last - timedelta(hours=9)
    assert short.dataset_id != report.dataset_id
    assert row_of(platform, short).replay_from == short.replay_from


def test_the_identity_follows_bytes_and_flags_not_places(platform: Databases, lake: Lake, folder: Path):
    first = ingest(platform, lake, str(folder), quick())
    moved = folder.rename(folder.with_name("elsewhere"))
    assert ingest(platform, lake, str(moved), quick()).dataset_id == first.dataset_id
    ends = ingest(platform, lake, str(moved), quick(read=ReadOptions(labels="end")))
    assert ends.dataset_id != first.dataset_id
    assert ends.first == first.first - timedelta(hours=1)
    file = moved / "BTC_USDT-1h.csv"
    file.write_text(file.read_text() + "\n")
    assert ingest(platform, lake, str(moved), quick()).dataset_id != first.dataset_id


def test_synthetic_bars_say_what_they_are(platform: Databases, lake: Lake):
    report = ingest(platform, lake, "synthetic", IngestOptions(bars=500))
    row = row_of(platform, report)
    assert (row.kind, report.bars, report.gaps_found, report.quarantined) == ("synthetic", 2000, 0, {})
    assert row.details["synthetic"]["seed"] == 7
    assert report.replay_from == START + timedelta(hours=450)
    assert ingest(platform, lake, "synthetic", IngestOptions(bars=500)).added == 0


def test_a_drill_is_a_dataset_of_its_own_and_says_so(platform: Databases, lake: Lake):
    plain = ingest(platform, lake, "synthetic", IngestOptions(bars=500))
    drilled = ingest(platform, lake, "synthetic", IngestOptions(bars=500, drill="drift"))
    assert drilled.dataset_id != plain.dataset_id
    assert row_of(platform, drilled).details["drill"]["from"] == (START + timedelta(hours=475)).isoformat()
    prices = ["symbol", "open_time", "open", "high", "low", "close"]
    before = START + timedelta(hours=475)
    first, second = (lake.bars(r.dataset_id, end=before).select(prices) for r in (plain, drilled))
    assert first.equals(second)
    first, second = (lake.bars(r.dataset_id, start=before).select(prices) for r in (plain, drilled))
    assert not first.equals(second)


def test_auto_says_aloud_that_it_is_synthetic_where_binance_does_not_answer():
    source, why = resolve("auto", OFFLINE)
    assert source == "synthetic"
    assert "SYNTHETIC" in why


def test_a_venue_out_of_reach_is_one_clear_error(platform: Databases, lake: Lake):
    with pytest.raises(VenueUnreachableError, match=r"BTC/USDT.*3 s"):
        ingest(platform, lake, "binance", IngestOptions(base_url=OFFLINE))


async def test_the_live_venue_s_history_comes_by_rest(platform: Databases, lake: Lake):
    """Through the real client; the test exchange's bars are of 2024-03-01, so the days go back that far."""
    async with running_exchange() as exchange:
        for index in range(2500):
            exchange.close_bar(index, "BTCUSDT", "ETHUSDT")
        days = (datetime.now(UTC) - datetime(2024, 2, 29, tzinfo=UTC)).days
        options = IngestOptions(
            base_url=exchange.url, symbols=("BTC/USDT", "ETH/USDT"), interval_seconds=60, days=days, repair=False
        )
        report = await asyncio.to_thread(ingest, platform, lake, "binance", options)
        assert (report.dataset_id, report.kind, report.bars, report.replay_from) == ("binance_1m", "venue", 5000, None)
        exchange.close_bar(2500, "BTCUSDT", "ETHUSDT")
        again = await asyncio.to_thread(ingest, platform, lake, "binance", options)
    assert (again.added, again.changed, again.bars) == (2, 0, 5002)


def test_the_command_prints_counts_by_reason_and_an_error_names_the_file(
    platform: Databases, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(commands, "settings", lambda: platform.settings)
    app = commands.typer.Typer()
    app.command("ingest")(commands.ingest)
    app.add_typer(commands.lake, name="lake")
    runner = CliRunner()
    result = runner.invoke(app, ["ingest", str(folder), "--no-repair"])
    assert result.exit_code == 0, result.output
    assert "negative_volume" in result.output
    dataset_id = next(word for word in result.output.split() if word.startswith("files_"))
    shown = runner.invoke(app, ["lake", "show", dataset_id])
    assert shown.exit_code == 0, shown.output
    assert "ETH/USDT" in shown.output
    (folder / "BTC_USDT-1h.csv").write_text("a,b\n1,2\n")
    failed = runner.invoke(app, ["ingest", str(folder)])
    assert failed.exit_code == 1
    assert "BTC_USDT-1h.csv" in failed.output
    assert "Traceback" not in failed.output
