"""Speed of the features beside pandas and polars, in one sitting: `python bench/features.py [--symbols 50] [--bars 50000]`.

The peers are the 31 features of `../shared/peers_bench/features.py` on the bars of its `gen_bars.py`, read where they lie;
ours are the platform's own set with market conditions, from bar frames to arrays. Live bars go through the same state as
history and must give the same bits. What counts is the ratio: a busy machine slows all of them. The last line is one JSON
object.
"""

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from trading_platform.features.definition import FEATURES
from trading_platform.features.stream import SymbolStream, compute
from trading_platform.identifiers import Venue
from trading_platform.market_data.bar import Bar
from trading_platform.market_data.lake import BAR_SCHEMA

PEERS = Path(__file__).resolve().parents[2] / "shared" / "peers_bench"
LIVE_BARS = 3_000
AIM_ROWS, AIM_LIVE = 5e6, 5.0
"""Rows a second on two cores; microseconds a live bar."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--symbols", type=int, default=50)
    parser.add_argument("--bars", type=int, default=50_000, help="of each symbol")
    parser.add_argument("--runs", type=int, default=3, help="of each; the fastest counts")
    given = parser.parse_args()
    if not (PEERS / "features.py").exists():
        raise SystemExit(f"{PEERS}/features.py is not there: the peers to compare with are read from it")
    sys.path.insert(0, str(PEERS))
    import features as peer
    import gen_bars

    console = Console(width=110)
    with console.status("generating bars"):
        plain = pl.concat(
            pl.DataFrame(gen_bars.one(np.random.default_rng(number), given.bars, 1_000.0)).with_columns(
                pl.col("ts").dt.replace_time_zone("UTC"), symbol=pl.lit(f"S{number:02d}")
            )
            for number in range(given.symbols)
        )
        parts = as_bars(plain).partition_by("symbol", maintain_order=True)
    compute(parts[0].head(10))  # compiled, or read from the cache
    live, same = live_bars(parts[0].head(LIVE_BARS))
    expressions = [expression.alias(name) for name, expression in peer.polars_exprs().items()]
    frame = plain.to_pandas()
    rows, found = len(plain), {}
    with ThreadPoolExecutor(2) as pool:
        works: dict[str, Callable[[], object]] = {
            "ours, one thread": lambda: [compute(part) for part in parts],
            "ours, two threads": lambda: list(pool.map(compute, parts)),
            "polars": lambda: pl.concat(
                part.select(expressions) for part in plain.partition_by("symbol", maintain_order=True)
            ),
            "pandas": lambda: peer.run_pandas(frame),
        }
        for name, work in works.items():
            with console.status(name), np.errstate(divide="ignore", invalid="ignore"):
                found[name] = fastest(work, given.runs) | {"peak_mb": peak_mb()}
    table = Table("", "seconds", "of the processor", "rows/s", "x polars", "x pandas", "peak MB so far")
    for name, line in found.items():
        line["rows_per_second"] = rows / line["seconds"]
        ratios = [found[other]["seconds"] / line["seconds"] for other in ("polars", "pandas")]
        line["times_polars"], line["times_pandas"] = ratios
        table.add_row(
            name, f"{line['seconds']:.3f}", f"{line['processor_seconds']:.3f}", f"{line['rows_per_second']:,.0f}",
            f"{ratios[0]:.2f}", f"{ratios[1]:.2f}", f"{line['peak_mb']:,.0f}",
        )  # fmt: skip
    console.print(table)
    console.print(
        f"a live bar: {live['p50']:.1f} us (p99 {live['p99']:.1f}), {'the same bits' if same else 'DIFFERENT'}"
    )
    print(json.dumps({
        "rows": rows, "features": len(FEATURES), "peer_features": len(expressions), "batch": found,
        "live_microseconds": live, "live_equals_batch": same,
        "aims": {"rows_per_second": AIM_ROWS, "live_microseconds": AIM_LIVE},
    }))  # fmt: skip


def as_bars(plain: pl.DataFrame) -> pl.DataFrame:
    """The generator's rows as bar frames."""
    return plain.with_columns(
        dataset_id=pl.lit("bench"), venue=pl.lit("binance"), interval_seconds=60, open_time=pl.col("ts"),
        session_date=pl.col("ts").dt.date(), available_at=pl.col("ts") + pl.duration(minutes=1), revision=0,
        source=pl.lit("bench"),
    ).select(pl.col(name).cast(dtype) for name, dtype in BAR_SCHEMA.items())  # fmt: skip


def live_bars(bars: pl.DataFrame) -> tuple[dict[str, float], bool]:
    """Microseconds of a live bar, and whether its row is that of history to the last bit."""
    stream, taken, rows = SymbolStream(Venue("binance"), 60), [], []
    for bar in [Bar(**values) for values in bars.iter_rows(named=True)]:
        began = time.perf_counter_ns()
        row = stream.push(bar)
        taken.append((time.perf_counter_ns() - began) / 1e3)
        rows.append(row.features)
    same = np.array_equal(np.array(rows), compute(bars).matrix, equal_nan=True)
    return {"p50": float(np.median(taken)), "p99": float(np.percentile(taken, 99))}, same


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
