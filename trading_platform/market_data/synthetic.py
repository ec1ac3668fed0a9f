"""Made-up bars with a known truth: for demonstrations, tests and drills. Never mistaken for a market.

Each symbol's log return over bar n is

    r[n] = sigma * m[n] * (STRENGTH * z[n-1] + e[n]) - SPRING * x[n-1],        e ~ N(0, 1)

with `z` a hidden drift, an AR(1) of unit variance and coefficient `PERSISTENCE` (half-life 23 bars); `m` the volatility
regime, common to all symbols (calm 0.6, normal 1, wild 1.8); and `x` the log price relative to the start, pulled back
so gently that prices stay in a range for ever. Nothing else predicts: `information(h)` says what a forecaster who sees
z could reach over h bars. `z` leaves traces that honest features can find: past returns, the side of the longer wick
and, weakly, volume. All other numbers of a bar are noise.

Bar n of a seed never depends on how many bars are made: random numbers come in blocks keyed by (seed, block), and all
recursions run forward from the first bar, so a series can be continued for ever.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from trading_platform.identifiers import content_id
from trading_platform.market_data.lake import BAR_SCHEMA

SYMBOLS = ("ALPHA/USDT", "BRAVO/USDT", "CHARLIE/USDT", "DELTA/USDT")
START_PRICES = (20_000.0, 1_500.0, 300.0, 0.5)
START = datetime(2024, 1, 1, tzinfo=UTC)
INTERVAL_SECONDS = 3600
BARS = 12_000
SEED = 7

SIGMA = 0.006
STRENGTH = 0.15
PERSISTENCE = 0.97
SPRING = 0.0004
REGIMES = (0.6, 1.0, 1.8)
REGIME_CHANGE = 0.005
WICK = 0.35
WICK_SIDE = 0.6
VOLUME_TRACE = 0.25
BLOCK = 1024
TICK_DIGITS = 6
GENERATION = 1
"""Raised when the formulas change: it is part of a synthetic dataset's identity."""

Floats = NDArray[np.float64]


def dataset_id(seed: int, start: datetime, bars: int, symbols: Sequence[str], interval_seconds: int) -> str:
    """The identity of a synthetic dataset: all that decides its bars."""
    return content_id("synthetic", GENERATION, seed, start.isoformat(), bars, *symbols, interval_seconds)


def generate(
    seed: int = SEED,
    start: datetime = START,
    bars: int = BARS,
    symbols: Sequence[str] = SYMBOLS,
    interval_seconds: int = INTERVAL_SECONDS,
) -> pl.DataFrame:
    """The first `bars` bars of each symbol as a bar frame sorted by (symbol, open_time)."""
    blocks = itertools.islice(_blocks(seed, len(symbols)), math.ceil(bars / BLOCK))
    values = np.concatenate(list(blocks))[:bars]
    dataset = dataset_id(seed, start, bars, symbols, interval_seconds)
    return _frame(values, 0, dataset, start=start, symbols=symbols, interval_seconds=interval_seconds)


def stream(
    seed: int = SEED,
    from_index: int = 0,
    *,
    dataset: str = "",
    start: datetime = START,
    symbols: Sequence[str] = SYMBOLS,
    interval_seconds: int = INTERVAL_SECONDS,
) -> Iterator[pl.DataFrame]:
    """The same series without end: bar frames of one market time each, from bar number `from_index` on."""
    for block, values in enumerate(_blocks(seed, len(symbols))):
        first = block * BLOCK
        if first + BLOCK <= from_index:
            continue
        frame = _frame(values, first, dataset, start=start, symbols=symbols, interval_seconds=interval_seconds).sort(
            "open_time", "symbol"
        )
        for step in range(max(from_index - first, 0), BLOCK):
            yield frame.slice(step * len(symbols), len(symbols))


def information(horizon: int) -> float:
    """Correlation of z with the return over the next `horizon` bars (normal regime, spring left out): the ceiling.

    With unit-variance z, the h-bar drift seen from now is STRENGTH * sum(PERSISTENCE**k) * z and its noise is that of
    the h shocks e plus what z itself does on the way.
    """
    reach = [sum(PERSISTENCE**k for k in range(j)) for j in range(1, horizon + 1)]
    seen = STRENGTH * reach[-1]
    wandering = STRENGTH**2 * (1 - PERSISTENCE**2) * sum(value**2 for value in reach[:-1])
    return seen / math.sqrt(seen**2 + wandering + horizon)


@dataclass(frozen=True)
class Drill:
    """What `plant_drift` did, for the dataset's details."""

    from_time: datetime
    seed: int
    meaning: str = "returns doubled and set against their trailing momentum with probability 0.8"


def plant_drift(frame: pl.DataFrame, from_time: datetime, seed: int) -> pl.DataFrame:
    """Bars whose future no longer follows from their features as it did: a drill for the drift check.

    From `from_time` on each return is doubled, capped at 20 %, and with probability 0.8 given the sign opposite to the
    trailing 12-bar return of the new series. Bars keep their shape, volume and times; prices before stay as they were.
    """
    parts = []
    for number, part in enumerate(frame.sort("symbol", "open_time").partition_by("symbol", maintain_order=True)):
        changed = (part["open_time"] >= from_time).to_numpy()
        first = int(changed.argmax()) if changed.any() else len(part)
        parts.append(part if first in (0, len(part)) else _drifted(part, first, np.random.Philox(key=[seed, number])))
    return pl.concat(parts).select(frame.columns)


def _drifted(part: pl.DataFrame, first: int, bits: np.random.Philox) -> pl.DataFrame:
    against = np.random.Generator(bits).random(len(part)) < 0.8
    old = np.log(part["close"].to_numpy())
    new = old.copy()
    for n in range(first, len(part)):
        move = float(np.clip(2 * (old[n] - old[n - 1]), -0.2, 0.2))
        momentum = new[n - 1] - new[max(n - 13, 0)]
        new[n] = new[n - 1] + (-math.copysign(abs(move), momentum) if against[n] else move)
    factor = np.exp(new - old)
    opens = np.where(np.arange(len(part)) >= first, np.exp(np.roll(new, 1)), part["open"].to_numpy())
    closes = part["close"].to_numpy() * factor
    top = part["high"].to_numpy() / np.maximum(part["open"].to_numpy(), part["close"].to_numpy())
    bottom = part["low"].to_numpy() / np.minimum(part["open"].to_numpy(), part["close"].to_numpy())
    late = np.arange(len(part)) >= first
    prices = {
        "open": opens,
        "high": np.where(late, np.maximum(opens, closes) * top, part["high"].to_numpy()),
        "low": np.where(late, np.minimum(opens, closes) * bottom, part["low"].to_numpy()),
        "close": np.where(late, closes, part["close"].to_numpy()),
    }
    return part.with_columns(pl.Series(name, values) for name, values in prices.items())


# --- the recursions ---------------------------------------------------------------------------------------------------


def _blocks(seed: int, symbols: int) -> Iterator[Floats]:
    """Blocks of shape (BLOCK, symbols, 5): open, high, low, close relative to the start price, and volume."""
    z, x, regime = np.zeros(symbols), np.zeros(symbols), 1
    for block in itertools.count():
        draw = np.random.Generator(np.random.Philox(key=[seed, block]))
        shocks, hidden, wicks, busy = (draw.standard_normal((BLOCK, symbols)) for _ in range(4))
        lengths = draw.exponential(size=(BLOCK, symbols, 2))
        switch, chosen = draw.random(BLOCK), draw.integers(0, len(REGIMES), BLOCK)
        out = np.empty((BLOCK, symbols, 5))
        for n in range(BLOCK):
            if switch[n] < REGIME_CHANGE:
                regime = int(chosen[n])
            scale = SIGMA * REGIMES[regime]
            opened = x
            x = x + scale * (STRENGTH * z + shocks[n]) - SPRING * x
            z = PERSISTENCE * z + math.sqrt(1 - PERSISTENCE**2) * hidden[n]
            below = 1 / (1 + np.exp(-2 * (WICK_SIDE * z + wicks[n])))
            out[n, :, 0], out[n, :, 3] = opened, x
            out[n, :, 1] = np.maximum(opened, x) + scale * WICK * 2 * (1 - below) * lengths[n, :, 0]
            out[n, :, 2] = np.minimum(opened, x) - scale * WICK * 2 * below * lengths[n, :, 1]
            out[n, :, 4] = np.log(REGIMES[regime]) + VOLUME_TRACE * z + 0.5 * busy[n]
        yield np.exp(out)


def _frame(
    values: Floats, first: int, dataset: str, *, start: datetime, symbols: Sequence[str], interval_seconds: int
) -> pl.DataFrame:
    step = timedelta(seconds=interval_seconds)
    opened = pl.datetime_range(
        start + first * step, start + (first + len(values) - 1) * step, step, eager=True, time_unit="us"
    ).cast(pl.Datetime("us", "UTC"))
    parts = []
    for number, symbol in enumerate(symbols):
        price = START_PRICES[number % len(START_PRICES)]
        digits = max(TICK_DIGITS - 2 - math.floor(math.log10(price)), 0)
        unit = 10.0**digits
        opens, closes = (np.round(price * values[:, number, k] * unit) / unit for k in (0, 3))
        high = np.ceil(price * values[:, number, 1] * unit) / unit
        low = np.floor(price * values[:, number, 2] * unit) / unit
        parts.append(
            pl.DataFrame(
                {
                    "symbol": [symbol] * len(values),
                    "open_time": opened,
                    "open": opens,
                    "high": np.maximum(high, np.maximum(opens, closes)),
                    "low": np.minimum(low, np.minimum(opens, closes)),
                    "close": closes,
                    "volume": np.round(2_000_000 / price * values[:, number, 4], 5),
                }
            )
        )
    return pl.concat(parts).with_columns(
        dataset_id=pl.lit(dataset), venue=pl.lit("binance"), interval_seconds=interval_seconds,
        session_date=pl.col("open_time").dt.date(), available_at=pl.col("open_time") + step, revision=0,
        source=pl.lit("synthetic"),
    ).select(pl.col(name).cast(dtype) for name, dtype in BAR_SCHEMA.items())  # fmt: skip
