"""Certification: what may not pass does not, what should pass does, and bounds agree with scipy's."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from trading_platform.learning.certification import (
    ERROR,
    Resolved,
    certify,
    clopper_pearson_lower,
    clopper_pearson_upper,
    non_overlapping,
    own_threshold,
    spent_error,
)


def trades(seed: int, precision: float, rows: int = 6_000, overlap: int = 10, base: float = 0.5) -> Resolved:
    """A fifth of the rows at confidence .9, which come true with `precision`, in runs of `overlap` equal outcomes."""
    rng = np.random.default_rng(seed)
    runs = rows // overlap
    high = np.repeat(rng.random(runs) < 0.2, overlap)
    chance = np.where(high[::overlap], precision, 0.5)
    label = np.repeat((rng.random(runs) < chance).astype(np.int8), overlap)
    start = np.arange(runs * overlap, dtype=np.int64)
    return Resolved(
        confidence=np.where(high, 0.9, 0.5),
        label=label,
        net_return=np.where(label == 1, 0.01, -0.01) + rng.normal(0, 0.001, len(label)),
        base_rate=np.full(len(label), base),
        start=start,
        end=(start // overlap + 1) * overlap,
    )


def test_a_precision_at_the_bar_is_hardly_ever_certified() -> None:
    """True precision .80: at most the 10 % that the guarantee allows, though ten rows share each outcome."""
    certified = sum(certify(trades(seed, 0.80), error=0.1).certified for seed in range(300))
    # the share of the first certification is .061; 300 runs at .10 exceed 44 with a chance of one in a thousand
    assert certified <= 44


def test_a_true_signal_is_certified() -> None:
    found = [certify(trades(seed, 0.93)) for seed in range(40)]
    assert sum(result.certified for result in found) >= 34
    assert all(0.5 < result.threshold <= 0.9 for result in found if result.threshold is not None)


def test_precision_that_the_barriers_give_away_is_not_certified() -> None:
    """Precision .93 with barriers that give .93 to a coin: certified no more often than the error allows."""
    certified = [certify(trades(seed, 0.93, base=0.93)).certified for seed in range(100)]
    assert sum(certified) <= 15  # 6 are expected at most; 15 have a chance of one in a thousand
    assert sum(certify(trades(seed, 0.93, base=0.5)).certified for seed in range(20)) >= 15


def test_what_entering_every_bar_would_have_scored_is_no_skill() -> None:
    """Everybody is right 93 % of the time, where a coin with these barriers is right 50 %: the market went up."""
    for seed in range(20):
        rows = trades(seed, 0.93)
        luck = np.random.default_rng(1_000 + seed).random(len(rows.label) // 10) < 0.93
        label = np.repeat(luck.astype(np.int8), 10)
        risen = replace(rows, label=label, net_return=np.where(label == 1, 0.01, -0.01))
        assert not certify(risen).certified
        assert all(tested.base_rate > 0.9 for tested in certify(risen).sequence)


def test_the_mark_is_the_upper_bound_of_everybodys_rate() -> None:
    rows = trades(3, 0.93, base=0.1)
    all_trades = rows.label[::10]  # ten rows share a label and its end
    level = spent_error(1)
    bound = stats.binomtest(int(all_trades.sum()), len(all_trades), alternative="less")
    for tested in certify(rows).sequence:
        assert tested.base_rate == pytest.approx(bound.proportion_ci(1 - level, method="exact").high)
        assert tested.margin_lower == pytest.approx(tested.precision_lower - tested.base_rate)
    assert certify(replace(rows, base_rate=np.full(len(rows.label), np.nan))).threshold is None


@pytest.mark.parametrize(("successes", "trials"), [(0, 5), (3, 5), (5, 5)])
def test_the_upper_bound_agrees_with_scipy(successes: int, trials: int) -> None:
    expected = stats.binomtest(successes, trials, alternative="less").proportion_ci(0.95, method="exact").high
    assert clopper_pearson_upper(successes, trials, 0.05) == pytest.approx(expected)


def test_precision_that_loses_money_is_not_certified() -> None:
    rows = trades(1, 0.95)
    losing = np.where(rows.label == 1, 0.001, -0.05)
    broken = Resolved(rows.confidence, rows.label, losing, rows.base_rate, rows.start, rows.end)
    assert certify(rows).certified
    assert not certify(broken).certified


def test_too_few_trades_certify_nothing() -> None:
    result = certify(trades(1, 1.0, rows=1_500))
    assert result.threshold is None
    assert all(not tested.passed or tested.trades >= 65 for tested in result.sequence)


def test_the_error_is_spent_once() -> None:
    assert sum(spent_error(k) for k in range(1, 20_000)) == pytest.approx(ERROR, rel=1e-3)


@settings(max_examples=50, deadline=None)
@given(trials=st.integers(1, 2_000), share=st.floats(0, 1), error=st.sampled_from([0.01, 0.05, 0.1]))
def test_clopper_pearson_agrees_with_scipy(trials: int, share: float, error: float) -> None:
    successes = round(trials * share)
    expected = stats.binomtest(successes, trials, alternative="greater").proportion_ci(1 - error, method="exact").low
    assert clopper_pearson_lower(successes, trials, error) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10_000), rows=st.integers(0, 100))
def test_trades_taken_never_overlap(seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    start = np.sort(rng.integers(0, 60, rows))
    end = start + rng.integers(1, 10, rows)
    taken = non_overlapping(start, end)
    assert np.all(start[taken][1:] >= end[taken][:-1])
    # greedy: every row left out starts while a taken one runs, or together with one
    for i in set(range(rows)) - set(taken.tolist()):
        assert any(start[t] <= start[i] < end[t] for t in taken)


def test_own_threshold_gives_the_coverage_asked_for() -> None:
    confidence = np.random.default_rng(1).random(10_000)
    assert np.mean(confidence >= own_threshold(confidence, 0.12)) == pytest.approx(0.12, abs=0.001)
