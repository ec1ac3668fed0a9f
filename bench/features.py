"""Speed of the features beside pandas, polars and a bare loop, in one sitting: `python bench/features.py [--symbols 50] [--bars 50000]`.

The peers are the 31 features of `../shared/peers_bench/features.py` on the bars of its `gen_bars.py`, read where they lie, and
the same 31 in one compiled pass without any generality (`features_floor.py`); ours are the platform's own set with market
conditions, from bar frames to arrays. Each runs in a process of its own, whose memory is then its own too, results of all
symbols held. Live bars go through the same state as history and must give the same bits. A busy machine slows all of them
and gives two threads less than two cores: then ratios count, and what two cores would do by the processor time taken. The
last line is one JSON object.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from trading_platform.features.definition import FEATURES
from trading_platform.features.stream import CONDITIONS, SymbolStream, compute
from trading_platform.identifiers import Venue
from trading_platform.market_data.bar import Bar
from trading_platform.market_data.lake import BAR_SCHEMA

PEERS = Path(__file__).resolve().parents[2] / "shared" / "peers_bench"
LIVE_BARS = 3_000
OURS, BARE = "ours, two threads", "bare loop, one thread"
WAYS = ("ours, one thread", OURS, BARE, "polars", "pandas")
AIM_ROWS, AIM_MB, AIM_LIVE = 5e6, 1_500.0, 5.0
"""Rows a second on two cores; megabytes; microseconds a live bar."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--symbols", type=int, default=50)
    parser.add_argument("--bars", type=int, default=50_000, help="of each symbol")
    parser.add_argument("--runs", type=int, default=5, help="of each; the fastest counts")
    parser.add_argument("--way", choices=WAYS, help="measure only this one, here, and print its figures")
    given = parser.parse_args()
    if not (PEERS / "features.py").exists():
        raise SystemExit(f"{PEERS}/features.py is not there: the peers to compare with are read from it")
    if given.way:
        print(json.dumps(measured(given.way, given.symbols, given.bars, given.runs)))
        return
    console = Console(width=130)
    found = {}
    for way in WAYS:
        with console.status(way):
            found[way] = in_a_process_of_its_own(way, given)
    live = found[OURS].pop("live")
    table = Table("", "seconds", "of the processor", "rows/s", "values/s", "x polars", "x pandas", "x bare", "peak MB")
    for name, line in found.items():
        line["rows_per_second"] = given.symbols * given.bars / line["seconds"]
        line["rows_per_processor_second"] = given.symbols * given.bars / line["processor_seconds"]
        line["values_per_second"] = line["rows_per_second"] * line["features"]
        ratios = [found[other]["seconds"] / line["seconds"] for other in ("polars", "pandas", BARE)]
        line["times_polars"], line["times_pandas"], line["times_bare"] = ratios
        table.add_row(
            f"{name} ({line['features']} features)", f"{line['seconds']:.3f}", f"{line['processor_seconds']:.3f}",
            f"{line['rows_per_second']:,.0f}", f"{line['values_per_second']:,.0f}", *(f"{ratio:.2f}" for ratio in ratios),
            f"{line['peak_mb']:,.0f}",
        )  # fmt: skip
    console.print(table)
    aims = {
        "rows a second, two threads, by the clock": (found[OURS]["rows_per_second"], AIM_ROWS, ">="),
        "rows in two seconds of processor time": (2.0 * found[OURS]["rows_per_processor_second"], AIM_ROWS, ">="),
        "peak MB": (found[OURS]["peak_mb"], AIM_MB, "<="),
        "microseconds a live bar": (live["p50"], AIM_LIVE, "<="),
        "live bars differing from history": (live["differing"], 0, "<="),
    }
    verdicts = verdicts_of(console, aims)
    print(json.dumps({
        "rows": given.symbols * given.bars, "conditions_beside_features": len(CONDITIONS), "batch": found, "live": live,
        "aims": verdicts,
    }))  # fmt: skip


def verdicts_of(console: Console, aims: dict[str, tuple[float, float, str]]) -> dict[str, dict[str, Any]]:
    """Print what was aimed at beside what was found, and say of each whether it is met."""
    table = Table("aim", "", "found", "met")
    said = {}
    for what, (found, aim, way) in aims.items():
        met = found >= aim if way == ">=" else found <= aim
        said[what] = {"found": found, "aim": aim, "met": bool(met)}
        table.add_row(what, f"{way} {aim:,.10g}", f"{found:,.6g}", "yes" if met else "NO")
    console.print(table)
    return said


def in_a_process_of_its_own(way: str, given: argparse.Namespace) -> dict[str, Any]:
    command = [
        sys.executable,
        __file__,
        "--way",
        way,
        "--symbols",
        given.symbols,
        "--bars",
        given.bars,
        "--runs",
        given.runs,
    ]
    with tempfile.TemporaryDirectory() as compiled:  # the bare loop's machine code does not go where its source lies
        environment = os.environ | ({"NUMBA_CACHE_DIR": compiled} if way == BARE else {})
        done = subprocess.run(list(map(str, command)), env=environment, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measured(way: str, symbols: int, bars: int, runs: int) -> dict[str, Any]:
    """Seconds of the fastest run by the clock and of all its threads on the processor, number of features, memory."""
    if way.startswith("ours"):
        parts = [as_bars(part) for part in generated(symbols, bars)]
        compute(parts[0].head(10))  # compiled, or read from the cache
        with ThreadPoolExecutor(2 if way == OURS else 1) as pool:
            found = fastest(lambda: list(pool.map(compute, parts)), runs) | {"features": len(FEATURES)}
        return found | {"peak_mb": peak_mb(), "live": live_bars(parts[0].head(LIVE_BARS)) if way == OURS else None}
    sys.path.insert(0, str(PEERS))
    import features as peer

    if way == BARE:
        import features_floor as bare

        columns = [
            [part[name].to_numpy() for name in ("open", "high", "low", "close", "volume")]
            for part in generated(symbols, bars)
        ]
        bare.series(*(column[:10] for column in columns[0]), 0)
        found = fastest(lambda: [bare.series(*arrays, 0) for arrays in columns], runs)
    elif way == "polars":
        frame = pl.concat(generated(symbols, bars))
        wanted = [expression.alias(name) for name, expression in peer.polars_exprs().items()]
        found = fastest(
            lambda: pl.concat(part.select(wanted) for part in frame.partition_by("symbol", maintain_order=True)), runs
        )
    else:
        in_pandas = pl.concat(generated(symbols, bars)).to_pandas()
        with np.errstate(divide="ignore", invalid="ignore"):
            found = fastest(lambda: peer.run_pandas(in_pandas), min(runs, 2))
    return found | {"features": len(peer.polars_exprs()), "peak_mb": peak_mb()}


def generated(symbols: int, bars: int) -> Iterator[pl.DataFrame]:
    sys.path.insert(0, str(PEERS))
    import gen_bars

    for number in range(symbols):
        yield pl.DataFrame(gen_bars.one(np.random.default_rng(number), bars, 1_000.0)).with_columns(
            pl.col("ts").dt.replace_time_zone("UTC"), symbol=pl.lit(f"S{number:02d}")
        )


def as_bars(plain: pl.DataFrame) -> pl.DataFrame:
    """The generator's rows as bar frames."""
    return plain.with_columns(
        dataset_id=pl.lit("bench"), venue=pl.lit("binance"), interval_seconds=60, open_time=pl.col("ts"),
        session_date=pl.col("ts").dt.date(), available_at=pl.col("ts") + pl.duration(minutes=1), revision=0,
        source=pl.lit("bench"),
    ).select(pl.col(name).cast(dtype) for name, dtype in BAR_SCHEMA.items())  # fmt: skip


def live_bars(bars: pl.DataFrame) -> dict[str, float]:
    """Microseconds of a live bar, and how many of their rows differ in any bit from those of history."""
    stream, taken, rows = SymbolStream(Venue("binance"), 60), [], []
    for bar in [Bar(**values) for values in bars.iter_rows(named=True)]:
        began = time.perf_counter_ns()
        row = stream.push(bar)
        taken.append((time.perf_counter_ns() - began) / 1e3)
        rows.append(row.features)
    live, whole = np.array(rows), compute(bars).matrix
    differing = ~((live == whole) | (np.isnan(live) & np.isnan(whole))).all(axis=1)
    return {
        "p50": float(np.median(taken)), "p99": float(np.percentile(taken, 99)), "bars": len(rows),
        "differing": int(differing.sum()),
    }  # fmt: skip


def fastest(work: Callable[[], object], runs: int) -> dict[str, Any]:
    """Seconds by the clock of the fastest run, and of all this process's threads on the processor."""
    seconds = []
    for _ in range(runs):
        clock, processor = time.perf_counter(), time.process_time()
        work()
        seconds.append((time.perf_counter() - clock, time.process_time() - processor))
    return dict(zip(("seconds", "processor_seconds"), min(seconds), strict=True))


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
