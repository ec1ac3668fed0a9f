"""When a venue trades: sessions, and the bars that a calendar expects.

A *session* is one uninterrupted stretch of trading, `[opens_at, closes_at)`, on a session date. A venue that never
closes has one session a UTC day. Bars start at the session's open and step by their interval; the last one of a session
may be shorter, and a daily bar is one a session date, opened with its first session.

Holidays are known up to a day (`Calendar.known_until`); weekdays after it are taken for trading days until the exchange
says otherwise, and exceptional days of either kind come from `exceptional_days.py`.
"""

import tomllib
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl

from trading_platform.identifiers import Venue
from trading_platform.markets.exceptional_days import ExceptionalDays, Segment, read, sessions_and_closures
from trading_platform.settings import settings

DATA = Path(__file__).parent / "data"
DAY_SECONDS = 86_400
INDIA = ZoneInfo("Asia/Kolkata")
GUESSED_DAYS = 800
"""How many days after the last known one are taken to follow the weekly pattern: futures are listed for a year and more."""
TIME = pl.Datetime("us", "UTC")
LOCATED = {"session_date": pl.Date(), "opens_at": TIME, "closes_at": TIME, "tag": pl.String()}
_override: ExceptionalDays | None = None
"""Exceptional days in the place of the settings' file; set by `use_override` alone."""


class UnknownVenueError(LookupError):
    """No calendar is kept for a venue."""


@dataclass(frozen=True, slots=True)
class Session:
    """One stretch of trading. Times are aware UTC; `tag` is continuous, regular, muhurat, extended, half_day or special."""

    session_date: date
    opens_at: datetime
    closes_at: datetime
    tag: str


@dataclass(frozen=True)
class Calendar:
    """The sessions of one venue. Get one by `calendar(venue)`."""

    venue: Venue
    name: str
    time_zone: str
    sparse: bool
    """The venue publishes no bar for an interval without a trade: an absent bar need not be a lost one."""
    sources: tuple[tuple[str, str], ...] = ()
    """(name in ccxt, host) of exchanges to ask for absent bars, in order; the venue itself comes first."""

    @property
    def never_closes(self) -> bool:
        return self.name == "24x7"

    @property
    def known_until(self) -> date | None:
        """The last day whose holidays are known; None for a venue that never closes."""
        return None if self.never_closes else _schedule(self.name)[-1].session_date

    def sessions(self, first: date, last: date, segment: Segment = "NSE") -> list[Session]:
        """Sessions of the session dates `first` to `last`, both included, in order; shares' where no segment is said."""
        if self.never_closes:
            return [_utc_day(first + timedelta(days=n)) for n in range((last - first).days + 1)]
        known = sessions_of(self.name, segment)
        start = bisect_left(known, first, key=lambda session: session.session_date)
        return known[start : bisect_right(known, last, key=lambda session: session.session_date)]

    def session_at(self, moment: datetime) -> Session | None:
        """The session that is open at `moment`, or None."""
        local = moment.astimezone(ZoneInfo(self.time_zone)).date()
        for session in self.sessions(local, local):
            if session.opens_at <= moment < session.closes_at:
                return session
        return None

    def expected(self, first: datetime, last: datetime, interval_seconds: int) -> pl.Series:
        """Open times of the bars expected from `first` to `last`, both included (aware UTC), as a sorted series."""
        step = timedelta(seconds=interval_seconds)
        if self.never_closes:
            start = _floor(first, interval_seconds)
            times = pl.datetime_range(start, last, step, eager=True, time_unit="us", time_zone="UTC")
            return times.filter(times >= first).alias("open_time")
        sessions = self.sessions(first.date() - timedelta(days=1), last.date() + timedelta(days=1))
        if interval_seconds >= DAY_SECONDS:
            opens = {session.session_date: session.opens_at for session in reversed(sessions)}
            found = [moment for moment in opens.values() if first <= moment <= last]
            return pl.Series("open_time", sorted(found), TIME)
        ranges = [
            pl.datetime_range(s.opens_at, s.closes_at, step, closed="left", eager=True, time_unit="us")
            for s in sessions
        ]
        if not ranges:
            return pl.Series("open_time", [], TIME)
        times = pl.concat(ranges).cast(TIME)
        return times.filter((times >= first) & (times <= last)).alias("open_time")

    def locate(self, open_times: pl.Series, interval_seconds: int) -> pl.DataFrame:
        """For each bar's open time: session_date, opens_at, closes_at and tag of its session; null outside of any.

        For daily and longer bars any time of the session date in the venue's time zone counts as inside, and the
        session is the whole of that date.
        """
        times = pl.DataFrame({"open_time": open_times.cast(TIME)}).with_row_index("row")
        if self.never_closes:
            day = pl.col("open_time").dt.truncate("1d")
            return times.select(
                session_date=pl.col("open_time").dt.date(),
                opens_at=day,
                closes_at=day + pl.duration(days=1),
                tag=pl.lit("continuous"),
            )
        known = times.drop_nulls()
        if known.is_empty():
            return pl.DataFrame(schema=LOCATED).clear(n=len(times))
        first, last = known["open_time"].min(), known["open_time"].max()
        assert isinstance(first, datetime)
        assert isinstance(last, datetime)
        sessions = self.sessions(first.date() - timedelta(days=1), last.date() + timedelta(days=1))
        table = pl.DataFrame(
            [(s.session_date, s.opens_at, s.closes_at, s.tag) for s in sessions], schema=LOCATED, orient="row"
        )
        return self._by_date(times, table) if interval_seconds >= DAY_SECONDS else _by_time(times, table)

    def _by_date(self, times: pl.DataFrame, table: pl.DataFrame) -> pl.DataFrame:
        days = table.group_by("session_date").agg(
            pl.col("opens_at").min(), pl.col("closes_at").max(), pl.col("tag").first()
        )
        local = times.with_columns(session_date=pl.col("open_time").dt.convert_time_zone(self.time_zone).dt.date())
        joined = local.join(days, on="session_date", how="left").sort("row")
        inside = pl.col("opens_at").is_not_null()
        return joined.select(pl.when(inside).then(pl.col("session_date")), "opens_at", "closes_at", "tag")


@cache
def calendar(venue: str) -> Calendar:
    """The calendar of a venue. Raises `UnknownVenueError`."""
    venues = tomllib.loads((DATA / "venues.toml").read_text())
    if venue not in venues:
        raise UnknownVenueError(f"no calendar for venue {venue!r}; known: {', '.join(sorted(venues))}")
    row = venues[venue]
    return Calendar(Venue(venue), row["calendar"], row["time_zone"], row["sparse"], tuple(row["sources"].items()))


def _by_time(times: pl.DataFrame, table: pl.DataFrame) -> pl.DataFrame:
    joined = (
        times.sort("open_time", nulls_last=True)
        .join_asof(table.sort("opens_at"), left_on="open_time", right_on="opens_at", coalesce=False)
        .sort("row")
    )
    inside = pl.col("open_time") < pl.col("closes_at")
    return joined.select(pl.when(inside).then(pl.col(name)).alias(name) for name in LOCATED)


def _utc_day(day: date) -> Session:
    opens_at = datetime.combine(day, time(), UTC)
    return Session(day, opens_at, opens_at + timedelta(days=1), "continuous")


def _floor(moment: datetime, interval_seconds: int) -> datetime:
    seconds = int(moment.timestamp()) // interval_seconds * interval_seconds
    return datetime.fromtimestamp(seconds, UTC)


def use_override(days: ExceptionalDays | None) -> None:
    """Let an operator's exceptional days win over the package's, in this process. Call `sessions.use_exceptional_days`."""
    global _override
    _override = days
    sessions_of.cache_clear()


@cache
def sessions_of(name: str, segment: Segment) -> list[Session]:
    """All sessions of an exchange's segment in order: its calendar's, and the exceptional days'."""
    added, closed = sessions_and_closures(segment, _override or _operators_days())
    regular = [each for each in _schedule(name) + _guessed(name) if each.session_date not in closed]
    special = [
        Session(row.date, _utc(row.date, row.opens), _utc(row.date, row.closes), row.tag) for row in added
    ]  # fmt: skip
    return sorted(regular + special, key=lambda session: session.opens_at)


@cache
def _operators_days() -> ExceptionalDays | None:
    """The file that the settings name: every process of a deployment goes by the same days."""
    path = settings().exceptional_days
    return None if path is None else read(path)


@cache
def _schedule(name: str) -> list[Session]:
    """Regular sessions of the calendar package, as far as it knows."""
    import exchange_calendars

    schedule = exchange_calendars.get_calendar(name).schedule
    return [
        Session(day.date(), opens.to_pydatetime(), closes.to_pydatetime(), "regular")
        for day, opens, closes in zip(schedule.index, schedule["open"], schedule["close"], strict=True)
    ]


def _guessed(name: str) -> list[Session]:
    """Weekdays after the last known session, at its hours."""
    last = _schedule(name)[-1]
    opens, closes = (moment.astimezone(INDIA).time() for moment in (last.opens_at, last.closes_at))
    days = (last.session_date + timedelta(days=n) for n in range(1, GUESSED_DAYS + 1))
    return [Session(day, _utc(day, opens), _utc(day, closes), "regular") for day in days if day.weekday() < 5]


def _utc(day: date, at: time) -> datetime:
    return datetime.combine(day, at, INDIA).astimezone(UTC)
