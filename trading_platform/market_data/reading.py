"""From files to bars: what each file is, which symbol and interval it holds, what its times mean.

`read(path, options)` takes a file or a folder of many and returns one `Batch` a file: rows with a meaning, not yet
judged (that is `quality.py`). Everything that was guessed is said in the batch's notes, and a flag overrides it.
"""

import calendar as calendar_names
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Literal

import polars as pl

from trading_platform.market_data.columns import Columns, find_columns
from trading_platform.market_data.tables import UnreadableFileError, is_data_file, load_table
from trading_platform.market_data.timestamps import has_offset, parse_times
from trading_platform.markets.calendars import DAY_SECONDS, calendar
from trading_platform.markets.instruments import platform_symbol

UNITS = {"s": 1, "m": 60, "h": 3600, "d": DAY_SECONDS, "w": 7 * DAY_SECONDS}
NUMBERS = ("open", "high", "low", "close", "volume")
MONTHS = [name.lower() for name in calendar_names.month_name[1:]]
INDIAN_OFFSET = r"\+05:?30$"
NSE, BINANCE = "nse", "binance"
MOST_HOURS, BUSY_HOUR, BUSY_DAY = 18, 0.01, 0.1
"""The longest day of an exchange, and the shares of rows from which an hour, or a day of the week, has trade."""
PROVABLE = 0.8
"""A share of sessions that is beyond chance: see `_labels_by_end`."""


@dataclass(frozen=True)
class ReadOptions:
    """What the caller knows better than detection does. None: detect."""

    time_zone: str | None = None
    labels: Literal["start", "end"] | None = None
    columns: tuple[str, ...] = ()
    symbol: str | None = None
    interval_seconds: int | None = None
    venue: str | None = None
    accept_loss: bool = False

    def flags(self) -> str:
        """The flags that change which bars come out, for the dataset's identity."""
        return repr(replace(self, accept_loss=False))


@dataclass
class Batch:
    """One file, read.

    `rows`: row_number (1-based, header not counted), symbol, open_time (UTC; null where unreadable), open, high, low,
    close, volume; or, for ticks, price and amount in place of the last five. `raw`: the table as it stood in the file.
    """

    file: str
    shape: str
    venue: str
    interval_seconds: int
    rows: pl.DataFrame
    raw: pl.DataFrame
    are_ticks: bool
    notes: list[str] = field(default_factory=list)


def read(
    path: Path, options: ReadOptions, on_file: Callable[[str], None] = lambda _: None
) -> tuple[list[Batch], dict[str, str]]:
    """(batches of one venue and interval, {file left out: why}). Raises `UnreadableFileError`."""
    batches = []
    for file in data_files(path):
        on_file(file.name)
        try:
            batches.append(read_file(file, file.read_bytes(), options))
        except UnreadableFileError as error:
            raise UnreadableFileError(f"{file.name}: {str(error).removeprefix(f'{file.name}: ')}") from error
    return _of_one_kind(batches)


def data_files(path: Path) -> list[Path]:
    """The files of bars at `path`, in order of their names. Raises `UnreadableFileError` where there are none."""
    if path.is_file():
        return [path]
    if not path.exists():
        raise UnreadableFileError(f"{path} does not exist; expected a file or folder of bars")
    files = sorted(file for file in path.rglob("*") if file.is_file() and is_data_file(file))
    if not files:
        raise UnreadableFileError(f"{path} holds no CSV, JSON, feather or parquet file")
    return files


def read_file(path: Path, content: bytes, options: ReadOptions) -> Batch:
    """Read one file's bytes. Raises `UnreadableFileError`."""
    table, named = load_table(path, content)
    columns = find_columns(table, named=named, given=options.columns, file=path.name)
    hint = _from_name(path.name)
    venue, notes = (options.venue, []) if options.venue else _venue(table, columns, hint)
    rows, more = _rows(table, columns, venue, hint, options)
    notes += more
    if columns.inferred:
        notes.append(f"no header: columns taken as {', '.join(f'{n}={role}' for role, n in columns.roles.items())}")
    interval = options.interval_seconds or (60 if columns.are_ticks else _interval(rows, hint))
    if not columns.are_ticks:
        rows, note = _open_times(rows, venue, interval, options.labels)
        notes += note
    raw = table.with_row_index("row_number", offset=1)
    return Batch(path.name, columns.shape, venue, interval, rows, raw, columns.are_ticks, notes)


def interval_seconds(text: str) -> int:
    """Seconds of an interval such as 1m, 15m, 1h, 1d.

    >>> interval_seconds("15m"), interval_seconds("1d")
    (900, 86400)
    """
    match = re.fullmatch(r"(\d+)([smhdw])", text.strip().lower())
    if match is None or not int(match[1]):
        raise ValueError(f"{text!r} is no interval; expected a number and s, m, h, d or w, such as 5m or 1h")
    return int(match[1]) * UNITS[match[2]]


def interval_name(seconds: int) -> str:
    """The shortest name: 900 -> 15m, 86400 -> 1d."""
    for unit in ("d", "h", "m"):
        if seconds % UNITS[unit] == 0:
            return f"{seconds // UNITS[unit]}{unit}"
    return f"{seconds}s"


# --- what the name says -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NameHint:
    """What a file's name tells: `BTC_USDT-1h.json.gz`, `2021 JAN NIFTY.txt.gz`, `INFY_day_2000d.csv.gz`."""

    symbol: str | None
    interval_seconds: int | None
    month_day: tuple[int, int] | None
    """(month, day) where the name holds both: rows of other days do not belong to the file."""


def _from_name(name: str) -> NameHint:
    stem = re.sub(r"(\.\w+)+$", "", name)
    if pair := re.fullmatch(r"([A-Z0-9]{2,})_([A-Z0-9]{3,})-(\w+)", stem):
        return NameHint(f"{pair[1]}/{pair[2]}", _interval_word(pair[3]), None)
    words = re.split(r"[_\s]+", stem)
    if len(words) == 1:  # BTCUSDT-1h-2021-01, but BAJAJ-AUTO
        words = re.split(r"-(?=\d)", stem)
    months = [month for word in words if (month := _month(word))]
    days = [int(word) for word in words if re.fullmatch(r"\d{1,2}", word) and 1 <= int(word) <= 31]
    intervals = [seconds for word in words if (seconds := _interval_word(word))]
    left = [w for w in words if not (w.isdigit() or _month(w) or _interval_word(w) or re.fullmatch(r"\d+\w?", w))]
    month_day = (months[0], days[0]) if len(months) == 1 and len(days) == 1 else None
    return NameHint(left[0] if left else None, intervals[0] if intervals else None, month_day)


def _month(word: str) -> int | None:
    """1 to 12 for a month's name in full or by three letters; MARUTI is neither."""
    found = [n for n, name in enumerate(MONTHS, 1) if word.lower() in (name, name[:3])]
    return found[0] if found else None


def _interval_word(word: str) -> int | None:
    if word.lower() in {"day", "daily"}:
        return DAY_SECONDS
    try:
        seconds = interval_seconds(word)
    except ValueError:
        return None
    return seconds if seconds <= UNITS["w"] else None


# --- what the content says --------------------------------------------------------------------------------------------


def _venue(table: pl.DataFrame, columns: Columns, hint: NameHint) -> tuple[str, list[str]]:
    """By shape, by an Indian offset in the times, by the symbol; a pair of currencies is Binance's.

    A symbol that is no pair could be anything, so the times have to fit an exchange that closes.
    """
    if columns.shape == "bhavcopy":
        return NSE, []
    if columns.shape == "bitfinex candles":
        return "bitfinex", []
    times = table[columns.roles["time"]]
    if times.dtype == pl.String and times.head(50).str.contains(INDIAN_OFFSET).any():
        return NSE, []
    symbol = hint.symbol
    if "symbol" in columns.roles:
        symbol = str(table[columns.roles["symbol"]].drop_nulls().first())
    if symbol is None or "/" in platform_symbol(symbol):
        return BINANCE, []
    if "clock" in columns.roles:
        times = times.cast(pl.String) + " " + table[columns.roles["clock"]]
    if not _round_the_clock(parse_times(times, "UTC")):
        return NSE, []
    return BINANCE, ["bars run round the clock or through weekends: taken for a market that never closes (binance)"]


def _round_the_clock(times: pl.Series) -> bool:
    """Whether rows stand at nearly every hour of the day, or on Saturdays and Sundays alike: no exchange of shares does."""
    known = times.drop_nulls()
    if known.is_empty():
        return False
    hours = known.dt.hour().value_counts(normalize=True)["proportion"].to_list()
    days = known.dt.weekday().to_list()
    saturdays, sundays = days.count(6) / len(days), days.count(7) / len(days)
    return sum(share > BUSY_HOUR for share in hours) > MOST_HOURS or min(saturdays, sundays) > BUSY_DAY


def _rows(
    table: pl.DataFrame, columns: Columns, venue: str, hint: NameHint, options: ReadOptions
) -> tuple[pl.DataFrame, list[str]]:
    roles, notes = columns.roles, []
    time_zone = options.time_zone or calendar(venue).time_zone
    times = table[roles["time"]]
    if "clock" in roles:
        times = times.cast(pl.String) + " " + table[roles["clock"]]
    elif options.time_zone and has_offset(times):
        notes.append(f"times carry their own offset; --time-zone {options.time_zone} was not needed")
    numbers = ("price", "amount") if columns.are_ticks else NUMBERS
    rows = pl.DataFrame({"row_number": pl.int_range(1, len(table) + 1, eager=True)}).with_columns(
        _symbols(table, columns, venue, options.symbol or hint.symbol, override=options.symbol is not None),
        parse_times(times, time_zone).alias("open_time"),
        *(
            table[roles[name]].cast(pl.Float64, strict=False).alias(name) if name in roles else pl.lit(0.0).alias(name)
            for name in numbers
        ),
    )
    if columns.are_ticks and hint.month_day:
        month, day = hint.month_day
        local = pl.col("open_time").dt.convert_time_zone(time_zone)
        rows = rows.with_columns(other_day=(local.dt.month() != month) | (local.dt.day() != day))
    if _is_newest_first(rows):
        rows = rows.reverse()
        notes.append("rows ran from the newest to the oldest and were turned round")
    return rows, notes


def _symbols(table: pl.DataFrame, columns: Columns, venue: str, name: str | None, *, override: bool) -> pl.Series:
    if override or "symbol" not in columns.roles:
        if name is None:
            raise UnreadableFileError("neither the file's name nor a column says which symbol this is; use --symbol")
        return pl.Series("symbol", [platform_symbol(name, venue)]).new_from_index(0, len(table))
    names = table[columns.roles["symbol"]]
    if "series" in columns.roles:  # NSE's other series of a share are instruments of their own: X-BE, X-BL
        series = table[columns.roles["series"]]
        frame = pl.DataFrame({"name": names, "series": series})
        names = frame.select(
            pl.when(pl.col("series") == "EQ").then("name").otherwise(pl.concat_str("name", "series", separator="-"))
        ).to_series()
    known = {name: platform_symbol(name, venue) for name in names.unique().drop_nulls().to_list()}
    return names.replace(known).alias("symbol")


def _is_newest_first(rows: pl.DataFrame) -> bool:
    steps = rows["open_time"].diff().drop_nulls()
    return len(steps) > 1 and bool((steps < timedelta(0)).mean() > 0.9)  # type: ignore[operator]


def _interval(rows: pl.DataFrame, hint: NameHint) -> int:
    """The most frequent step between a symbol's bars; where each symbol has one row, what the name says, or a day."""
    steps = rows.select(pl.col("open_time").diff().over("symbol").dt.total_seconds()).to_series()
    steps = steps.filter(steps > 0)
    if steps.is_empty():
        return hint.interval_seconds or DAY_SECONDS
    return int(steps.mode().min())  # type: ignore[arg-type]


def _open_times(
    rows: pl.DataFrame, venue: str, interval: int, labels: Literal["start", "end"] | None
) -> tuple[pl.DataFrame, list[str]]:
    """From a bar's label to its open time; daily bars of a venue with sessions open with their session."""
    if interval >= DAY_SECONDS:
        located = calendar(venue).locate(rows["open_time"], interval)
        return rows.with_columns(pl.coalesce(located["opens_at"], pl.col("open_time")).alias("open_time")), []
    notes = []
    if labels is None and _labels_by_end(rows, venue, interval):
        labels = "end"
        notes.append(
            "bars are labelled by their END: nearly every session has a label at its close and none at its open"
        )
    if labels == "end":
        rows = rows.with_columns(pl.col("open_time") - pl.duration(seconds=interval))
    return rows, notes


def _labels_by_end(rows: pl.DataFrame, venue: str, interval: int) -> bool:
    """Provable where sessions end: labels stand at the closes and not at the opens of nearly all of them."""
    if calendar(venue).never_closes or rows["open_time"].null_count() == len(rows):
        return False
    labels = set(rows["open_time"].drop_nulls().to_list())
    days = {label.date() for label in labels}
    sessions = [s for s in calendar(venue).sessions(min(days), max(days)) if s.session_date in days]
    if not sessions:
        return False
    at_close = sum(session.closes_at in labels for session in sessions) / len(sessions)
    at_open = sum(session.opens_at in labels for session in sessions) / len(sessions)
    return at_close >= PROVABLE and at_open <= 1 - PROVABLE


# --- a folder ---------------------------------------------------------------------------------------------------------


def _of_one_kind(batches: list[Batch]) -> tuple[list[Batch], dict[str, str]]:
    """A dataset has one venue, interval and shape: the most frequent; the other files are left out, and said so."""
    kinds = Counter(_kind(batch) for batch in batches).most_common()
    if len(kinds) > 1 and kinds[0][1] == kinds[1][1]:
        found = "; ".join(f"{batch.file}: {_described(batch)}" for batch in batches[:6])
        raise UnreadableFileError(f"the files are of different kinds, pass one kind at a time. Found {found}")
    kept = [batch for batch in batches if _kind(batch) == kinds[0][0]]
    left_out = {
        batch.file: f"holds {_described(batch)}, the other files {_described(kept[0])}; read it by itself"
        for batch in batches
        if _kind(batch) != kinds[0][0]
    }
    return kept, left_out


def _kind(batch: Batch) -> tuple[str, int, bool, bool]:
    return batch.venue, batch.interval_seconds, batch.are_ticks, batch.shape == "bhavcopy"


def _described(batch: Batch) -> str:
    return f"{batch.shape} of {batch.venue}, {interval_name(batch.interval_seconds)}"


def file_bytes(path: Path) -> Iterator[tuple[str, bytes]]:
    """(name, content) of each file, for the dataset's content id."""
    for file in data_files(path):
        yield file.name, file.read_bytes()
