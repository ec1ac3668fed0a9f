"""Intervals against scipy on independent rows, and their coverage on rows that hang together."""

import numpy as np
import pytest
from scipy import stats

from trading_platform.learning.intervals import effective_rows, mean, share


def test_independent_rows_give_the_exact_binomial_interval() -> None:
    # a block a row: n rows are worth n
    hits = np.array([True] * 37 + [False] * 13)
    found = share(hits, np.arange(50))
    assert found is not None
    exact = stats.binomtest(37, 50).proportion_ci(0.95, method="exact")
    # p(1-p) / (p(1-p)/n * n/(n-1)) = n - 1 rows, the cluster correction's only cost
    assert found.n_effective == pytest.approx(49)
    assert found.lower == pytest.approx(exact.low, abs=0.005)
    assert found.upper == pytest.approx(exact.high, abs=0.005)


def test_a_mean_of_independent_rows_is_student_s() -> None:
    values = np.random.default_rng(1).normal(0.3, 1.0, 80)
    found = mean(values, np.arange(80))
    assert found is not None
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert (found.lower, found.upper) == (pytest.approx(expected.low), pytest.approx(expected.high))


def test_rows_repeated_within_a_block_are_worth_one() -> None:
    rng = np.random.default_rng(2)
    hits = np.repeat(rng.random(400) < 0.6, 12)
    effective, blocks = effective_rows(hits.astype(float), np.repeat(np.arange(400), 12))
    assert blocks == 400
    assert effective == pytest.approx(400, rel=0.01)


def test_intervals_hold_what_they_promise_on_overlapping_rows() -> None:
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(400):
        chance = np.repeat(rng.random(60) < 0.8, 10)  # ten rows share one fate
        found = share(chance, np.repeat(np.arange(60), 10))
        assert found is not None
        held += found.lower <= 0.8 <= found.upper
    assert held >= 0.93 * 400


def test_edges() -> None:
    assert share(np.array([], dtype=bool), np.array([], dtype=np.int64)) is None
    assert mean(np.array([1.0, 2.0]), np.array([0, 0])) is None
    sure = share(np.ones(30, dtype=bool), np.repeat(np.arange(5), 6))
    assert sure is not None
    assert sure.upper == 1.0
    assert sure.lower < 0.6  # five blocks, not thirty rows


def test_two_blocks_are_worth_two_rows_at_most_and_say_nothing() -> None:
    found = share(np.array([True] * 15 + [False] * 2), np.repeat([0, 1], [12, 5]))
    assert found is not None
    assert found.n_effective >= 0.5
    assert (found.lower, found.upper) == (pytest.approx(0.0, abs=0.01), pytest.approx(1.0, abs=0.01))
