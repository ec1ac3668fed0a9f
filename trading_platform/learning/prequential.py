"""Test, then train: how predictors do on a labelled stream when every row is predicted before its label is seen.

Our learner (`stream_learner.py`) beside three others: `no_change` says the last label again, `base_rate` says how often
each class has come so far, `arf` is river's adaptive random forest (Gomes et al., 2017). Gama, Sebastiao & Rodrigues,
"On evaluating stream learning algorithms" (2013); the temporal kappa is that of Zliobaite et al. (2015).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from trading_platform.learning.stream_learner import EXPERTS, Floats, Labels, Progress, learn_stream

MOST_CLASSES = 100
LEAST_LIKELY = 1e-6
PREDICTORS = ("ours", "no_change", "base_rate", "arf")


class UnreadableStreamError(ValueError):
    """The file does not hold a labelled stream; the message says what is missing."""


@dataclass(frozen=True)
class Stream:
    """`matrix` (n, k) float64, categories as numbers in order of appearance, NaN where unknown; `label` (n,) numbers of
    `classes`; `moments`: the time of each row, or its number."""

    matrix: Floats
    features: tuple[str, ...]
    label: Labels
    classes: tuple[str, ...]
    moments: list[Any]


@dataclass(frozen=True)
class Score:
    """One predictor on the whole stream. `drifts`: rows at which it found one; `probability` (n,) it gave the truth."""

    accuracy: float
    kappa_temporal: float | None
    log_loss: float
    drifts: list[int]
    drift_count: int
    updates: int
    seconds: float
    right: NDArray[np.bool_]
    probability: Floats


def read_stream(path: Path, label: str, moment: str | None = None) -> Stream:
    """A stream from a CSV or Parquet file, in order of `moment` where given. Raises `UnreadableStreamError`."""
    if not path.is_file():
        raise UnreadableStreamError(f"there is no file {path}: give a CSV or Parquet file with --data")
    try:
        if path.suffix.lower() in {".parquet", ".pq"}:
            frame = pl.read_parquet(path)
        else:
            frame = pl.read_csv(path, try_parse_dates=True, infer_schema_length=10_000)
    except (pl.exceptions.PolarsError, OSError) as problem:
        raise UnreadableStreamError(f"{path} cannot be read as CSV or Parquet: {problem}") from problem
    return stream_of(frame, label, moment)


def stream_of(frame: pl.DataFrame, label: str, moment: str | None = None) -> Stream:
    """A stream from a frame: `label` is what is predicted, `moment` orders the rows, all other columns are features."""
    for name in (label, moment):
        if name is not None and name not in frame.columns:
            raise UnreadableStreamError(f"no column {name!r}; the file has {', '.join(frame.columns)}")
        if name is not None and (absent := _absent(frame[name])):
            raise UnreadableStreamError(f"{absent} of {len(frame)} rows have no {name!r}: leave them out first")
    if moment is not None:
        frame = frame.sort(moment, maintain_order=True)
    names = [str(value) for value in frame[label].to_list()]
    classes = tuple(dict.fromkeys(names))
    if not 2 <= len(classes) <= MOST_CLASSES:
        raise UnreadableStreamError(
            f"{label!r} has {len(classes)} different values, expected 2 to {MOST_CLASSES}: classes, not amounts. "
            "Cut an amount into classes first (up or down, say)."
        )
    number = {name: index for index, name in enumerate(classes)}
    features = [
        column
        for column in frame.iter_columns()
        if column.name not in {label, moment} and not column.dtype.is_temporal()
    ]
    matrix = np.column_stack([_numbers(column) for column in features]) if features else np.empty((len(frame), 0))
    moments = frame[moment].to_list() if moment is not None else list(range(len(frame)))
    return Stream(
        matrix, tuple(column.name for column in features), np.array([number[name] for name in names]), classes, moments
    )


def score_stream(
    stream: Stream, *, with_arf: bool = True, seed: int = 7, progress: Progress = lambda what, done, total: None
) -> tuple[dict[str, Score], Floats]:
    """({predictor: score}, weights (n, experts) of our learner). `arf` is missing where it was not asked for."""
    label, classes = stream.label, len(stream.classes)
    last = np.concatenate([[-1], label[:-1]])
    same = last == label
    began = time.perf_counter()
    ours = learn_stream(stream.matrix, label, classes, seed=seed, progress=progress)
    seconds = time.perf_counter() - began
    no_change, no_change_seconds = _timed(lambda: _no_change(label, classes))
    base_rate, base_rate_seconds = _timed(lambda: _base_rate(label, classes))
    rows = len(label)
    scores = {
        "ours": _score(ours.probability, label, same, seconds, ours.drifts, len(ours.drifts), ours.updates),
        "no_change": _score(no_change, label, same, no_change_seconds, [], 0, rows),
        "base_rate": _score(base_rate, label, same, base_rate_seconds, [], 0, rows),
    }
    if with_arf:
        began = time.perf_counter()
        probability, drifts = _adaptive_random_forest(stream, seed, progress)
        scores["arf"] = _score(probability, label, same, time.perf_counter() - began, [], drifts, rows)
    return scores, ours.weights


def rolling(right: NDArray[np.bool_], points: int = 300) -> tuple[NDArray[np.int64], Floats]:
    """(rows, accuracy over the rows before them): a window of a thirtieth of the stream, at least 50 rows."""
    window = min(max(len(right) // 30, 50), len(right))
    totals = np.concatenate([[0], np.cumsum(right)])
    ends = np.unique(np.linspace(window, len(right), points).astype(np.int64))
    return ends - 1, (totals[ends] - totals[ends - window]) / window


def document(stream: Stream, scores: dict[str, Score], weights: Floats) -> dict[str, Any]:
    """The result as JSON: a key a predictor, None where it did not run."""
    return {
        "rows": len(stream.label),
        "features": len(stream.features),
        "classes": list(stream.classes),
        **{name: None if (score := scores.get(name)) is None else _shown(score, stream) for name in PREDICTORS},
        "trusted": dict(zip(EXPERTS, weights.mean(axis=0).round(4).tolist(), strict=True)),
    }


def _shown(score: Score, stream: Stream) -> dict[str, Any]:
    return {
        "accuracy": score.accuracy,
        "kappa_temporal": score.kappa_temporal,
        "log_loss": score.log_loss,
        "drifts": score.drift_count,
        "drift_at": [str(stream.moments[row]) for row in score.drifts],
        "updates": score.updates,
        "seconds": score.seconds,
    }


def _score(
    probability: Floats,
    label: Labels,
    same: NDArray[np.bool_],
    seconds: float,
    drifts: list[int],
    drift_count: int,
    updates: int,
) -> Score:
    right = probability.argmax(axis=1) == label
    accuracy, stale = float(right.mean()), float(same.mean())
    given = np.maximum(probability[np.arange(len(label)), label], LEAST_LIKELY)
    kappa = None if stale == 1.0 else (accuracy - stale) / (1.0 - stale)
    return Score(accuracy, kappa, float(-np.log(given).mean()), drifts, drift_count, updates, seconds, right, given)


def _no_change(label: Labels, classes: int) -> Floats:
    """The last label, as sure of it as labels have stayed the same so far (Laplace's rule)."""
    same = np.concatenate([[False], label[1:] == label[:-1]])
    stayed = (1.0 + np.concatenate([[0], np.cumsum(same)[:-1]])) / (
        1.0 + classes + np.maximum(np.arange(len(label)) - 1, 0)
    )
    stayed = np.maximum(stayed, 1.0 / classes + 1e-9)
    probability = np.repeat(((1.0 - stayed) / (classes - 1))[:, None], classes, axis=1)
    probability[np.arange(1, len(label)), label[:-1]] = stayed[1:]
    probability[0] = 1.0 / classes
    return probability


def _base_rate(label: Labels, classes: int) -> Floats:
    """How often each class has come so far (Laplace's rule)."""
    counts = np.cumsum(np.vstack([np.ones(classes), np.eye(classes)[label[:-1]]]), axis=0)
    return np.asarray(counts / counts.sum(axis=1, keepdims=True))


def _adaptive_random_forest(stream: Stream, seed: int, progress: Progress) -> tuple[Floats, int]:
    from river import forest

    build: Any = forest.ARFClassifier  # river's constructors carry no types
    model = build(n_models=10, seed=seed)
    classes = len(stream.classes)
    probability = np.full((len(stream.label), classes), 1.0 / classes)
    matrix = np.nan_to_num(stream.matrix)
    for row, (values, label) in enumerate(zip(matrix.tolist(), stream.label.tolist(), strict=True)):
        features = dict(enumerate(values))
        said = model.predict_proba_one(features)
        if said and (total := sum(said.values())) > 0.0:
            probability[row] = [said.get(index, 0.0) / total for index in range(classes)]
        model.learn_one(features, label)
        if row % 50 == 0 or row + 1 == len(matrix):
            progress("adaptive random forest", row + 1, len(matrix))
    return probability, int(model.n_drifts_detected())


def _absent(column: pl.Series) -> int:
    """How many values are unknown."""
    return column.null_count() + (int(column.is_nan().sum()) if column.dtype.is_float() else 0)


def _numbers(column: pl.Series) -> Floats:
    """Numbers as they are; anything else numbered in order of appearance, unknown as NaN."""
    if column.dtype.is_numeric() or column.dtype == pl.Boolean:
        return column.cast(pl.Float64).to_numpy()
    number: dict[str, float] = {}
    return np.array(
        [np.nan if value is None else number.setdefault(str(value), float(len(number))) for value in column.to_list()]
    )


def _timed(work: Callable[[], Floats]) -> tuple[Floats, float]:
    began = time.perf_counter()
    return work(), time.perf_counter() - began
