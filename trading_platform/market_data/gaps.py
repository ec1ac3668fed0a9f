"""Bars that the venue's calendar expects and nobody has: found, asked for, and recorded where they stay away.

A gap is a run of absent bars of one symbol between its first and last bar; on a venue with sessions it ends with its
session. The record keeps what was repaired and who was asked.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from trading_platform.market_data.lake import GAP_SCHEMA, Lake
from trading_platform.market_data.quality import judge_live
from trading_platform.market_data.sources import BarSource, as_bars
from trading_platform.markets.calendars import calendar

MAX_REQUESTS = 200
"""Gaps asked for in one go, longest first: a venue full of holes must not keep an ingestion for hours."""
NOBODY = "nobody asked"
KEY = ["dataset_id", "symbol", "interval_seconds", "first"]


@dataclass(frozen=True)
class Repair:
    """What a search for absent bars came to, in bars except `found` (gaps)."""

    found: int
    missing: int
    repaired: int


def find_gaps(bars: pl.DataFrame) -> pl.DataFrame:
    """Gaps in a bar frame of one dataset, with the columns of `lake.GAP_SCHEMA`, sorted by (symbol, first)."""
    parts = [_gaps_of(part) for part in bars.partition_by("symbol", maintain_order=True)]
    found = pl.concat(parts) if parts else pl.DataFrame(schema=GAP_SCHEMA)
    return found.sort("symbol", "first")


async def repair(
    lake: Lake,
    dataset_id: str,
    sources: Sequence[BarSource],
    on_gap: Callable[[int, int], None] = lambda *_: None,
) -> Repair:
    """Ask the sources in turn for every gap of a dataset, put what they have into the lake, record the rest."""
    bars = lake.bars(dataset_id)
    before = find_gaps(bars)
    tried = [NOBODY] * len(before)
    by_length = before.with_row_index("n").sort("missing", descending=True).head(MAX_REQUESTS)
    for done, row in enumerate(by_length.iter_rows(named=True)):
        on_gap(done, len(by_length))
        tried[row["n"]] = await _ask(lake, bars, row, sources)
    after = find_gaps(lake.bars(dataset_id)) if sources else before
    lake.write_gaps(_record(before.with_columns(tried=pl.Series(tried, dtype=pl.String)), after, lake.gaps(dataset_id)))
    missing, absent = int(after["missing"].sum()), int(before["missing"].sum())
    return Repair(len(before), missing, absent - missing)


def _gaps_of(bars: pl.DataFrame) -> pl.DataFrame:
    """Gaps of one symbol."""
    first = bars.row(0, named=True)
    times = bars["open_time"]
    start, end = times.min(), times.max()
    assert isinstance(start, datetime)
    assert isinstance(end, datetime)
    market = calendar(first["venue"])
    interval = first["interval_seconds"]
    expected = pl.DataFrame({"open_time": market.expected(start, end, interval)}).with_row_index("n")
    absent = expected.join(pl.DataFrame({"open_time": times}), on="open_time", how="anti", maintain_order="left")
    located = market.locate(absent["open_time"], interval)
    absent = absent.with_columns(located["session_date"], located["tag"])
    breaks = pl.col("n").diff().fill_null(2) != 1
    if not market.never_closes:
        breaks = breaks | (pl.struct("session_date", "tag") != pl.struct("session_date", "tag").shift()).fill_null(
            value=True
        )
    return (
        absent.with_columns(gap=breaks.cast(pl.Int64).cum_sum())
        .group_by("gap", maintain_order=True)
        .agg(
            first=pl.col("open_time").first(),
            last=pl.col("open_time").last(),
            missing=pl.len(),
            session=pl.format("{} {}", pl.col("session_date").first(), pl.col("tag").first()),
        )
        .with_columns(
            dataset_id=pl.lit(first["dataset_id"]),
            symbol=pl.lit(first["symbol"]),
            interval_seconds=interval,
            repaired=0,
            tried=pl.lit(""),
        )
        .select(pl.col(name).cast(dtype) for name, dtype in GAP_SCHEMA.items())
    )


async def _ask(lake: Lake, bars: pl.DataFrame, gap: dict[str, Any], sources: Sequence[BarSource]) -> str:
    """Fill one gap from the first source that has bars for it. Returns what each source that was asked said."""
    said = []
    for source in sources:
        rows = await source.bars(gap["symbol"], gap["first"], gap["last"], gap["interval_seconds"])
        if rows is None:
            said.append(f"{source.name}: no answer")
            continue
        good = _usable(bars, rows, gap, source.name)
        said.append(f"{source.name}: {len(good)} bars")
        lake.write_bars(good)
        if len(good) >= gap["missing"]:
            break
    return "; ".join(said) or NOBODY


def _usable(bars: pl.DataFrame, rows: pl.DataFrame, gap: dict[str, Any], source: str) -> pl.DataFrame:
    """Of a source's answer, the bars that are absent here and pass the rules beside their neighbours."""
    around = bars.filter(pl.col("symbol") == gap["symbol"])
    wanted = rows.filter(pl.col("open_time").is_between(gap["first"], gap["last"])).join(
        around.select("open_time"), on="open_time", how="anti"
    )
    fresh = as_bars(
        wanted, dataset_id=gap["dataset_id"], venue=str(bars["venue"][0]), symbol=gap["symbol"],
        interval_seconds=gap["interval_seconds"], source=source,
    )  # fmt: skip
    before = around.filter(pl.col("open_time") < gap["first"]).tail(20)
    return judge_live(fresh, before)[0]


def _record(before: pl.DataFrame, after: pl.DataFrame, stored: pl.DataFrame) -> pl.DataFrame:
    """Rows for the gap table: what is still absent, and what was closed, with what earlier runs had repaired."""
    open_now = after.join(before.select(*KEY, "tried"), on=KEY, how="left", suffix="_asked").with_columns(
        tried=pl.coalesce("tried_asked", "tried")
    )
    known = pl.concat([before, stored.join(before, on=KEY, how="anti")])
    closed = _less_remaining(known.join(open_now, on=KEY, how="anti"), open_now)
    closed = closed.with_columns(repaired=pl.col("repaired") + pl.col("missing"), missing=pl.lit(0, pl.Int64))
    earlier = stored.select(*KEY, pl.col("repaired").alias("before"), pl.col("missing").alias("was_missing"))
    still = open_now.join(earlier, on=KEY, how="left").with_columns(
        repaired=pl.col("before").fill_null(0)
        + (pl.col("was_missing").fill_null(pl.col("missing")) - pl.col("missing")).clip(0)
    )
    return pl.concat([frame.select(list(GAP_SCHEMA)) for frame in (still, closed)])


def _less_remaining(closed: pl.DataFrame, still: pl.DataFrame) -> pl.DataFrame:
    """Closed gaps with `missing` reduced by what remains of them as smaller gaps, which have records of their own."""
    place = ["dataset_id", "symbol", "interval_seconds"]
    inside = (
        still.sort("first")
        .join_asof(
            closed.select(*place, "first", "last").sort("first").with_columns(of="first"),
            on="first",
            by=place,
            suffix="_of",
            check_sortedness=False,
        )
        .filter(pl.col("first") <= pl.col("last_of"))
        .group_by(*place, first=pl.col("of"))
        .agg(remaining=pl.col("missing").sum())
    )
    return (
        closed.join(inside, on=KEY, how="left")
        .with_columns(missing=(pl.col("missing") - pl.col("remaining").fill_null(0)).clip(0))
        .drop("remaining")
    )
