"""Overfitting measures against the numbers of their papers, and against counting by hand."""

from itertools import combinations

import numpy as np
import pytest

from trading_platform.learning.overfitting import (
    deflated_sharpe,
    expected_maximum_sharpe,
    probabilistic_sharpe,
    probability_of_overfitting,
    sharpe,
)


def test_the_worked_example_of_the_deflated_sharpe_paper() -> None:
    # Bailey & Lopez de Prado (2014), "A numerical example": annual ratio 2.5 over 1,250 days, skewness -3, kurtosis 10,
    # 100 trials whose annual ratios vary by 1/2.
    expected = expected_maximum_sharpe(1 / (2 * 250), 100)
    assert expected == pytest.approx(0.1132, abs=5e-5)
    ratio = 2.5 / np.sqrt(250)
    assert probabilistic_sharpe(ratio, expected, 1250, -3, 10) == pytest.approx(0.9004, abs=5e-5)
    # "after only 46 independent trials" it would have passed at 95 %; with normal returns after 88
    fewer = expected_maximum_sharpe(1 / (2 * 250), 46)
    assert probabilistic_sharpe(ratio, fewer, 1250, -3, 10) == pytest.approx(0.9505, abs=5e-5)
    normal = expected_maximum_sharpe(1 / (2 * 250), 88)
    assert probabilistic_sharpe(ratio, normal, 1250) == pytest.approx(0.9505, abs=5e-5)


def test_the_expected_maximum_is_that_of_a_simulation() -> None:
    simulated = np.random.default_rng(1).normal(0, 0.1, (20_000, 50)).max(axis=1).mean()
    assert expected_maximum_sharpe(0.01, 50) == pytest.approx(simulated, rel=0.02)


def test_luck_among_many_trials_is_deflated_and_skill_is_not() -> None:
    rng = np.random.default_rng(2)
    lucky = [deflated_sharpe(r[:, np.argmax(s)], s) for r, s in (_trials(rng, 0.0) for _ in range(200))]
    # the winner of 40 trials without skill: rarely believed, though on its own it looks good
    assert np.mean(np.array(lucky) > 0.95) <= 0.10
    skilled = [deflated_sharpe(r[:, np.argmax(s)], s) for r, s in (_trials(rng, 0.25) for _ in range(50))]
    assert np.mean(np.array(skilled) > 0.95) > 0.9


def _trials(rng: np.random.Generator, skill: float) -> tuple[np.ndarray, np.ndarray]:
    returns = rng.normal(0, 1, (500, 40))
    returns[:, 0] += skill
    return returns, np.array([sharpe(column) for column in returns.T])


def test_overfitting_equals_counting_by_hand() -> None:
    returns = np.random.default_rng(3).normal(0.1, 1, (40, 5))
    blocks = np.split(returns, 4)
    worse = 0
    for inside in combinations(range(4), 2):
        first = np.concatenate([blocks[b] for b in inside])
        second = np.concatenate([blocks[b] for b in range(4) if b not in inside])
        winner = np.argmax(first.mean(0) / first.std(0, ddof=1))
        ratios = second.mean(0) / second.std(0, ddof=1)
        worse += (ratios < ratios[winner]).sum() + 1 <= 3  # rank of 5 at or below the median
    found = probability_of_overfitting(returns, blocks=4)
    assert found.pbo == pytest.approx(worse / 6)
    assert len(found.logits) == 6


def test_a_trial_with_skill_is_no_overfitting_and_noise_is_a_coin() -> None:
    rng = np.random.default_rng(4)
    noise = [probability_of_overfitting(rng.normal(0, 1, (480, 20))).pbo for _ in range(60)]
    assert np.mean([p for p in noise if p is not None]) == pytest.approx(0.5, abs=0.08)
    skilled = rng.normal(0, 1, (480, 20))
    skilled[:, 7] += 0.5
    assert probability_of_overfitting(skilled).pbo == 0.0


def test_what_shines_in_one_half_and_fails_in_the_other_is_overfitted() -> None:
    # Trial i earns in block i alone and pays for it in all others: whoever wins inside loses outside.
    rng = np.random.default_rng(5)
    returns = rng.normal(0, 0.01, (120, 12))
    for trial in range(12):
        returns[:, trial] -= 0.1
        returns[trial * 10 : trial * 10 + 10, trial] += 2.2
    assert probability_of_overfitting(returns).pbo == 1.0


def test_too_little_to_say_says_nothing() -> None:
    assert probability_of_overfitting(np.ones((100, 3))).pbo is None
    assert probability_of_overfitting(np.random.default_rng(0).normal(size=(100, 1))).pbo is None
    assert probability_of_overfitting(np.random.default_rng(0).normal(size=(23, 3))).pbo is None
    assert probability_of_overfitting(np.random.default_rng(0).normal(size=(24, 3))).pbo is not None
    with pytest.raises(ValueError, match="even"):
        probability_of_overfitting(np.ones((100, 3)), blocks=5)
