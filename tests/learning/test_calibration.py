"""Calibrators against an independent implementation, known truths, and the properties of the papers."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mapie._venn_abers import calc_p0p1, calc_probs  # an independent implementation of Vovk's algorithms

from trading_platform.learning.calibration import (
    best_method,
    brier,
    calibrator_from,
    expected_calibration_error,
    expit,
    fit_calibrator,
    fit_isotonic,
    fit_sigmoid,
    fit_venn_abers,
    log_loss,
    logit,
    reliability,
)


def draw(seed: int, rows: int, slope: float = 0.5, intercept: float = -0.3):
    """Scores whose true probability is known: expit(slope * log-odds + intercept)."""
    rng = np.random.default_rng(seed)
    scores = rng.uniform(0.05, 0.95, rows)
    truth = expit(slope * logit(scores) + intercept)
    return scores, (rng.random(rows) < truth).astype(np.int8), truth


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), rows=st.integers(5, 120), decimals=st.sampled_from([1, 2, 6]))
def test_venn_abers_agrees_with_another_implementation(seed: int, rows: int, decimals: int) -> None:
    rng = np.random.default_rng(seed)
    scores = np.round(rng.random(rows), decimals)
    labels = (rng.random(rows) < scores).astype(np.int8)
    ours = fit_venn_abers(scores, labels)
    both = np.column_stack([1 - scores, scores])
    p0, p1, knots = calc_p0p1(both, labels)
    _, theirs = calc_probs(p0, p1, knots, both)
    lower, upper = ours.intervals(scores)
    assert lower == pytest.approx(theirs[:, 0], abs=1e-9)
    assert upper == pytest.approx(theirs[:, 1], abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), rows=st.integers(3, 400))
def test_venn_abers_is_a_monotone_interval_around_its_point(seed: int, rows: int) -> None:
    scores, labels, _ = draw(seed, rows)
    weights = np.random.default_rng(seed).uniform(0.1, 1.0, rows)
    fitted = fit_venn_abers(scores, labels, weights)
    grid = np.linspace(0, 1, 101)
    lower, upper = fitted.intervals(grid)
    point = fitted.many(grid)
    assert np.all(lower <= upper + 1e-12)
    assert np.all((lower - 1e-12 <= point) & (point <= upper + 1e-12))
    assert np.all(np.diff(lower) >= -1e-12)
    assert np.all(np.diff(upper) >= -1e-12)


def test_fewer_effective_samples_widen_the_interval() -> None:
    scores, labels, _ = draw(1, 2_000)
    full, thin = fit_venn_abers(scores, labels), fit_venn_abers(scores, labels, np.full(2_000, 0.1))
    width = [np.subtract(*fitted.intervals(scores)[::-1]).mean() for fitted in (full, thin)]
    assert width[1] > 3 * width[0]


def test_sigmoid_finds_the_planted_curve() -> None:
    scores, labels, _ = draw(2, 40_000)
    fitted = fit_sigmoid(scores, labels)
    assert (fitted.slope, fitted.intercept) == pytest.approx((0.5, -0.3), abs=0.05)


def test_a_few_dozen_samples_claim_no_certainty() -> None:
    """On scores that mean nothing the fitted curve strays from the base rate; the prior keeps it near."""
    rng = np.random.default_rng(11)
    strayed = []
    for _ in range(200):
        scores = rng.uniform(0.2, 0.8, 60)
        labels = (rng.random(60) < 0.5).astype(np.int8)
        strayed.append(abs(fit_sigmoid(scores, labels).one(0.8) - labels.mean()))
    # without the prior it is .204 on these draws, and a separable window says 1
    assert np.quantile(strayed, 0.95) < 0.19
    assert fit_sigmoid(np.linspace(0.4, 0.6, 40), (np.arange(40) >= 20).astype(np.int8)).one(0.6) < 0.75


def test_a_score_that_points_the_wrong_way_gives_the_base_rate() -> None:
    scores, labels, _ = draw(3, 5_000, slope=-1.0)
    fitted = fit_sigmoid(scores, labels)
    assert fitted.slope == 0.0
    assert fitted.one(0.9) == pytest.approx(labels.mean(), abs=0.01)


@pytest.mark.parametrize("method", ["sigmoid", "venn_abers", "isotonic"])
def test_calibration_repairs_what_it_was_not_fitted_on(method: str) -> None:
    scores, labels, _ = draw(4, 6_000)
    later, later_labels, _ = draw(5, 6_000)
    fitted = fit_calibrator(method, scores, labels)
    before = expected_calibration_error(reliability(later, later_labels))
    after = expected_calibration_error(reliability(fitted.many(later), later_labels))
    assert before > 0.08
    assert after < 0.035  # of 15 bins of 400 rows the true probabilities themselves score .02
    again = calibrator_from(json.loads(json.dumps(fitted.document())))
    assert again == fitted
    assert [again.one(score) for score in later] == fitted.many(later).tolist(), "to the last bit"


def test_isotonic_wants_a_thousand_samples() -> None:
    scores, labels, _ = draw(6, 900)
    with pytest.raises(ValueError, match="1,000"):
        fit_isotonic(scores, labels)
    method, losses = best_method((scores, labels, np.ones(900)), (scores, labels, np.ones(900)))
    assert method in {"sigmoid", "venn_abers"}
    assert "isotonic" not in losses


def test_a_table_is_chosen_only_where_the_sigmoid_cannot_follow() -> None:
    rng = np.random.default_rng(8)

    def window(rows: int, bent: bool):
        scores = rng.uniform(0.05, 0.95, rows)
        truth = np.where(scores > 0.5, 0.9, 0.5) if bent else scores
        return scores, (rng.random(rows) < truth).astype(np.int8), np.ones(rows)

    assert best_method(window(5_000, bent=False), window(5_000, bent=False))[0] == "sigmoid"
    assert best_method(window(5_000, bent=True), window(5_000, bent=True))[0] != "sigmoid"


def test_isotonic_says_nothing_extreme_on_a_handful() -> None:
    """A few lucky rows at the top of the scale do not become a certainty."""
    rng = np.random.default_rng(9)
    scores = np.concatenate([rng.uniform(0.4, 0.6, 4_000), np.full(4, 0.99)])
    labels = np.concatenate([(rng.random(4_000) < 0.5).astype(np.int8), np.ones(4, dtype=np.int8)])
    assert fit_isotonic(scores, labels).one(0.99) < 0.75


def test_measures_of_the_truth() -> None:
    _, labels, truth = draw(7, 50_000)
    assert expected_calibration_error(reliability(truth, labels)) < 0.012
    assert log_loss(truth, labels) == pytest.approx(
        float(-np.mean(truth * np.log(truth) + (1 - truth) * np.log(1 - truth))), abs=0.01
    )
    assert brier(truth, labels) == pytest.approx(float(np.mean(truth * (1 - truth))), abs=0.005)
    assert log_loss(truth, labels) < min(
        log_loss(truth * 0.8, labels), log_loss(np.full(50_000, labels.mean()), labels)
    )
