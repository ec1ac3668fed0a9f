"""Days around which the rules changed, days that are odd, and what must hold on every day."""

from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading_platform.markets.sessions import (
    Phase,
    amo_release,
    amo_window,
    is_trading_day,
    next_open,
    phase_at,
    session_of,
    square_off_at,
)

IST = ZoneInfo("Asia/Kolkata")
SEGMENTS = ("NSE", "BSE", "NFO", "BFO", "CDS", "BCD", "MCX", "CRYPTO")


def ist(day: str, clock: str) -> datetime:
    return datetime.combine(date.fromisoformat(day), time.fromisoformat(clock), IST).astimezone(UTC)


@pytest.mark.parametrize(
    ("segment", "auction", "day", "clock", "phase"),
    [
        ("NSE", False, "2026-07-31", "09:07:59", Phase.PRE_OPEN_ENTRY),
        ("NSE", False, "2026-07-31", "09:08:00", Phase.PRE_OPEN_MATCH),
        ("NSE", True, "2026-07-31", "15:29:59", Phase.CONTINUOUS),  # the last day before the closing auction
        ("NSE", True, "2026-07-31", "15:30:00", Phase.CLOSED),
        ("NSE", True, "2026-07-31", "15:40:00", Phase.POST_CLOSE),
        ("NSE", True, "2026-08-03", "15:14:59", Phase.CONTINUOUS),
        ("NSE", True, "2026-08-03", "15:15:00", Phase.CAS_REFERENCE),
        ("NSE", True, "2026-08-03", "15:20:00", Phase.CAS_ENTRY),
        ("NSE", True, "2026-08-03", "15:25:00", Phase.CAS_LIMIT_ONLY),
        ("NSE", True, "2026-08-03", "15:30:00", Phase.CAS_MATCH),
        ("NSE", True, "2026-08-03", "15:35:00", Phase.CLOSED),
        ("NSE", True, "2026-08-03", "15:49:59", Phase.CLOSED),
        ("NSE", True, "2026-08-03", "15:50:00", Phase.POST_CLOSE),
        ("NSE", False, "2026-08-03", "15:20:00", Phase.CONTINUOUS),  # a share without derivatives
        ("NFO", False, "2026-07-31", "15:30:00", Phase.CLOSED),
        ("NFO", False, "2026-08-03", "15:39:59", Phase.CONTINUOUS),
        ("NFO", False, "2026-08-03", "15:40:00", Phase.CLOSED),
        ("NFO", False, "2025-12-05", "09:05:00", Phase.CLOSED),
        ("NFO", False, "2025-12-08", "09:05:00", Phase.PRE_OPEN_ENTRY),
        ("NSE", False, "2026-09-04", "09:06:00", Phase.PRE_OPEN_ENTRY),
        ("NSE", False, "2026-09-07", "09:04:59", Phase.PRE_OPEN_ENTRY),
        ("NSE", False, "2026-09-07", "09:05:00", Phase.PRE_OPEN_LIMIT_ONLY),
        ("NSE", False, "2026-09-07", "09:10:00", Phase.PRE_OPEN_MATCH),
        ("NSE", False, "2026-01-15", "11:00:00", Phase.CLOSED),  # a holiday that was declared six days before
        ("NSE", False, "2026-02-01", "11:00:00", Phase.CONTINUOUS),  # the Budget, on a Sunday
        ("NSE", False, "2026-11-08", "11:00:00", Phase.CLOSED),  # Muhurat, on a Sunday evening
        ("NSE", False, "2026-11-08", "18:30:00", Phase.CONTINUOUS),
        ("CDS", False, "2026-11-23", "16:59:59", Phase.CONTINUOUS),
        ("MCX", False, "2026-07-01", "23:30:00", Phase.CLOSED),  # New York on daylight time
        ("MCX", False, "2026-11-23", "23:30:00", Phase.CONTINUOUS),
        ("CRYPTO", False, "2026-11-22", "03:00:00", Phase.CONTINUOUS),
    ],
)  # fmt: skip
def test_phases_at_their_edges(segment: str, auction: bool, day: str, clock: str, phase: Phase) -> None:
    assert phase_at(segment, ist(day, clock), closing_auction=auction).phase is phase  # type: ignore[arg-type]


def test_what_the_closing_auction_takes() -> None:
    entry = phase_at("NSE", ist("2026-08-03", "15:21"), closing_auction=True)
    assert entry.order_types == {"LIMIT", "MARKET"}
    assert "IOC" not in entry.validities
    assert phase_at("NSE", ist("2026-08-03", "15:26"), closing_auction=True).order_types == {"LIMIT"}
    assert not phase_at("NSE", ist("2026-08-03", "15:16"), closing_auction=True).order_types


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(SEGMENTS), st.dates(date(2015, 1, 1), date(2026, 12, 31)), st.booleans(),
)  # fmt: skip
def test_phases_of_a_day_never_overlap(segment: str, day: date, auction: bool) -> None:
    spans = session_of(segment, day, closing_auction=auction)  # type: ignore[arg-type]
    assert all(span.starts < span.ends for span in spans)
    assert all(one.ends <= two.starts for one, two in pairwise(spans))
    assert all(span.session_date == day for span in spans)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(SEGMENTS), st.integers(0, 6 * 365 * 86_400))
def test_every_moment_is_in_one_phase(segment: str, seconds: int) -> None:
    when = datetime(2020, 11, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    span = phase_at(segment, when)  # type: ignore[arg-type]
    assert span.starts <= when < span.ends


def test_tuesdays_that_are_holidays_of_2026(vectors: dict[str, dict[str, str]]) -> None:
    """NSE's expiries move to the trading day before."""
    for tuesday, expiry in vectors["nse_tuesday_expiry_shifts_2026"].items():
        day = date.fromisoformat(tuesday)
        assert not is_trading_day("NFO", day)
        while not is_trading_day("NFO", day):
            day -= timedelta(days=1)
        assert day == date.fromisoformat(expiry)


def test_after_market_orders_overnight_and_over_a_weekend() -> None:
    assert not amo_window("NSE", ist("2026-11-20", "15:59:59"))
    assert amo_window("NSE", ist("2026-11-20", "16:00"))
    assert amo_window("NSE", ist("2026-11-21", "12:00")), "a Saturday"
    assert amo_window("NSE", ist("2026-11-23", "08:57:59"))
    assert not amo_window("NSE", ist("2026-11-23", "08:58"))
    assert amo_window("NFO", ist("2026-11-20", "15:45"))
    friday = ist("2026-11-20", "17:00")
    assert amo_release("NSE", "LIMIT", friday) == ist("2026-11-23", "09:00")
    assert amo_release("NSE", "SL", friday) == ist("2026-11-23", "09:15")
    assert amo_release("NSE", "LIMIT", friday, validity="IOC") == ist("2026-11-23", "09:15")
    assert amo_release("NSE", "LIMIT", ist("2026-11-23", "17:00")) == ist("2026-11-25", "09:00"), (
        "the 24th is a holiday"
    )


def test_the_next_opening_skips_days_off() -> None:
    assert next_open("NSE", ist("2026-11-20", "18:00")) == ist("2026-11-23", "09:00")
    assert next_open("NFO", ist("2026-11-23", "12:00")) == ist("2026-11-25", "09:00")


def test_we_leave_before_the_broker_does() -> None:
    assert square_off_at("NSE", date(2026, 11, 23), closing_auction=True) == ist("2026-11-23", "15:05")
    assert square_off_at("NSE", date(2026, 11, 23)) == ist("2026-11-23", "15:15")
    assert square_off_at("NFO", date(2026, 11, 23)) == ist("2026-11-23", "15:25")
    assert square_off_at("NSE", date(2026, 11, 8)) == ist("2026-11-08", "19:05"), "ten minutes before a Muhurat ends"


def test_old_days_go_by_the_oldest_rules_and_say_so() -> None:
    assert not phase_at("NSE", ist("2021-04-16", "11:00")).rules_backdated
    assert phase_at("NSE", ist("2009-04-16", "11:00")).rules_backdated
