"""Updates after a change: the right window, joined trees that LightGBM itself reads, and nothing where nothing changed."""

import lightgbm
import numpy as np
import pytest
from sklearn.metrics import log_loss

from trading_platform.learning.models import LightGbmModel, refit_leaves
from trading_platform.learning.samples import Samples
from trading_platform.learning.updating import LEAST_OLD_ROWS, OLD_SHARE, OLD_STRETCHES, _old_stretches, _touched
from trading_platform.learning.warm_start import LEAST_ROWS, warm_start

BEFORE, AFTER = np.array([1, -1, 0.5, 0, 0, 0]), np.array([-1, 1, 0.5, 0, 0, 1.0])


def planted(rows: int, at: float, seed: int = 1):
    """Rows whose meaning changes at that share of them, test rows of the newest meaning, and a parent of the oldest 80 %."""
    rng = np.random.default_rng(seed)
    matrix, tested = rng.standard_normal((rows, 6)), rng.standard_normal((20_000, 6))
    z = np.where(np.arange(rows) < at * rows, matrix @ BEFORE, matrix @ AFTER)
    label = (z + rng.logistic(size=rows) > 0).astype(np.int8)
    truth = (tested @ (AFTER if at < 1 else BEFORE) + rng.logistic(size=20_000) > 0).astype(np.int8)
    old = int(rows * 0.8)
    settings = {"objective": "binary", "verbosity": -1, "num_threads": 1, "num_leaves": 15, "seed": 1}
    parent = lightgbm.train(settings, lightgbm.Dataset(matrix[:old], label[:old]), 60)
    return matrix, label, tested, truth, parent


@pytest.mark.parametrize(("at", "windows"), [(0.95, {0.025, 0.05}), (0.9, {0.05, 0.1})])
def test_the_window_ends_where_the_change_was(at: float, windows: set[float]) -> None:
    matrix, label, tested, truth, parent = planted(60_000, at)
    made = warm_start(parent, matrix, label)
    assert made.window in windows
    before, after = log_loss(truth, parent.predict(tested)), log_loss(truth, made.booster.predict(tested))
    assert after < before - 0.4
    again = lightgbm.Booster(model_str=made.booster.model_to_string())
    assert np.array_equal(again.predict(tested), made.booster.predict(tested)), "one model, not two"
    assert made.booster.num_trees() == parent.num_trees() + 60
    assert warm_start(parent, matrix, label).booster.model_to_string() == made.booster.model_to_string()


def test_nothing_is_added_where_nothing_changed() -> None:
    matrix, label, _, _, parent = planted(60_000, 1.0)
    made = warm_start(parent, matrix, label)
    assert made.window == 0.0
    assert made.booster is parent


@pytest.mark.parametrize("rows", [LEAST_ROWS - 1, LEAST_ROWS])
def test_too_few_rows_are_refused(rows: int) -> None:
    matrix, label, _, _, parent = planted(rows, 0.9)
    if rows < LEAST_ROWS:
        with pytest.raises(ValueError, match=r"20,000 rows or more .* got 19,999"):
            warm_start(parent, matrix, label)
    else:
        assert warm_start(parent, matrix, label).window > 0


def test_a_leaf_refit_keeps_splits_and_moves_answers() -> None:
    matrix, label, tested, truth, parent = planted(30_000, 0.9)
    refitted = refit_leaves(LightGbmModel(parent.model_to_string()), matrix[-3_000:], label[-3_000:], 0.5)
    kept = parent.trees_to_dataframe()["split_feature"].fillna("")
    assert list(refitted.booster.trees_to_dataframe()["split_feature"].fillna("")) == list(kept)
    assert log_loss(truth, refitted.scores(tested)) < log_loss(truth, parent.predict(tested)) - 0.2


def test_held_back_stretches_share_no_label_with_what_is_learnt() -> None:
    rows, embargo, horizon = 2_000, 6, 6
    start = np.arange(rows, dtype=np.int64)
    samples = Samples.__new__(Samples)
    object.__setattr__(samples, "start", start)
    object.__setattr__(samples, "end", start + horizon)
    train = np.arange(1_800)
    old = _old_stretches(train)
    assert len(old) == OLD_STRETCHES * int(1_800 * OLD_SHARE) >= LEAST_OLD_ROWS
    assert old.max() < 900
    kept = train[~_touched(samples, train, old, embargo)]
    apart = np.abs(kept[:, None] - old[None, :]).min()
    assert apart == horizon + embargo, "the nearest row learnt is a label and an embargo away, and no further"
