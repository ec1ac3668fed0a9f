"""Retraining: the parent's hyperparameters on newer data, in several ways, and the best of them on the newest window.

The reference is a full refit on a rolling window; its challengers are shorter windows, and warm starts that add a few
small-step trees to the parent. Which one wins is decided on a window that none of them saw, the figures are measured on
a still later one, and then the winner's recipe is applied to everything.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from trading_platform.learning.calibration import fit_venn_abers, log_loss
from trading_platform.learning.fitting import Fitted, Integers, Predicted, calibrate
from trading_platform.learning.models import LightGbmModel, Model, add_trees, fitter
from trading_platform.learning.samples import Samples
from trading_platform.learning.search import WORKERS, Progress
from trading_platform.learning.validation import TooFewRowsError, purged_before

REFIT_WINDOWS = (1.0, 0.5, 0.2)
WARM_WINDOWS = (0.05, 0.1, 0.2)
"""Shares of the rows, the newest ones."""
WARM_TREES: Mapping[str, Any] = {"trees": 40, "learning_rate": 0.05, "num_leaves": 15, "min_leaf_fraction": 0.01}
MOST_TREES = 400
"""Beyond this a warm start would only pile up: the version is rebuilt from data."""
LEAST_NEW_ROWS = 600
"""New rows since the parent that make a window of their own worth having."""
NEWEST = 0.1


@dataclass(frozen=True)
class Parent:
    """The version that is being updated: its model, hyperparameters, calibration method, and what it had seen."""

    model: Model
    params: Mapping[str, Any]
    method: str
    learnt_until: int
    """Microseconds: no label that ended later went into it."""


@dataclass(frozen=True)
class _Arm:
    name: str
    window: float
    fit: Callable[[Integers], Model]
    """From row numbers to a model."""


def fit_update(samples: Samples, parent: Parent, *, kind: str, seed: int, embargo: int, progress: Progress) -> Fitted:
    """Compare the arms, measure the best, apply it to all rows. Raises `TooFewRowsError` where data are too short."""
    held_out, unseen_by_parent = _held_out(samples, parent)
    half = len(held_out) // 2
    choose_rows, measure = held_out[:half], held_out[half:]
    measure_from = int(samples.start[measure[0]])
    choose_rows = choose_rows[samples.end[choose_rows] + embargo <= measure_from]
    train = purged_before(samples.end, int(samples.start[held_out[0]]), embargo)
    if min(len(train), len(choose_rows), len(measure)) < 50:
        raise TooFewRowsError(
            f"an update wants a newest window of 50 rows to choose on and 50 to measure on, and there are "
            f"{len(choose_rows)} and {len(measure)}, with {len(train):,} to train on; bring more bars"
        )
    arms = _arms(samples, parent, kind=kind, seed=seed, warm=unseen_by_parent)
    models: list[Model] = []
    losses: dict[str, float] = {}
    labels, weights = samples.label[choose_rows], samples.weight[choose_rows]
    with ThreadPoolExecutor(WORKERS) as pool:
        fits = pool.map(lambda arm: arm.fit(_newest(train, arm.window)), arms)
        for number, (arm, model) in enumerate(zip(arms, fits, strict=True), 1):
            models.append(model)
            losses[arm.name] = log_loss(model.scores(samples.matrix[choose_rows]), labels, weights)
            progress("comparing updates", number, len(arms))
    best = min(range(len(arms)), key=lambda index: losses[arms[index].name])
    if unseen_by_parent:  # beside the arms, for the record: what leaving it alone would have cost
        losses["no change"] = log_loss(parent.model.scores(samples.matrix[choose_rows]), labels, weights)
    chosen_scores = models[best].scores(samples.matrix[choose_rows])
    measured_scores = models[best].scores(samples.matrix[measure])
    calibrator = calibrate(parent.method, chosen_scores, labels, weights)
    predicted = Predicted(
        rows=measure,
        score=measured_scores,
        confidence=calibrator.many(measured_scores),
        guess=np.full(len(measure), float(samples.label[train].mean())),
    )
    window = (
        np.concatenate([chosen_scores, measured_scores]),
        np.concatenate([labels, samples.label[measure]]),
        np.concatenate([weights, samples.weight[measure]]),
    )
    model = arms[best].fit(_newest(np.arange(len(samples)), arms[best].window))
    return Fitted(
        model=model,
        calibrator=calibrate(parent.method, *window),
        interval=fit_venn_abers(*window),
        predicted=predicted,
        params=dict(parent.params),
        details={
            "arm": arms[best].name,
            "update": {"log_loss": losses, "chosen_on_rows": len(choose_rows), "measured_on_rows": len(measure)},
            "calibration": {"method": calibrator.method, "rows": len(held_out)},
        },
    )


def _held_out(samples: Samples, parent: Parent) -> tuple[Integers, bool]:
    """(rows to choose and measure on, the newest ones; whether the parent has seen none of them)."""
    new = np.flatnonzero(samples.start >= parent.learnt_until)
    if len(new) >= LEAST_NEW_ROWS:
        return new[-min(len(new) // 2, int(len(samples) * NEWEST * 2)) :], True
    return np.arange(len(samples))[-max(int(len(samples) * NEWEST), 1) :], False


def _arms(samples: Samples, parent: Parent, *, kind: str, seed: int, warm: bool) -> list[_Arm]:
    def refit(rows: Integers) -> Model:
        return fitter(kind, samples.matrix[rows], samples.label[rows], samples.weight[rows]).fit(parent.params, seed)

    arms = [_Arm(f"refit on newest {window:.0%}", window, refit) for window in REFIT_WINDOWS]
    model = parent.model
    if not (warm and isinstance(model, LightGbmModel)):
        return arms
    if model.booster.num_trees() + int(WARM_TREES["trees"]) > MOST_TREES:
        return arms

    def warm_start(rows: Integers) -> Model:
        assert isinstance(model, LightGbmModel)
        return add_trees(model, (samples.matrix[rows], samples.label[rows], samples.weight[rows]), WARM_TREES, seed)

    return arms + [_Arm(f"warm start on newest {window:.0%}", window, warm_start) for window in WARM_WINDOWS]


def _newest(rows: Integers, share: float) -> Integers:
    return rows[-max(1, round(len(rows) * share)) :]
