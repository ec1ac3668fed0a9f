"""Features and conditions of a whole dataset, written to the lake for people and tools to read.

Training and scoring do not read them back: they run the kernel themselves, which is quicker than reading the table.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import polars as pl

from trading_platform.features.definition import NAMES, feature_hash
from trading_platform.features.stream import CONDITIONS, compute
from trading_platform.market_data.lake import Lake

Progress = Callable[[str, int, int], None]
"""What is being done, steps done, steps in all."""


def build_features(
    lake: Lake, dataset_id: str, as_of: datetime | None = None, progress: Progress = lambda what, done, total: None
) -> pl.DataFrame:
    """One row a bar: dataset_id, feature_hash, symbol, open_time, available_at, sigma, the features, the conditions.

    Bars known at `as_of` (market time; None: all). Written to the lake's table `features`, where writing the same rows
    again adds nothing. Raises ValueError where the dataset has no bars.
    """
    bars = lake.bars(dataset_id, as_of=as_of)
    parts = bars.partition_by("symbol", maintain_order=True)
    if not parts:
        raise ValueError(f"dataset {dataset_id} has no bars: ingest it first (`trading-platform ingest`)")
    frames = []
    with ThreadPoolExecutor() as pool:  # the kernel lets go of the interpreter's lock
        for done, (part, frame) in enumerate(zip(parts, pool.map(feature_frame, parts), strict=True), start=1):
            frames.append(frame)
            progress(f"features of {part['symbol'][0]}", done, len(parts) + 1)
    built = pl.concat(frames)
    lake.write_features(built)
    progress("features written", len(parts) + 1, len(parts) + 1)
    return built


def feature_frame(bars: pl.DataFrame) -> pl.DataFrame:
    """`build_features` for one symbol's bars, sorted by open time; nothing is written."""
    history = compute(bars)
    return bars.select(
        "dataset_id", pl.lit(feature_hash()).alias("feature_hash"), "symbol", "open_time", "available_at"
    ).with_columns(
        pl.Series("sigma", history.sigma),
        *(pl.Series(name, history.matrix[:, column]) for column, name in enumerate(NAMES)),
        *(pl.Series(name, history.conditions[name]) for name in CONDITIONS),
    )
