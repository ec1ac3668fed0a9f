"""A quick update of a boosted model after a change: a few more trees on the newest rows, as many as turn out to help.

How far back to learn from is decided by validation: short trials on a thin sample of every window, each judged on the
newest rows, which no trial has seen. All windows share one sample, and the parent scores every row once, so that the
choice costs little beside the fit itself; rows are binned by the sample's bins, which are found once. Where no trial is better than the parent by more than chance, nothing is added.
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
TRIAL_TREES = 10
LEAST_ROWS = 20_000
TREES: Mapping[str, Any] = {
    "objective": "binary", "num_leaves": 8, "learning_rate": 0.2, "lambda_l2": 20.0, "max_bin": 63, "min_data_in_leaf": 100,
    "force_row_wise": True, "deterministic": True, "feature_pre_filter": False, "boost_from_average": False, "verbosity": -1,
}  # fmt: skip
"""Few large steps of small trees: what changed is learnt from few rows, of which big trees learn the noise as well."""


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
    trees: int = 60,
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
    binned = _binned(settings, matrix[sample[: ends[-1]]])
    said: dict[float, Floats] = {}
    for number, window in enumerate(WINDOWS):
        upto = slice(0, int(ends[number]))
        counted = density[upto] * weights[sample[upto]]
        rows_here = binned.subset(np.arange(ends[number]))
        trial = _fit(settings, rows_here, label[sample[upto]], raw[upto], TRIAL_TREES, counted)
        said[window] = _losses(raw[judge] + _raw(trial, matrix[sample[judge]], threads), label[sample[judge]])
    counted = weights[sample[judge]]
    losses = {window: float(np.average(values, weights=counted)) for window, values in said.items()}
    unchanged = _losses(raw[judge], label[sample[judge]])
    unchanged_loss = float(np.average(unchanged, weights=counted))
    best = _widest_of_the_best(said, losses, counted)
    if not _beyond_chance(unchanged - said[best], counted):
        return WarmStart(parent, 0.0, losses, unchanged_loss)
    begin = rows - round(rows * best)
    window_rows = _binned(settings, matrix[begin:], binned)
    added = _fit(settings, window_rows, label[begin:], _raw(parent, matrix[begin:], threads), trees, weights[begin:])
    _put_first(parent, added)
    return WarmStart(added, best, losses, unchanged_loss)


def _widest_of_the_best(said: Mapping[float, Floats], losses: Mapping[float, float], counted: Floats) -> float:
    """The widest window that is not worse than the best by more than chance: more rows, where nothing speaks against."""
    best = said[min(losses, key=lambda window: losses[window])]
    return max(window for window, values in said.items() if not _beyond_chance(values - best, counted))


def _beyond_chance(differences: Floats, counted: Floats) -> bool:
    """Whether the weighted mean exceeds one standard error."""
    error = float(differences.std()) / float(np.sqrt(len(differences)))
    return float(np.average(differences, weights=counted)) > error


def _ring(rows: int, judged: int, number: int) -> NDArray[np.int64]:
    """Evenly spaced rows of a window that are in no smaller one and do not judge."""
    inner = judged if number == 0 else round(rows * WINDOWS[number - 1])
    outer = round(rows * WINDOWS[number])
    return np.linspace(rows - outer, rows - inner, min(SAMPLE, outer - inner), endpoint=False).astype(np.int64)


def _width(rows: int, number: int) -> float:
    return rows * (WINDOWS[number] - (WINDOWS[number - 1] if number else 0.0))


def _binned(settings: Mapping[str, Any], matrix: Array, like: Any = None) -> Any:
    import lightgbm

    return lightgbm.Dataset(matrix, reference=like, params=dict(settings), free_raw_data=True)


def _fit(settings: Mapping[str, Any], binned: Any, label: Array, raw: Floats, trees: int, weight: Floats) -> Any:
    import lightgbm

    params = {**settings, "min_data_in_leaf": min(settings["min_data_in_leaf"], max(20, len(label) // 100))}
    binned.construct()
    binned.set_label(label).set_weight(weight / weight.mean()).set_init_score(raw)
    return lightgbm.train(params, binned, trees, keep_training_booster=True)


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
