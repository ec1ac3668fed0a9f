"""From a model's score to a probability that comes true, and how far to trust it.

Calibrators are fitted on predictions the model made out of sample, on a recent window. `Sigmoid` is Platt, "Probabilistic
outputs for support vector machines" (1999), on log-odds; `Isotonic` only pays beyond 1,000 effective samples
(Niculescu-Mizil & Caruana, 2005); `VennAbers` gives an interval as well as a point (Vovk, Petej & Fedorova,
"Large-scale probabilistic predictors with and without guarantees of validity", NeurIPS 2015).
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
ISOTONIC_MINIMUM = 1_000
MAX_BINS = 1_000
SAMPLES_PER_STEP = 30
EDGE = 1e-6
"""Scores are kept this far from 0 and 1, so that log-odds and log-loss stay finite."""


class Calibrator(Protocol):
    """A monotone map from raw scores to probabilities."""

    @property
    def method(self) -> str: ...
    def one(self, score: float) -> float: ...
    def many(self, scores: Floats) -> Floats: ...
    def document(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Identity:
    """The score as it is: for models whose calibration nobody measured."""

    method = "identity"

    def one(self, score: float) -> float:
        return score

    def many(self, scores: Floats) -> Floats:
        return np.asarray(scores, dtype=np.float64)

    def document(self) -> dict[str, Any]:
        return {"method": self.method}


@dataclass(frozen=True)
class Sigmoid:
    """1 / (1 + exp(-(slope * log-odds + intercept))). The slope is never negative: calibration keeps the order."""

    slope: float
    intercept: float
    method = "sigmoid"

    def one(self, score: float) -> float:
        return float(self.many(np.array([score]))[0])  # by the same functions: those of `math` differ in the last bit

    def many(self, scores: Floats) -> Floats:
        return expit(self.slope * logit(scores) + self.intercept)

    def document(self) -> dict[str, Any]:
        return {"method": self.method, "slope": self.slope, "intercept": self.intercept}


@dataclass(frozen=True)
class Isotonic:
    """Piecewise linear between the knots of an isotonic fit."""

    scores: tuple[float, ...]
    values: tuple[float, ...]
    method = "isotonic"

    def one(self, score: float) -> float:
        return float(np.interp(score, self.scores, self.values))

    def many(self, scores: Floats) -> Floats:
        return np.interp(scores, self.scores, self.values)

    def document(self) -> dict[str, Any]:
        return {"method": self.method, "scores": list(self.scores), "values": list(self.values)}


@dataclass(frozen=True)
class VennAbers:
    """Inductive Venn-Abers predictor as a step table: one (p0, p1) a bin of scores.

    `edges` (bins - 1,) ascending boundaries; `p0`, `p1` (bins,): the isotonic value of the test object if its label
    were 0, or 1. The point is p1 / (1 - p0 + p1), minimax under log-loss (section 4 of the paper).
    """

    edges: tuple[float, ...]
    p0: tuple[float, ...]
    p1: tuple[float, ...]
    method = "venn_abers"

    def interval(self, score: float) -> tuple[float, float]:
        """(p0, p1): the multiprobability prediction."""
        index = bisect_left(self.edges, score)
        return self.p0[index], self.p1[index]

    def intervals(self, scores: Floats) -> tuple[Floats, Floats]:
        index = np.searchsorted(np.asarray(self.edges), scores, side="left")
        return np.asarray(self.p0)[index], np.asarray(self.p1)[index]

    def one(self, score: float) -> float:
        lower, upper = self.interval(score)
        return upper / (1.0 - lower + upper)

    def many(self, scores: Floats) -> Floats:
        lower, upper = self.intervals(scores)
        return np.asarray(upper / (1.0 - lower + upper), dtype=np.float64)

    def document(self) -> dict[str, Any]:
        return {"method": self.method, "edges": list(self.edges), "p0": list(self.p0), "p1": list(self.p1)}


def calibrator_from(document: Mapping[str, Any]) -> Calibrator:
    """The calibrator that `document()` described. Raises ValueError on an unknown method."""
    fields = {name: tuple(value) if isinstance(value, list) else value for name, value in document.items()}
    method = str(fields.pop("method", ""))
    kinds: dict[str, type[Any]] = {
        "identity": Identity, "sigmoid": Sigmoid, "isotonic": Isotonic, "venn_abers": VennAbers,
    }  # fmt: skip
    if method not in kinds:
        raise ValueError(f"unknown calibration method {method!r}; expected one of {', '.join(kinds)}")
    calibrator: Calibrator = kinds[method](**fields)
    return calibrator


# --- fitting ---------------------------------------------------------------------------------------------------------


def fit_sigmoid(scores: Floats, labels: NDArray[np.int8], weights: Floats | None = None) -> Sigmoid:
    """Platt scaling with his smoothed targets. Labels of one class alone give the smoothed base rate.

    The slope is drawn towards zero, the base rate, by a normal prior of unit variance: nothing beside thousands of
    effective samples, and what keeps a few dozen from claiming a certainty.
    """
    from sklearn.linear_model import LogisticRegression

    weights = _weights(weights, scores)
    positive = float(weights[labels == 1].sum())
    negative = float(weights.sum()) - positive
    high, low = (positive + 1.0) / (positive + 2.0), 1.0 / (negative + 2.0)
    target = np.where(labels == 1, high, low)
    odds = logit(scores)
    if float(np.ptp(odds)) < EDGE:
        return Sigmoid(0.0, float(logit(np.average(target, weights=weights))))
    # Soft targets: every row stands once for each class, weighing as much as its target says.
    model = LogisticRegression(C=1.0, tol=1e-8, max_iter=200).fit(
        np.concatenate([odds, odds])[:, None],
        np.repeat([1, 0], len(odds)),
        sample_weight=np.concatenate([weights * target, weights * (1.0 - target)]),
    )
    slope = float(model.coef_[0, 0])
    if slope <= 0.0:
        return Sigmoid(0.0, float(logit(np.average(target, weights=weights))))
    return Sigmoid(slope, float(model.intercept_[0]))


def fit_isotonic(scores: Floats, labels: NDArray[np.int8], weights: Floats | None = None) -> Isotonic:
    """Raises ValueError below 1,000 effective samples: there it fits noise."""
    from sklearn.isotonic import IsotonicRegression

    weights = _weights(weights, scores)
    if weights.sum() < ISOTONIC_MINIMUM:
        raise ValueError(
            f"isotonic calibration wants {ISOTONIC_MINIMUM:,} effective samples, there are {weights.sum():,.0f}: "
            "use the sigmoid or Venn-Abers"
        )
    # Steps of a few samples would say 0 or 1 at the ends of the scale: every step is given at least this many.
    order = np.argsort(scores, kind="stable")
    whole_steps = weights.sum() // SAMPLES_PER_STEP
    steps = np.minimum((np.cumsum(weights[order]) - weights[order]) // SAMPLES_PER_STEP, whole_steps - 1)
    _, first = np.unique(steps, return_index=True)
    mass = np.add.reduceat(weights[order], first)
    middle = np.add.reduceat((weights * scores)[order], first) / mass
    observed = np.add.reduceat((weights * labels)[order], first) / mass
    fitted = IsotonicRegression(y_min=EDGE, y_max=1.0 - EDGE, out_of_bounds="clip").fit(middle, observed, mass)
    return Isotonic(tuple(map(float, fitted.X_thresholds_)), tuple(map(float, fitted.y_thresholds_)))


def fit_venn_abers(scores: Floats, labels: NDArray[np.int8], weights: Floats | None = None) -> VennAbers:
    """Tabulate p0 and p1 for every bin of scores (every distinct score, or 1,000 bins of equal mass).

    `weights` are average-uniqueness weights: overlapping labels then widen the interval as fewer samples would. The
    test object weighs 1. With weights of 1 it is the predictor of the paper.
    """
    from trading_platform.learning.venn_abers import with_test_object

    weights = _weights(weights, scores)
    distinct = np.unique(scores)
    if len(distinct) > MAX_BINS:
        distinct = np.unique(np.quantile(scores, np.linspace(0.0, 1.0, MAX_BINS), method="nearest"))
    edges = (distinct[1:] + distinct[:-1]) / 2.0
    bins = np.searchsorted(edges, scores, side="left")
    mass = np.bincount(bins, weights, len(distinct)).astype(np.float64)
    successes = np.bincount(bins, weights * labels, len(distinct)).astype(np.float64)
    p0 = with_test_object(mass, successes, 0.0)
    p1 = with_test_object(mass, successes, 1.0)
    return VennAbers(tuple(map(float, edges)), tuple(map(float, p0)), tuple(map(float, p1)))


def best_method(
    fit: tuple[Floats, NDArray[np.int8], Floats], check: tuple[Floats, NDArray[np.int8], Floats]
) -> tuple[str, dict[str, float]]:
    """Which calibration to use on later windows: (method, log-loss of each). Arguments: scores, labels, weights.

    The sigmoid, unless another is better by more than two standard errors: two parameters drift less than a table does,
    and on a window worth a few dozen samples a table fits noise.
    """
    losses = {
        method: log_losses(fit_calibrator(method, *fit).many(check[0]), check[1])
        for method in ("sigmoid", "venn_abers", "isotonic")
        if method != "isotonic" or fit[2].sum() >= ISOTONIC_MINIMUM
    }
    means = {method: float(np.average(loss, weights=check[2])) for method, loss in losses.items()}
    best = min(means, key=lambda method: means[method])
    gain = losses["sigmoid"] - losses[best]
    error = float(np.sqrt(np.average((gain - gain.mean()) ** 2, weights=check[2]) / check[2].sum()))
    return (best if means["sigmoid"] - means[best] > 2.0 * error else "sigmoid"), means


def fit_calibrator(method: str, scores: Floats, labels: NDArray[np.int8], weights: Floats | None = None) -> Calibrator:
    """Fit by name: `sigmoid`, `venn_abers` or `isotonic`."""
    if method == "sigmoid":
        return fit_sigmoid(scores, labels, weights)
    if method == "isotonic":
        return fit_isotonic(scores, labels, weights)
    if method == "venn_abers":
        return fit_venn_abers(scores, labels, weights)
    raise ValueError(f"unknown calibration method {method!r}; expected sigmoid, venn_abers or isotonic")


# --- measures --------------------------------------------------------------------------------------------------------


def log_loss(probability: Floats, labels: NDArray[np.int8], weights: Floats | None = None) -> float:
    """Weighted mean negative log-likelihood, in nats."""
    return float(np.average(log_losses(probability, labels), weights=weights))


def log_losses(probability: Floats, labels: NDArray[np.int8]) -> Floats:
    """Negative log-likelihood of each row, in nats."""
    clipped = np.clip(probability, EDGE, 1.0 - EDGE)
    return np.asarray(-np.where(labels == 1, np.log(clipped), np.log1p(-clipped)), dtype=np.float64)


def brier(probability: Floats, labels: NDArray[np.int8], weights: Floats | None = None) -> float:
    """Weighted mean squared error of the probability (Brier, 1950)."""
    return float(np.average((probability - labels) ** 2, weights=weights))


@dataclass(frozen=True)
class ReliabilityBin:
    """Of the rows with confidence in [lower, upper], `observed` came true."""

    lower: float
    upper: float
    confidence: float
    observed: float
    weight: float
    rows: int


def reliability(
    probability: Floats, labels: NDArray[np.int8], weights: Floats | None = None, bins: int = 15
) -> list[ReliabilityBin]:
    """The reliability table over bins of equal mass (Nixon et al., "Measuring calibration in deep learning", 2019)."""
    weights = _weights(weights, probability)
    order = np.argsort(probability, kind="stable")
    table = []
    for part in np.array_split(order, min(bins, len(order))):
        if weights[part].sum() <= 0:
            continue
        table.append(
            ReliabilityBin(
                lower=float(probability[part[0]]),
                upper=float(probability[part[-1]]),
                confidence=float(np.average(probability[part], weights=weights[part])),
                observed=float(np.average(labels[part], weights=weights[part])),
                weight=float(weights[part].sum()),
                rows=len(part),
            )
        )
    return table


def expected_calibration_error(table: Sequence[ReliabilityBin]) -> float:
    """Mean distance between confidence and observed frequency over the bins of a reliability table."""
    total = sum(row.weight for row in table)
    return sum(row.weight * abs(row.confidence - row.observed) for row in table) / total if total else float("nan")


def logit(probability: Any) -> Any:
    """Log-odds, with probabilities kept off 0 and 1."""
    clipped = np.clip(np.asarray(probability, dtype=np.float64), EDGE, 1.0 - EDGE)
    return np.log(clipped) - np.log1p(-clipped)


def expit(odds: Any) -> Floats:
    """The inverse of `logit`."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(odds, -50.0, 50.0))), dtype=np.float64)


def _weights(weights: Floats | None, like: Floats) -> Floats:
    return np.ones(len(like)) if weights is None else np.asarray(weights, dtype=np.float64)
