"""What a signal costs: `python bench/predict.py [--rows 50000]`.

A model of the size in `../shared/peers_bench/training.py` (200 trees of 31 leaves), with calibration, interval and outlier
state, on the platform's own features of made-up bars. Beside it LightGBM's own `predict` of the same booster, for one row
and for many, in the same run. One row must be given the probability and the confidence that it has among many, to the last bit.
The last line is one JSON object.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from trading_platform.features.definition import NAMES, WARM_UP, feature_hash
from trading_platform.features.stream import SymbolStream, compute
from trading_platform.identifiers import Venue
from trading_platform.learning.calibration import fit_sigmoid, fit_venn_abers
from trading_platform.learning.models import THREADS, LightGbmModel, fitter
from trading_platform.learning.outliers import fit_outliers
from trading_platform.learning.servable import Servable
from trading_platform.market_data import synthetic
from trading_platform.market_data.bar import Bar

PARAMETERS = {"trees": 200, "num_leaves": 31, "learning_rate": 0.1, "min_data_in_leaf": 200}
CALLS, WARM_BARS = 3_000, WARM_UP + 100
AIM_ROW, AIM_SIGNAL = 20.0, 50.0
"""Microseconds of a row, and from a bar to its calibrated signal."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000, help="to learn from, and to score at once")
    given = parser.parse_args()
    console = Console(width=100)
    with console.status("generating bars and training"):
        bars = synthetic.generate(bars=given.rows + WARM_BARS, symbols=("MADE/UP",))
        history = compute(bars)
        matrix = np.ascontiguousarray(history.matrix[-given.rows :])
        servable, model = served(matrix)
    rows = matrix[-CALLS:]
    singly = [servable.score(row) for row in rows]
    together = servable.score_many(rows)
    same = all(
        np.array_equal(getattr(together, name), [getattr(one, name) for one in singly])
        for name in ("probability", "confidence")
    )
    booster = model.booster
    scorer = model.scorer()
    one = {
        "LightGBM predict": each(lambda row: booster.predict(row[None, :], num_threads=THREADS), rows),
        "model": each(scorer, rows),
        "model, calibration, interval, outlier": each(servable.score, rows),
        "bar to calibrated signal": from_bar(bars, servable),
    }
    many = {
        "LightGBM predict": fastest(lambda: booster.predict(matrix, num_threads=THREADS)),
        "model, calibration, interval, outlier": fastest(lambda: servable.score_many(matrix)),
    }
    table = Table("one row, microseconds", "p50", "p99", "aim", "met")
    aims = {
        name: {"found": one[name]["p50"], "aim": aim, "met": one[name]["p50"] <= aim}
        for name, aim in (("model", AIM_ROW), ("bar to calibrated signal", AIM_SIGNAL))
    }
    for name, taken in one.items():
        said = (f"{aims[name]['aim']:.0f}", "yes" if aims[name]["met"] else "NO") if name in aims else ("", "")
        table.add_row(name, f"{taken['p50']:.1f}", f"{taken['p99']:.1f}", *said)
    console.print(table)
    console.print(f"one row and many: {'the same bits' if same else 'DIFFERENT'}")
    for name, seconds in many.items():
        console.print(f"{given.rows:,} rows at once, {name}: {given.rows / seconds:,.0f} rows/s")
    print(json.dumps({
        "features": len(NAMES), "parameters": PARAMETERS, "one_row_microseconds": one,
        "times_lightgbm_row": one["LightGBM predict"]["p50"] / one["model"]["p50"],
        "rows_per_second": {name: given.rows / seconds for name, seconds in many.items()},
        "many_of_lightgbm": many["LightGBM predict"] / many["model, calibration, interval, outlier"],
        "one_equals_many": same, "aims": aims,
    }))  # fmt: skip


def served(matrix: Any) -> tuple[Servable, LightGbmModel]:
    """A model with all that is served beside it. What it learns does not matter here, but its trees are full."""
    rng = np.random.default_rng(7)
    odds = np.nan_to_num(matrix[:, :6] @ rng.normal(0, 0.5, 6))
    label = (odds + rng.logistic(size=len(odds)) > 0).astype(np.int8)
    model = fitter("lightgbm", matrix, label, np.ones(len(label))).fit(PARAMETERS, 7)
    assert isinstance(model, LightGbmModel)
    newest = matrix[-10_000:]
    window = (model.scores(newest), label[-10_000:], np.ones(len(newest)))
    servable = Servable(
        version_id="bench", kind="lightgbm", features=NAMES, feature_hash=feature_hash(), threshold=0.8, certified=False,
        expires_at=None, model=model, calibrator=fit_sigmoid(*window), interval=fit_venn_abers(*window),
        outliers=fit_outliers(matrix, np.isfinite(matrix).all(axis=0)),
    )  # fmt: skip
    return servable, model


def from_bar(bars: Any, servable: Servable) -> dict[str, float]:
    """From a bar in hand to its calibrated signal: features, conditions, score, calibration."""
    stream = SymbolStream(Venue("binance"), synthetic.INTERVAL_SECONDS)
    stream.extend(bars.head(WARM_BARS))
    live = [Bar(**values) for values in bars[WARM_BARS : WARM_BARS + CALLS].iter_rows(named=True)]
    return each(lambda bar: servable.score(stream.push(bar).features), live)


def each(work: Callable[[Any], object], arguments: Any) -> dict[str, float]:
    """Median and 99th percentile of single calls, in microseconds."""
    taken = []
    for argument in arguments:
        began = time.perf_counter_ns()
        work(argument)
        taken.append((time.perf_counter_ns() - began) / 1e3)
    return {"p50": float(np.median(taken)), "p99": float(np.percentile(taken, 99))}


def fastest(work: Callable[[], object], runs: int = 5) -> float:
    """Seconds on the processor, of one thread, so that other processes count little."""
    seconds = []
    for _ in range(runs):
        began = time.process_time()
        work()
        seconds.append(time.process_time() - began)
    return min(seconds)


if __name__ == "__main__":
    main()
