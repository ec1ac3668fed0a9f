"""The evaluation on planted and empty markets, and the command on files."""

import json
import re
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from tests.learning.markets import HOUR, PLAN, START, frame, walk
from trading_platform.learning.evaluation import Question, evaluate
from trading_platform.learning.learn_commands import learn
from trading_platform.learning.meta_labels import PRIMARY_RULES
from trading_platform.learning.samples import Samples, build_samples
from trading_platform.learning.search import study_file
from trading_platform.learning.trial_returns import periods_of

EMBARGO = PLAN.barriers.horizon_bars * 3_600_000_000
CARD = {"n", "n_effective", "base_rate", "accuracy", "log_loss", "brier", "ece", "precision_at", "coverage_at",
        "certified_80", "expected_value_after_costs"}  # fmt: skip


def samples(signal: float, bars: int = 3_000) -> Samples:
    both = [frame("made", name, **walk(bars, seed, signal)) for seed, name in enumerate(("A/X", "B/X"))]
    return build_samples(pl.concat(both), PLAN, START + bars * HOUR, EMBARGO)


def question(trials: int = 4) -> Question:
    return Question("q", "logistic", trials, 3, 0.1, EMBARGO, 7)


def quiet(what: str, done: int, total: int) -> None: ...


def test_a_planted_signal_is_found_and_every_figure_is_there(tmp_path: Path) -> None:
    report = evaluate(samples(2.0), question(), study_file(tmp_path / "study.log"), quiet)
    card = report["overall"]
    assert set(card) >= CARD
    assert card["log_loss"] < card["log_loss_base_rate"] - 0.05
    assert card["precision_published"]["lower"] > card["base_rate"]
    assert card["expected_value_interval"][0] > 0
    assert card["n_effective"] < card["n"] / 2  # labels of up to six bars overlap
    for level in ("60", "70", "80", "90"):
        found = card["precision_at"][level]
        assert found is None or found["lower"] <= found["value"] <= found["upper"]
    coverage = [card["coverage_at"][level]["value"] for level in ("60", "70", "80", "90")]
    assert coverage == sorted(coverage, reverse=True)
    assert len(report["folds"]) == 3
    assert sum(fold["n"] for fold in report["folds"]) == card["n"]
    for values in report["conditions"].values():
        assert all(set(part) >= CARD for part in values.values())
    assert report["trials"] == 4
    assert min(report["combinatorial"]["path_log_loss_gain"]) > 0.03
    assert len(report["combinatorial"]["path_log_loss_gain"]) == 5
    json.dumps(report, allow_nan=False)


def test_an_interrupted_evaluation_goes_on_and_says_the_same(tmp_path: Path) -> None:
    class Interrupted(Exception): ...

    def stop(what: str, done: int, total: int) -> None:
        if what == "searching hyperparameters" and done == 2:
            raise Interrupted

    rows, file = samples(1.0), study_file(tmp_path / "a.log")
    with pytest.raises(Interrupted):
        evaluate(rows, question(), file, stop)
    seen: list[int] = []
    resumed = evaluate(
        rows, question(), file,
        lambda what, done, total: seen.append(done) if what == "searching hyperparameters" else None,
    )  # fmt: skip
    assert seen[0] == 2
    assert resumed == evaluate(rows, question(), study_file(tmp_path / "b.log"), quiet)


def test_a_random_walk_is_not_certified(tmp_path: Path) -> None:
    report = evaluate(samples(0.0), question(2), study_file(tmp_path / "study.log"), quiet)
    assert not report["overall"]["certified_80"]
    assert report["overall"]["log_loss"] > report["overall"]["log_loss_base_rate"] - 0.005


def test_a_symbol_holds_one_trade_at_a_time() -> None:
    class Rows:
        net_return = np.array([0.1, 0.2, 0.4, 0.8])
        start = np.array([0, 1, 5, 12])
        end = np.array([4, 9, 9, 14])
        symbol = np.array(["A", "A", "B", "A"])

    # A enters at 0, is busy at 1, enters at 12; B at 5. Two symbols share the money; periods of 10.
    earned, trades = periods_of(Rows(), np.arange(4), 10, (0, 19))
    assert trades == 3
    np.testing.assert_allclose(earned, [(0.1 + 0.4) / 2, 0.8 / 2])


def test_a_primary_rule_chooses_the_rows_and_their_overlap() -> None:
    rule = PRIMARY_RULES["trend"]
    matrix = np.array([[0.1], [-0.1], [np.nan], [0.0]])
    assert rule.entries(matrix, ["ema_gap_50"]).tolist() == [True, False, False, False]
    with pytest.raises(ValueError, match="ema_gap_50"):
        rule.entries(matrix, ["rsi_14"])


def hourly_file(folder: Path, bars: int, signal: float) -> Path:
    made = frame("made", "BTC/USDT", **walk(bars, 3, signal))
    path = folder / "BTC_USDT-1h.csv"
    made.select(
        pl.col("open_time").dt.epoch("ms").alias("timestamp"), "open", "high", "low", "close", "volume"
    ).write_csv(path)
    return path


def test_the_command_writes_report_page_and_plots(tmp_path: Path) -> None:
    out = tmp_path / "out" / "report.json"
    data = hourly_file(tmp_path, 4_000, 0.0)
    options = ["--data", str(data), "--interval", "2h", "--horizon", "6", "--trials", "2", "--folds", "2", "--model",
               "logistic", "--primary", "trend", "--out", str(out)]  # fmt: skip
    result = CliRunner().invoke(learn, ["evaluate", *options])
    assert result.exit_code == 0, result.output
    last = json.loads(result.stdout.strip().splitlines()[-1])
    report = json.loads(out.read_text())
    assert last["trials"] == report["trials"] == 2
    assert set(last) >= {"overall", "folds", "conditions", "pbo", "deflated_sharpe", "trials"}
    cards = [last["overall"], *last["folds"], *(card for part in last["conditions"].values() for card in part.values())]
    assert len(cards) > 10
    assert all(set(card) == CARD for card in cards)
    assert all(
        set(card[name]) == {"60", "70", "80", "90"} for card in cards for name in ("precision_at", "coverage_at")
    )
    assert set(report) >= {"overall", "folds", "conditions", "pbo", "deflated_sharpe", "trials"}
    assert set(report["overall"]) >= CARD
    assert report["question"]["interval"] == "2h"
    assert report["data"]["bars"] == 2_000
    assert report["left_out"]["no entry of the primary rule"] > 300
    assert "<img" in out.with_suffix(".html").read_text()
    assert len(list((tmp_path / "out" / "report-plots").glob("*.png"))) == 7
    document = tmp_path / "document.md"
    result = CliRunner().invoke(learn, ["report", str(out), "--out", str(document)])
    assert result.exit_code == 0, result.output
    text = document.read_text()
    assert "BTC_USDT-1h.csv" in text
    links = re.findall(r"\]\((.+?png)\)", text)
    assert links
    assert all((tmp_path / link).is_file() for link in links)


def test_what_cannot_be_evaluated_is_said(tmp_path: Path) -> None:
    data = hourly_file(tmp_path, 100, 0.0)
    for options, said in (
        (["--interval", "5m"], "cannot become"),
        (["--primary", "hunch"], "no primary rule"),
        (["--labels", "middle"], "expected start or end"),
        (["--venue", "nyse"], "expected binance, bitfinex or nse"),
        (["--out", str(tmp_path)], "is a folder"),
        ([], "bring more bars"),
    ):
        result = CliRunner().invoke(
            learn, ["evaluate", "--data", str(data), "--out", str(tmp_path / "r.json"), *options]
        )
        assert result.exit_code == 1
        assert said in " ".join(result.stderr.split())


def test_hours_are_counted_from_midnight_and_known_at_their_end() -> None:
    from trading_platform.market_data.resampling import resample

    bars = frame("made", "A/X", **walk(10, 1)).with_columns(venue=pl.lit("binance"))
    made = resample(bars, 4 * 3600)
    assert made["open_time"].to_list() == [START, START + 4 * HOUR]  # the last, of 2 of 4 hours, is not finished
    assert made["available_at"].to_list() == [START + 4 * HOUR, START + 8 * HOUR]
    first = bars.head(4)
    assert (made["open"][0], made["close"][0]) == (first["open"][0], first["close"][3])
    assert (made["high"][0], made["low"][0]) == (first["high"].max(), first["low"].min())
    assert made["volume"][0] == pytest.approx(first["volume"].sum())
    with pytest.raises(ValueError, match="cannot become"):
        resample(bars, 5400)
    # a part that is absent changes nothing about when the bar is known
    holes = bars.filter(pl.col("open_time") != START + 3 * HOUR)
    assert resample(holes, 4 * 3600)["available_at"][0] == START + timedelta(hours=4)
