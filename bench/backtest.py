"""Speed of the backtester beside other engines on the same bars, in one sitting: `python bench/backtest.py [--bars 1000000]`.

    PEERS_WORK=/tmp/peers python bench/backtest.py --peers ../shared/peers_bench --out backtest_speed.json

The yardstick is the one that other engines are measured by: SMA 10/50 long or flat, one unit, .1 % a side, no order on the
last bar, bars without gaps. Rows: a bare compiled loop (equity and drawdown, no stops, charges by head or order list), ours
in several depths, and every other engine whose environment the peers' `setup.sh` has made (`$PEERS_WORK/venvs`); what is
not there is skipped, with the reason. All must end at the same equity. Seconds are of the fastest of several runs; on a
busy machine compare the ratios. The last line is JSON.
"""

import argparse
import json
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit
from rich.console import Console
from rich.table import Table

from trading_platform.backtest.charges import FlatSchedule
from trading_platform.backtest.kernel import Funds, Market, Rules
from trading_platform.backtest.simulation import NONE, Backtest, Bars, run
from trading_platform.backtest.statistics import figures
from trading_platform.backtest.strategies import sma_cross
from trading_platform.identifiers import Symbol, Venue

FAST, SLOW, CASH, FEE = 10, 50, 10_000_000.0, 0.001
MINUTE = 60_000_000
PLAIN = Rules(next_open=False, intrabar=True, reenter=False, partial_last=True, horizon=0, slippage=0.0)
ONE = Funds(CASH, 1.0, 0.0, 0.0, 0.0, fee_in_base=False)
FULL = "ours, stops and targets at 1 %, order list, charges by head"
AIM_SPEED = 50e6
"""Bars a second of that row."""
ENGINES = {
    "bare loops": ("floor", "backtest_floor.py"),
    "vectorbt": ("vbt", "backtest_vectorbt.py"),
    "backtesting.py": ("btpy", "backtest_btpy.py"),
    "NautilusTrader": ("nautilus", "backtest_nautilus.py"),
}
"""name: environment and script of the peers' folder."""
PEER_BARS = 1_000_000


def walk(count: int, seed: int = 20240607, sigma: float = 0.6 / 525_600**0.5) -> Bars:
    """Minutes of a random walk at 60 % a year from 30,000, two decimals, each bar opening at the close before."""
    rng = np.random.default_rng(seed)
    close = np.round(30_000.0 * np.exp(np.cumsum(rng.standard_normal(count) * sigma - sigma**2 / 2)), 2)
    opened = np.concatenate([[30_000.0], close[:-1]])
    wick = np.abs(rng.standard_normal((2, count))) * sigma / 2
    high = np.round(np.maximum(opened, close) * (1 + wick[0]), 2)
    low = np.round(np.minimum(opened, close) * (1 - wick[1]), 2)
    times = 1_672_531_200_000_000 + np.arange(count) * MINUTE
    days = times.astype("datetime64[us]").astype("datetime64[D]")
    market = Market(opened, high, low, close, times + MINUTE)
    return Bars(Venue("binance"), Symbol("BTC/USDT"), 60, times, market, np.ones(count), days)


@njit(cache=True)
def floor(close: Any, fast: int, slow: int, fee: float, cash: float) -> tuple[float, int, float]:
    """The least that an engine can do: averages, one position, equity and the deepest drawdown."""
    fast_sum = slow_sum = held = deepest = 0.0
    peak, equity, fills = cash, cash, 0
    for i in range(len(close)):
        price = close[i]
        fast_sum += price - (close[i - fast] if i >= fast else 0.0)
        slow_sum += price - (close[i - slow] if i >= slow else 0.0)
        if slow - 1 <= i < len(close) - 1:
            wanted = 1.0 if fast_sum / fast - slow_sum / slow > 1e-6 else 0.0
            if wanted != held:
                cash -= (wanted - held) * price + price * fee
                held = wanted
                fills += 1
        equity = cash + held * price
        peak = max(peak, equity)
        deepest = min(deepest, equity / peak - 1.0)
    return equity, fills, deepest


@njit(cache=True)
def distances(close: Any, share: float) -> Any:
    return close * (1.0 - share), close * (1.0 + share)


def ours(bars: Bars, barriers: float = 0.0) -> Backtest:
    """Averages, order list, charges, curves; with `barriers`, a stop and a target at that share of the price as well."""
    close = bars.market.close
    stop, target = distances(close, barriers) if barriers else (NONE, NONE)
    return run(bars, sma_cross(close, FAST, SLOW, stop, target), PLAIN, ONE, FlatSchedule(Decimal(str(FEE))))


def itemised(bars: Bars) -> Backtest:
    """All that is asked for: stops and targets inside the bar, the order list as a table, every order's charge by head."""
    result = ours(bars, 0.01)
    assert len(result.orders) == len(result.charges["commission"])
    return result


def seconds(work: Callable[[], object], repeats: int = 7) -> float:
    """Of the fastest run, by the clock; the first one, which compiles, does not count."""
    work()
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return min(taken)


def measured(bars: Bars) -> dict[str, dict[str, Any]]:
    """name: bars a second and what the run ended at."""
    count, rows = len(bars), {}
    found = floor(bars.market.close, FAST, SLOW, FEE, CASH)
    taken = seconds(lambda: floor(bars.market.close, FAST, SLOW, FEE, CASH))
    rows["bare loop"] = {"bars_per_s": count / taken, "final_equity": round(found[0], 2), "fills": found[1]}
    for name, barriers in (
        ("ours", 0.0),
        ("ours, stops and targets far away", 0.5),
        ("ours, stops and targets at 1 %", 0.01),
    ):
        result = ours(bars, barriers)
        taken = seconds(lambda barriers=barriers: ours(bars, barriers))  # type: ignore[misc]
        rows[name] = _row(count / taken, result)
    rows[FULL] = _row(count / seconds(lambda: itemised(bars)), itemised(bars))
    taken = seconds(lambda: figures([ours(bars, 0.01)]), 3)
    rows["ours, with trades and all figures"] = {"bars_per_s": count / taken}
    return rows


def by_size(bars: Bars) -> dict[str, float]:
    """Bars a second by number of bars: what a run costs before its first bar shows in the small ones."""
    sizes = [size for size in (1_000, 10_000, 100_000, 1_000_000, 10_000_000) if size <= len(bars)]
    return {str(size): size / seconds(lambda size=size: ours(_first(bars, size), 0.01), 5) for size in sizes}  # type: ignore[misc]


def by_threads(bars: Bars, combinations: int = 24) -> dict[str, float]:
    """Bars a second over a grid of combinations, by threads."""
    grid = [(fast, slow) for fast in range(5, 25, 5) for slow in range(30, 130, 10)][:combinations]

    def one(pair: tuple[int, int]) -> float:
        wishes = sma_cross(bars.market.close, *pair, NONE, NONE)
        return float(run(bars, wishes, PLAIN, ONE, FlatSchedule(Decimal(str(FEE)))).equity[-1])

    found = {}
    for threads in (1, 2):
        with ThreadPoolExecutor(threads) as pool:
            taken = seconds(lambda pool=pool: list(pool.map(one, grid)), 3)  # type: ignore[misc]
        found[str(threads)] = len(grid) * len(bars) / taken
    return found


def peers(folder: Path, repeats: int) -> dict[str, dict[str, Any]]:
    """{engine: {row: figures}} by their own scripts, each in its environment; {"skipped": why} where it cannot run."""
    work = Path(os.environ.get("PEERS_WORK", "/tmp/peers"))
    rows: dict[str, dict[str, Any]] = {}
    for name, (environment, script) in ENGINES.items():
        python = work / "venvs" / environment / "bin" / "python"
        if not (folder / script).exists():
            rows[name] = {"skipped": f"{folder / script} is not here"}
        elif not python.exists():
            rows[name] = {"skipped": f"{python} is not here; {folder / 'setup.sh'} makes it"}
        else:
            rows[name] = _peer(folder, script, python, work, repeats)
    return rows


def _peer(folder: Path, script: str, python: Path, work: Path, repeats: int) -> dict[str, Any]:
    if not (work / "data" / "bars_1x1000000.parquet").exists():
        subprocess.run([python, "gen_bars.py"], cwd=folder, check=True, capture_output=True)
    before = _lines(work / "out" / "results.jsonl")
    with tempfile.TemporaryDirectory() as compiled:  # machine code does not go where the peers' sources lie
        environment = os.environ | {"NUMBA_CACHE_DIR": compiled, "PEERS_WORK": str(work)}
        done = subprocess.run(
            [python, script, str(repeats)], cwd=folder, env=environment, capture_output=True, text=True
        )
    new = _lines(work / "out" / "results.jsonl")[len(before) :]
    rows = {row["name"]: row for row in map(json.loads, new) if "bars_per_s" in row and "final_equity" in row}
    if not rows:
        return {"skipped": (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]}
    return {
        name: {
            "bars_per_s": row["bars_per_s"]["max"],
            "final_equity": round(row["final_equity"], 2),
            "fills": row.get("fills"),
        }
        for name, row in rows.items()
        if "50x50k" not in name
    }


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _row(speed: float, result: Backtest) -> dict[str, Any]:
    return {"bars_per_s": speed, "final_equity": round(float(result.equity[-1]), 2), "fills": len(result.order_rows)}


def _first(bars: Bars, count: int) -> Bars:
    market = Market(*(array[:count] for array in bars.market))
    return replace(
        bars, open_time=bars.open_time[:count], market=market, volume=bars.volume[:count], days=bars.days[:count]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bars", type=int, default=PEER_BARS)
    parser.add_argument("--peers", type=Path, help="folder with the other engines' scripts")
    parser.add_argument("--peer-runs", type=int, default=1, help="of each of them; the fastest counts")
    parser.add_argument("--out", type=Path, help="where to write the JSON as well")
    given = parser.parse_args()
    if given.peers and given.bars != PEER_BARS:
        parser.error(f"the other engines play {PEER_BARS:,} bars: leave --bars out")
    bars = walk(given.bars)
    rows = measured(bars)
    others = peers(given.peers, given.peer_runs) if given.peers else {}
    everything = rows | {
        f"{engine}: {name}": row
        for engine, found in others.items()
        if "skipped" not in found
        for name, row in found.items()
    }
    bare = rows["bare loop"]["bars_per_s"]
    table = Table("engine", "bars/s", "x bare loop", "ends at", "fills")
    for name, row in everything.items():
        ended = f"{row['final_equity']:,.2f}" if "final_equity" in row else ""
        fills = f"{row['fills']:,}" if row.get("fills") else ""
        table.add_row(name, f"{row['bars_per_s']:,.0f}", f"{row['bars_per_s'] / bare:.4f}", ended, fills)
    console = Console(width=130)
    console.print(table)
    for engine, found in others.items():
        if "skipped" in found:
            console.print(f"{engine} was skipped: {found['skipped']}")
    sizes, threads = by_size(bars), by_threads(bars)
    console.print("by size    ", "  ".join(f"{int(size):,}: {speed:,.0f}/s" for size, speed in sizes.items()))
    console.print("by threads ", "  ".join(f"{number}: {speed:,.0f}/s" for number, speed in threads.items()))
    ends = {
        name: row["final_equity"] for name, row in everything.items() if "final_equity" in row and "at 1 %" not in name
    }
    engines = [name for name, found in others.items() if "skipped" not in found]
    aims = {
        "bars_per_s": {"of": FULL, "found": rows[FULL]["bars_per_s"], "aim": AIM_SPEED, "met": rows[FULL]["bars_per_s"] >= AIM_SPEED},
        "same_equity": {"found": sorted(set(ends.values())), "engines": engines, "met": len(set(ends.values())) == 1},
    }  # fmt: skip
    console.print(
        f"aim: {AIM_SPEED:,.0f} bars/s with {FULL[6:]}: {rows[FULL]['bars_per_s']:,.0f}, {_met(aims['bars_per_s'])}"
    )
    console.print(
        f"aim: one equity to the cent, stops far away or none, beside {', '.join(engines) or 'nobody'}: {_met(aims['same_equity'])}"
    )
    result = {
        "rows": rows, "by_size": sizes, "by_threads": threads, "peers": others, "aims": aims,
        "ratio_to_bare_loop": rows[FULL]["bars_per_s"] / bare, "python": platform.python_version(), "load": os.getloadavg()[0],
    }  # fmt: skip
    if given.out:
        given.out.write_text(json.dumps(result, indent=1))
    print(json.dumps(result))


def _met(aim: dict[str, Any]) -> str:
    return "met" if aim["met"] else "NOT MET"


if __name__ == "__main__":
    main()
