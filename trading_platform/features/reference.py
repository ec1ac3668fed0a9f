"""The reference of a market: the symbol that the others are measured against, taken from the same dataset."""

from collections.abc import Iterable

import polars as pl

REFERENCES = ("BTC/USDT", "BTC/FDUSD", "BTC/USDC", "NIFTY 50", "NIFTY", "NIFTYBEES")
"""The first of these that a dataset has: what crypto moves with; India's index, or the fund that follows it."""
COLUMN = "reference_close"


def reference_symbol(symbols: Iterable[str]) -> str | None:
    """The reference among these symbols; None where there is none."""
    there = set(symbols)
    return next((name for name in REFERENCES if name in there), None)


def with_reference(bars: pl.DataFrame) -> pl.DataFrame:
    """The bars with the column `reference_close`: the reference's newest close that opened no later than the bar.

    Null before the reference's first bar; the frame as it is where it has no reference.
    """
    name = reference_symbol(bars["symbol"].unique())
    if name is None:
        return bars
    closes = bars.filter(pl.col("symbol") == name).select("open_time", pl.col("close").cast(pl.Float64).alias(COLUMN))
    joined = bars.drop(COLUMN, strict=False).sort("open_time").join_asof(closes.sort("open_time"), on="open_time")
    return joined.sort("symbol", "open_time")
