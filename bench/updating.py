"""An update after a drift beside a full retrain, in one sitting: `python bench/updating.py [--runs 3]`.

A million rows of 30 features with a planted signal; in the set `drift` the newest 5 % and the test rows follow other
weights, in `stable` nothing changes. The generator and the retrain are those of `../shared/peers_bench/training.py`, read
where they lie. Times are compared with the full retrain of the same sitting; a busy machine slows both.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import lightgbm
import numpy as np
from rich.console import Console
from rich.table import Table

from trading_platform.learning.warm_start import warm_start

PEERS = Path(__file__).resolve().parents[2] / "shared" / "peers_bench"
AIMS = {"drift": 0.6219, "stable": 0.6177}
THREADS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="updates timed; the median counts")
    parser.add_argument("--retrains", type=int, default=1, help="full retrains timed; the fastest counts")
    arguments = parser.parse_args()
    if not (PEERS / "training.py").exists():
        raise SystemExit(
            f"{PEERS}/training.py is not there: the generator and the retrain to compare with are read from it"
        )
    sys.path.insert(0, str(PEERS))
    import training as peer

    console, results = Console(width=130), {}
    table = Table("set", "full retrain, s", "log-loss", "update, s", "ratio", "window", "log-loss", "aim", "ideal")
    for kind, aim in AIMS.items():
        with console.status(f"{kind}: generating a million rows"):
            matrix, label, tested, truth, ideal = peer.make(kind == "drift")
        with console.status(f"{kind}: training the parent"):
            parent = lightgbm.train(peer.P, lightgbm.Dataset(matrix[: -peer.NEW], label[: -peer.NEW]), peer.TREES)
        retrains, updates, loss_full = [], [], 0.0
        for _ in range(arguments.retrains):
            with console.status(f"{kind}: full retrain"):
                began = time.perf_counter()
                full = lightgbm.train(peer.P, lightgbm.Dataset(matrix, label), peer.TREES)
                retrains.append(time.perf_counter() - began)
                loss_full = peer.score(full.predict(tested), truth)["logloss"]
        for _ in range(arguments.runs):
            began = time.perf_counter()
            made = warm_start(parent, matrix, label, threads=THREADS)
            updates.append(time.perf_counter() - began)
        loss = peer.score(made.booster.predict(tested), truth)["logloss"]
        row = {
            "full_seconds": min(retrains), "full_log_loss": loss_full, "update_seconds": float(np.median(updates)),
            "ratio": min(retrains) / float(np.median(updates)), "window": made.window, "log_loss": loss, "aim": aim,
            "ideal": peer.score(ideal, truth)["logloss"], "windows": {str(w): v for w, v in made.losses.items()},
        }  # fmt: skip
        results[kind] = row
        table.add_row(
            kind, f"{row['full_seconds']:.2f}", f"{loss_full:.4f}", f"{row['update_seconds']:.3f}", f"1/{row['ratio']:.1f}",
            f"{made.window:.1%}", f"{loss:.4f}", f"{aim:.4f}", f"{row['ideal']:.4f}",
        )  # fmt: skip
    console.print(table)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
