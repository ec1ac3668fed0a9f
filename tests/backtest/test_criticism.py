"""Luck and overfitting against published values and against markets where the truth is known."""

import math

import numpy as np
import pytest

from trading_platform.backtest.criticism import (
    Trials,
    criticise,
    deflated_sharpe,
    expected_best_sharpe,
    luck,
    probabilistic_sharpe,
    probability_of_overfitting,
)
from trading_platform.backtest.statistics import Figures


@pytest.mark.parametrize(("trials", "published"), [(100, 0.9004), (46, 0.9505)])
def test_the_deflated_sharpe_ratio_of_the_paper(trials: int, published: float) -> None:
    """Bailey & Lopez de Prado (2014), the numerical example: 2.5 a year over 1,250 days, skewness -3, kurtosis 10, 100
    trials whose yearly ratios have a variance of 1/2: .9004; after 46 trials it would have been .9505."""
    daily = 1.0 / math.sqrt(250.0)
    assert deflated_sharpe(2.5 * daily, 1_250, -3.0, 10.0, trials, 0.5 / 250) == pytest.approx(published, abs=5e-5)


def test_the_best_of_a_hundred_worthless_trials_of_the_paper() -> None:
    assert expected_best_sharpe(100, 0.5 / 250) == pytest.approx(0.1132, abs=5e-5)
    assert expected_best_sharpe(1, 1.0) == 0.0


def test_the_expected_best_is_what_normal_draws_have() -> None:
    best = np.random.default_rng(1).standard_normal((20_000, 50)).max(axis=1).mean()
    assert expected_best_sharpe(50, 1.0) == pytest.approx(best, rel=0.02)


def test_a_sharpe_ratio_equal_to_its_benchmark_is_a_coin() -> None:
    assert probabilistic_sharpe(0.1, 0.1, 500, -1.0, 6.0) == 0.5


def test_overfitting_of_noise_of_skill_and_of_its_opposite() -> None:
    """Among worthless trials the best one is as often below the median as above it; a trial that is really better stays
    best; and where each trial's gain in one half is its loss in the other, the best one always fails."""
    rng = np.random.default_rng(3)
    noise = [probability_of_overfitting(rng.standard_normal((320, 20)), 8) for _ in range(60)]
    assert np.mean(noise) == pytest.approx(0.5, abs=0.1)
    skilled = rng.standard_normal((1_600, 20))
    skilled[:, 7] += 1.0
    assert probability_of_overfitting(skilled, 16) == 0.0
    turned = rng.standard_normal((2, 20)).repeat(100, axis=0) * 0.3
    turned[100:] = -turned[:100]
    assert probability_of_overfitting(turned + 1e-3 * rng.standard_normal(turned.shape), 2) == 1.0


@pytest.mark.parametrize(("shape", "blocks"), [((100, 1), 4), ((100, 3), 5), ((7, 3), 4)])
def test_what_cannot_be_halved_is_refused(shape: tuple[int, int], blocks: int) -> None:
    with pytest.raises(ValueError, match="even number of blocks"):
        probability_of_overfitting(np.ones(shape), blocks)


def figures(**changes: object) -> Figures:
    values: dict[str, object] = {
        "final_equity": 120.0, "total_return": 0.2, "annual_return": 0.2, "sharpe": 2.0, "max_drawdown": -0.1, "trades": 40,
        "win_rate": 0.6, "profit_factor": 2.0, "mean_net": 0.5, "largest_share": 0.1, "gross": 25.0, "costs": 5.0,
        "net": 20.0, "exposure": 0.5, "buy_and_hold": 0.1, "refused": 0,
    }  # fmt: skip
    return Figures(**(values | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "parameters", "codes"),
    [
        ({}, 4, []),
        ({"trades": 30}, 3, []),
        ({"trades": 29}, 2, ["too_few_trades"]),
        ({"trades": 39}, 4, ["too_many_parameters"]),
        ({"net": 0.0}, 4, ["eaten_by_costs"]),
        ({"largest_share": 0.51}, 4, ["one_trade"]),
        ({"buy_and_hold": 0.21}, 4, ["worse_than_holding"]),
    ],
)
def test_each_objection_at_its_edge(changes: dict[str, object], parameters: int, codes: list[str]) -> None:
    measured = {"deflated_sharpe": 0.95, "probability_of_overfitting": 0.5, "trials": 3}
    assert [finding.code for finding in criticise(figures(**changes), parameters, measured)] == codes


def test_a_thousand_random_walks_and_their_best_are_found_out() -> None:
    returns = np.random.default_rng(5).standard_normal((500, 1_000)) * 0.01
    chosen = int(returns.mean(axis=0).argmax())
    measured = luck(Trials(returns, chosen))
    assert measured["trials"] == 1_000
    assert measured["deflated_sharpe"] is not None and measured["deflated_sharpe"] < 0.95
    alone = luck(Trials(returns[:, [chosen]], 0))
    assert alone["deflated_sharpe"] is not None and alone["deflated_sharpe"] > 0.95  # as the only trial it would pass
    assert alone["probability_of_overfitting"] is None
    codes = [found.code for found in criticise(figures(), 2, measured, ["fast"])]
    assert "luck" in codes and "at_the_edge" in codes
