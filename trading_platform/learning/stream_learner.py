"""A learner for labelled streams whose meaning may change: several windows of the past at once, weighted by how they do.

Nobody knows how far back to learn from: far where nothing changes, little after a change. So models of everything, of
the newest rows and of the rows since the last drift predict side by side, together with neighbours in a short memory and
in a longer one, which learn at every row (after Losing, Hammer & Wersing, "KNN classifier with self adjusting memory for
heterogeneous concept drift", 2016), and with the plain predictors that are so often hard to beat (class frequencies, what
followed the last label). They are mixed with weights that follow their
log-losses and never die out: the fixed-share forecaster (Herbster & Warmuth, "Tracking the best expert", 1998), whose
loss stays close to that of the best sequence of experts. A drift in the mixture's own errors restarts a window at once.

Plain arrays in, plain arrays out; a row is predicted before its label is looked at.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from trading_platform.learning.shiryaev_roberts import ShiryaevRoberts

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
Progress = Callable[[str, int, int], None]

FIRST_FIT = 50
"""Rows before the first model; the plain predictors answer until then."""
LEAST_STEP, MOST_STEP, GROWTH = 25, 500, 0.2
"""Rows between refits: a share of those seen since the last drift, within bounds."""
NEIGHBOURS, SHORT_MEMORY, LONG_MEMORY = 7, 100, 1_000
RECENT, MOST_ROWS = 1_000, 20_000
SHARE = 0.01
"""Weight handed round at every row, so that an expert can come back."""
FORGETTING = 0.99
FLOOR = 1e-4
RECENT_LABELS = 10
LINEAR, TREES_RECENT, TREES_SINCE_DRIFT, TREES_ALL = range(4)
EXPERTS = ("class frequencies", "what followed the last label", "neighbours, newest rows", "neighbours, since the last drift",
           "linear, newest rows", "trees, newest rows", "trees, since the last drift", "trees, all rows")  # fmt: skip


@dataclass(frozen=True)
class Streamed:
    """`probability` (n, classes) as given before each label was known; `weights` (n, experts) then; rows of drifts."""

    probability: Floats
    weights: Floats
    drifts: list[int]
    updates: int


def learn_stream(
    matrix: Floats, label: Labels, classes: int, *, seed: int = 7, progress: Progress = lambda what, done, total: None
) -> Streamed:
    """Predict each row of `matrix` (n, k; NaN where unknown), then learn its `label` (n,), a number below `classes`."""
    # One thread a fit: threads spin while they wait, which on a busy machine costs more than they bring.
    with threadpool_limits(limits=1):
        return _learn(matrix, label, classes, seed, progress)


def _learn(matrix: Floats, label: Labels, classes: int, seed: int, progress: Progress) -> Streamed:
    rows, bare = len(label), matrix
    matrix = np.column_stack([matrix, _past_labels(label, classes)])
    plain = _plain_experts(label, classes)
    probability, weights = np.empty((rows, classes)), np.empty((rows, len(EXPERTS)))
    weight = np.full(len(EXPERTS), 1.0 / len(EXPERTS))
    detector, drifts, updates, since = ShiryaevRoberts(), [], 0, 0
    models: dict[int, Any] = {}
    row = 0
    while row < rows:
        if row >= FIRST_FIT:
            models, updates = _refit(models, matrix, label, classes, row, since, seed), updates + 1
        upto = min(row + int(np.clip((row - since) * GROWTH, LEAST_STEP, MOST_STEP)), rows)
        parts = (
            plain[row:upto],
            _remembered(bare, label, classes, row, upto, since),
            _modelled(models, matrix[row:upto], classes, plain[row:upto, 0]),
        )
        said = np.concatenate(parts, axis=1)
        mixed, weights_here, after = _mix(said, label[row:upto], weight, SHARE)
        wrong = mixed.argmax(axis=1) != label[row:upto]
        alarm = _first_alarm(detector, wrong)
        stop = len(wrong) if alarm is None else alarm + 1
        probability[row : row + stop], weights[row : row + stop] = mixed[:stop], weights_here[:stop]
        weight = after[stop - 1]
        row += stop
        if alarm is not None:
            drifts.append(row - 1)
            since = change_point(probability[since:row].argmax(axis=1) != label[since:row]) + since
            models.pop(TREES_SINCE_DRIFT, None)
        progress("ours", row, rows)
    return Streamed(probability, weights, drifts, updates)


def change_point(wrong: NDArray[np.bool_], least: int = 10) -> int:
    """The row at which the error rate most likely rose: the maximum of the likelihood of one change."""
    count = len(wrong)
    if count <= 2 * least:
        return 0
    before = np.arange(least, count - least + 1)
    errors = np.cumsum(wrong)
    left = errors[before - 1]
    right = errors[-1] - left
    after = count - before
    likelihood = _log_likelihood(left, before) + _log_likelihood(right, after)
    likelihood[left * after >= right * before] = -np.inf
    return int(before[np.argmax(likelihood)]) if np.isfinite(likelihood).any() else 0


def _log_likelihood(errors: NDArray[Any], count: NDArray[Any]) -> Floats:
    rate = np.clip(errors / count, 1e-9, 1.0 - 1e-9)
    return np.asarray(errors * np.log(rate) + (count - errors) * np.log1p(-rate))


def _first_alarm(detector: ShiryaevRoberts, wrong: NDArray[np.bool_]) -> int | None:
    for index, value in enumerate(wrong.astype(np.float64).tolist()):
        detector.update(value)
        if detector.drift_detected:
            return index
    return None


def _past_labels(label: Labels, classes: int) -> Floats:
    """What the labels before a row say (n, 1 + classes): the last one, and the share of each among the last ten."""
    one_hot = np.eye(classes)[label]
    totals = np.cumsum(np.vstack([np.zeros(classes), one_hot]), axis=0)
    upto = np.arange(len(label))
    begin = np.maximum(upto - RECENT_LABELS, 0)
    shares = (totals[upto] - totals[begin]) / np.maximum(upto - begin, 1)[:, None]
    last = np.concatenate([[-1.0], label[:-1].astype(np.float64)])
    return np.column_stack([last, shares])


@numba.njit(cache=True)
def _plain_experts(label: Labels, classes: int) -> Floats:
    """(n, 2, classes): frequencies of the classes, and of what followed the last label; the old is forgotten slowly."""
    said = np.empty((len(label), 2, classes))
    seen = np.full(classes, 1.0 / classes)
    followed = np.full((classes, classes), 1.0 / classes)
    last = 0
    for row in range(len(label)):
        said[row, 0] = seen / seen.sum()
        said[row, 1] = followed[last] / followed[last].sum()
        seen *= FORGETTING
        seen[label[row]] += 1.0
        followed[last] *= FORGETTING
        followed[last, label[row]] += 1.0
        last = label[row]
    return said


def _remembered(matrix: Floats, label: Labels, classes: int, row: int, upto: int, since: int) -> Floats:
    """(upto - row, 2, classes) by the nearest rows of the short memory, and of the longer one that forgets at a drift."""
    first = max(row - LONG_MEMORY, 0)
    known = np.ma.masked_invalid(matrix[first : max(row, first + 1)])  # the very first row is its own measure
    centre, width = known.mean(axis=0).filled(0.0), known.std(axis=0).filled(0.0)
    scaled = np.nan_to_num((matrix[first:upto] - centre) / np.where(width > 0, width, 1.0))
    there = label[first:upto]
    forgotten = max(since - first, 0)
    short = _neighbours(scaled, there, classes, row - first, 0, SHORT_MEMORY)
    long = _neighbours(scaled, there, classes, row - first, forgotten, LONG_MEMORY)
    return np.stack([short, long], axis=1)


@numba.njit(cache=True)
def _neighbours(scaled: Floats, label: Labels, classes: int, begin: int, first: int, memory: int) -> Floats:
    """(n - begin, classes): votes of the nearest rows among the `memory` before each row, none before `first`."""
    said = np.full((len(label) - begin, classes), 1.0 / classes)
    nearest, distances = np.empty(NEIGHBOURS, dtype=np.int64), np.empty(NEIGHBOURS)
    for row in range(begin, len(label)):
        found = 0
        for other in range(max(first, row - memory), row):
            distance = 0.0
            for column in range(scaled.shape[1]):
                distance += (scaled[row, column] - scaled[other, column]) ** 2
            # `<=`: of rows as near as each other, the newest know best.
            if found < NEIGHBOURS or distance <= distances[found - 1]:
                place = min(found, NEIGHBOURS - 1)
                while place > 0 and distance <= distances[place - 1]:
                    distances[place], nearest[place] = distances[place - 1], nearest[place - 1]
                    place -= 1
                distances[place], nearest[place] = distance, other
                found = min(found + 1, NEIGHBOURS)
        for index in range(found):
            said[row - begin, label[nearest[index]]] += 2.0
        said[row - begin] /= said[row - begin].sum()
    return said


@numba.njit(cache=True)
def _mix(said: Floats, label: Labels, weight: Floats, share: float) -> tuple[Floats, Floats, Floats]:
    """(mixture (n, classes), weights before each label, weights after it) of what the experts said (n, experts, classes)."""
    rows, experts, classes = said.shape
    mixed, before, after = np.zeros((rows, classes)), np.empty((rows, experts)), np.empty((rows, experts))
    for row in range(rows):
        before[row] = weight
        for expert in range(experts):
            floored = (1.0 - FLOOR) * said[row, expert] + FLOOR / classes
            mixed[row] += weight[expert] * floored
            after[row, expert] = weight[expert] * floored[label[row]]
        after[row] = (1.0 - share) * after[row] / after[row].sum() + share / experts
        weight = after[row]
    return mixed, before, after


# --- the models among the experts ------------------------------------------------------------------------------------


def _refit(
    models: dict[int, Any], matrix: Floats, label: Labels, classes: int, row: int, since: int, seed: int
) -> dict[int, Any]:
    recent = slice(max(row - RECENT, 0), row)
    fitted = {
        LINEAR: _linear(matrix[recent], label[recent]),
        TREES_RECENT: _trees(matrix[recent], label[recent], classes, seed),
    }
    if row - since >= FIRST_FIT and since > 0:
        window = slice(max(since, row - MOST_ROWS), row)
        fitted[TREES_SINCE_DRIFT] = _trees(matrix[window], label[window], classes, seed)
    known = models.get(TREES_ALL)
    if known is None or row >= known[1] * (1.0 + GROWTH):
        everything = slice(max(row - MOST_ROWS, 0), row)
        known = (_trees(matrix[everything], label[everything], classes, seed), row)
    return fitted | {TREES_ALL: known}


def _modelled(models: dict[int, Any], matrix: Floats, classes: int, otherwise: Floats) -> Floats:
    """(n, 4, classes) by the models; where one does not exist, another says its part."""
    trees_all = models[TREES_ALL][0] if TREES_ALL in models else None
    since_drift = models.get(TREES_SINCE_DRIFT, models.get(TREES_RECENT))
    predictors = (models.get(LINEAR), models.get(TREES_RECENT), since_drift, trees_all)
    return np.stack([otherwise if model is None else model(matrix, classes) for model in predictors], axis=1)


def _linear(matrix: Floats, label: Labels) -> Callable[[Floats, int], Floats] | None:
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if len(found := np.unique(label)) < 2:
        return None
    model = make_pipeline(
        SimpleImputer(keep_empty_features=True), StandardScaler(), LogisticRegression(C=0.5, max_iter=100)
    )
    model.fit(matrix, label)

    def predict(rows: Floats, classes: int) -> Floats:
        probability = np.zeros((len(rows), classes))
        probability[:, found] = model.predict_proba(rows)
        return probability

    return predict


def _trees(matrix: Floats, label: Labels, classes: int, seed: int) -> Callable[[Floats, int], Floats] | None:
    import lightgbm

    found, numbered = np.unique(label, return_inverse=True)
    if len(found) < 2:
        return None
    settings: dict[str, Any] = {
        "objective": "binary" if len(found) == 2 else "multiclass", "num_leaves": 15, "learning_rate": 0.1,
        "min_data_in_leaf": int(np.clip(len(label) // 50, 5, 50)), "max_bin": 63, "lambda_l2": 1.0, "num_threads": 1,
        "deterministic": True, "force_row_wise": True, "verbosity": -1, "seed": seed,
    }  # fmt: skip
    if len(found) > 2:
        settings["num_class"] = len(found)
    dataset = lightgbm.Dataset(np.ascontiguousarray(matrix), numbered, params=settings)
    booster = lightgbm.train(settings, dataset, 50)

    def predict(rows: Floats, classes: int) -> Floats:
        said = np.asarray(booster.predict(rows, num_threads=1))
        probability = np.zeros((len(rows), classes))
        probability[:, found] = np.column_stack([1.0 - said, said]) if said.ndim == 1 else said
        return probability

    return predict
