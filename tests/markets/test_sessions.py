"""Days around which the rules changed, days that are odd, and what must hold on every day."""

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading_platform.markets.calendars import calendar
from trading_platform.markets.effective import RuleTableError
from trading_platform.markets.sessions import (
    Phase,
    amo_release,
    amo_window,
    is_trading_day,
    next_open,
    phase_at,
    session_of,
    square_off_at,
    use_exceptional_days,
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


@settings(max_examples=100, deadline=None)
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
    assert square_off_at("MCX", date(2026, 1, 1)) == ist("2026-01-01", "16:50"), "as the broker did on that half day"


def test_old_days_go_by_the_oldest_rules_and_say_so() -> None:
    assert not phase_at("NSE", ist("2021-04-16", "11:00")).rules_backdated
    assert phase_at("NSE", ist("2009-04-16", "11:00")).rules_backdated


@pytest.mark.parametrize(
    ("day", "clock", "phase"),
    [
        ("2026-01-01", "16:59:59", Phase.CONTINUOUS),  # New Year: the morning alone
        ("2026-01-01", "17:00:00", Phase.CLOSED),
        ("2026-01-15", "16:59:59", Phase.CLOSED),  # elections: the evening alone
        ("2026-01-15", "17:00:00", Phase.CONTINUOUS),
        ("2026-01-15", "23:54:59", Phase.CONTINUOUS),
        ("2026-01-26", "18:00:00", Phase.CLOSED),  # a national holiday
        ("2026-02-01", "09:00:00", Phase.CONTINUOUS),  # the Budget, on a Sunday
        ("2026-02-01", "17:00:00", Phase.CLOSED),
        ("2026-03-03", "23:54:59", Phase.CONTINUOUS),  # New York still on winter time
        ("2026-03-26", "23:30:00", Phase.CLOSED),
        ("2026-11-24", "17:00:00", Phase.CONTINUOUS),
        ("2021-02-24", "16:00:00", Phase.CONTINUOUS),  # the outage was NSE's
        ("2021-02-24", "20:00:00", Phase.CONTINUOUS),
    ],
)  # fmt: skip
def test_commodities_have_half_days(day: str, clock: str, phase: Phase) -> None:
    span = phase_at("MCX", ist(day, clock))
    assert span.phase is phase
    assert "IOC" not in span.validities


def test_an_order_for_an_exceptional_session_waits_for_its_opening() -> None:
    assert amo_release("NSE", "LIMIT", ist("2026-11-07", "12:00")) == ist("2026-11-08", "18:15"), "Muhurat"
    assert amo_release("MCX", "LIMIT", ist("2026-01-14", "23:59")) == ist("2026-01-15", "17:00")


def test_after_the_last_known_holiday_weekdays_are_taken_for_trading_days_and_say_so() -> None:
    known = calendar("nse").known_until
    assert known is not None
    assert known >= date(2026, 12, 31)
    weekday = known + timedelta(days=400)
    weekday += timedelta(days=(2 - weekday.weekday()) % 7)
    spans = session_of("NSE", weekday)
    assert spans
    assert all(span.day_guessed for span in spans)
    assert not session_of("NSE", weekday + timedelta(days=3)), "a Saturday"
    assert not session_of("NSE", date(2026, 11, 23))[0].day_guessed
    assert next_open("NSE", ist("2026-12-31", "20:00")) == ist("2027-01-01", "09:00")
    assert not is_trading_day("NFO", date(2027, 1, 26))


@pytest.fixture
def operators_days(tmp_path: Path) -> Iterator[Callable[[str], None]]:
    def use(text: str) -> None:
        (tmp_path / "days.toml").write_text(text)
        use_exceptional_days(tmp_path / "days.toml")

    yield use
    use_exceptional_days(None)


def test_an_operator_s_file_closes_a_day_and_moves_a_session(operators_days: Callable[[str], None]) -> None:
    assert is_trading_day("NSE", date(2026, 12, 1))
    operators_days(
        """
        [[closure]]
        date = 2026-12-01
        source = "an election, announced yesterday"

        [[session]]
        date = 2026-11-08
        opens = "13:45"
        closes = "14:45"
        tag = "muhurat"
        source = "the circular of the day"

        [[closure]]
        date = 2026-12-02
        segments = ["CDS", "BCD"]
        source = "banks are closed"
        """
    )
    assert not is_trading_day("NSE", date(2026, 12, 1))
    assert not calendar("nse").sessions(date(2026, 12, 1), date(2026, 12, 1))
    assert is_trading_day("MCX", date(2026, 12, 1)), "shares alone, where no segments are named"
    assert phase_at("NSE", ist("2026-11-08", "14:00")).phase is Phase.CONTINUOUS
    assert phase_at("NSE", ist("2026-11-08", "18:30")).phase is Phase.CLOSED, "the packaged hours are replaced"
    assert not is_trading_day("CDS", date(2026, 12, 2))
    assert is_trading_day("NFO", date(2026, 12, 2))
    use_exceptional_days(None)
    assert is_trading_day("NSE", date(2026, 12, 1))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('[[closures]]\ndate = 2026-12-01\nsource = "x y"', "closures"),
        ('[[closure]]\ndate = 2026-12-01\nsegments = ["NYSE"]\nsource = "x y"', "segments"),
        ('[[session]]\ndate = 2026-12-01\nopens = "19:15"\ncloses = "18:15"\ntag = "muhurat"\nsource = "x y"', "opens at"),
        ("[[closure", "cannot read"),
    ],
)  # fmt: skip
def test_a_file_that_is_wrong_changes_nothing(operators_days: Callable[[str], None], text: str, why: str) -> None:
    with pytest.raises(RuleTableError, match=why):
        operators_days(text)
    assert is_trading_day("NSE", date(2026, 12, 1))
