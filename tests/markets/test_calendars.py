"""Sessions against outside facts: the exchange's holiday list, days on which shares really traded, hours of the day."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading_platform.markets.calendars import UnknownVenueError, calendar

# NSE's list of trading holidays of 2026 that fall on weekdays, and its Sunday session for the budget.
HOLIDAYS_2026 = [
    "01-15",
    "01-26",
    "03-03",
    "03-26",
    "03-31",
    "04-03",
    "04-14",
    "05-01",
    "05-28",
    "06-26",
    "09-14",
    "10-02",
    "10-20",
    "11-10",
    "11-24",
    "12-25",
]


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_nse_trades_on_the_weekdays_that_its_holiday_list_leaves():
    sessions = calendar("nse").sessions(date(2026, 1, 1), date(2026, 12, 31))
    traded = {session.session_date for session in sessions}
    weekdays = [date(2026, 1, 1) + timedelta(days=n) for n in range(365)]
    closed = [f"{day:%m-%d}" for day in weekdays if day.weekday() < 5 and day not in traded]
    assert closed == HOLIDAYS_2026
    assert date(2026, 2, 1) in traded


def test_nse_sessions_are_the_days_on_which_shares_traded(market_data: Path):
    """48 shares, 2020-07 to 2023-12, evening Muhurat sessions on weekends and holidays among them."""
    files = sorted((market_data / "nse_daily").glob("*_day_*"))
    days = {date.fromisoformat(day[:10]) for file in files for day in pl.read_csv(file)["datetime"].to_list()}
    sessions = calendar("nse").sessions(min(days), max(days))
    assert {session.session_date for session in sessions} == days
    evenings = {s.session_date for s in sessions if s.tag == "muhurat"}
    assert evenings == {date(2020, 11, 14), date(2021, 11, 4), date(2022, 10, 24), date(2023, 11, 12)}


def test_a_regular_day_has_375_minutes_from_0915_ist():
    expected = calendar("nse").expected(utc("2021-02-23"), utc("2021-02-23T23:59"), 60)
    assert len(expected) == 375
    assert (expected[0], expected[-1]) == (utc("2021-02-23T03:45"), utc("2021-02-23T09:59"))


def test_the_day_of_the_outage_traded_again_in_the_evening():
    tags = [(s.tag, s.opens_at, s.closes_at) for s in calendar("nse").sessions(date(2021, 2, 24), date(2021, 2, 24))]
    assert tags == [
        ("regular", utc("2021-02-24T03:45"), utc("2021-02-24T10:00")),
        ("extended", utc("2021-02-24T10:15"), utc("2021-02-24T11:30")),
    ]


def test_the_last_hour_of_a_session_starts_at_1515():
    hours = calendar("nse").expected(utc("2021-02-23"), utc("2021-02-23T23:00"), 3600)
    assert [f"{(hour + timedelta(minutes=330)):%H:%M}" for hour in hours] == [
        "09:15", "10:15", "11:15", "12:15", "13:15", "14:15", "15:15",
    ]  # fmt: skip


def test_locate_tells_inside_from_outside():
    times = pl.Series([utc("2021-02-23T03:44"), utc("2021-02-23T03:45"), utc("2021-02-23T10:00"), None])
    located = calendar("nse").locate(times, 60)
    assert located["session_date"].to_list() == [None, date(2021, 2, 23), None, None]


def test_a_daily_label_at_midnight_ist_belongs_to_its_session():
    located = calendar("nse").locate(pl.Series([utc("2021-02-22T18:30")]), 86_400)
    assert located.row(0) == (date(2021, 2, 23), utc("2021-02-23T03:45"), utc("2021-02-23T10:00"), "regular")


@given(
    st.integers(0, 11 * 365 * 1440).map(lambda minutes: utc("2015-01-01") + timedelta(minutes=minutes)),
    st.sampled_from([60, 300, 900, 3600, 14_400]),
)
@settings(max_examples=50, deadline=None)
def test_a_venue_that_never_closes_expects_every_bar(first: datetime, interval: int):
    last = first + timedelta(days=2)
    expected = calendar("binance").expected(first, last, interval)
    assert first <= expected[0] < first + timedelta(seconds=interval)
    assert last - timedelta(seconds=interval) < expected[-1] <= last
    assert set(expected.diff().drop_nulls().dt.total_seconds()) == {interval}
    assert all(int(moment.timestamp()) % interval == 0 for moment in expected[:3])


@given(
    st.integers(0, 6 * 365 * 1440).map(lambda minutes: utc("2019-01-01") + timedelta(minutes=minutes)),
    st.sampled_from([60, 300, 3600]),
)
@settings(max_examples=25, deadline=None)
def test_every_expected_bar_lies_inside_a_session(first: datetime, interval: int):
    expected = calendar("nse").expected(first, first + timedelta(days=9), interval)
    assert calendar("nse").locate(expected, interval)["session_date"].null_count() == 0
    assert expected.is_sorted()
    assert expected.n_unique() == len(expected)


def test_session_at_knows_an_open_market_from_a_closed_one():
    market = calendar("nse")
    at_ten = market.session_at(utc("2021-02-23T04:30"))
    assert at_ten is not None
    assert at_ten.session_date == date(2021, 2, 23)
    assert market.session_at(utc("2021-02-23T11:00")) is None


def test_an_unknown_venue_is_named():
    with pytest.raises(UnknownVenueError, match=r"'nyse'.*binance"):
        calendar("nyse")
