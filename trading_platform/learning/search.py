"""Hyperparameter search: an Optuna study in a database or a file, resumable and repeatable.

The study's name is the content of what is searched, so an interrupted search goes on where it stopped. Every trial's
sampler is seeded by the number of trials finished before it: a resumed search proposes what an uninterrupted one would.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trading_platform.learning.calibration import Floats, log_loss, log_losses
from trading_platform.learning.intervals import mean
from trading_platform.learning.models import LIGHTGBM, Fitter, LightGbmFitter, fitter
from trading_platform.learning.samples import Samples
from trading_platform.learning.validation import Fold
from trading_platform.storage.databases import Database, Databases, database_url

SEARCH_ROWS = 40_000
"""Training rows a fold and trial: what is good on them is nearly the same as on all, at a fraction of the time."""
FINALISTS = 3
"""Trials that are fitted to all rows where those are more than the search saw."""
STARTUP_TRIALS = 8
WORKERS = 2
"""Folds fitted side by side. They are judged in order, so the number of workers does not change the outcome."""

Progress = Callable[[str, int, int], None]
"""Called as (what is being done, done, total)."""
Record = Callable[[Sequence[Floats]], list[float]]
"""From a trial's out-of-sample scores, fold by fold, to the returns that are kept with the trial."""
RETURNS = "returns"


@dataclass(frozen=True)
class Tried:
    """One trial that really ran. `loss` is None where it was pruned; `returns` is empty unless they were recorded."""

    number: int
    params: dict[str, Any]
    loss: float | None
    returns: list[float]


@dataclass(frozen=True)
class Searched:
    """The winner, its weighted out-of-fold log-loss, and what was tried."""

    params: dict[str, Any]
    loss: float
    trials: int
    pruned: int
    resumed: int
    """Trials that an earlier, interrupted search had finished."""
    study: str
    tried: tuple[Tried, ...]


@contextmanager
def study_database(databases: Databases) -> Iterator[Any]:
    """Optuna's storage in the platform's own database, which several processes may search in at once."""
    import optuna

    url = database_url(databases.settings, Database.OPTUNA).render_as_string(hide_password=False)
    storage = optuna.storages.RDBStorage(url, engine_kwargs={"pool_pre_ping": True, "pool_size": 2})
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


def study_file(path: Path) -> Any:
    """Optuna's storage in one file, for searches that need no server."""
    from optuna.storages.journal import JournalFileBackend, JournalStorage

    path.parent.mkdir(parents=True, exist_ok=True)
    return JournalStorage(JournalFileBackend(str(path)))


def search(
    storage: Any,
    study_name: str,
    samples: Samples,
    folds: Sequence[Fold],
    *,
    kind: str,
    trials: int,
    seed: int,
    progress: Progress,
    record: Record | None = None,
) -> Searched:
    """Minimise the weighted out-of-fold log-loss over `trials` trials of all `folds`, pruned by the median of others.

    `storage` is Optuna's (`study_database`, `study_file`). With `record` every trial is given its returns, those that
    were pruned too: the probability of overfitting is over all trials that ran.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=storage,
        study_name=study_name,
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=1),
    )
    _fail_abandoned(study)
    objective = _Objective(samples, folds, kind, seed, record)
    resumed = done = len(_finished(study))
    progress("searching hyperparameters", done, trials)
    while done < trials:
        study.sampler = optuna.samplers.TPESampler(seed=seed * 10_007 + done, n_startup_trials=STARTUP_TRIALS)
        study.optimize(objective, n_trials=1)
        done += 1
        progress("searching hyperparameters", done, trials)
    finished = _finished(study)
    tried = tuple(_tried(trial, objective) for trial in finished)
    pruned = sum(trial.loss is None for trial in tried)
    return Searched(dict(study.best_params), float(study.best_value), len(finished), pruned, resumed, study_name, tried)


def propose(kind: str, trial: Any) -> dict[str, Any]:
    """The search space. Everything leans towards strong regularisation: the signal in returns is faint."""
    if kind != LIGHTGBM:
        return {"C": trial.suggest_float("C", 1e-5, 1.0, log=True)}
    return {
        "trees": trial.suggest_int("trees", 30, 200),
        "learning_rate": trial.suggest_float("learning_rate", 0.01, 0.1, log=True),
        "num_leaves": trial.suggest_int("num_leaves", 4, 48, log=True),
        "min_leaf_fraction": trial.suggest_float("min_leaf_fraction", 1e-3, 3e-2, log=True),
        "feature_fraction": trial.suggest_float("feature_fraction", 0.3, 1.0),
        "bagging_fraction": trial.suggest_float("bagging_fraction", 0.5, 1.0),
        "bagging_freq": trial.suggest_int("bagging_freq", 1, 1),
        "lambda_l2": trial.suggest_float("lambda_l2", 1e-2, 100.0, log=True),
    }


def fold_fitter(samples: Samples, fold: Fold, kind: str, seed: int) -> Fitter:
    """A fold's training rows, at most `SEARCH_ROWS` of them drawn by the seed."""
    rows = fold.train
    if len(rows) > SEARCH_ROWS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, SEARCH_ROWS, replace=False))
    return fitter(kind, samples.matrix[rows], samples.label[rows], samples.weight[rows])


def settle(
    samples: Samples, folds: Sequence[Fold], found: Searched, *, kind: str, seed: int, progress: Progress
) -> dict[str, Any]:
    """The hyperparameters for a fit to all rows. Those of the search, unless it saw only a sample of the rows.

    More rows bear more boosting rounds, and how many more no sample tells. So the best trials are fitted to all rows of
    the last fold, with rounds for as long as they help its test window, up to as many times those of the search as there
    are rows for every row it saw. What comes of it replaces the search's winner only where it is better on that window
    with 95 % confidence.
    """
    fold = folds[-1]
    ratio = len(fold.train) / SEARCH_ROWS
    if kind != LIGHTGBM or ratio <= 1.0:
        return found.params
    ready = fitter(kind, samples.matrix[fold.train], samples.label[fold.train], samples.weight[fold.train])
    assert isinstance(ready, LightGbmFitter)
    test, label, weight = samples.matrix[fold.test], samples.label[fold.test], samples.weight[fold.test]
    complete = [trial for trial in found.tried if trial.loss is not None]
    finalists = sorted(complete, key=lambda trial: float(trial.loss or 0.0))[:FINALISTS]
    kept = log_losses(ready.fit(found.params, seed).scores(test), label)
    best, best_losses = found.params, kept
    for number, trial in enumerate(finalists):
        progress("fitting finalists to all rows", number, len(finalists))
        model = ready.fit_until(trial.params, seed, round(trial.params["trees"] * ratio), (test, label, weight))
        losses = log_losses(model.scores(test), label)
        if losses.mean() < best_losses.mean():
            best, best_losses = trial.params | {"trees": model.booster.num_trees()}, losses
    progress("fitting finalists to all rows", len(finalists), len(finalists))
    width = 2 * int((samples.end - samples.start).max())
    gain = mean(kept - best_losses, samples.start[fold.test] // width)
    return best if gain is not None and gain.lower > 0.0 else found.params


class _Objective:
    """Out-of-fold log-loss of one trial; the folds' binned data are made once and shared by all trials."""

    def __init__(self, samples: Samples, folds: Sequence[Fold], kind: str, seed: int, record: Record | None) -> None:
        self._samples, self._folds, self._kind, self._seed, self._record = samples, folds, kind, seed, record
        self._fitters = [fold_fitter(samples, fold, kind, seed) for fold in folds]
        self._constant = [_constant_loss(samples, fold) for fold in folds]

    def __call__(self, trial: Any) -> float:
        import optuna

        params = propose(self._kind, trial)
        losses: list[float] = []
        scores: list[Floats] = []
        with ThreadPoolExecutor(WORKERS) as pool:
            pending = [pool.submit(self._scores, number, params) for number in range(len(self._folds))]
            for number, ready in enumerate(pending):
                scores.append(ready.result())
                losses.append(self._loss(number, scores[-1]))
                # The pruner compares steps: what is reported is how much better than a constant the folds so far were.
                trial.report(float(np.mean(losses) - np.mean(self._constant[: number + 1])), number)
                if trial.should_prune():
                    pool.shutdown(cancel_futures=True)
                    raise optuna.TrialPruned
        if self._record is not None:
            trial.set_user_attr(RETURNS, self._record(scores))
        return float(np.mean(losses))

    def returns(self, params: dict[str, Any]) -> list[float]:
        """What is recorded of a trial that was pruned: its folds are fitted after all."""
        if self._record is None:
            return []
        with ThreadPoolExecutor(WORKERS) as pool:
            return self._record(list(pool.map(lambda number: self._scores(number, params), range(len(self._folds)))))

    def _scores(self, number: int, params: dict[str, Any]) -> Floats:
        return self._fitters[number].fit(params, self._seed).scores(self._samples.matrix[self._folds[number].test])

    def _loss(self, number: int, scores: Floats) -> float:
        test, samples = self._folds[number].test, self._samples
        return log_loss(scores, samples.label[test], samples.weight[test])


def _tried(trial: Any, objective: _Objective) -> Tried:
    from optuna.trial import TrialState

    complete = trial.state == TrialState.COMPLETE
    returns = trial.user_attrs.get(RETURNS) or objective.returns(trial.params)
    return Tried(trial.number, dict(trial.params), float(trial.value) if complete else None, list(returns))


def _constant_loss(samples: Samples, fold: Fold) -> float:
    """Log-loss of always saying the training rows' base rate."""
    rate = float(np.average(samples.label[fold.train], weights=samples.weight[fold.train]))
    return log_loss(np.full(len(fold.test), rate), samples.label[fold.test], samples.weight[fold.test])


def _finished(study: Any) -> list[Any]:
    from optuna.trial import TrialState

    finished: list[Any] = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    return finished


def _fail_abandoned(study: Any) -> None:
    """Trials that a killed search left running would otherwise stay so for good."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
