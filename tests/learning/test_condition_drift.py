"""Drift by market condition: the one that drifted is named, the others are left alone, and looking often costs nothing."""

import itertools
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import lfilter

from tests.learning.markets import START
from trading_platform.learning.condition_drift import ConditionDrift, holm, share_drift, signal_drift
from trading_platform.learning.confidence_sequence import confidence_sequence, sequential_p_value

HOUR = timedelta(hours=1)
BLOCK = 12 * 3_600_000_000
TRENDS = ("down", "sideways", "up")


def stream(seed: int, rows: int = 6_000, wrong_in: str = "", off_in: str = "") -> pl.DataFrame:
    """Calibrated confidences of hourly signals in spells of a trend.

    While the trend is `wrong_in` they come true the other way round, while it is `off_in` fifteen points too rarely.
    """
    rng = np.random.default_rng(seed)
    trend = np.repeat(rng.choice(TRENDS, rows // 20), 20)
    confidence = rng.uniform(0.2, 0.8, rows)
    truth = np.where(trend == wrong_in, 1.0 - confidence, confidence)
    truth = np.where(trend == off_in, truth - 0.15, truth)
    return pl.DataFrame(
        {
            "available_at": [START + n * HOUR for n in range(rows)],
            "confidence": confidence,
            "label": (rng.random(rows) < truth).astype(np.int8),
            "volatility": rng.choice(["low", "high"], rows),
            "trend": trend,
            "liquidity": ["unknown"] * rows,
            "session": rng.choice(["asia", "us"], rows),
        }
    ).with_columns(pl.col("available_at").cast(pl.Datetime("us", "UTC")))


def named(found: list[ConditionDrift]) -> set[tuple[str, str]]:
    return {(each.question, f"{each.condition}={each.value}") for each in found if each.drifted}


def test_the_condition_whose_meaning_changed_is_named_before_all_others() -> None:
    """A third of the bars of every session came at such a time, so sessions are worse too; the other trends are not."""
    found = signal_drift(stream(1, wrong_in="down"), BLOCK, 0.02)
    worst = min((each for each in found if each.question == "concept"), key=lambda each: each.p_value)
    assert (worst.condition, worst.value, worst.drifted) == ("trend", "down", True)
    assert not named(found) & {
        (question, f"trend={value}") for question in ("concept", "calibration") for value in ("up", "sideways")
    }
    (line,) = [each.said for each in found if (each.question, each.value) == ("concept", "down")]
    assert line.startswith("While the trend is down")
    assert "unknown" not in {each.value for each in found}


def test_confidence_that_is_too_high_in_one_condition_is_named() -> None:
    found = signal_drift(stream(2, off_in="up"), BLOCK, 0.02)
    assert named(found) >= {("calibration", "trend=up")}
    assert "trend=down" not in {where for _, where in named(found)}
    (up,) = [each for each in found if (each.question, each.value) == ("calibration", "up")]
    assert up.expected - up.found == pytest.approx(0.15, abs=0.04)
    assert "points too high" in up.said


def test_calibrated_confidences_are_left_alone() -> None:
    """Each question may name something on 5 % of streams: more than 6 of 40 has a chance below 1 %."""
    alarms = [named(signal_drift(stream(100 + seed, 3_000), BLOCK, 0.0)) for seed in range(40)]
    for question in ("calibration", "concept"):
        assert sum(any(each[0] == question for each in found) for found in alarms) <= 6


def test_a_market_that_stays_in_one_condition_is_told_from_one_that_only_lingers() -> None:
    """Spells last, so that a window differs from the training data by chance more than independent bars would."""
    rng = np.random.default_rng(5)
    level = lfilter([1.0], [1.0, -0.95], rng.normal(size=9_000))
    thirds = np.quantile(level, [1 / 3, 2 / 3])
    volatility = np.array(["low", "normal", "high"])[np.searchsorted(thirds, level)]
    moments = np.arange(9_000)
    training = ({"volatility": volatility[:8_400]}, moments[:8_400])
    same = share_drift(training, ({"volatility": volatility[8_400:]}, moments[8_400:]), seed=1)
    assert named(same) == set()
    higher = np.array(["low", "normal", "high"])[np.searchsorted(thirds, level[8_400:] + 4.0)]
    assert ("data", "volatility=high") in named(
        share_drift(training, ({"volatility": higher}, moments[8_400:]), seed=1)
    )


@given(st.lists(st.floats(0, 0.1), min_size=1, max_size=7))
def test_holm_is_the_closure_of_bonferroni(p_values: list[float]) -> None:
    """One hypothesis is rejected where Bonferroni rejects every set of them that holds it (Marcus, Peritz, Gabriel 1976)."""
    found = holm([ConditionDrift("c", str(n), "data", 0, 0, p, 1) for n, p in enumerate(p_values)], 0.05)
    numbers = range(len(p_values))
    sets = [chosen for size in range(1, len(p_values) + 1) for chosen in itertools.combinations(numbers, size)]
    kept = [chosen for chosen in sets if min(p_values[n] for n in chosen) > 0.05 / len(chosen)]
    assert [each.drifted for each in found] == [not any(n in chosen for chosen in kept) for n in numbers]


def test_looking_at_every_block_does_not_reject_what_is_true() -> None:
    rng = np.random.default_rng(6)
    smallest = [sequential_p_value(rng.normal(size=400), 0.0) for _ in range(400)]
    assert np.mean(np.array(smallest) <= 0.05) <= 0.075  # 5 % and three standard errors
    assert sequential_p_value(rng.normal(size=11), 5.0) == 1.0  # nothing is said before the first look


def test_the_p_value_and_the_bounds_tell_the_same() -> None:
    """Tuned at the level it is compared with, p falls below it just where the bound passes the null."""
    rng = np.random.default_rng(7)
    for mean in (-0.3, 0.0, 0.1, 0.2, 0.4):
        values = rng.normal(mean, 1.0, 200)
        ever_above = bool((confidence_sequence(values, 0.025).lower > 0.0).any())
        assert (sequential_p_value(values, 0.0, above=True, tuned_at=0.05) < 0.05) == ever_above
