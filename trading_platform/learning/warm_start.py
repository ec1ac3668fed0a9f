"""A quick update of a boosted model after a change: a few more trees on the newest rows, as many as turn out to help.

How far back to learn from is decided by validation: short trials on a thin sample of every window, each judged on the
newest rows, which no trial has seen. All windows share one sample, and the parent scores every row once, so that the
choice costs little beside the fit itself. Where no trial is better than the parent by more than chance, nothing is added.
"""

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Floats = NDArray[np.float64]

WINDOWS = (0.025, 0.05, 0.1, 0.2)
"""Shares of the rows, the newest ones."""
SAMPLE = 4_000
"""Rows looked at in each ring between two windows."""
VALIDATED = 0.2
"""Share of the smallest window, the newest rows, that judges."""
TRIAL_TREES = 15
LEAST_ROWS = 20_000
TREES: Mapping[str, Any] = {
    "objective": "binary", "num_leaves": 31, "learning_rate": 0.1, "max_bin": 63, "min_data_in_leaf": 100,
    "force_row_wise": True, "deterministic": True, "feature_pre_filter": False, "boost_from_average": False, "verbosity": -1,
}  # fmt: skip


@dataclass(frozen=True)
class WarmStart:
    """`booster` answers for parent and new trees together; `losses`: validation log-loss of each window tried.

    `window` is 0 and `booster` the parent itself where adding trees did not help.
    """

    booster: Any
    window: float
    losses: dict[float, float]
    unchanged_loss: float


def warm_start(
    parent: Any,
    matrix: Array,
    label: NDArray[np.int8],
    weight: Floats | None = None,
    *,
    trees: int = 40,
    seed: int = 7,
    threads: int = 1,
) -> WarmStart:
    """Add `trees` to the LightGBM booster `parent` for rows (n, k) in order of time with labels 0/1 and weights (n,).

    Raises ValueError below `LEAST_ROWS` rows.
    """
    rows = len(label)
    if rows < LEAST_ROWS:
        raise ValueError(
            f"a warm start wants {LEAST_ROWS:,} rows or more to choose a window from, got {rows:,}: refit instead"
        )
    weights = np.ones(rows) if weight is None else weight / weight.mean()
    judged = round(rows * WINDOWS[0] * VALIDATED)
    newest = np.arange(rows - judged, rows)
    rings = [_ring(rows, judged, number) for number in range(len(WINDOWS))]
    sample = np.concatenate([*rings, newest[:: max(1, judged // SAMPLE)]])
    raw = _raw(parent, matrix[sample], threads)
    settings = {**TREES, "seed": seed, "num_threads": threads}
    ends = np.cumsum([len(ring) for ring in rings])
    judge = slice(int(ends[-1]), len(sample))
    density = np.concatenate(
        [np.full(len(ring), _width(rows, number) / len(ring)) for number, ring in enumerate(rings)]
    )
    said: dict[float, Floats] = {}
    for number, window in enumerate(WINDOWS):
        upto = slice(0, int(ends[number]))
        counted = density[upto] * weights[sample[upto]]
        trial = _fit(settings, matrix[sample[upto]], label[sample[upto]], raw[upto], TRIAL_TREES, counted)
        said[window] = _losses(raw[judge] + _raw(trial, matrix[sample[judge]], threads), label[sample[judge]])
    counted = weights[sample[judge]]
    losses = {window: float(np.average(values, weights=counted)) for window, values in said.items()}
    unchanged = _losses(raw[judge], label[sample[judge]])
    unchanged_loss = float(np.average(unchanged, weights=counted))
    best = min(losses, key=lambda window: losses[window])
    gain = unchanged - said[best]
    if float(np.average(gain, weights=counted)) <= float(gain.std()) / np.sqrt(len(gain)):
        return WarmStart(parent, 0.0, losses, unchanged_loss)
    begin = rows - round(rows * best)
    added = _fit(settings, matrix[begin:], label[begin:], _raw(parent, matrix[begin:], threads), trees, weights[begin:])
    _put_first(parent, added)
    return WarmStart(added, best, losses, unchanged_loss)


def _ring(rows: int, judged: int, number: int) -> NDArray[np.int64]:
    """Evenly spaced rows of a window that are in no smaller one and do not judge."""
    inner = judged if number == 0 else round(rows * WINDOWS[number - 1])
    outer = round(rows * WINDOWS[number])
    return np.linspace(rows - outer, rows - inner, min(SAMPLE, outer - inner), endpoint=False).astype(np.int64)


def _width(rows: int, number: int) -> float:
    return rows * (WINDOWS[number] - (WINDOWS[number - 1] if number else 0.0))


def _fit(settings: Mapping[str, Any], matrix: Array, label: Array, raw: Floats, trees: int, weight: Floats) -> Any:
    import lightgbm

    params = {**settings, "min_data_in_leaf": min(settings["min_data_in_leaf"], max(20, len(label) // 100))}
    dataset = lightgbm.Dataset(matrix, label, weight=weight / weight.mean(), init_score=raw, params=params)
    return lightgbm.train(params, dataset, trees, keep_training_booster=True)


def _raw(booster: Any, matrix: Array, threads: int) -> Floats:
    return np.asarray(booster.predict(matrix, raw_score=True, num_threads=threads), dtype=np.float64)


def _put_first(parent: Any, added: Any) -> None:
    """Put the parent's trees before the new ones: what LightGBM itself does at the end of a continued training."""
    from lightgbm import basic

    library: Any = basic._LIB  # type: ignore[attr-defined]  # its C interface is public, this handle to it is not
    if library.LGBM_BoosterMerge(added._handle, parent._handle):
        raise RuntimeError(f"LightGBM could not join the trees: {ctypes.string_at(library.LGBM_GetLastError())!r}")


def _losses(raw: Floats, label: Array) -> Floats:
    return np.asarray(np.logaddexp(0.0, np.where(label == 1, -raw, raw)))
