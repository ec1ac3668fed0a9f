"""`learn drift-bench` and `learn ab-bench`: what outsiders run, and the figures that experiments stand on."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from trading_platform.learning.ab_bench import BLOCK, false_promotions, first_decision, independent, times_to_decision
from trading_platform.learning.confidence_sequence import FIRST_LOOK, confidence_sequence
from trading_platform.learning.learn_commands import learn


@pytest.mark.timeout(170)
def test_false_promotions_over_a_thousand_runs_are_at_five_per_cent_whatever_the_dependence() -> None:
    rows = false_promotions(1_000)
    assert [row.differences for row in rows] == ["independent", "AR(.2)", "labels overlapping 5 bars"]
    for row in rows:
        assert row.interval[0] <= 0.05, row
        assert row.naive > 4 * row.blocks


def test_a_difference_is_found_as_soon_as_was_measured_before() -> None:
    """565 trades at .1 and 193 at .2 standard deviations, 63 % by 3,000 at .05; the tolerance is sampling's."""
    small, middle, large = times_to_decision(600)
    assert small.decided_by_3000 == pytest.approx(0.63, abs=0.05) or small.decided_by_3000 > 0.63
    assert middle.median_trades is not None
    assert middle.median_trades <= 565 + 30
    assert large.median_trades is not None
    assert large.median_trades <= 193 + 7


def test_decisions_fall_at_the_end_of_a_block_and_not_before_the_first_look() -> None:
    trades = independent(np.random.default_rng(1), 3_000) + 3.0
    assert first_decision(trades) == FIRST_LOOK * BLOCK
    assert first_decision(-trades) is None
    assert first_decision(trades[: FIRST_LOOK * BLOCK - 1]) is None


def test_neighbours_that_move_together_widen_the_bounds() -> None:
    """The long-run variance of an AR(.5) is (1 + .5) / (1 - .5) times its own: between the two, one lag deep."""
    rng = np.random.default_rng(3)
    noise = rng.normal(size=20_000)
    series = np.zeros(20_000)
    for index in range(1, 20_000):
        series[index] = 0.5 * series[index - 1] + noise[index]
    bounds, shuffled = confidence_sequence(series, 0.05), confidence_sequence(rng.permutation(series), 0.05)
    ratio = (bounds.upper[-1] - bounds.lower[-1]) ** 2 / (shuffled.upper[-1] - shuffled.lower[-1]) ** 2
    assert ratio == pytest.approx(1 + 2 * 0.5, rel=0.05)


def test_the_commands_print_a_table_and_one_json_object(tmp_path: Path) -> None:
    runner = CliRunner()
    shown = runner.invoke(learn, ["ab-bench", "--runs", "10", "--plot", str(tmp_path / "ab.png")])
    assert shown.exit_code == 0, shown.output
    result = json.loads(shown.stdout.splitlines()[-1])
    assert {row["effect"] for row in result["time_to_decision"]} == {0.05, 0.1, 0.2}
    assert (tmp_path / "ab.png").read_bytes().startswith(b"\x89PNG")
    shown = runner.invoke(learn, ["drift-bench", "--streams", "2", "--windows", "1", "--plot", str(tmp_path / "d.png")])
    assert shown.exit_code == 0, shown.output
    result = json.loads(shown.stdout.splitlines()[-1])
    ours = result["detectors"][0]
    assert set(ours) >= {"false_alarms", "delays", "microseconds_per_sample"}
    assert set(ours["delays"][".20 -> .40 at 1,000"]) == {"streams", "p10", "median", "p90", "missed", "early"}
    assert result["features"]["windows"] == 1
    assert result["aim"]["met"] == (result["aim"]["delay"] <= 80 and ours["false_alarms"] <= 0.2)
    assert (tmp_path / "d.png").read_bytes().startswith(b"\x89PNG")
