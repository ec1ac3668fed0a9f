"""Pooled training rows: every symbol's features beside its labels, in order of time."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

from trading_platform.learning.base_rate import driftless_walk, step_in_barrier_units
from trading_platform.learning.labels import Labels, average_uniqueness, triple_barrier
from trading_platform.learning.meta_labels import PrimaryRule
from trading_platform.learning.plan import CONDITIONS, SymbolFeatures, TrainingPlan
from trading_platform.learning.validation import TooFewRowsError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Samples:
    """n labelled rows of all symbols, ascending in `start`, then symbol. Times are microseconds since the epoch, UTC.

    `start`: when the bar became available; `end`: when the bar at which its label ends did; `weight`: average
    uniqueness; `base_rate`: success rate of a driftless walk with the row's barriers; `volatility`: the row's barrier
    volatility; `present` (k,): features the data have at all; `left_out`: rows kept out, by reason.
    """

    matrix: Floats
    label: NDArray[np.int8]
    net_return: Floats
    weight: Floats
    base_rate: Floats
    volatility: Floats
    symbol: NDArray[np.str_]
    open_time: Integers
    start: Integers
    end: Integers
    conditions: Mapping[str, NDArray[np.str_]]
    present: NDArray[np.bool_]
    left_out: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.label)


@dataclass(frozen=True)
class _SymbolRows:
    symbol: str
    features: SymbolFeatures
    labels: Labels
    entered: NDArray[np.bool_]
    weight: Floats
    base_rate: Floats
    open_time: Integers
    available_at: Integers


def label_symbol(bars: pl.DataFrame, volatility: Floats, plan: TrainingPlan) -> Labels:
    """Labels of one symbol's bars (sorted by open time)."""
    return triple_barrier(
        bars["close"].to_numpy(),
        volatility,
        microseconds(bars["available_at"]),
        int(bars["interval_seconds"][0]),
        plan.barriers,
    )


def build_samples(
    bars: pl.DataFrame, plan: TrainingPlan, cutoff: datetime, embargo: int, primary: PrimaryRule | None = None
) -> Samples:
    """Compute features and labels of every symbol and keep the rows that may be learnt from.

    Kept: label and time barrier ended, plus the embargo (microseconds), before `cutoff`; every feature that the data have at all is
    there; with `primary` only bars that the rule enters at (meta-labels). What is left out is counted by reason. Raises ValueError where nothing is left.
    """
    per_symbol = [
        _symbol_rows(str(symbol), rows, plan, primary)
        for (symbol,), rows in plan.prepare(bars).partition_by("symbol", as_dict=True, maintain_order=True).items()
    ]
    if not per_symbol:
        raise ValueError("there are no bars to learn from: ingest the dataset first, or look at its as_of")
    matrix = np.concatenate([rows.features.matrix for rows in per_symbol])
    if matrix.shape[1] != len(plan.features):
        raise ValueError(f"the plan names {len(plan.features)} features, its function gave {matrix.shape[1]} columns")
    start = np.concatenate([rows.available_at for rows in per_symbol])
    end = np.concatenate([rows.available_at[rows.labels.end_index] for rows in per_symbol])
    label = np.concatenate([rows.labels.label for rows in per_symbol])
    finite = np.isfinite(matrix)
    present = np.asarray(finite.any(axis=0))
    resolved = np.concatenate([rows.labels.resolved for rows in per_symbol])
    # By the time barrier, not only by the end: near the cutoff the trades that ended early would be there alone.
    horizon = plan.barriers.horizon_bars * int(bars["interval_seconds"][0]) * 1_000_000
    in_time = np.maximum(end, start + horizon) + embargo < int(cutoff.timestamp() * 1_000_000)
    complete = finite[:, present].all(axis=1)
    entered = np.concatenate([rows.entered for rows in per_symbol])
    keep = resolved & in_time & complete & entered
    if not keep.any():
        raise TooFewRowsError(
            f"none of {len(keep):,} bars can be learnt from: {int((~resolved).sum()):,} have no finished label, "
            f"{int((~complete).sum()):,} lack a feature, {int((resolved & ~in_time).sum()):,} end too late; "
            "bring more bars"
        )
    symbol = np.concatenate([np.full(len(rows.available_at), rows.symbol) for rows in per_symbol])
    order = np.flatnonzero(keep)
    order = order[np.lexsort((symbol[order], start[order]))]
    return Samples(
        matrix=np.ascontiguousarray(np.where(finite, matrix, np.nan)[order]),
        label=label[order],
        net_return=np.concatenate([rows.labels.net_return for rows in per_symbol])[order],
        weight=np.concatenate([rows.weight for rows in per_symbol])[order],
        base_rate=np.concatenate([rows.base_rate for rows in per_symbol])[order],
        volatility=np.concatenate([rows.features.barrier_volatility for rows in per_symbol])[order],
        symbol=symbol[order],
        open_time=np.concatenate([rows.open_time for rows in per_symbol])[order],
        start=start[order],
        end=end[order],
        conditions={
            name: np.concatenate([np.asarray(rows.features.conditions[name], dtype=np.str_) for rows in per_symbol])[
                order
            ]
            for name in CONDITIONS
        },
        present=present,
        left_out={
            "label not finished": int((~resolved).sum()),
            "label ends too late": int((resolved & ~in_time).sum()),
            "feature missing": int((resolved & in_time & ~complete).sum()),
            "no entry of the primary rule": int((resolved & in_time & complete & ~entered).sum()),
        },
    )


def microseconds(column: pl.Series) -> Integers:
    """A datetime column as microseconds since the epoch."""
    return np.asarray(column.dt.timestamp("us").to_numpy(), dtype=np.int64)


def _symbol_rows(symbol: str, bars: pl.DataFrame, plan: TrainingPlan, primary: PrimaryRule | None) -> _SymbolRows:
    features = plan.compute(bars)
    volatility = np.asarray(features.barrier_volatility, dtype=np.float64)
    labels = label_symbol(bars, volatility, plan)
    step = step_in_barrier_units(bars["close"].to_numpy(), volatility)
    if np.isfinite(step) and step > 0:
        base_rate = driftless_walk(plan.barriers, step).success_rate(volatility)
    else:
        base_rate = np.full(len(volatility), np.nan)
    everywhere = np.ones(len(volatility), dtype=np.bool_)
    entered = everywhere if primary is None else primary.entries(features.matrix, plan.features)
    return _SymbolRows(
        symbol=symbol,
        features=features,
        labels=labels,
        entered=entered,
        # Trades that the rule does not enter overlap with nothing.
        weight=average_uniqueness(labels.end_index, labels.resolved & entered),
        base_rate=base_rate,
        open_time=microseconds(bars["open_time"]),
        available_at=microseconds(bars["available_at"]),
    )
