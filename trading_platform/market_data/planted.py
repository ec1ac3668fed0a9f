"""Bars whose truth is known, to hold learning against: a random walk, and one in which bursts of volume tell the future.

Both are hourly bars of Binance's calendar with normal steps of 1 %. In `bursts` a bar in `EVERY` has `LOUD` times the
usual volume, and the `LASTS` bars after it drift upwards by `strength` steps each; nothing else can be predicted.
"""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from trading_platform.market_data.lake import BAR_SCHEMA

START = datetime(2020, 1, 1, tzinfo=UTC)
STEP = 0.01
EVERY, LASTS, LOUD = 40, 12, 8.0

Floats = NDArray[np.float64]


def random_walk(bars: int, seed: int) -> pl.DataFrame:
    """A bar frame in which nothing can be predicted."""
    return _frame(np.random.default_rng(seed), np.zeros(bars), np.zeros(bars, dtype=np.bool_))


def bursts(bars: int, seed: int, strength: float) -> tuple[pl.DataFrame, NDArray[np.bool_]]:
    """(bar frame, whether each bar is a burst). Bursts lie at least `LASTS` bars apart: one drift at a time."""
    rng = np.random.default_rng(seed)
    apart = LASTS + rng.integers(0, 2 * (EVERY - LASTS) + 1, bars)
    at = np.cumsum(apart)
    loud = np.zeros(bars, dtype=np.bool_)
    loud[at[at < bars]] = True
    drift = np.zeros(bars)
    for lag in range(1, LASTS + 1):
        drift[lag:] += strength * loud[:-lag]
    return _frame(rng, drift, loud), loud


def _frame(rng: np.random.Generator, drift: Floats, loud: NDArray[np.bool_]) -> pl.DataFrame:
    n = len(drift)
    close = 100.0 * np.exp(np.cumsum(STEP * (rng.standard_normal(n) + drift)))
    opened = np.concatenate([[100.0], close[:-1]])
    wick = 1.0 + STEP / 4.0 * np.abs(rng.standard_normal((2, n)))
    volume = np.exp(0.3 * rng.standard_normal(n)) * np.where(loud, LOUD, 1.0)
    times = pl.datetime_range(START, START + timedelta(hours=n - 1), "1h", time_unit="us", eager=True)
    return pl.DataFrame(
        {
            "open_time": times,
            "open": opened,
            "high": np.maximum(opened, close) * wick[0],
            "low": np.minimum(opened, close) / wick[1],
            "close": close,
            "volume": volume,
        }
    ).with_columns(
        dataset_id=pl.lit("planted"), venue=pl.lit("binance"), symbol=pl.lit("MADE/UP"), interval_seconds=3600,
        session_date=pl.col("open_time").dt.date(), available_at=pl.col("open_time") + timedelta(hours=1), revision=0,
        source=pl.lit("planted"),
    ).select(pl.col(name).cast(dtype) for name, dtype in BAR_SCHEMA.items())  # fmt: skip
