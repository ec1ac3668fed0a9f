"""From samples to a version's model, calibrators and out-of-sample predictions: the first training.

Time is spent in three stretches. Hyperparameters and the calibration method are chosen on the earlier one; the later
one is walked forward with everything chosen, and gives the figures; the final model learns from all of it.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trading_platform.learning.calibration import (
    ISOTONIC_MINIMUM,
    Calibrator,
    Floats,
    VennAbers,
    best_method,
    fit_calibrator,
    fit_venn_abers,
)
from trading_platform.learning.intervals import effective_rows
from trading_platform.learning.models import Model, fitter
from trading_platform.learning.samples import Samples
from trading_platform.learning.search import WORKERS, Progress, search, settle, study_database
from trading_platform.learning.validation import Fold, walk_forward
from trading_platform.storage.databases import Databases

SEARCH_FROM, EVALUATE_FROM = 0.25, 0.65
"""Shares of the rows: search windows lie between the two, evaluation windows after the second."""
EVALUATION_WINDOWS = 3
FIRST = "first"
"""The arm of a version that was fitted with a search, not updated from a parent."""

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Predicted:
    """Out-of-sample predictions for the rows numbered `rows`: raw score, confidence, and the training base rate."""

    rows: Integers
    score: Floats
    confidence: Floats
    guess: Floats


@dataclass(frozen=True)
class Fitted:
    """A model ready to be registered. `params`: its hyperparameters; `details`: how it came about."""

    model: Model
    calibrator: Calibrator
    interval: VennAbers
    predicted: Predicted
    params: dict[str, Any]
    details: dict[str, Any]


def fit_first(
    databases: Databases,
    samples: Samples,
    *,
    kind: str,
    study: str,
    trials: int,
    folds: int,
    seed: int,
    embargo: int,
    progress: Progress,
) -> Fitted:
    """Search, walk forward, fit on everything. Raises `validation.TooFewRowsError` where the data are too short."""
    early = _searched(samples, folds, embargo)
    with study_database(databases) as storage:
        found = search(storage, study, samples, early, kind=kind, trials=trials, seed=seed, progress=progress)
    params = settle(samples, early, found, kind=kind, seed=seed, progress=progress)
    record = {
        "study": found.study,
        "trials": found.trials,
        "pruned": found.pruned,
        "folds": folds,
        "log_loss": found.loss,
    }
    return fit_known(
        samples, kind=kind, params=params, record=record, folds=folds, seed=seed, embargo=embargo,
        progress=progress,
    )  # fmt: skip


def _searched(samples: Samples, folds: int, embargo: int) -> list[Fold]:
    return walk_forward(
        samples.start, samples.end, folds=folds, embargo=embargo, first_test=SEARCH_FROM, last_test=EVALUATE_FROM
    )


def fit_known(
    samples: Samples, *, kind: str, params: dict[str, Any], record: dict[str, Any], folds: int, seed: int, embargo: int,
    progress: Progress,
) -> Fitted:  # fmt: skip
    """All that follows a search, with the hyperparameters that it found; `record`: what is kept of it."""
    early = _searched(samples, folds, embargo)
    late = walk_forward(samples.start, samples.end, folds=EVALUATION_WINDOWS, embargo=embargo, first_test=EVALUATE_FROM)
    method, losses, last = choose_calibration(samples, early, params, kind=kind, seed=seed, embargo=embargo)
    ahead = predicted(
        walk(samples, late, last, kind=kind, params=params, method=method, seed=seed, embargo=embargo,
             progress=progress)
    )  # fmt: skip
    progress("fitting the final model", 0, 1)
    model = fitter(kind, samples.matrix, samples.label, samples.weight).fit(params, seed)
    progress("fitting the final model", 1, 1)
    newest = ahead.rows >= late[-1].test[0]
    window = _labelled(samples, ahead.rows[newest], ahead.score[newest])
    return Fitted(
        model=model,
        calibrator=calibrate(method, *window),
        interval=fit_venn_abers(*window),
        predicted=ahead,
        params=params,
        details={
            "arm": FIRST,
            "search": record,
            "calibration": {"method": method, "log_loss": losses, "rows": int(newest.sum())},
            "windows": [{"train": len(fold.train), "test": len(fold.test)} for fold in late],
        },
    )


def calibrate(method: str, scores: Floats, labels: NDArray[np.int8], weights: Floats) -> Calibrator:
    """The chosen calibration; the sigmoid where isotonic was chosen but the window holds too few samples for it."""
    if method == "isotonic" and weights.sum() < ISOTONIC_MINIMUM:
        method = "sigmoid"
    return fit_calibrator(method, scores, labels, weights)


def _scored(samples: Samples, fold: Fold, *, kind: str, params: dict[str, Any], seed: int) -> Floats:
    """What a model of all the fold's training rows says of its test rows."""
    rows = fold.train
    ready = fitter(kind, samples.matrix[rows], samples.label[rows], samples.weight[rows])
    return ready.fit(params, seed).scores(samples.matrix[fold.test])


@dataclass(frozen=True)
class Window:
    """One test window's predictions: raw score, confidence, the training base rate, and the confidences that the same
    calibration gives to the window before, from which a threshold in force at its beginning can be taken."""

    rows: Integers
    score: Floats
    confidence: Floats
    guess: Floats
    before: Floats


def walk(
    samples: Samples,
    folds: list[Fold],
    calibrate_on: tuple[Integers, Floats],
    *,
    kind: str,
    params: dict[str, Any],
    method: str,
    seed: int,
    embargo: int,
    progress: Progress,
) -> list[Window]:
    """Each window is predicted by a model of what came before it, calibrated on the window before it.

    `calibrate_on`: rows and scores of the window before the first.
    """
    parts: list[Window] = []

    score = partial(_scored, samples, kind=kind, params=params, seed=seed)
    with ThreadPoolExecutor(WORKERS) as pool:
        for number, (fold, scores) in enumerate(zip(folds, pool.map(score, folds), strict=True)):
            progress("walking forward", number, len(folds))
            known = _known_by(samples, *calibrate_on, fold.test_from, embargo)
            calibrator = calibrate(method, *_labelled(samples, *known))
            guess = np.full(len(fold.test), float(samples.label[fold.train].mean()))
            parts.append(Window(fold.test, scores, calibrator.many(scores), guess, calibrator.many(calibrate_on[1])))
            calibrate_on = (fold.test, scores)
    progress("walking forward", len(folds), len(folds))
    return parts


def predicted(windows: list[Window]) -> Predicted:
    """The windows, one after the other."""
    return Predicted(
        rows=np.concatenate([window.rows for window in windows]),
        score=np.concatenate([window.score for window in windows]),
        confidence=np.concatenate([window.confidence for window in windows]),
        guess=np.concatenate([window.guess for window in windows]),
    )


def choose_calibration(
    samples: Samples, folds: list[Fold], params: dict[str, Any], *, kind: str, seed: int, embargo: int
) -> tuple[str, dict[str, float], tuple[Integers, Floats]]:
    """(method, log-loss of each, rows and scores of the last search window) from the last two search windows.

    The models are of all their training rows, as those will be whose scores are calibrated: a model of fewer is less
    sure of itself, and its calibration would overdo what a later one says.
    """
    score = partial(_scored, samples, kind=kind, params=params, seed=seed)
    with ThreadPoolExecutor(WORKERS) as pool:
        before, last = (
            (fold.test, scores) for fold, scores in zip(folds[-2:], pool.map(score, folds[-2:]), strict=True)
        )
    known = _known_by(samples, *before, folds[-1].test_from, embargo)
    return *best_method(_labelled(samples, *known), _labelled(samples, *last)), last


def _known_by(samples: Samples, rows: Integers, scores: Floats, moment: int, embargo: int) -> tuple[Integers, Floats]:
    """Those rows whose labels, plus the embargo, had ended by the moment."""
    known = samples.end[rows] + embargo <= moment
    return rows[known], scores[known]


def _labelled(samples: Samples, rows: Integers, scores: Floats) -> tuple[Floats, NDArray[np.int8], Floats]:
    """Scores, labels and weights that add up to the effective samples: symbols that move together count once."""
    label, weight = samples.label[rows], samples.weight[rows]
    width = 2 * int((samples.end - samples.start).max())
    independent, _ = effective_rows(label.astype(np.float64), samples.start[rows] // width)
    return scores, label, weight * min(1.0, independent / weight.sum())
