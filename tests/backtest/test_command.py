"""The command as people run it: files in, a page and one line of JSON out, errors that say what to change."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from trading_platform.backtest.files import as_bars, load
from trading_platform.backtest.grid import GridError, axis, combinations
from trading_platform.cli import app
from trading_platform.market_data.reading import ReadOptions

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two years of hours that rise and fall in waves of 200 hours, so that averages cross at known times."""
    hours = np.arange(17_520)
    close = np.round(100.0 * np.exp(0.1 * np.sin(2.0 * np.pi * hours / 200.0)), 2)
    opened = np.concatenate([[100.0], close[:-1]])
    path = tmp_path_factory.mktemp("bars") / "BTC_USDT-1h.csv"
    times = pl.datetime_range(pl.datetime(2022, 1, 1), pl.datetime(2023, 12, 31, 23), "1h", eager=True)
    pl.DataFrame(
        {
            "timestamp": times.dt.strftime("%Y-%m-%d %H:%M:%S"), "open": opened, "high": np.maximum(opened, close),
            "low": np.minimum(opened, close), "close": close, "volume": 10.0,
        }
    ).write_csv(path)  # fmt: skip
    return path


def played(*arguments: object) -> dict[str, object]:
    result = RUNNER.invoke(app, ["backtest", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    last: dict[str, object] = json.loads(result.stdout.strip().splitlines()[-1])
    return last


def test_waves_are_traded_once_each_and_the_page_shows_them(csv: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    options = ("--data", csv, "--strategy", "sma_cross", "--set", "fast=5", "--set", "slow=20", "--out", page)
    found = played(*options)
    assert found["bars"] == 17_520
    assert found["trades"] in (87, 88)  # 17,520 hours hold 87.6 waves
    assert found["win_rate"] == 1.0
    assert "luck" not in found["objections"]  # type: ignore[operator]
    text = page.read_text()
    assert text.count("data:image/png;base64,") == 2
    assert "commission" in text and "What speaks against it" in text
    again = played(*options)
    assert again["order_hash"] == found["order_hash"]
    dearer = played(*options, "--charges", "0.02")
    assert dearer["net"] < found["net"]  # type: ignore[operator]


def test_a_grid_is_played_whole_and_judged_as_so_many_trials(csv: Path, tmp_path: Path) -> None:
    page = tmp_path / "grid.html"
    found = played(
        "--data", csv, "--strategy", "sma_cross", "--grid", "fast=5:25:10", "--grid", "slow=20:60:20", "--out", page
    )  # fmt: skip
    assert found["trials"] == 8  # 3 x 3 without fast 25, slow 20
    assert found["probability_of_overfitting"] == 0.0  # every wave is alike
    assert page.read_text().count("data:image/png;base64,") == 3


def test_a_strategy_of_the_platform_plays_with_its_barriers(csv: Path, tmp_path: Path) -> None:
    found = played("--data", csv, "--strategy", "barrier_long", "--set", "horizon_bars=6", "--out", tmp_path / "b.html")
    assert found["parameters"]["horizon_bars"] == 6.0  # type: ignore[index]
    assert found["trades"] > 100  # type: ignore[operator]
    signals = tmp_path / "signals.parquet"
    bars = load(csv, ReadOptions()).frames
    chosen = next(iter(bars.values()))["open_time"][1_000:1_001]
    pl.DataFrame({"symbol": ["BTC/USDT"], "bar_open_time": chosen, "state": ["ok"]}).write_parquet(signals)
    one = played("--data", csv, "--strategy", "barrier_long", "--signals", signals, "--out", tmp_path / "c.html")
    assert one["trades"] == 1
    assert "too_few_trades" in one["objections"]  # type: ignore[operator]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--strategy", "none_such"), "there are sma_cross"),
        (("--strategy", "sma_cross", "--set", "quick=3"), "it has fast, slow"),
        (("--strategy", "sma_cross", "--set", "fast=60"), "fewer bars than the slow one"),
        (("--strategy", "sma_cross", "--grid", "fast=50:10:5"), "the end not below the start"),
        (("--strategy", "sma_cross", "--grid", "fast=90,95", "--grid", "slow=20"), "0 combinations"),
        (("--strategy", "sma_cross", "--charges", "cheap"), "expected auto, none"),
        (("--strategy", "sma_cross", "--fill", "noon"), "expected open or close"),
        (("--strategy", "sma_cross", "--symbol", "ETH/USDT"), "holds no ETH/USDT"),
    ],
)  # fmt: skip
def test_errors_say_what_was_expected(csv: Path, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    result = RUNNER.invoke(app, ["backtest", "--data", str(csv), "--out", str(tmp_path / "x.html"), *arguments])
    assert result.exit_code == 1
    assert message in " ".join(result.output.split())


@given(st.integers(-50, 50), st.integers(1, 40), st.integers(1, 9))
def test_an_axis_has_both_its_ends(start: int, count: int, step: int) -> None:
    name, values = axis(f"stop={start / 10}:{(start + (count - 1) * step) / 10}:{step / 10}")
    assert name == "stop"
    assert (len(values), values[0], values[-1]) == (count, start / 10, (start + (count - 1) * step) / 10)


def test_a_grid_beyond_the_largest_is_refused() -> None:
    with pytest.raises(GridError, match="1 to 100,000"):
        combinations({"a": list(range(101)), "b": list(range(1_000))})


def test_real_hours_lie_in_order_with_their_days(market_data: Path) -> None:
    loaded = load(market_data / "binance_1h" / "BTC_USDT-1h.json.gz", ReadOptions())
    bars = as_bars(loaded.frames["BTC/USDT"])  # type: ignore[index]
    assert (np.diff(bars.open_time) > 0).all()
    opened = bars.open_time.astype("datetime64[us]")
    np.testing.assert_array_equal(opened.astype("datetime64[D]"), bars.days)
