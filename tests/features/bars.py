"""Bars for the tests of this room: real ones, and made-up ones that are hard on running sums."""

import gzip
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from trading_platform.market_data.quality import judge
from trading_platform.market_data.reading import ReadOptions, read

START = datetime(2024, 1, 1, tzinfo=UTC)


def bar_frame(
    opened: list[datetime] | pl.Series, prices: NDArray[np.float64], symbol: str = "BTC/USDT", interval: int = 3600
) -> pl.DataFrame:
    """A bar frame from opening times and (n, 5) open, high, low, close, volume."""
    times = pl.Series("open_time", opened).cast(pl.Datetime("us", "UTC"))
    return pl.DataFrame(
        {name: prices[:, column] for column, name in enumerate(("open", "high", "low", "close", "volume"))}
    ).with_columns(
        times,
        (times + timedelta(seconds=interval)).alias("available_at"),
        times.dt.date().alias("session_date"),
        dataset_id=pl.lit("files_test"), venue=pl.lit("binance"), symbol=pl.lit(symbol),
        interval_seconds=pl.lit(interval, pl.Int32), revision=pl.lit(0, pl.Int32), source=pl.lit("test"),
    )  # fmt: skip


def real_hours(market_data: Path, symbol: str = "BTC/USDT") -> pl.DataFrame:
    """Binance's hourly bars of one symbol, 2017 to 2022, gaps included."""
    file = market_data / "binance_1h" / f"{symbol.replace('/', '_')}-1h.json.gz"
    rows = np.array(json.loads(gzip.decompress(file.read_bytes())))
    return bar_frame(pl.Series(rows[:, 0].astype(np.int64)).cast(pl.Datetime("ms", "UTC")), rows[:, 1:], symbol)


def nifty_minutes(market_data: Path) -> pl.DataFrame:
    """A month of NIFTY 50 minutes: an index, so every volume is 0."""
    batches, _ = read(market_data / "nifty_1m_2021" / "2021 APR NIFTY.txt.gz", ReadOptions())
    return judge(batches, "files_nifty").bars.sort("open_time")


def rough(bars: int, seed: int = 5) -> pl.DataFrame:
    """Quiet prices near 100,000 with rare jumps, and volumes between 0 and 1e9: what running sums drown in."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(0, 1e-7, bars) + np.where(rng.random(bars) < 0.001, rng.normal(0, 0.05, bars), 0.0)
    steps[bars // 2 : bars // 2 + 1_000] = 0.0
    close = 1e5 * np.exp(np.cumsum(steps - steps.mean()))
    opened = np.concatenate([close[:1], close[:-1]])
    volume = np.where(rng.random(bars) < 0.002, 1e9, rng.exponential(1.0, bars)) * (rng.random(bars) > 0.1)
    high, low = np.maximum(opened, close) * (1 + 1e-8), np.minimum(opened, close) * (1 - 1e-8)
    times = pl.datetime_range(START, START + timedelta(hours=bars - 1), "1h", eager=True)
    return bar_frame(times, np.column_stack([opened, high, low, close, volume]))
