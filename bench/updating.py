"""An update after a drift beside a full retrain, in one sitting: `python bench/updating.py [--runs 3] [--threads 1]`.

A million rows of 30 features with a planted signal; in the set `drift` the newest 5 % and the test rows follow other
weights, in `stable` nothing changes. The generator and the retrain are those of `../shared/peers_bench/training.py`, read
where they lie. Times are compared with the full retrain of the same sitting, by the clock and by processor time: on a busy machine the
clock measures the others too, and threads that wait for each other.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
from rich.console import Console
from rich.table import Table

from trading_platform.learning.warm_start import warm_start

PEERS = Path(__file__).resolve().parents[2] / "shared" / "peers_bench"
AIMS = {"drift": 0.6219, "stable": 0.6177}
"""Log-loss; after a drift, besides, an update takes at most this part of the full retrain's time."""
AIM_RATIO = 20.0


def trained(settings: dict[str, Any], matrix: Any, label: Any, trees: int) -> Any:
    return lightgbm.train(settings, lightgbm.Dataset(matrix, label), trees)


def timed(work: Callable[[], Any]) -> tuple[Any, tuple[float, float]]:
    """What it returns, and its seconds by the clock and of the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    made = work()
    return made, (time.perf_counter() - clock, time.process_time() - processor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="updates timed; the median counts")
    parser.add_argument("--retrains", type=int, default=1, help="full retrains timed; the fastest counts")
    parser.add_argument("--threads", type=int, default=1, help="of the retrain and of the update")
    arguments = parser.parse_args()
    if not (PEERS / "training.py").exists():
        raise SystemExit(
            f"{PEERS}/training.py is not there: the generator and the retrain to compare with are read from it"
        )
    sys.path.insert(0, str(PEERS))
    import training as peer

    console, results = Console(width=130), {}
    table = Table(
        "set",
        "full retrain, s",
        "log-loss",
        "update, s",
        "by clock",
        "by CPU",
        "window",
        "log-loss",
        "aim",
        "ideal",
        "met",
    )
    for kind, aim in AIMS.items():
        with console.status(f"{kind}: generating a million rows"):
            matrix, label, tested, truth, ideal = peer.make(kind == "drift")
        settings = {**peer.P, "num_threads": arguments.threads}
        with console.status(f"{kind}: training the parent"):
            parent = trained(settings, matrix[: -peer.NEW], label[: -peer.NEW], peer.TREES)
        retrains, updates = [], []
        for number in range(arguments.retrains):
            with console.status(f"{kind}: full retrain {number + 1} of {arguments.retrains}"):
                full, seconds = timed(partial(trained, settings, matrix, label, peer.TREES))
                retrains.append(seconds)
        for number in range(arguments.runs):
            with console.status(f"{kind}: update {number + 1} of {arguments.runs}"):
                made, seconds = timed(partial(warm_start, parent, matrix, label, threads=arguments.threads))
                updates.append(seconds)
        (clock, processor), (took, worked) = np.min(retrains, axis=0), np.median(updates, axis=0)
        row = {
            "full_seconds": clock, "update_seconds": took, "ratio": clock / took, "full_processor_seconds": processor,
            "update_processor_seconds": worked, "processor_ratio": processor / worked, "window": made.window,
            "full_log_loss": peer.score(full.predict(tested), truth)["logloss"],
            "log_loss": peer.score(made.booster.predict(tested), truth)["logloss"], "aim": aim,
            "ideal": peer.score(ideal, truth)["logloss"], "windows": {str(w): v for w, v in made.losses.items()},
        }  # fmt: skip
        row["met"] = bool(row["log_loss"] <= aim and (kind != "drift" or row["ratio"] >= AIM_RATIO))
        results[kind] = row
        table.add_row(
            kind, f"{clock:.2f}", f"{row['full_log_loss']:.4f}", f"{took:.3f}", f"1/{row['ratio']:.1f}",
            f"1/{row['processor_ratio']:.1f}", f"{made.window:.1%}", f"{row['log_loss']:.4f}", f"{aim:.4f}",
            f"{row['ideal']:.4f}", "yes" if row["met"] else "NO",
        )  # fmt: skip
    console.print(table)
    console.print(
        f"aims: after a drift at most 1/{AIM_RATIO:.0f} of the full retrain's time by the clock; both: the log-loss beside it"
    )
    print(json.dumps(results))


if __name__ == "__main__":
    main()
