"""Speed of the feature kernel beside pandas, in one sitting: `python bench/features.py [--rows 180000]`.

Both compute the same columns of the same made-up bars; the ratio is what counts, a busy machine slows both.
"""

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import numpy as np
import pandas as pd
import polars as pl

from trading_platform.features.definition import FEATURES
from trading_platform.features.kernel import run
from trading_platform.features.program import Program, compile_features
from trading_platform.features.stream import PRICES, SymbolStream, compute
from trading_platform.identifiers import Venue
from trading_platform.market_data import synthetic
from trading_platform.market_data.bar import Bar

LIVE_BARS = 2_000


def in_pandas(bars: pl.DataFrame) -> pd.DataFrame:
    """The same feature set by rolling and ewm on whole columns."""
    o, h, low, c, v = (pd.Series(bars[name].to_numpy()) for name in ("open", "high", "low", "close", "volume"))
    r = np.log(c).diff().fillna(0.0)
    s = np.sqrt((r**2).ewm(span=100, adjust=False).mean())
    f = {f"return_{n}": np.log(c / c.shift(n)) / (s * np.sqrt(n)) for n in (1, 2, 4, 8, 16, 36, 72, 168)}
    ema = {n: c.ewm(span=n, adjust=False).mean() for n in (12, 26, 50)}
    f |= {f"ema_gap_{n}": np.log(c / ema[n]) / s for n in ema}
    macd = ema[12] - ema[26]
    f["macd"], f["histogram"] = macd / (c * s), (macd - macd.ewm(span=9, adjust=False).mean()) / (c * s)
    change = c.diff().fillna(0.0)
    gain = change.clip(lower=0).ewm(alpha=1 / 14, adjust=False).mean()
    loss = (-change).clip(lower=0).ewm(alpha=1 / 14, adjust=False).mean()
    f["rsi"] = gain / (gain + loss)
    mean, deviation = c.rolling(20).mean(), c.rolling(20).std(ddof=0)
    f["band_position"], f["band_width"] = (c - mean) / (2 * deviation), np.log(4 * deviation / (mean * s))
    before = c.shift(1).fillna(c)
    true_range = np.maximum(h, before) - np.minimum(low, before)
    f["atr"] = true_range.ewm(alpha=1 / 14, adjust=False).mean() / (c * s)
    f["mean_ratio"] = np.log(c.rolling(10).mean() / c.rolling(50).mean()) / s
    top, bottom = h.rolling(60).max(), low.rolling(60).min()
    f["range_position"] = (c - bottom) / (top - bottom)
    volume = v.rolling(60)
    f["volume_score"], f["volume_ratio"] = (v - volume.mean()) / volume.std(ddof=0), np.log1p(v / volume.mean())
    f["volatility_ratio"] = np.log(r.rolling(12).std(ddof=0) / r.rolling(120).std(ddof=0))
    f["skew"] = r.rolling(60).skew()
    f["autocorrelation"] = (r * r.shift(1)).rolling(60).mean() / (r**2).rolling(60).mean()
    f["up_share"] = (r > 0).astype(float).rolling(24).mean()
    f["bar_range"], f["body"] = (h - low) / (c * s), np.log(c / o) / s
    f["upper_wick"] = (h - np.maximum(o, c)) / (h - low)
    f["vwap_gap"] = np.log(c / ((c * v).rolling(60).sum() / v.rolling(60).sum())) / s
    f["log_sigma"] = np.log(s)
    times = bars["open_time"].to_pandas()
    day = 2 * np.pi * (times.dt.hour * 3600 + times.dt.minute * 60) / 86_400
    week = (2 * np.pi * times.dt.day_of_week + day) / 7
    return pd.DataFrame(f | {"ds": np.sin(day), "dc": np.cos(day), "ws": np.sin(week), "wc": np.cos(week)})


def features_alone(program: Program, bars: pl.DataFrame) -> None:
    values = np.column_stack(
        [bars["open_time"].dt.timestamp("us").to_numpy() / 1e6, *(bars[p].to_numpy() for p in PRICES)]
    )
    out, sigma = np.empty((len(bars), len(FEATURES))), np.empty(len(bars))
    p = program
    run(p.windows, p.averages, p.alphas, p.extremes, p.outputs, p.empty_state(), values, out, sigma)


def best(work: Callable[[], object], clock: Callable[[], float] = time.thread_time, repeats: int = 5) -> float:
    """Seconds of the fastest of several runs: of this thread's processor time, so that other processes count little."""
    seconds = []
    for _ in range(repeats):
        began = clock()
        work()
        seconds.append(clock() - began)
    return min(seconds)


def live(bars: pl.DataFrame) -> float:
    """Median seconds of one live bar: features and conditions, Python's share included."""
    stream, taken = SymbolStream(Venue("binance"), 3600), []
    for bar in [Bar(**values) for values in bars.head(LIVE_BARS).iter_rows(named=True)]:
        began = time.perf_counter()
        stream.push(bar)
        taken.append(time.perf_counter() - began)
    return float(np.median(taken))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=180_000)
    rows = parser.parse_args().rows
    parts = synthetic.generate(bars=rows // 4).partition_by("symbol", maintain_order=True)
    began = time.perf_counter()
    compute(parts[0].head(10))
    print(f"first call (load or compile)  {timedelta(seconds=time.perf_counter() - began)}")

    one = best(lambda: [compute(part) for part in parts])
    with ThreadPoolExecutor(2) as pool:
        two = best(lambda: list(pool.map(compute, parts)), time.perf_counter)
    program = compile_features()
    alone = best(lambda: [features_alone(program, part) for part in parts])
    with np.errstate(divide="ignore", invalid="ignore"):
        pandas = best(lambda: [in_pandas(part) for part in parts])
    print(f"{rows:,} rows x {len(FEATURES)} features, and conditions")
    print(
        f"kernel, one thread            {one:6.3f} s of CPU  {rows / one:12,.0f} rows/s  {pandas / one:5.1f} x pandas"
    )
    print(
        f"kernel, features alone        {alone:6.3f} s of CPU  {rows / alone:12,.0f} rows/s  {pandas / alone:5.1f} x pandas"
    )
    print(f"pandas, features alone        {pandas:6.3f} s of CPU  {rows / pandas:12,.0f} rows/s")
    print(f"with conditions, two threads  {two:6.3f} s by clock {rows / two:12,.0f} rows/s")
    print(f"a live bar, median            {live(parts[0]) * 1e6:6.1f} us")


if __name__ == "__main__":
    main()
