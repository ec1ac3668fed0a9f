"""Retraining: the parent's hyperparameters on newer data, in several ways, and the best of them on the newest window.

The reference is a full refit on a rolling window; its challengers are shorter windows, warm starts that add a few
small-step trees to the parent, and leaf refits that keep the parent's splits. Which one wins is decided on a window that none of them saw, the figures are measured on
a still later one, and then the winner's recipe is applied to everything. What the winner has forgotten of old market
conditions is measured on stretches of the past that none of the arms has learnt from.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trading_platform.learning.calibration import fit_venn_abers, log_loss
from trading_platform.learning.fitting import Fitted, Integers, Predicted, calibrate
from trading_platform.learning.models import LightGbmModel, Model, add_trees, fitter, refit_leaves
from trading_platform.learning.samples import Samples
from trading_platform.learning.search import WORKERS, Progress
from trading_platform.learning.validation import TooFewRowsError, purged_before
from trading_platform.learning.warm_start import LEAST_ROWS, warm_start

REFIT_WINDOWS = (1.0, 0.5, 0.2)
WARM_WINDOWS = (0.05, 0.1, 0.2)
"""Shares of the rows, the newest ones."""
WARM_TREES: Mapping[str, Any] = {"trees": 40, "learning_rate": 0.05, "num_leaves": 15, "min_leaf_fraction": 0.01}
LEAF_WINDOW, LEAF_DECAY = 0.1, 0.5
"""Leaf refits: newest share of the rows, and how much of the old leaf values stays."""
OLD_STRETCHES, OLD_SHARE = 5, 0.02
"""Stretches of the past that are held back to see what has been forgotten, each this share of the rows."""
LEAST_OLD_ROWS = 30
"""Rows of a condition below which nothing is said of it."""
MOST_TREES = 400
"""Beyond this, and twice the trees of the recipe, warm starts only pile up: the version is rebuilt from data."""
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
    old = _old_stretches(train)
    train = train[~_touched(samples, train, old, embargo)]
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
            "update": {
                "log_loss": losses,
                "chosen_on_rows": len(choose_rows),
                "measured_on_rows": len(measure),
                "forgotten": forgotten(samples, old, parent.model, models[best]),
            },
            "calibration": {"method": calibrator.method, "rows": len(held_out)},
        },
    )


def forgotten(samples: Samples, old: Integers, parent: Model, updated: Model) -> dict[str, dict[str, float]]:
    """{condition=value: rows, log-loss of the parent and of the update, and by how much it is worse} on held back old rows.

    The parent may have learnt from these rows, the update has not (but for what it has of the parent), so what looks like
    forgetting is at most this much.
    """
    label, weight = samples.label[old], samples.weight[old]
    said = {"parent": parent.scores(samples.matrix[old]), "update": updated.scores(samples.matrix[old])}
    found: dict[str, dict[str, float]] = {}
    for name, values in samples.conditions.items():
        for value in np.unique(values[old]).tolist():
            there = values[old] == value
            if int(there.sum()) < LEAST_OLD_ROWS:
                continue
            loss = {who: log_loss(scores[there], label[there], weight[there]) for who, scores in said.items()}
            found[f"{name}={value}"] = {"rows": int(there.sum()), **loss, "worse_by": loss["update"] - loss["parent"]}
    return found


def _old_stretches(train: Integers) -> Integers:
    """Evenly spaced stretches of the older half of the rows."""
    half, width = len(train) // 2, max(int(len(train) * OLD_SHARE), 1)
    begins = np.linspace(0, max(half - width, 0), OLD_STRETCHES).astype(np.int64)
    return np.unique(np.concatenate([train[begin : begin + width] for begin in begins]))


def _touched(samples: Samples, train: Integers, old: Integers, embargo: int) -> NDArray[np.bool_]:
    """Which rows to train on overlap, labels and embargo included, with a stretch that is held back."""
    gaps = np.flatnonzero(np.diff(old) > 1)
    touched = np.zeros(len(train), dtype=np.bool_)
    for stretch in np.split(old, gaps + 1):
        begin, end = int(samples.start[stretch].min()), int(samples.end[stretch].max())
        touched |= (samples.end[train] + embargo > begin) & (samples.start[train] < end + embargo)
    return touched


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
    if model.booster.num_trees() + int(WARM_TREES["trees"]) > max(MOST_TREES, 2 * int(parent.params["trees"])):
        return arms

    def more_trees(rows: Integers) -> Model:
        assert isinstance(model, LightGbmModel)
        return add_trees(model, (samples.matrix[rows], samples.label[rows], samples.weight[rows]), WARM_TREES, seed)

    def chosen_window(rows: Integers) -> Model:
        assert isinstance(model, LightGbmModel)
        columns = slice(None) if model.columns is None else list(model.columns)
        matrix = np.ascontiguousarray(samples.matrix[rows][:, columns])
        made = warm_start(model.booster, matrix, samples.label[rows], samples.weight[rows], seed=seed)
        return LightGbmModel(made.booster.model_to_string(), model.columns)

    def leaf_refit(rows: Integers) -> Model:
        assert isinstance(model, LightGbmModel)
        return refit_leaves(model, samples.matrix[rows], samples.label[rows], LEAF_DECAY)

    arms.append(_Arm(f"leaf refit on newest {LEAF_WINDOW:.0%}", LEAF_WINDOW, leaf_refit))
    if len(samples) * (1.0 - 2.0 * NEWEST) - len(samples) * OLD_STRETCHES * OLD_SHARE * 2.0 >= LEAST_ROWS:
        arms.append(_Arm("warm start, window by validation", 1.0, chosen_window))
    return arms + [_Arm(f"warm start on newest {window:.0%}", window, more_trees) for window in WARM_WINDOWS]


def _newest(rows: Integers, share: float) -> Integers:
    return rows[-max(1, round(len(rows) * share)) :]
