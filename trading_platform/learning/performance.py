"""How versions do over time and by market condition: frames for plots and reports.

Two sources. Signals with known outcomes say how good the numbers are, on every bar that was scored; trade outcomes say
what came of the money.
"""

from datetime import datetime

import polars as pl

from trading_platform.identifiers import DatasetId
from trading_platform.learning.calibration import log_losses, reliability
from trading_platform.learning.labels import BarrierSpec
from trading_platform.learning.plan import CONDITIONS
from trading_platform.learning.registry import versions
from trading_platform.learning.resolved import resolved_signals
from trading_platform.market_data.lake import Lake
from trading_platform.storage.databases import Databases


def resolved(
    databases: Databases, lake: Lake, barriers: BarrierSpec, dataset_id: DatasetId, *, as_of: datetime
) -> pl.DataFrame:
    """Every version's signals with known outcomes (columns of `resolved.SCHEMA` plus the outcome), and their losses."""
    with databases.control() as session:
        known = [row.version_id for row in versions(session, dataset_id)]
    rows = resolved_signals(databases, lake, barriers, dataset_id, known, as_of=as_of)
    confidence, label = rows["confidence"].to_numpy(), rows["label"].to_numpy()
    return rows.with_columns(
        pl.Series("log_loss", log_losses(confidence, label), dtype=pl.Float64),
        correct=(pl.col("confidence") >= 0.5) == (pl.col("label") == 1),
        brier=(pl.col("confidence") - pl.col("label")) ** 2,
        published=pl.col("state") == "ok",
    )


def over_time(rows: pl.DataFrame, every: str = "1d") -> pl.DataFrame:
    """One row a version and stretch of market time (`every` in polars' notation), sorted; see `_measures`."""
    return (
        rows.sort("available_at")
        .group_by_dynamic("available_at", every=every, group_by="version_id")
        .agg(_measures())
        .sort("version_id", "available_at")
    )


def by_condition(rows: pl.DataFrame) -> pl.DataFrame:
    """One row a version, condition (volatility, trend, liquidity, session) and its value; see `_measures`."""
    parts = [
        rows.group_by("version_id", pl.col(name).alias("value")).agg(_measures()).with_columns(condition=pl.lit(name))
        for name in CONDITIONS
    ]
    return pl.concat(parts).sort("version_id", "condition", "value")


def reliability_frame(rows: pl.DataFrame) -> pl.DataFrame:
    """The reliability table of each version: version_id, lower, upper, confidence, observed, weight, rows."""
    schema = {"version_id": pl.String, "lower": pl.Float64, "upper": pl.Float64, "confidence": pl.Float64,
              "observed": pl.Float64, "weight": pl.Float64, "rows": pl.Int64}  # fmt: skip
    table = [
        {"version_id": version_id, **vars(line)}
        for (version_id,), part in rows.partition_by("version_id", as_dict=True, maintain_order=True).items()
        for line in reliability(part["confidence"].to_numpy(), part["label"].to_numpy())
    ]
    return pl.DataFrame(table, schema=schema)


def net_pnl(outcomes: pl.DataFrame, by: list[str], every: str = "1d") -> pl.DataFrame:
    """Net profit of closed trades over time, one row a group of `by` and stretch of market time.

    `outcomes`: rows of the group tables' `outcomes` (or of their export). Currencies are never added up: `currency` is
    always part of the groups. Adds trades, success_rate, net_pnl, costs, cumulative_net_pnl.
    """
    groups = list(dict.fromkeys([*by, "currency"]))
    return (
        outcomes.sort("exit_time")
        .group_by_dynamic("exit_time", every=every, group_by=groups)
        .agg(
            trades=pl.len(),
            success_rate=pl.col("success").mean(),
            net_pnl=pl.col("net_pnl").sum(),
            costs=pl.col("costs").sum(),
        )
        .sort(*groups, "exit_time")
        .with_columns(cumulative_net_pnl=pl.col("net_pnl").cum_sum().over(groups))
    )


def _measures() -> list[pl.Expr]:
    """rows, base_rate, accuracy, log_loss, brier, mean_confidence; of the published: count, precision, net return."""
    return [
        pl.len().alias("rows"),
        pl.col("label").mean().alias("base_rate"),
        pl.col("correct").mean().alias("accuracy"),
        pl.col("log_loss").mean(),
        pl.col("brier").mean(),
        pl.col("confidence").mean().alias("mean_confidence"),
        pl.col("published").sum().alias("published"),
        pl.col("label").filter(pl.col("published")).mean().alias("precision"),
        pl.col("net_return").filter(pl.col("published")).mean().alias("net_return_published"),
        pl.col("net_return").filter(pl.col("published")).sum().alias("net_return_sum"),
    ]
