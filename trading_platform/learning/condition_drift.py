"""Which market condition has drifted: its share of the market, the calibration of confidences in it, what is learnt of it.

Three questions are put to every value of every condition (volatility high, trend up, session asia, ...):

- data: does the market spend another share of its time there than in the training data? Block bootstrap, as for features.
- calibration: is the mean of label minus confidence away from zero there?
- concept: does the log-loss there exceed what the confidences promise? The excess is (confidence - label) * its log-odds,
  so it is high where what the model was surest of came true least.

Calibrated confidences keep the last two at zero whatever came before, so both are tested by betting on it (e-values of
the normal mixture), and hold at every look. Over the values of one question the error is kept by Holm's procedure (1979).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from trading_platform.learning.calibration import log_losses
from trading_platform.learning.confidence_sequence import block_means, sequential_p_value
from trading_platform.learning.error_drift import promised_losses
from trading_platform.learning.feature_drift import feature_drift
from trading_platform.learning.plan import CONDITIONS
from trading_platform.learning.samples import microseconds

Integers = NDArray[np.int64]
Strings = NDArray[np.str_]

UNKNOWN = "unknown"
DATA, CALIBRATION, CONCEPT = "data", "calibration", "concept"


@dataclass(frozen=True)
class ConditionDrift:
    """One question about one value of one condition.

    `expected` and `found`: share of the bars in training and in the window (data), mean confidence and share that came
    true (calibration), accuracy promised and reached (concept). `rows`: bars or signals it rests on.
    """

    condition: str
    value: str
    question: str
    expected: float
    found: float
    p_value: float
    rows: int
    drifted: bool = False

    @property
    def said(self) -> str:
        """What was found, in a trader's words."""
        where = _where(self.condition, self.value)
        if self.question == DATA:
            return f"{where} the market spends {self.found:.0%} of its time, against {self.expected:.0%} in training."
        if self.question == CALIBRATION:
            side = "high" if self.expected > self.found else "low"
            points = abs(self.expected - self.found) * 100
            return (
                f"{where} confidence is {points:.0f} points too {side}: it said {self.expected:.0%} on average, and "
                f"{self.found:.0%} came true ({self.rows:,} signals)."
            )
        return (
            f"{where} the market no longer does what the model learnt: it is right {self.found:.0%} of the time, and "
            f"promised {self.expected:.0%} ({self.rows:,} signals)."
        )

    def document(self) -> dict[str, Any]:
        return asdict(self) | ({"said": self.said} if self.drifted else {})


def signal_drift(resolved: pl.DataFrame, width: int, margin: float, alpha: float = 0.05) -> list[ConditionDrift]:
    """Calibration and concept in every condition, from signals with known outcomes (see `resolved.resolve`).

    `width`: microseconds of a block, two label horizons or more; `margin`: nats of excess loss that are let pass.
    """
    moments = microseconds(resolved["available_at"])
    confidence, label = resolved["confidence"].to_numpy(), resolved["label"].to_numpy()
    right = (confidence >= 0.5) == (label == 1)
    surprise = label - confidence
    excess = log_losses(confidence, label) - promised_losses(confidence)
    calibration, concept = [], []
    for name, value, rows in _values({name: resolved[name].to_numpy() for name in CONDITIONS}):
        said, came_true = float(confidence[rows].mean()), float(label[rows].mean())
        promised = float(np.maximum(confidence[rows], 1.0 - confidence[rows]).mean())
        off, _ = block_means(surprise[rows], moments[rows], width)
        worse, _ = block_means(excess[rows], moments[rows], width)
        count = int(rows.sum())
        p_value = sequential_p_value(off, 0.0)
        calibration.append(ConditionDrift(name, value, CALIBRATION, said, came_true, p_value, count))
        p_value = sequential_p_value(worse, margin, above=True)
        concept.append(ConditionDrift(name, value, CONCEPT, promised, float(right[rows].mean()), p_value, count))
    return [*holm(calibration, alpha), *holm(concept, alpha)]


def share_drift(
    training: tuple[Mapping[str, Strings], Integers],
    window: tuple[Mapping[str, Strings], Integers],
    *,
    seed: int,
    alpha: float = 0.05,
) -> list[ConditionDrift]:
    """Data drift by condition. Each argument: ({condition: value of each bar (n,)}, moments (n,) ascending)."""
    known = list(_values(training[0]))
    names = tuple(f"{name}={value}" for name, value, _ in known)
    old = np.column_stack([rows for _, _, rows in known]).astype(np.float64)
    new = np.column_stack([window[0][name] == value for name, value, _ in known]).astype(np.float64)
    distances = feature_drift(names, (old, training[1]), (new, window[1]), seed=seed)
    found = [
        ConditionDrift(
            name, value, DATA, float(old[:, column].mean()), float(new[:, column].mean()), distances[label].p_value,
            len(new),
        )
        for column, ((name, value, _), label) in enumerate(zip(known, names, strict=True))
        if label in distances
    ]  # fmt: skip
    return holm(found, alpha)


def holm(found: list[ConditionDrift], alpha: float) -> list[ConditionDrift]:
    """The same, with `drifted` set where Holm's step-down procedure rejects at a family-wise error of `alpha`."""
    rejected: set[int] = set()
    for rank, index in enumerate(sorted(range(len(found)), key=lambda index: found[index].p_value)):
        if found[index].p_value > alpha / (len(found) - rank):
            break
        rejected.add(index)
    return [ConditionDrift(**(asdict(each) | {"drifted": n in rejected})) for n, each in enumerate(found)]


def _values(conditions: Mapping[str, Strings]) -> list[tuple[str, str, NDArray[np.bool_]]]:
    """(condition, value, which rows) of every value there is, the unknown ones left out."""
    return [
        (name, str(value), np.asarray(values == value, dtype=np.bool_))
        for name, values in conditions.items()
        for value in np.unique(values.astype(np.str_)).tolist()
        if value != UNKNOWN
    ]


def _where(condition: str, value: str) -> str:
    if condition == "session":
        return f"In the session {value!r}"
    return f"While {'the trend' if condition == 'trend' else condition} is {value}"
