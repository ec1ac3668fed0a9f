"""The checks as a command, on all the real data there are: what ships passes, what leaks is caught."""

import json
import sys
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from tests.features.bars import nifty_minutes, real_hours
from trading_platform.features.checks import SETTLED, check_symbols
from trading_platform.learning.learn_commands import learn
from trading_platform.market_data.quality import judge
from trading_platform.market_data.reading import ReadOptions, read


@pytest.mark.parametrize("what", ["hours", "minutes", "days"])
def test_every_shipped_feature_passes_on_real_bars(market_data: Path, what: str) -> None:
    if what == "days":
        batches, _ = read(market_data / "nse_daily" / "INFY_day_2000d.csv.gz", ReadOptions())
        bars = judge(batches, "files_days").bars.sort("open_time")
    else:
        bars = real_hours(market_data) if what == "hours" else nifty_minutes(market_data)
    found = check_symbols(bars)
    assert [one.leaking for one in found] == [[]]
    assert [one.differing for one in found] == [[]]
    assert all(one.passed for one in found)


def test_too_little_history_says_so_at_its_edge(market_data: Path) -> None:
    bars = real_hours(market_data)
    with pytest.raises(ValueError, match="bring more history"):
        check_symbols(bars.tail(SETTLED))
    assert check_symbols(bars.tail(SETTLED + 300))


OWN = """
import polars as pl

def leaking(bars):
    change = bars["close"].log().diff()
    return pl.DataFrame({"honest": change, "leaks": change / change.std(), "peeks": bars["close"].shift(-3)})

def endless(bars):
    return pl.DataFrame({"honest": bars["close"].log().diff(), "all_volume": bars["volume"].cum_sum()})

def fair(bars):
    return pl.DataFrame({"honest": bars["close"].log().diff()})
"""


@pytest.mark.parametrize(
    ("function", "code", "leaking", "endless"),
    [("fair", 0, [], []), ("leaking", 1, ["leaks", "peeks"], None), ("endless", 1, [], ["all_volume"])],
)
def test_the_command_catches_a_feature_that_knows_the_future(
    market_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, code: int, leaking: list[str],
    endless: list[str] | None,
) -> None:  # fmt: skip
    module = f"own_features_{function}"
    (tmp_path / f"{module}.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    data = tmp_path / "BTC_USDT-1h.csv"
    real_hours(market_data).tail(3_000).select(
        pl.col("open_time").dt.epoch("ms").alias("timestamp"), "open", "high", "low", "close", "volume"
    ).write_csv(data)
    result = CliRunner().invoke(learn, ["check-lookahead", "--data", str(data), "--features", f"{module}:{function}"])
    assert result.exit_code == code, result.output
    last = json.loads(result.stdout.strip().splitlines()[-1])
    assert last["leaking"] == leaking
    assert endless is None or last["never_settling"] == endless


def test_a_function_that_is_not_there_is_said(market_data: Path, tmp_path: Path) -> None:
    data = market_data / "nse_daily" / "INFY_day_2000d.csv.gz"
    result = CliRunner().invoke(learn, ["check-lookahead", "--data", str(data), "--features", "nowhere:nothing"])
    assert result.exit_code == 1
    assert "nowhere" in result.stderr
