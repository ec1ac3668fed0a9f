"""Signals beside what became of them: the one stream that drift, experiments and reports are made of.

A signal's barriers are those it was published with, its outcome is read off the lake's closes by the same rule that
labels are made by. Signals and bars are joined on timestamps, never on position, and a signal counts only once its
trade has ended by `as_of`.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sqlalchemy import select

from trading_platform.identifiers import DatasetId
from trading_platform.learning.barrier_walk import first_exits
from trading_platform.learning.labels import BarrierSpec
from trading_platform.learning.samples import microseconds
from trading_platform.market_data.lake import Lake
from trading_platform.storage.control import Signal
from trading_platform.storage.databases import Databases

TIME = pl.Datetime("us", "UTC")
SCHEMA: dict[str, pl.DataType] = {
    "version_id": pl.String(),
    "role": pl.String(),
    "symbol": pl.String(),
    "bar_open_time": TIME,
    "available_at": TIME,
    "state": pl.String(),
    "certified": pl.Boolean(),
    "probability": pl.Float64(),
    "confidence": pl.Float64(),
    "threshold": pl.Float64(),
    "price": pl.Float64(),
    "target_price": pl.Float64(),
    "stop_price": pl.Float64(),
    "exit_by": TIME,
    "volatility": pl.String(),
    "trend": pl.String(),
    "liquidity": pl.String(),
    "session": pl.String(),
}


def signals(
    databases: Databases,
    dataset_id: DatasetId,
    version_ids: Sequence[str],
    *,
    since: datetime | None = None,
    as_of: datetime | None = None,
) -> pl.DataFrame:
    """Signals of these versions with the columns of `SCHEMA`, sorted by (available_at, symbol, version_id).

    Both bounds are market times on available_at and inclusive. Signals without a confidence (expired) are not here.
    """
    columns = [getattr(Signal, name) for name in SCHEMA]
    query = select(*columns).where(
        Signal.dataset_id == dataset_id, Signal.version_id.in_(list(version_ids)), Signal.confidence.is_not(None)
    )
    if since is not None:
        query = query.where(Signal.available_at >= since)
    if as_of is not None:
        query = query.where(Signal.available_at <= as_of)
    with databases.control() as session:
        rows = session.execute(query).all()
    data = {
        name: [float(value) if name in _DECIMALS else value for value in values]
        for name, values in zip(SCHEMA, zip(*rows, strict=True), strict=True)
    } if rows else {name: [] for name in SCHEMA}  # fmt: skip
    return pl.DataFrame(data, schema=SCHEMA).sort("available_at", "symbol", "version_id")


def resolve(published: pl.DataFrame, bars: pl.DataFrame, barriers: BarrierSpec) -> pl.DataFrame:
    """The signals whose trades have ended within `bars`, with label (0/1), net_return, label_end and exit_kind added.

    `published` has the columns of `SCHEMA`; `bars` is a bar frame sorted by (symbol, open_time), already cut at the
    reader's as_of. A signal without its own bar in `bars` cannot be resolved and is left out.
    """
    parts = [
        _resolve_symbol(rows, bars.filter(pl.col("symbol") == symbol), barriers)
        for (symbol,), rows in published.partition_by("symbol", as_dict=True, maintain_order=True).items()
    ]
    empty = _with_outcome(published.clear(), np.array([]), np.array([]), np.array([]))
    return pl.concat([empty, *parts]).sort("available_at", "symbol", "version_id")


def resolved_signals(
    databases: Databases,
    lake: Lake,
    barriers: BarrierSpec,
    dataset_id: DatasetId,
    version_ids: Sequence[str],
    *,
    as_of: datetime,
    since: datetime | None = None,
) -> pl.DataFrame:
    """Signals of these versions whose label was known at `as_of` (market time), with their outcome."""
    published = signals(databases, dataset_id, version_ids, since=since, as_of=as_of)
    if published.is_empty():
        return resolve(published, pl.DataFrame(), barriers)
    start = published["bar_open_time"].min()
    assert isinstance(start, datetime)
    symbols = published["symbol"].unique().sort().to_list()
    return resolve(published, lake.bars(dataset_id, symbols, start=start, as_of=as_of), barriers)


_DECIMALS = {"price", "target_price", "stop_price"}


def _resolve_symbol(published: pl.DataFrame, bars: pl.DataFrame, barriers: BarrierSpec) -> pl.DataFrame:
    if bars.is_empty():
        return _with_outcome(published.clear(), np.array([]), np.array([]), np.array([]))
    open_time = microseconds(bars["open_time"])
    available_at = microseconds(bars["available_at"])
    close = np.ascontiguousarray(bars["close"].to_numpy(), dtype=np.float64)
    wanted = microseconds(published["bar_open_time"])
    entry = np.minimum(np.searchsorted(open_time, wanted), len(open_time) - 1)
    there = open_time[entry] == wanted
    published, entry = published.filter(pl.Series(there)), entry[there]
    end, kind = first_exits(
        close,
        available_at,
        entry.astype(np.int64),
        (
            np.ascontiguousarray(published["target_price"].to_numpy(), dtype=np.float64),
            np.ascontiguousarray(published["stop_price"].to_numpy(), dtype=np.float64),
        ),
        microseconds(published["exit_by"]),
    )
    ended = end >= 0
    ratio = (1.0 - barriers.cost_per_side) / (1.0 + barriers.cost_per_side)
    net_return = close[end[ended]] / close[entry[ended]] * ratio - 1.0
    return _with_outcome(published.filter(pl.Series(ended)), net_return, available_at[end[ended]], kind[ended])


def _with_outcome(
    published: pl.DataFrame, net_return: NDArray[Any], label_end: NDArray[Any], kind: NDArray[Any]
) -> pl.DataFrame:
    return published.with_columns(
        pl.Series("net_return", net_return, dtype=pl.Float64),
        pl.Series("label_end", label_end).cast(pl.Int64).cast(pl.Datetime("us")).dt.replace_time_zone("UTC"),
        pl.Series("exit_kind", kind).cast(pl.Int8),
    ).with_columns(label=(pl.col("net_return") > 0).cast(pl.Int8))
