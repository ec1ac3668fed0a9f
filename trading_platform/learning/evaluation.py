"""How good are calibrated predictions on these bars, honestly: purged walk-forward, every trial counted.

    report = evaluate(samples, question, storage, progress)
    report["overall"]["precision_at"]["80"], report["pbo"], report["deflated_sharpe"], report["trials"]

Time is spent as in `fitting.py`: hyperparameters and calibration are chosen on the earlier stretch, where the trials are
compared with each other; the later one is walked forward once, with everything chosen, and gives all figures.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # a requirement of scikit-learn

from trading_platform.learning.calibration import Floats, log_loss, reliability
from trading_platform.learning.certification import ERROR, certify
from trading_platform.learning.fitting import (
    EVALUATE_FROM,
    SEARCH_FROM,
    Integers,
    Window,
    choose_calibration,
    walk,
)
from trading_platform.learning.overfitting import BLOCKS, deflated_sharpe, probability_of_overfitting, sharpe
from trading_platform.learning.samples import Samples
from trading_platform.learning.scorecard import MINIMUM_ROWS, Judged, scorecard
from trading_platform.learning.search import WORKERS, Progress, Searched, fold_fitter, search, settle
from trading_platform.learning.trial_returns import equity, periods_of, returns_of
from trading_platform.learning.validation import Fold, combinatorial, paths, walk_forward

GROUPS, TEST_GROUPS = 6, 2
"""15 splits, 5 paths."""


@dataclass(frozen=True)
class Question:
    """What is evaluated. `coverage`: share of bars to publish where nothing is certified; `embargo` in microseconds,
    one horizon of market time; `name` identifies the study, so that the same question goes on where it stopped."""

    name: str
    kind: str
    trials: int
    folds: int
    coverage: float
    embargo: int
    seed: int


@dataclass(frozen=True)
class WalkedForward:
    """The search, and the later stretch predicted with what it chose. `params`: its winner's, settled for all rows; `stretch`: its bounds in microseconds; `returns`
    (periods, trials) of every trial over the search stretch, in periods of `length` microseconds."""

    found: Searched
    params: dict[str, Any]
    method: str
    calibration_losses: dict[str, float]
    rows: Judged
    stretch: tuple[int, int]
    length: int
    returns: Floats


def evaluate(samples: Samples, question: Question, storage: Any, progress: Progress) -> dict[str, Any]:
    """The report: `overall`, `folds`, `conditions`, `pbo`, `deflated_sharpe`, `trials` and what plots are made of.

    `storage` is Optuna's. Raises `validation.TooFewRowsError` where the data are too short.
    """
    ahead = choose_and_walk(samples, question, storage, progress)
    with threadpool_limits(limits=1):
        combined = _combinatorial(samples, question, ahead.found, progress)
    return {
        **_cards(ahead.rows),
        **_overfitting(ahead),
        "combinatorial": combined,
        "chosen": {
            "hyperparameters": ahead.params,
            "calibration": ahead.method,
            "calibration_log_loss": ahead.calibration_losses,
        },
        "effective_samples": float(samples.weight.sum()),
        "rows": len(samples),
        "left_out": dict(samples.left_out),
        "evaluated": [_moment(ahead.stretch[0]), _moment(ahead.stretch[1])],
    }


def choose_and_walk(samples: Samples, question: Question, storage: Any, progress: Progress) -> WalkedForward:
    """Choose on the earlier stretch, predict the later one. Raises `validation.TooFewRowsError`."""
    early = walk_forward(
        samples.start, samples.end, folds=question.folds, embargo=question.embargo, first_test=SEARCH_FROM,
        last_test=EVALUATE_FROM,
    )  # fmt: skip
    late = walk_forward(
        samples.start, samples.end, folds=question.folds, embargo=question.embargo, first_test=EVALUATE_FROM
    )
    length = max(86_400_000_000, question.embargo)
    kind, seed, embargo = question.kind, question.seed, question.embargo
    with threadpool_limits(limits=1):
        found = search(
            storage, question.name, samples, early, kind=kind, trials=question.trials, seed=seed, progress=progress,
            record=lambda scores: returns_of(samples, early, scores, question.coverage, length).tolist(),
        )  # fmt: skip
        params = settle(samples, early, found, kind=kind, seed=seed, progress=progress)
        method, losses, last = choose_calibration(samples, early, params, kind=kind, seed=seed, embargo=embargo)
        windows = walk(
            samples, late, last, kind=kind, params=params, method=method, seed=seed, embargo=embargo,
            progress=progress,
        )  # fmt: skip
    return WalkedForward(
        found=found,
        params=params,
        method=method,
        calibration_losses=losses,
        rows=judged(samples, windows, question),
        stretch=(late[0].test_from, late[-1].test_to),
        length=length,
        returns=np.array([trial.returns for trial in found.tried]).T,
    )


def judged(samples: Samples, windows: list[Window], question: Question) -> Judged:
    """Test windows as rows to be judged. A window publishes what exceeds the threshold known at its beginning: the
    quantile, by `question.coverage`, of the confidences its calibration gives to the window before."""
    rows = np.concatenate([window.rows for window in windows])
    guess = np.concatenate([window.guess for window in windows])
    confidence = np.concatenate([window.confidence for window in windows])
    sizes = [len(window.rows) for window in windows]
    threshold = np.repeat([np.quantile(window.before, 1.0 - question.coverage) for window in windows], sizes)
    return Judged(
        confidence=confidence,
        label=samples.label[rows],
        net_return=samples.net_return[rows],
        weight=samples.weight[rows],
        guess=guess,
        base_rate=np.fmax(samples.base_rate[rows], guess),
        # Above, not at: a calibration that says the same of every bar publishes none of them.
        published=confidence > threshold,
        start=samples.start[rows],
        end=samples.end[rows],
        block=samples.start[rows] // (2 * question.embargo),
        window=np.repeat(np.arange(len(windows)), sizes),
        symbol=samples.symbol[rows],
        conditions={name: values[rows] for name, values in samples.conditions.items()},
    )


def _cards(rows: Judged) -> dict[str, Any]:
    """All rows, each window, each condition's values. Parts divide the error of certification among them."""
    numbers = np.unique(rows.window)
    values = {
        name: [str(value) for value in np.unique(column) if np.sum(column == value) >= MINIMUM_ROWS]
        for name, column in rows.conditions.items()
    }
    parts = sum(map(len, values.values()))
    return {
        "overall": scorecard(rows),
        "folds": [
            {
                "from": _moment(int(rows.start[rows.window == number].min())),
                "to": _moment(int(rows.start[rows.window == number].max())),
                **scorecard(rows, rows.window == number, error=ERROR / len(numbers)),
            }
            for number in numbers
        ],
        "conditions": {
            name: {
                value: scorecard(rows, rows.conditions[name] == value, error=ERROR / max(parts, 1)) for value in found
            }
            for name, found in values.items()
        },
    }


def _overfitting(ahead: WalkedForward) -> dict[str, Any]:
    """What the number of trials does to the figures, and what the plots are drawn from."""
    overfitting = probability_of_overfitting(ahead.returns, _blocks(len(ahead.returns)))
    ratios = np.array([sharpe(column) for column in ahead.returns.T])
    winner = next(index for index, trial in enumerate(ahead.found.tried) if trial.params == ahead.found.params)
    earned, _ = periods_of(ahead.rows, np.flatnonzero(ahead.rows.published), ahead.length, ahead.stretch)
    return {
        "pbo": overfitting.pbo,
        "deflated_sharpe": _number(deflated_sharpe(ahead.returns[:, winner], ratios)),
        "trials": ahead.found.trials,
        "pruned_trials": ahead.found.pruned,
        "sharpe": {
            "period_days": ahead.length / 86_400e6,
            "search_stretch": float(ratios[winner]),
            "best_trial": float(ratios.max()),
            "evaluation_stretch": sharpe(earned),
            "evaluation_deflated": _number(deflated_sharpe(earned, ratios)),
        },
        "plots": _series(ahead.rows, overfitting.logits, ratios, ahead.length, ahead.stretch),
    }


def _combinatorial(samples: Samples, question: Question, found: Searched, progress: Progress) -> dict[str, Any]:
    """Gain in log-loss over the training base rate on each path: how much the figure depends on its stretch of time."""
    splits = combinatorial(samples.start, samples.end, groups=GROUPS, test_groups=TEST_GROUPS, embargo=question.embargo)
    gains: list[dict[int, float]] = []

    def gain(number: int) -> dict[int, float]:
        split = splits[number]
        fold = Fold(split.train, np.concatenate(list(split.test.values())), 0, 0)
        model = fold_fitter(samples, fold, question.kind, question.seed).fit(found.params, question.seed)
        rate = float(np.average(samples.label[split.train], weights=samples.weight[split.train]))
        return {
            group: _gain(samples, rows, model.scores(samples.matrix[rows]), rate) for group, rows in split.test.items()
        }

    with ThreadPoolExecutor(WORKERS) as pool:
        for number, result in enumerate(pool.map(gain, range(len(splits)))):
            gains.append(result)
            progress("combinatorial cross-validation", number + 1, len(splits))
    by_path = [float(np.mean([gains[split][group] for group, split in path.items()])) for path in paths(splits)]
    by_group = [float(np.mean([part[group] for part in gains if group in part])) for group in range(GROUPS)]
    return {"splits": len(splits), "path_log_loss_gain": by_path, "group_log_loss_gain": by_group}


def _gain(samples: Samples, rows: Integers, scores: Floats, rate: float) -> float:
    label, weight = samples.label[rows], samples.weight[rows]
    return log_loss(np.full(len(rows), rate), label, weight) - log_loss(scores, label, weight)


def _series(rows: Judged, logits: Floats, ratios: Floats, length: int, stretch: tuple[int, int]) -> dict[str, Any]:
    """What the page draws: reliability, the thresholds tested for certification, money over time, overfitting."""
    every = np.ones(len(rows.label), dtype=np.bool_)
    counts, edges = np.histogram(logits, bins=24) if len(logits) else (np.array([]), np.array([]))
    return {
        "reliability": [vars(line) for line in reliability(rows.confidence, rows.label)],
        "thresholds": [vars(tested) for tested in certify(rows.resolved(every)).sequence],
        "equity": equity(rows, np.flatnonzero(rows.published), length, stretch),
        "overfitting_logits": {"counts": counts.tolist(), "edges": edges.tolist()},
        "trial_sharpes": ratios.tolist(),
    }


def _blocks(periods: int) -> int:
    """As many blocks as leave two periods each, an even number; four at least."""
    return max(4, min(BLOCKS, periods // 4 * 2))


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _moment(microseconds: int) -> str:
    return datetime.fromtimestamp(microseconds / 1e6, UTC).isoformat()
