"""Features and conditions of a whole dataset, written to the lake for people and tools to read.

Training and scoring do not read them back: they run the kernel themselves, which is quicker than reading the table.
"""

from collections.abc import Callable
from datetime import datetime

import polars as pl

from trading_platform.features.definition import NAMES, feature_hash
from trading_platform.features.stream import CONDITIONS, compute
from trading_platform.market_data.lake import Lake

Progress = Callable[[str, int, int], None]


def build_features(
    lake: Lake, dataset_id: str, as_of: datetime | None = None, progress: Progress = lambda what, done, total: None
) -> pl.DataFrame:
    """One row a bar: dataset_id, feature_hash, symbol, open_time, available_at, sigma, the features, the conditions."""
    bars = lake.bars(dataset_id, as_of=as_of)
    parts = bars.partition_by("symbol", as_dict=True, maintain_order=True)
    frames = []
    for done, ((symbol,), rows) in enumerate(parts.items()):
        progress(f"features of {symbol}", done, len(parts) + 1)
        frames.append(_frame(rows))
    if not frames:
        raise ValueError(f"dataset {dataset_id} has no bars: ingest it first (`trading-platform ingest`)")
    frame = pl.concat(frames)
    progress("writing features", len(parts), len(parts) + 1)
    lake.write_features(frame)
    return frame


def _frame(bars: pl.DataFrame) -> pl.DataFrame:
    history = compute(bars)
    return bars.select(
        "dataset_id", pl.lit(feature_hash()).alias("feature_hash"), "symbol", "open_time", "available_at"
    ).with_columns(
        pl.Series("sigma", history.sigma),
        *(pl.Series(name, history.matrix[:, column]) for column, name in enumerate(NAMES)),
        *(pl.Series(name, history.conditions[name]) for name in CONDITIONS),
    )
