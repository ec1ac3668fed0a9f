"""Learning held against known truth: `python bench/planted_truth.py walks|bursts|rows [--seeds 200]`

walks   The evaluation on random walks: how many are certified? Barriers alternate between symmetric ones and a
        profit barrier so near that a coin is right 81 % of the time (base_rate.driftless_walk). No costs.
bursts  The same on markets where bursts of volume tell the future: is 80 % certified where it exists, and only there?
rows    Search, fit and calibrate on the million rows of a generator (`--generator FOLDER` holds training.py, whose
        make() gives rows, labels and true probabilities): the share of the best possible gain in log-loss.

Prints progress, and one JSON object as its last line.
"""

import argparse
import importlib
import json
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from threadpoolctl import threadpool_limits

from trading_platform.learning.calibration import log_loss
from trading_platform.learning.certification import Certification, certify
from trading_platform.learning.evaluation import Question, WalkedForward, choose_and_walk
from trading_platform.learning.evaluation_bars import plan_of
from trading_platform.learning.fitting import calibrate, choose_calibration
from trading_platform.learning.labels import BarrierSpec
from trading_platform.learning.models import fitter
from trading_platform.learning.samples import Samples, build_samples
from trading_platform.learning.search import search, settle, study_file
from trading_platform.learning.validation import walk_forward
from trading_platform.market_data.planted import bursts, random_walk

HORIZON = 12
EMBARGO = HORIZON * 3_600_000_000
SYMMETRIC, NEAR_PROFIT = BarrierSpec(1.0, 1.0, HORIZON, 0.0), BarrierSpec(0.05, 2.0, HORIZON, 0.0)


def predictions(bars: pl.DataFrame, barriers: BarrierSpec, kind: str, trials: int = 2) -> WalkedForward:
    """The evaluation's search and walk-forward on a made-up market."""
    samples = build_samples(bars, plan_of(barriers, 0.1), bars["available_at"].max(), EMBARGO)
    with tempfile.TemporaryDirectory() as folder:
        study = study_file(Path(folder) / "study.log")
        return choose_and_walk(samples, Question("planted", kind, trials, 3, 0.1, EMBARGO, 7), study, lambda *_: None)


def certification(ahead: WalkedForward) -> Certification:
    return certify(ahead.rows.resolved(np.ones(len(ahead.rows.label), dtype=np.bool_)))


def walks(seeds: range, bars: int) -> dict[str, Any]:
    certified: list[int] = []
    gains, at_80, rows = [], 0, 0
    for seed in seeds:
        barriers = NEAR_PROFIT if seed % 2 else SYMMETRIC
        ahead = predictions(random_walk(bars, seed), barriers, "lightgbm" if seed % 4 < 2 else "logistic")
        found = ahead.rows
        certified += [seed] if certification(ahead).certified else []
        gains.append(log_loss(found.guess, found.label) - log_loss(found.confidence, found.label))
        if barriers is SYMMETRIC:  # a coin is right half the time: any confidence of .8 is a false one
            at_80, rows = at_80 + int((found.confidence >= 0.8).sum()), rows + len(found.label)
        _say(f"walk {seed} of {seeds[0]} to {seeds[-1]}: {len(certified)} certified")
    return {"seeds": [seeds[0], seeds[-1]], "bars": bars, "certified": len(certified), "which": certified,
            "false_80s_of_symmetric_rows": at_80 / rows, "mean_log_loss_gain": float(np.mean(gains))}  # fmt: skip


def burst_markets(seeds: int, bars: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for strength in (0.0, 0.15, 0.3, 0.6):
        certified, hits, reached = 0, 0, 0
        for seed in range(seeds):
            frame, _ = bursts(bars, seed, strength)
            ahead = predictions(frame, SYMMETRIC, "lightgbm", trials=4)
            threshold = certification(ahead).threshold
            if threshold is not None:
                chosen = ahead.rows.confidence >= threshold
                certified, hits, reached = (
                    certified + 1,
                    hits + int(ahead.rows.label[chosen].sum()),
                    reached + chosen.sum(),
                )
            _say(f"strength {strength}: market {seed + 1} of {seeds}, {certified} certified")
        found[str(strength)] = {
            "true_precision_after_a_burst": true_precision(strength), "certified": certified, "of": seeds,
            "precision_of_certified_rows": float(hits / reached) if reached else None, "certified_rows": int(reached),
        }  # fmt: skip
    return found


def true_precision(strength: float) -> float:
    """Chance that a trade entered at a burst's close nets a profit, from 20,000 futures simulated without the pipeline."""
    rng = np.random.default_rng(99)
    path = np.cumsum(rng.standard_normal((20_000, HORIZON)) + strength, axis=1)
    barrier = np.sqrt(HORIZON)
    over, under = path >= barrier, path <= -barrier
    first = np.where((over | under).any(axis=1), (over | under).argmax(axis=1), HORIZON - 1)
    return float(np.mean(path[np.arange(len(path)), first] > 0))


def rows(generator: Path, trials: int) -> dict[str, Any]:
    """The search sees the rows before the test rows alone; the model that it chose learns from all of them."""
    sys.path.insert(0, str(generator))
    matrix, label, test, test_label, truth = importlib.import_module("training").make(False)
    began = time.process_time()
    samples = _samples(np.asarray(matrix, dtype=np.float64), label)
    folds = walk_forward(samples.start, samples.end, folds=3, embargo=0, first_test=0.85)
    with threadpool_limits(limits=1), tempfile.TemporaryDirectory() as folder:
        study = study_file(Path(folder) / "study.log")
        found = search(study, "rows", samples, folds, kind="lightgbm", trials=trials, seed=7, progress=_told)
        params = settle(samples, folds, found, kind="lightgbm", seed=7, progress=_told)
        method, _, (window, scores) = choose_calibration(samples, folds, params, kind="lightgbm", seed=7, embargo=0)
        _say("fitting all rows")
        model = fitter("lightgbm", samples.matrix, samples.label, samples.weight).fit(params, 7)
        confidence = calibrate(method, scores, samples.label[window], samples.weight[window]).many(model.scores(test))
    base = log_loss(np.full(len(test_label), float(label.mean())), test_label)
    ours, best = log_loss(confidence, test_label), log_loss(truth, test_label)
    raw = log_loss(model.scores(test), test_label)
    return {"log_loss": ours, "log_loss_uncalibrated": raw, "bayes": best, "base_rate": base,
            "share_of_bayes_gain": (base - ours) / (base - best), "calibration": method, "trials": found.trials,
            "parameters": params, "cpu_seconds": round(time.process_time() - began, 1)}  # fmt: skip


def _samples(matrix: Any, label: Any) -> Samples:
    """Rows as samples whose labels end at once: one an hour."""
    n = len(label)
    hours = np.arange(n) * int(timedelta(hours=1).total_seconds() * 1e6)
    one, none = np.ones(n), np.full(n, "all")
    return Samples(matrix, label, one, one, one, one, none, hours, hours, hours + 1, {}, np.ones(matrix.shape[1], bool), {})  # fmt: skip


def _told(what: str, done: int, total: int) -> None:
    _say(f"{what} {done} of {total}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("walks", "bursts", "rows"))
    parser.add_argument("--seeds", type=int, help="markets: 200 walks, or 5 of each strength")
    parser.add_argument("--first-seed", type=int, default=0, help="seed of the first walk, to measure them in parts")
    parser.add_argument("--bars", type=int, help="bars of a market: 3,000 of a walk, 20,000 with bursts")
    parser.add_argument("--generator", type=Path, help="folder of the generator's training.py")
    parser.add_argument("--trials", type=int, default=12, help="hyperparameters to try on rows")
    given = parser.parse_args()
    if given.what == "rows" and given.generator is None:
        parser.error("rows come from a generator: pass --generator FOLDER")
    began = time.monotonic()
    if given.what == "walks":
        result = walks(range(given.first_seed, given.first_seed + (given.seeds or 200)), given.bars or 3_000)
    elif given.what == "bursts":
        result = burst_markets(given.seeds or 5, given.bars or 20_000)
    else:
        result = rows(given.generator, given.trials)
    print(json.dumps({"what": given.what, **result, "seconds": round(time.monotonic() - began, 1)}))


if __name__ == "__main__":
    main()
