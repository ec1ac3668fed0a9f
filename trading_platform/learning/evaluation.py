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
from trading_platform.learning.search import WORKERS, Progress, Searched, fold_fitter, search
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


def evaluate(samples: Samples, question: Question, storage: Any, progress: Progress) -> dict[str, Any]:
    """The report: `overall`, `folds`, `conditions`, `pbo`, `deflated_sharpe`, `trials` and what plots are made of.

    `storage` is Optuna's. Raises `validation.TooFewRowsError` where the data are too short.
    """
    with threadpool_limits(limits=1):
        return _evaluate(samples, question, storage, progress)


def _evaluate(samples: Samples, question: Question, storage: Any, progress: Progress) -> dict[str, Any]:
    early = walk_forward(
        samples.start, samples.end, folds=question.folds, embargo=question.embargo, first_test=SEARCH_FROM,
        last_test=EVALUATE_FROM,
    )  # fmt: skip
    late = walk_forward(
        samples.start, samples.end, folds=question.folds, embargo=question.embargo, first_test=EVALUATE_FROM
    )
    length = max(86_400_000_000, question.embargo)
    found = search(
        storage, question.name, samples, early, kind=question.kind, trials=question.trials, seed=question.seed,
        progress=progress,
        record=lambda scores: returns_of(samples, early, scores, question.coverage, length).tolist(),
    )  # fmt: skip
    how = {"kind": question.kind, "seed": question.seed, "embargo": question.embargo}
    method, losses, last = choose_calibration(samples, early, found, **how)  # type: ignore[arg-type]
    windows = walk(samples, late, last, params=found.params, method=method, progress=progress, **how)  # type: ignore[arg-type]
    rows = judged(samples, windows, question)
    trials = np.array([trial.returns for trial in found.tried]).T
    winner = next(index for index, trial in enumerate(found.tried) if trial.params == found.params)
    overfitting = probability_of_overfitting(trials, _blocks(len(trials)))
    ratios = np.array([sharpe(column) for column in trials.T])
    earned, _ = periods_of(rows, np.flatnonzero(rows.published), length, (late[0].test_from, late[-1].test_to))
    return {
        **_cards(rows),
        "pbo": overfitting.pbo,
        "deflated_sharpe": _number(deflated_sharpe(trials[:, winner], ratios)),
        "trials": found.trials,
        "pruned_trials": found.pruned,
        "sharpe": {
            "period_days": length / 86_400e6,
            "search_stretch": float(ratios[winner]),
            "best_trial": float(ratios.max()),
            "evaluation_stretch": sharpe(earned),
            "evaluation_deflated": _number(deflated_sharpe(earned, ratios)),
        },
        "combinatorial": _combinatorial(samples, question, found, progress),
        "chosen": {"hyperparameters": found.params, "calibration": method, "calibration_log_loss": losses},
        "effective_samples": float(samples.weight.sum()),
        "rows": len(samples),
        "left_out": dict(samples.left_out),
        "evaluated": [_moment(late[0].test_from), _moment(late[-1].test_to)],
        "plots": _series(rows, overfitting.logits, ratios, length, (late[0].test_from, late[-1].test_to)),
    }


def judged(samples: Samples, windows: list[Window], question: Question) -> Judged:
    """Test windows as rows to be judged. A window publishes what reaches the threshold known at its beginning: the
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
        published=confidence >= threshold,
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
