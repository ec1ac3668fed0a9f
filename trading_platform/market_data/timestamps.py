"""Times as files write them, to aware UTC: epochs of any unit, ISO with or without offset, Indian and American dates."""

import re

import polars as pl

TIME = pl.Datetime("us", "UTC")
EPOCH_UNITS = ((1e11, 1_000_000), (1e14, 1_000), (1e17, 1))
"""Below the bound, an epoch counts in units of so many microseconds: seconds, milliseconds, microseconds."""
CLOCK = r"^\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?$"
OFFSET = r"(Z|[+-]\d{2}:?\d{2})$"
DATE_FORMATS = ("%Y-%m-%d", "%Y%m%d", "%Y/%m/%d", "%d-%m-%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%b-%Y", "%d %b %Y")
CLOCK_FORMATS = (" %H:%M:%S%.f", " %H:%M", "")
SAMPLE = 500


def parse_times(values: pl.Series, time_zone: str) -> pl.Series:
    """Aware UTC microseconds; null where a value is no time. Naive times are taken to be in `time_zone`."""
    if isinstance(values.dtype, pl.Datetime):
        if values.dtype.time_zone is None:
            return _localized(values.cast(pl.Datetime("us")), time_zone)
        return values.cast(pl.Datetime("us", values.dtype.time_zone)).dt.convert_time_zone("UTC")
    if values.dtype == pl.Date:
        return _localized(values.cast(pl.Datetime("us")), time_zone)
    text = values.cast(pl.String) if values.dtype != pl.String else values
    numbers = values.cast(pl.Float64, strict=False)
    if numbers.null_count() <= len(numbers) // 2 and not _are_calendar_dates(numbers):
        return _from_epoch(numbers)
    if _are_calendar_dates(numbers):
        text = numbers.cast(pl.Int64, strict=False).cast(pl.String)
    return _from_text(text, time_zone)


def has_offset(values: pl.Series) -> bool:
    """Whether text times carry their own offset from UTC."""
    return values.dtype == pl.String and bool(values.head(SAMPLE).str.contains(r":\d{2}.*" + OFFSET).any())


def are_times(values: pl.Series) -> bool:
    """Whether nearly all values read as times of the years 1990 to 2100."""
    sample = values.drop_nulls().head(SAMPLE)
    if sample.is_empty():
        return False
    times = parse_times(sample, "UTC")
    return bool((times.dt.year().is_between(1990, 2100).fill_null(value=False)).mean() >= 0.9)  # type: ignore[operator]


def are_clock_times(values: pl.Series) -> bool:
    """Whether values are times of day, `09:15` or `09:15:00`."""
    sample = values.drop_nulls().head(SAMPLE)
    return values.dtype == pl.String and len(sample) > 0 and bool(sample.str.contains(CLOCK).all())


def _from_epoch(numbers: pl.Series) -> pl.Series:
    typical = numbers.abs().median()
    assert isinstance(typical, float)
    for bound, factor in EPOCH_UNITS:
        if typical < bound:
            return (numbers * factor).round().cast(pl.Int64, strict=False).cast(TIME)
    return (numbers / 1_000).round().cast(pl.Int64, strict=False).cast(TIME)


def _are_calendar_dates(numbers: pl.Series) -> bool:
    """20210101 is a date: as seconds it would be August 1970."""
    known = numbers.drop_nulls().head(SAMPLE)
    return len(known) > 0 and bool(known.is_between(19_000_101, 21_001_231).all())


def _from_text(text: pl.Series, time_zone: str) -> pl.Series:
    text = text.str.strip_chars().str.replace("T", " ", literal=True)
    if has_offset(text):
        plain = text.str.replace(r"Z$", "+0000").str.replace(r"([+-]\d{2}):(\d{2})$", "${1}${2}")
        return plain.str.to_datetime("%Y-%m-%d %H:%M:%S%.f%z", time_unit="us", strict=False).dt.convert_time_zone("UTC")
    sample = text.drop_nulls().head(SAMPLE)
    formats = [day + clock for day in DATE_FORMATS for clock in CLOCK_FORMATS]
    best = max(formats, key=lambda pattern: _read(sample, pattern).count())
    return _localized(_read(text, best), time_zone)


def _read(text: pl.Series, pattern: str) -> pl.Series:
    if re.search("%H", pattern):
        return text.str.to_datetime(pattern, time_unit="us", strict=False)
    return text.str.to_date(pattern, strict=False).cast(pl.Datetime("us"))


def _localized(naive: pl.Series, time_zone: str) -> pl.Series:
    return naive.dt.replace_time_zone(time_zone, ambiguous="earliest", non_existent="null").dt.convert_time_zone("UTC")
