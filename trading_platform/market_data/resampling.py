"""Bars of a longer interval from bars of a shorter one."""

import polars as pl

from trading_platform.market_data.lake import BAR_SCHEMA
from trading_platform.markets.calendars import DAY_SECONDS, calendar


def resample(bars: pl.DataFrame, interval_seconds: int) -> pl.DataFrame:
    """Bars of `interval_seconds` from a bar frame of a shorter interval, which must divide it; the same frame if equal.

    On a venue with sessions bars are counted from the session's open and never cross its close, around the clock from
    midnight UTC. A bar is available at its end, or at its session's close where that comes first; an interval without
    any part has no bar, and one that a symbol's data end within is left out. Raises ValueError where the bars are longer
    than asked for, or do not divide the interval.
    """
    have = int(bars["interval_seconds"][0])
    if have == interval_seconds:
        return bars
    if have > interval_seconds or interval_seconds % have:
        raise ValueError(
            f"bars of {have} s cannot become bars of {interval_seconds} s; ask for {have} s or a multiple of it"
        )
    venue = str(bars["venue"][0])
    opens_at, closes_at = _session(bars, venue, interval_seconds)
    since = (pl.col("open_time") - pl.col("opens_at")).dt.total_seconds()
    begins = pl.col("opens_at") + pl.duration(seconds=since // interval_seconds * interval_seconds)
    end = pl.col("begins") + pl.duration(seconds=interval_seconds)
    made = (
        bars.with_columns(opens_at=opens_at, closes_at=closes_at)
        .with_columns(begins=begins.cast(pl.Datetime("us", "UTC")))
        .with_columns(end=pl.min_horizontal(end, "closes_at"))
        .sort("symbol", "open_time")
        .group_by("symbol", "begins", maintain_order=True)
        .agg(
            pl.col("dataset_id", "venue", "open", "session_date", "source", "end").first(),
            pl.col("high").max(),
            pl.col("low").min(),
            pl.col("close").last(),
            pl.col("volume").sum(),
            pl.col("revision").max(),
            known=pl.col("available_at").last(),
        )
        .rename({"begins": "open_time", "end": "available_at"})
        .with_columns(interval_seconds=pl.lit(interval_seconds))
    )
    last = pl.col("open_time") == pl.col("open_time").max().over("symbol")
    finished = made.filter(~last | (pl.col("known") >= pl.col("available_at")))
    return finished.select(pl.col(name).cast(dtype) for name, dtype in BAR_SCHEMA.items())


def _session(bars: pl.DataFrame, venue: str, interval_seconds: int) -> tuple[pl.Series, pl.Series]:
    """(where counting begins, where a bar ends at the latest) of each bar: its session, or its day in UTC."""
    days = bars["open_time"].dt.truncate("1d")
    far = days.dt.offset_by("1000d")
    if calendar(venue).never_closes:
        return days, far
    if interval_seconds >= DAY_SECONDS:
        raise ValueError(f"sessions of {venue} are not put together to bars of {interval_seconds} s; use daily files")
    located = calendar(venue).locate(bars["open_time"], int(bars["interval_seconds"][0]))
    return located["opens_at"].fill_null(days), located["closes_at"].fill_null(far)
