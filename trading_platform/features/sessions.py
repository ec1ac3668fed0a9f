"""The part of the trading day that a bar belongs to.

Around the clock: asia (0-8 UTC), europe (8-14), us (14-24) on weekdays, else weekend. On an exchange with sessions:
open and close are the first and the last hour, mid is between, off is outside of any. Bars of a day or longer: day.
"""

from datetime import datetime, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from trading_platform.identifiers import Venue
from trading_platform.markets.calendars import DAY_SECONDS, Session, calendar

Codes = NDArray[np.int8]

SESSIONS = ("asia", "europe", "us", "weekend", "open", "mid", "close", "off", "day")
ASIA, EUROPE, US, WEEKEND, OPEN, MID, CLOSE, OFF, DAY = range(9)
"""Codes of sessions: positions in `SESSIONS`."""
HOUR = 3_600_000_000
"""Microseconds."""
THURSDAY, SATURDAY = 3, 5
"""Days of the week from Monday on; the epoch was a Thursday."""
EUROPE_FROM, US_FROM = 8, 14
EDGE = timedelta(hours=1)


class SessionNames:
    """Names sessions of one venue's bars, one by one or by the column."""

    def __init__(self, venue: Venue, interval_seconds: int) -> None:
        self._calendar = calendar(venue)
        self._interval = interval_seconds
        self._session: Session | None = None

    def one(self, open_time: datetime) -> str:
        """The session of a bar. `open_time` is aware UTC."""
        if self._interval >= DAY_SECONDS:
            return "day"
        if self._calendar.never_closes:
            if open_time.weekday() >= 5:
                return "weekend"
            return "asia" if open_time.hour < EUROPE_FROM else ("europe" if open_time.hour < US_FROM else "us")
        known = self._session
        if known is None or not known.opens_at <= open_time < known.closes_at:
            self._session = known = self._calendar.session_at(open_time)
        if known is None:
            return "off"
        if open_time - known.opens_at < EDGE:
            return "open"
        return "close" if known.closes_at - open_time <= EDGE else "mid"

    def many(self, open_times: pl.Series) -> Codes:
        """`one` of each opening time, as positions in `SESSIONS`."""
        if self._interval >= DAY_SECONDS:
            return np.full(len(open_times), DAY, dtype=np.int8)
        if self._calendar.never_closes:
            return _around_the_clock(open_times)
        located = self._calendar.locate(open_times, self._interval)
        since, left = open_times - located["opens_at"], located["closes_at"] - open_times
        conditions = [(since.is_null()), (since < EDGE), (left <= EDGE)]
        known = [condition.fill_null(False).to_numpy() for condition in conditions]
        return np.select(known, [OFF, OPEN, CLOSE], MID).astype(np.int8)


def _around_the_clock(open_times: pl.Series) -> Codes:
    hours = open_times.dt.timestamp("us").to_numpy() // HOUR
    hour = hours % 24
    day = (hours // 24 + THURSDAY) % 7
    part = (hour >= EUROPE_FROM).view(np.int8) + (hour >= US_FROM).view(np.int8)
    return np.where(day >= SATURDAY, np.int8(WEEKEND), part + np.int8(ASIA))
