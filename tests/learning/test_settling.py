"""Hyperparameters chosen on a sample of the rows, settled for all of them: more rounds where rows bear them, and only there."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from sklearn.metrics import log_loss

from trading_platform.learning import search as searching
from trading_platform.learning.models import fitter
from trading_platform.learning.samples import Samples
from trading_platform.learning.search import Searched, Tried, settle
from trading_platform.learning.validation import Fold

FEW = {"trees": 15, "learning_rate": 0.1, "num_leaves": 6, "min_leaf_fraction": 1e-3}
MANY_LEAVES = FEW | {"num_leaves": 40}
HOUR = int(timedelta(hours=1).total_seconds() * 1e6)


def samples(rows: int, signal: float) -> Samples:
    """Labels that follow six features by `signal`; one row an hour, whose label ends before the next."""
    rng = np.random.default_rng(3)
    matrix = rng.standard_normal((rows, 6))
    label = (signal * matrix @ np.array([1, -1, 0.7, 0.7, 0.5, 0.5]) + rng.logistic(size=rows) > 0).astype(np.int8)
    one, start = np.ones(rows), np.arange(rows) * HOUR
    return Samples(matrix, label, one, one, one, one, np.full(rows, "all"), start, start, start + 1, {}, np.ones(6, bool), {})  # fmt: skip


def found(*tried: dict[str, float]) -> Searched:
    trials = tuple(Tried(number, params, 0.6 + number / 100, []) for number, params in enumerate(tried))
    return Searched(dict(tried[0]), 0.6, len(tried), 0, 0, "made up", trials)


def settled(data: Samples, result: Searched, monkeypatch: pytest.MonkeyPatch, seen: int = 1_000) -> dict[str, float]:
    monkeypatch.setattr(searching, "SEARCH_ROWS", seen)
    rows = np.arange(len(data))
    cut = len(rows) * 3 // 4
    fold = Fold(rows[:cut], rows[cut:], int(data.start[cut]), int(data.end[-1]))
    return settle(data, [fold], result, kind="lightgbm", seed=7, progress=lambda *_: None)


def test_more_rows_bear_more_rounds_and_rows_never_seen_are_told_better(monkeypatch: pytest.MonkeyPatch) -> None:
    data = samples(40_000, signal=1.0)
    learnt = replace(
        data, **{name: getattr(data, name)[:20_000] for name in ("matrix", "label", "start", "end", "weight")}
    )
    params = settled(learnt, found(FEW, MANY_LEAVES), monkeypatch)
    assert FEW["trees"] < params["trees"] <= 15 * FEW["trees"], "15 rows for every row that the search saw"
    unseen, truth = data.matrix[20_000:], data.label[20_000:]
    ready = fitter("lightgbm", learnt.matrix, learnt.label, np.ones(20_000))
    before, after = (log_loss(truth, ready.fit(chosen, 7).scores(unseen)) for chosen in (FEW, params))
    assert after < before - 0.02


def test_noise_is_not_learnt_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    params = settled(samples(12_000, signal=0.0), found(FEW, MANY_LEAVES), monkeypatch)
    assert params["trees"] <= FEW["trees"]


@pytest.mark.parametrize(("seen", "same"), [(9_000, True), (8_999, False)])
def test_a_search_that_saw_all_rows_has_the_last_word(monkeypatch: pytest.MonkeyPatch, seen: int, same: bool) -> None:
    """9,000 training rows; one more row than the search saw is where finalists are fitted at all."""
    asked: list[int] = []
    monkeypatch.setattr(searching, "fitter", lambda *given: asked.append(1) or fitter(*given))
    settled(samples(12_000, signal=1.0), found(FEW), monkeypatch, seen)
    assert (asked == []) is same


def test_pruned_trials_are_no_finalists(monkeypatch: pytest.MonkeyPatch) -> None:
    result = found(FEW)
    pruned = Tried(1, MANY_LEAVES | {"trees": 0}, None, [])
    params = settled(samples(12_000, signal=1.0), replace(result, tried=(*result.tried, pruned)), monkeypatch)
    assert params["num_leaves"] == FEW["num_leaves"]
