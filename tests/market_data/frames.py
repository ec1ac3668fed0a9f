"""Bars for tests: a random walk whose prices look like prices."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

START = datetime(2024, 1, 1, tzinfo=UTC)


def walk(bars: int, seed: int = 0, price: float = 100.0, interval_seconds: int = 3600) -> pl.DataFrame:
    """open_time, open, high, low, close, volume; opens follow closes, as they do where a market never shuts."""
    random = np.random.default_rng(seed)
    closes = price * np.exp(np.cumsum(random.normal(0, 0.01, bars)))
    opens = np.concatenate([[price], closes[:-1]]) * np.exp(random.normal(0, 0.0005, bars))
    high = np.maximum(opens, closes) * (1 + random.exponential(0.004, bars))
    low = np.minimum(opens, closes) * (1 - random.exponential(0.004, bars))
    step = timedelta(seconds=interval_seconds)
    return pl.DataFrame({
        "open_time": pl.datetime_range(START, START + (bars - 1) * step, step, eager=True, time_unit="us"),
        "open": opens, "high": high, "low": low, "close": closes, "volume": random.lognormal(3, 1, bars),
    })  # fmt: skip


def bar_frame(bars: int, dataset_id: str = "d", symbol: str = "BTC/USDT", seed: int = 0) -> pl.DataFrame:
    """A walk as a bar frame of the lake."""
    return walk(bars, seed).with_columns(
        dataset_id=pl.lit(dataset_id), venue=pl.lit("binance"), symbol=pl.lit(symbol),
        interval_seconds=pl.lit(3600, pl.Int32), session_date=pl.col("open_time").dt.date(),
        available_at=pl.col("open_time") + timedelta(hours=1), revision=pl.lit(0, pl.Int32), source=pl.lit("test"),
    )  # fmt: skip
