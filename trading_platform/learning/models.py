"""The two kinds of model behind one interface: LightGBM, and logistic regression as the baseline.

A fitted model is written as plain JSON (LightGBM's own text format; coefficients and scaler of the logistic one) and
read back to give the same numbers; nothing is ever pickled. LightGBM runs with `deterministic` and a fixed number of
threads, so that training again gives the same bytes.
"""

import ctypes
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trading_platform.learning.calibration import Floats, expit

THREADS = 1
"""A fit uses one thread, and several fits run side by side: OpenMP's threads spin while they wait, which on a machine
that is busy with other processes made a two-threaded fit ten times slower than a single-threaded one."""

LIGHTGBM, LOGISTIC, LEGACY = "lightgbm", "logistic", "legacy"
LIGHTGBM_FIXED: dict[str, Any] = {
    "objective": "binary",
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": THREADS,
    "verbosity": -1,
    "max_bin": 63,
    "min_data_in_bin": 16,
    "feature_pre_filter": False,
}
"""63 bins train about twice as fast as 255 and cost nothing measurable on features this noisy."""

PATIENCE = 30
"""Boosting rounds without a gain after which more are not expected to bring one."""


class Model(Protocol):
    """A fitted model. Rows have one column a feature, in the artifact's order; NaN marks a feature that is absent."""

    def scores(self, matrix: Floats) -> Floats:
        """Raw probabilities (n,) of rows (n, k)."""
        ...

    def scorer(self) -> Callable[[Floats], float]:
        """The same for one row (k,), as fast as it goes. Not for use by several threads at once."""
        ...

    def document(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class LogisticModel:
    """Standardised logistic regression. Absent features count as average."""

    mean: Floats
    scale: Floats
    weights: Floats
    intercept: float

    def scores(self, matrix: Floats) -> Floats:
        z = np.nan_to_num((matrix - self.mean) / self.scale, nan=0.0, posinf=0.0, neginf=0.0)
        return expit(z @ self.weights + self.intercept)

    def scorer(self) -> Callable[[Floats], float]:
        slope = self.weights / self.scale
        offset = self.intercept - float(self.mean @ slope)

        def score(row: Floats) -> float:
            odds = float(row @ slope) + offset
            if not math.isfinite(odds):  # a feature is absent
                return float(self.scores(row[None, :])[0])
            return 1.0 / (1.0 + math.exp(-min(max(odds, -50.0), 50.0)))

        return score

    def document(self) -> dict[str, Any]:
        return {
            "kind": LOGISTIC,
            "mean": self.mean.tolist(),
            "scale": self.scale.tolist(),
            "weights": self.weights.tolist(),
            "intercept": self.intercept,
        }


class LightGbmModel:
    """LightGBM's text model. `columns`: the platform's features the model uses, where it does not use all in order."""

    def __init__(self, text: str, columns: tuple[int, ...] | None = None) -> None:
        import lightgbm

        self.text = text
        self.columns = columns
        self.booster = lightgbm.Booster(model_str=text)

    def scores(self, matrix: Floats) -> Floats:
        if self.columns is not None:
            matrix = matrix[:, self.columns]
        return np.asarray(self.booster.predict(matrix, num_threads=THREADS), dtype=np.float64)

    def scorer(self) -> Callable[[Floats], float]:
        return _SingleRow(self.booster, self.columns)

    def document(self) -> dict[str, Any]:
        columns = None if self.columns is None else list(self.columns)
        return {"kind": LIGHTGBM, "text": self.text, "columns": columns}


class _SingleRow:
    """LightGBM's fast single-row call: set up once, then 10-20 us a row instead of the 100 us of `Booster.predict`."""

    def __init__(self, booster: Any, columns: tuple[int, ...] | None) -> None:
        from lightgbm import basic

        library: Any = basic._LIB  # type: ignore[attr-defined]  # its C interface is public, this handle to it is not
        self._booster = booster  # keeps the handle alive
        self._columns = columns
        self._library = library
        self._row = np.zeros(booster.num_feature())
        self._out = ctypes.c_double()
        self._length = ctypes.c_int64()
        self._config = ctypes.c_void_p()
        code = library.LGBM_BoosterPredictForMatSingleRowFastInit(
            booster._handle,
            ctypes.c_int(0),  # probabilities
            ctypes.c_int(0),
            ctypes.c_int(-1),
            ctypes.c_int(1),  # float64
            ctypes.c_int32(len(self._row)),
            ctypes.c_char_p(b"num_threads=1"),
            ctypes.byref(self._config),
        )
        if code:
            raise RuntimeError(f"LightGBM refused a single-row predictor: {library.LGBM_GetLastError()!r}")
        self._arguments = (
            self._config,
            self._row.ctypes.data_as(ctypes.c_void_p),
            ctypes.byref(self._length),
            ctypes.byref(self._out),
        )

    def __call__(self, row: Floats) -> float:
        self._row[:] = row if self._columns is None else row[list(self._columns)]
        if self._library.LGBM_BoosterPredictForMatSingleRowFast(*self._arguments):
            raise RuntimeError(f"LightGBM could not score a row: {self._library.LGBM_GetLastError()!r}")
        return self._out.value

    def __del__(self) -> None:
        if self._config:
            self._library.LGBM_FastConfigFree(self._config)


def model_from(document: Mapping[str, Any]) -> Model:
    """The model that `document()` described. Raises ValueError on an unknown kind."""
    if document["kind"] == LIGHTGBM:
        columns = document.get("columns")
        return LightGbmModel(document["text"], None if columns is None else tuple(columns))
    if document["kind"] == LOGISTIC:
        arrays = {name: np.array(document[name], dtype=np.float64) for name in ("mean", "scale", "weights")}
        return LogisticModel(**arrays, intercept=float(document["intercept"]))
    raise ValueError(f"unknown kind of model {document['kind']!r}; expected {LIGHTGBM} or {LOGISTIC}")


# --- fitting ---------------------------------------------------------------------------------------------------------


class Fitter(Protocol):
    """Training data made ready once (binned, standardised) and fitted many times with different parameters."""

    def fit(self, params: Mapping[str, Any], seed: int) -> Model: ...


def fitter(kind: str, matrix: Floats, labels: NDArray[np.int8], weights: Floats) -> Fitter:
    """Make rows (n, k) with labels 0/1 (n,) and weights (n,) ready for models of this kind."""
    if kind == LIGHTGBM:
        return LightGbmFitter(matrix, labels, weights)
    if kind == LOGISTIC:
        return LogisticFitter(matrix, labels, weights)
    raise ValueError(f"cannot train a model of kind {kind!r}; expected {LIGHTGBM} or {LOGISTIC}")


class LightGbmFitter:
    """A binned dataset: binning is paid once, not once a trial."""

    def __init__(self, matrix: Floats, labels: NDArray[np.int8], weights: Floats) -> None:
        import lightgbm

        self._lightgbm = lightgbm
        self.dataset = lightgbm.Dataset(
            np.ascontiguousarray(matrix), labels, weight=weights / weights.mean(), params=LIGHTGBM_FIXED
        ).construct()

    def fit(self, params: Mapping[str, Any], seed: int) -> LightGbmModel:
        """`params`: LightGBM's, with `trees` boosting rounds and `min_leaf_fraction`, the rows a leaf needs as a share."""
        settings = _lightgbm_settings(params, self.dataset.num_data(), seed)
        booster = self._lightgbm.train(settings, self.dataset, int(params["trees"]))
        return LightGbmModel(booster.model_to_string())

    def fit_until(
        self, params: Mapping[str, Any], seed: int, most: int, judge: tuple[Floats, NDArray[np.int8], Floats]
    ) -> LightGbmModel:
        """`fit` with as many boosting rounds as help the rows that judge (matrix, labels, weights), at the most `most`."""
        matrix, labels, weights = judge
        settings = _lightgbm_settings(params, self.dataset.num_data(), seed)
        judged = self._lightgbm.Dataset(
            np.ascontiguousarray(matrix), labels, weight=weights / weights.mean(), reference=self.dataset
        )
        stop = self._lightgbm.early_stopping(PATIENCE, verbose=False)
        booster = self._lightgbm.train(settings, self.dataset, most, valid_sets=[judged], callbacks=[stop])
        return LightGbmModel(booster.model_to_string(num_iteration=booster.best_iteration))


class LogisticFitter:
    """scikit-learn's pipeline of imputation, scaling and L2-regularised logistic regression."""

    def __init__(self, matrix: Floats, labels: NDArray[np.int8], weights: Floats) -> None:
        from sklearn.impute import SimpleImputer
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        self._prepared = make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler())
        self._standardised = self._prepared.fit_transform(matrix)
        self._labels, self._weights = labels, weights / weights.mean()

    def fit(self, params: Mapping[str, Any], seed: int) -> LogisticModel:
        """`params`: `C`, the inverse strength of the penalty."""
        from sklearn.linear_model import LogisticRegression

        logistic = LogisticRegression(C=float(params["C"]), max_iter=500, random_state=seed)
        logistic.fit(self._standardised, self._labels, self._weights)
        scaler = self._prepared[1]
        return LogisticModel(
            mean=np.asarray(scaler.mean_),
            scale=np.asarray(scaler.scale_),
            weights=np.asarray(logistic.coef_[0], dtype=np.float64),
            intercept=float(logistic.intercept_[0]),
        )


def add_trees(
    parent: LightGbmModel,
    rows: tuple[Floats, NDArray[np.int8], Floats],
    params: Mapping[str, Any],
    seed: int,
) -> LightGbmModel:
    """Warm start: `params["trees"]` more trees on new rows (matrix, labels, weights), after the parent's own trees."""
    import lightgbm

    matrix, labels, weights = rows
    # The raw rows are kept: LightGBM asks the parent what it says of them, and goes on from there.
    dataset = lightgbm.Dataset(
        np.ascontiguousarray(matrix),
        labels,
        weight=weights / weights.mean(),
        params=LIGHTGBM_FIXED,
        free_raw_data=False,
    )
    settings = _lightgbm_settings(params, len(labels), seed)
    booster = lightgbm.train(settings, dataset, int(params["trees"]), init_model=parent.booster)
    return LightGbmModel(booster.model_to_string(), parent.columns)


def refit_leaves(parent: LightGbmModel, matrix: Floats, labels: NDArray[np.int8], decay: float) -> LightGbmModel:
    """The parent's splits with leaf values moved towards new rows; `decay` of the old values stays."""
    rows = matrix if parent.columns is None else matrix[:, parent.columns]
    booster = parent.booster.refit(np.ascontiguousarray(rows), labels, decay_rate=decay, **LIGHTGBM_FIXED)
    return LightGbmModel(booster.model_to_string(), parent.columns)


def _lightgbm_settings(params: Mapping[str, Any], rows: int, seed: int) -> dict[str, Any]:
    settings = {name: value for name, value in params.items() if name not in {"trees", "min_leaf_fraction"}}
    if "min_leaf_fraction" in params:  # a share, so that it carries over from a search on fewer rows
        settings["min_data_in_leaf"] = max(20, round(float(params["min_leaf_fraction"]) * rows))
    return LIGHTGBM_FIXED | settings | {"seed": seed}
