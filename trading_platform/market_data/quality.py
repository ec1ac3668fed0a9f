"""The rules a row must keep to become a bar. A row that breaks one is set aside with the reason, never dropped.

Rules are tried in the order of `Reason`; a row is counted under the first that it breaks. Some set-aside rows cost
nothing: an exact duplicate, a print outside the venue's sessions, a row of another day than the file's. The others are
*lost*; a source that would lose more than 5 % of its rows is refused, because then it is the reading that is wrong.
"""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import orjson
import polars as pl

from trading_platform.market_data.lake import BAR_SCHEMA, QUARANTINE_SCHEMA
from trading_platform.market_data.reading import Batch
from trading_platform.market_data.tables import UnreadableFileError
from trading_platform.markets.calendars import DAY_SECONDS, calendar
from trading_platform.markets.sessions import is_trading_day, session_of

MAX_LOST = 0.05
MAX_OUTSIDE = 0.5
FAR = 10.0
"""A price is 90 % away from its neighbours when it is under a tenth, or over ten times, their median."""
NEIGHBOURS = 11
"""Closes in the centred window whose median speaks for the neighbours; a lasting change of level is not flagged."""
EARLIEST = datetime(1990, 1, 1, tzinfo=UTC)
PRICES = ("open", "high", "low", "close")


class Reason(StrEnum):
    NO_TIME = "no_time"
    NOT_A_NUMBER = "not_a_number"
    WRONG_DATE = "wrong_date"
    DUPLICATE = "duplicate"
    OTHER_DAY = "other_day"
    NOT_POSITIVE = "price_not_positive"
    NEGATIVE_VOLUME = "negative_volume"
    HIGH_BELOW_LOW = "high_below_low"
    OUTSIDE_RANGE = "open_or_close_outside_range"
    OUTSIDE_SESSION = "outside_session"
    OUT_OF_ORDER = "out_of_order"
    CONFLICTING = "conflicting_duplicate"
    FAR_AWAY = "far_from_neighbours"


NOT_LOST = {Reason.DUPLICATE, Reason.OTHER_DAY, Reason.OUTSIDE_SESSION}


class TooMuchLostError(UnreadableFileError):
    """A source would lose more than 5 % of its rows."""


@dataclass(frozen=True)
class Judged:
    """What became of a source's rows. `bars` has the columns of `lake.BAR_SCHEMA`, `quarantine` those of its table."""

    bars: pl.DataFrame
    quarantine: pl.DataFrame
    rows: int
    reasons: Counter[str]

    @property
    def lost(self) -> int:
        return sum(count for reason, count in self.reasons.items() if reason not in NOT_LOST)


def judge(batches: Sequence[Batch], dataset_id: str, *, accept_loss: bool = False) -> Judged:
    """Sort the rows of one dataset's files into bars and quarantine. Raises `TooMuchLostError`.

    All batches have one venue, one interval and one kind (`reading.read` sees to that).
    """
    venue, interval = batches[0].venue, batches[0].interval_seconds
    rows = pl.concat([batch.rows.with_columns(file=pl.lit(batch.file)) for batch in batches], how="diagonal")
    rows = rows.with_row_index("position").with_columns(pl.lit(None, pl.String).alias("reason"))
    if batches[0].are_ticks:
        identical = pl.concat([batch.raw.drop("row_number").hash_rows() for batch in batches])
        rows = _judge_ticks(rows.with_columns(identity=identical), venue)
    else:
        rows = _judge_bars(rows, venue, interval)
    bad = rows.filter(pl.col("reason").is_not_null()).sort("position")
    reasons = Counter(bad["reason"].to_list())
    judged = Judged(
        _as_bars(rows.filter(pl.col("reason").is_null()), batches[0].are_ticks, venue, interval, dataset_id),
        _quarantine(bad, batches, dataset_id),
        len(rows),
        reasons,
    )
    if not accept_loss:
        _refuse_loss(judged)
    return judged


def judge_live(bars: pl.DataFrame, earlier: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(good, bad with `reason`) of new bars of one venue and interval, seen beside the `earlier` bars of the lake."""
    if bars.is_empty():
        return bars, bars.with_columns(pl.lit(None, pl.String).alias("reason"))
    both = pl.concat([earlier.select(bars.columns), bars], how="vertical_relaxed").with_row_index("position")
    both = both.with_columns(
        pl.lit(None, pl.String).alias("reason"), pl.lit("").alias("file"), row_number=pl.col("position").cast(pl.Int64)
    )
    both = _judge_rows(_judge_dates(both, (*PRICES, "volume")))
    judged = _judge_neighbours(both, PRICES, "close").filter(pl.col("position") >= len(earlier)).sort("position")
    return (
        judged.filter(pl.col("reason").is_null()).select(bars.columns),
        judged.filter(pl.col("reason").is_not_null()).select(*bars.columns, "reason"),
    )


def broken_rule(opens: float, high: float, low: float, close: float, volume: float) -> Reason | None:
    """The rule that one live bar breaks by itself, for the path that has no frame."""
    if not all(map(math.isfinite, (opens, high, low, close, volume))):
        return Reason.NOT_A_NUMBER
    if min(opens, high, low, close) <= 0:
        return Reason.NOT_POSITIVE
    if volume < 0:
        return Reason.NEGATIVE_VOLUME
    if high < low:
        return Reason.HIGH_BELOW_LOW
    return Reason.OUTSIDE_RANGE if max(opens, close) > high or min(opens, close) < low else None


# --- the rules --------------------------------------------------------------------------------------------------------


def _judge_bars(rows: pl.DataFrame, venue: str, interval: int) -> pl.DataFrame:
    rows = _flag(
        _judge_dates(rows, (*PRICES, "volume")), Reason.DUPLICATE, _repeats(["symbol", "open_time", *PRICES, "volume"])
    )
    rows = _judge_rows(rows)
    rows = _judge_sessions(rows, venue, interval)
    rows = _judge_order(rows)
    rows = _flag(rows, Reason.CONFLICTING, _repeats(["symbol", "open_time"]))
    return _judge_neighbours(rows, PRICES, "close")


def _judge_ticks(rows: pl.DataFrame, venue: str) -> pl.DataFrame:
    rows = _flag(_judge_dates(rows, ("price", "amount")), Reason.DUPLICATE, _repeats(["file", "identity"]))
    if "other_day" in rows.columns:
        rows = _flag(rows, Reason.OTHER_DAY, pl.col("other_day"))
    rows = _flag(rows, Reason.NOT_POSITIVE, pl.col("price") <= 0)
    rows = _flag(rows, Reason.NEGATIVE_VOLUME, pl.col("amount") < 0)
    rows = _judge_sessions(rows, venue, 1)
    return _judge_neighbours(_judge_order(rows), ("price",), "price")


def _judge_dates(rows: pl.DataFrame, numbers: tuple[str, ...]) -> pl.DataFrame:
    latest = datetime.now(UTC) + timedelta(days=1)
    rows = _flag(rows, Reason.NO_TIME, pl.col("open_time").is_null())
    rows = _flag(
        rows,
        Reason.NOT_A_NUMBER,
        pl.any_horizontal(~pl.col(name).is_finite().fill_null(value=False) for name in numbers),
    )
    return _flag(rows, Reason.WRONG_DATE, ~pl.col("open_time").is_between(EARLIEST, latest))


def _judge_rows(rows: pl.DataFrame) -> pl.DataFrame:
    """Rules that a bar breaks by itself."""
    low, high = pl.col("low"), pl.col("high")
    rows = _flag(rows, Reason.NOT_POSITIVE, pl.min_horizontal(PRICES) <= 0)
    rows = _flag(rows, Reason.NEGATIVE_VOLUME, pl.col("volume") < 0)
    rows = _flag(rows, Reason.HIGH_BELOW_LOW, high < low)
    outside = (pl.max_horizontal("open", "close") > high) | (pl.min_horizontal("open", "close") < low)
    return _flag(rows, Reason.OUTSIDE_RANGE, outside)


def _judge_sessions(rows: pl.DataFrame, venue: str, interval: int) -> pl.DataFrame:
    located = calendar(venue).locate(rows["open_time"], interval)
    rows = rows.with_columns(located["session_date"], located["opens_at"], located["closes_at"])
    return _flag(rows, Reason.OUTSIDE_SESSION, pl.col("session_date").is_null())


def _judge_order(rows: pl.DataFrame) -> pl.DataFrame:
    """The fewest rows whose removal leaves each file's times in order: one stamp too late does not condemn the rest."""
    good = rows.filter(pl.col("reason").is_null())
    late: list[int] = []
    for part in good.partition_by("file", "symbol", maintain_order=True):
        times = part["open_time"].to_physical().to_list()
        if not part["open_time"].is_sorted():
            kept = _longest_ordered(times)
            late += [position for n, position in enumerate(part["position"].to_list()) if n not in kept]
    return _flag(rows, Reason.OUT_OF_ORDER, pl.col("position").is_in(late)) if late else rows


def _judge_neighbours(rows: pl.DataFrame, prices: tuple[str, ...], typical: str) -> pl.DataFrame:
    rows = rows.sort("symbol", "open_time", "position", nulls_last=True)
    known = pl.when(pl.col("reason").is_null()).then(pl.col(typical))
    around = known.rolling_median(NEIGHBOURS, center=True, min_samples=3).over("symbol")
    rows = rows.with_columns(around=around)
    far = pl.any_horizontal((pl.col(p) < pl.col("around") / FAR) | (pl.col(p) > pl.col("around") * FAR) for p in prices)
    return _flag(rows, Reason.FAR_AWAY, far).drop("around")


def _flag(rows: pl.DataFrame, reason: Reason, broken: pl.Expr) -> pl.DataFrame:
    """Write the reason where the rule is broken and no earlier one was."""
    hit = pl.col("reason").is_null() & broken.fill_null(value=False)
    return rows.with_columns(reason=pl.when(hit).then(pl.lit(reason.value)).otherwise("reason"))


def _repeats(columns: list[str]) -> pl.Expr:
    """Rows without a reason that equal an earlier one without a reason in these columns."""
    blank = pl.col("reason").is_null()
    return blank & ~pl.struct(blank.alias("_blank"), *columns).is_first_distinct()


def _longest_ordered(times: list[int]) -> set[int]:
    """Positions of a longest non-decreasing subsequence (Fredman 1975, O(n log n))."""
    ends: list[int] = []
    at: list[int] = []
    before: list[int] = []
    for n, moment in enumerate(times):
        length = bisect_right(ends, moment)
        before.append(at[length - 1] if length else -1)
        if length == len(ends):
            ends.append(moment)
            at.append(n)
        else:
            ends[length], at[length] = moment, n
    kept, n = set(), at[-1] if at else -1
    while n >= 0:
        kept.add(n)
        n = before[n]
    return kept


# --- what comes out ---------------------------------------------------------------------------------------------------


def _as_bars(good: pl.DataFrame, are_ticks: bool, venue: str, interval: int, dataset_id: str) -> pl.DataFrame:
    if are_ticks:
        good = _aggregate(good, interval)
    return with_availability(good, venue, interval).with_columns(
        dataset_id=pl.lit(dataset_id), venue=pl.lit(venue), interval_seconds=interval, revision=0, source="file"
    ).select(pl.col(name).cast(dtype) for name, dtype in BAR_SCHEMA.items())  # fmt: skip


def with_availability(rows: pl.DataFrame, venue: str, interval: int) -> pl.DataFrame:
    """Add `available_at`: the bar's end, or its session's close where that comes first. Needs `closes_at`.

    A daily bar of an Indian exchange is final when the session after the close has ended.
    """
    end = pl.col("open_time") + pl.duration(seconds=interval)
    if calendar(venue).never_closes or interval > DAY_SECONDS:
        return rows.with_columns(available_at=end)
    known = rows.with_columns(available_at=pl.min_horizontal(end, "closes_at"))
    if venue != "nse" or interval < DAY_SECONDS:
        return known
    days = known["session_date"].unique().drop_nulls().to_list()
    final = {day: session_of("NSE", day)[-1].ends for day in days if is_trading_day("NSE", day)}
    last = pl.col("session_date").replace_strict(final, default=None, return_dtype=pl.Datetime("us", "UTC"))
    return known.with_columns(available_at=pl.coalesce(last, "available_at"))


def _aggregate(ticks: pl.DataFrame, interval: int) -> pl.DataFrame:
    """Bars of ticks, counted from the session's open; an interval without a tick has no bar."""
    since_open = (pl.col("open_time") - pl.col("opens_at")).dt.total_seconds()
    bar = pl.col("opens_at") + pl.duration(seconds=since_open // interval * interval)
    return (
        ticks.sort("open_time", "position")
        .with_columns(bar=bar.cast(pl.Datetime("us", "UTC")))
        .group_by("symbol", "bar", maintain_order=True)
        .agg(
            open=pl.col("price").first(),
            high=pl.col("price").max(),
            low=pl.col("price").min(),
            close=pl.col("price").last(),
            volume=pl.col("amount").sum(),
            session_date=pl.col("session_date").first(),
            closes_at=pl.col("closes_at").first(),
            file=pl.col("file").first(),
        )
        .rename({"bar": "open_time"})
    )


def _quarantine(bad: pl.DataFrame, batches: Sequence[Batch], dataset_id: str) -> pl.DataFrame:
    if bad.is_empty():
        return pl.DataFrame(schema=QUARANTINE_SCHEMA)
    raw = {batch.file: batch.raw for batch in batches}
    texts: list[str] = []
    for (file,), part in bad.partition_by("file", as_dict=True, maintain_order=True).items():
        table = raw[str(file)].drop("row_number")[[number - 1 for number in part["row_number"].to_list()]]
        texts += [orjson.dumps(row, default=str).decode() for row in table.iter_rows(named=True)]
    return bad.with_columns(dataset_id=pl.lit(dataset_id), raw=pl.Series(texts)).select(
        pl.col(name).cast(dtype) for name, dtype in QUARANTINE_SCHEMA.items()
    )


def _refuse_loss(judged: Judged) -> None:
    counted = ", ".join(f"{reason} {count:,}" for reason, count in judged.reasons.most_common())
    if judged.rows and judged.lost / judged.rows > MAX_LOST:
        lost = judged.quarantine.filter(~pl.col("reason").is_in(list(NOT_LOST)))
        raise TooMuchLostError(
            f"{judged.lost:,} of {judged.rows:,} rows ({judged.lost / judged.rows:.0%}) break a rule, expected at most "
            f"{MAX_LOST:.0%}: {counted}. {_example(lost)} Check --columns, or let it in with --accept-loss"
        )
    outside = judged.reasons[Reason.OUTSIDE_SESSION] + judged.reasons[Reason.OTHER_DAY]
    if judged.rows and outside / judged.rows > MAX_OUTSIDE:
        aside = judged.quarantine.filter(pl.col("reason").is_in([Reason.OUTSIDE_SESSION, Reason.OTHER_DAY]))
        raise TooMuchLostError(
            f"{outside:,} of {judged.rows:,} rows ({outside / judged.rows:.0%}) lie outside the venue's sessions: "
            f"{counted}. {_example(aside)} Check --time-zone, --labels and --venue, or let it in with --accept-loss"
        )


def _example(rows: pl.DataFrame) -> str:
    first: dict[str, Any] = rows.row(0, named=True)
    return f"First such row: {first['file']} row {first['row_number']}, {first['reason']}: {first['raw'][:200]}."
