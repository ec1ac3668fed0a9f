"""The live monitor of precision: kept promises are hardly ever called broken, broken ones soon are, at every look."""

import numpy as np
import polars as pl
import pytest
from scipy.integrate import quad

from tests.learning.markets import HOUR, START
from trading_platform.learning.precision_monitor import ERROR, evidence_against, precision_bounds, watch


def calls(rate: float, promised: float, runs: int, trades: int) -> list[int]:
    """After how many trades each run was called broken; those that never were are left out."""
    rng = np.random.default_rng(5)
    found = []
    for _ in range(runs):
        came_true = rng.random(trades) < rate
        if evidence_against(came_true, np.full(trades, promised)) >= 1.0 / ERROR:
            when = next(
                n for n in range(1, trades + 1) if evidence_against(came_true[:n], np.full(n, promised)) >= 1.0 / ERROR
            )
            found.append(when)
    return found


def test_a_promise_that_is_just_kept_is_called_broken_no_more_often_than_stated() -> None:
    assert len(calls(0.8, 0.8, runs=600, trades=500)) <= 600 * ERROR
    assert not calls(0.9, 0.8, runs=100, trades=500)


def test_a_promise_kept_by_streaks_is_not_called_broken() -> None:
    # Given the past each trade succeeds with .8 or more: a market in which luck comes in streaks.
    rng = np.random.default_rng(6)
    broken = 0
    for _ in range(300):
        came_true = np.zeros(400, dtype=np.bool_)
        for n in range(400):
            came_true[n] = rng.random() < (0.95 if n and came_true[n - 1] else 0.8)
        broken += evidence_against(came_true, np.full(400, 0.8)) >= 1.0 / ERROR
    assert broken <= 300 * ERROR


@pytest.mark.parametrize(("rate", "within"), [(0.5, 30), (0.65, 120)])
def test_a_broken_promise_is_soon_called_so(rate: float, within: int) -> None:
    found = calls(rate, 0.8, runs=60, trades=1_000)
    assert len(found) == 60
    assert np.median(found) <= within


def test_bounds_are_the_mixture_integrated_by_hand_and_cover_at_every_look() -> None:
    successes, trials = 37, 60
    lower, upper = precision_bounds(successes, trials)
    failures = trials - successes

    def stake(p: float, begin: float, end: float) -> float:
        area, _ = quad(lambda q: (q / p) ** successes * ((1 - q) / (1 - p)) ** failures, begin, end)
        return area / (end - begin)

    assert stake(upper, 0.0, upper) == pytest.approx(1.0 / ERROR, rel=1e-6)
    assert stake(lower, lower, 1.0) == pytest.approx(1.0 / ERROR, rel=1e-6)
    assert precision_bounds(0, 0) == (0.0, 1.0)
    rng = np.random.default_rng(7)
    missed = 0
    for _ in range(150):
        hits = np.cumsum(rng.random(200) < 0.7)
        missed += any(
            not lower <= 0.7 <= upper
            for lower, upper in (precision_bounds(int(hits[n - 1]), n) for n in (*range(1, 20), *range(20, 201, 10)))
        )
    assert missed <= 150 * 2 * ERROR


def signals(state: str, certified: bool, labels: list[int], confidence: float = 0.9) -> pl.DataFrame:
    """One signal an hour whose trade takes two: every other one is busy."""
    begins = [START + n * HOUR for n in range(len(labels))]
    return pl.DataFrame(
        {"available_at": begins, "label_end": [begin + 2 * HOUR for begin in begins], "symbol": "A/X", "state": state,
         "certified": certified, "label": labels, "confidence": confidence}
    )  # fmt: skip


def test_only_published_trades_count_one_at_a_time() -> None:
    seen = watch(signals("ok", True, [1, 0] * 100))
    assert (seen.trades, seen.certified_trades, seen.precision, seen.promised) == (100, 100, 1.0, pytest.approx(0.9))
    assert not seen.broken
    assert not seen.certificate_broken
    assert watch(signals("abstain", False, [0] * 100)).trades == 0
    seen = watch(signals("ok", True, [0, 1] * 100))
    assert seen.broken
    assert seen.certificate_broken
    assert seen.upper < 0.1
    seen = watch(signals("ok", False, [0, 1] * 100))
    assert seen.broken
    assert not seen.certificate_broken
