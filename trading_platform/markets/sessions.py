"""What an exchange does at a moment: phases of the day, after-market windows, square-off times. India, and 24 x 7.

    phase_at("NSE", now, closing_auction=True).phase is Phase.CAS_LIMIT_ONLY
    amo_window("NFO", now)          # may an after-market order be placed now?
    square_off_at("NSE", day)       # when our own flatten begins, ahead of the broker's

Times in the table are IST; arguments and results are aware UTC. Which days are traded comes from `calendars.py`. The hours
of an exceptional session (Muhurat, Budget, half a day of commodities) replace the day's phases: continuous trading alone.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from functools import cache, lru_cache
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo

from trading_platform.markets import calendars, exceptional_days
from trading_platform.markets.calendars import Session, calendar
from trading_platform.markets.effective import DATA, Effective, RuleTable, load

IST = ZoneInfo("Asia/Kolkata")
NEW_YORK = ZoneInfo("America/New_York")
Segment = Literal["NSE", "BSE", "NFO", "BFO", "CDS", "BCD", "MCX", "CRYPTO"]
PLAIN_TYPES = frozenset({"MARKET", "LIMIT"})
ALL_TYPES = frozenset({"LIMIT", "MARKET", "SL", "SL-M"})
ALL_VALIDITIES = frozenset({"DAY", "IOC", "TTL"})
FILE = DATA / "sessions.toml"
LONGEST_CLOSURE_DAYS = 15
SPECIAL_SESSION_MARGIN = timedelta(minutes=10)


class Phase(StrEnum):
    """Parts of a trading day, in the order in which they come."""

    PRE_OPEN_ENTRY = "PRE_OPEN_ENTRY"
    PRE_OPEN_LIMIT_ONLY = "PRE_OPEN_LIMIT_ONLY"
    PRE_OPEN_MATCH = "PRE_OPEN_MATCH"
    BUFFER = "BUFFER"
    CONTINUOUS = "CONTINUOUS"
    CAS_REFERENCE = "CAS_REFERENCE"
    CAS_ENTRY = "CAS_ENTRY"
    CAS_LIMIT_ONLY = "CAS_LIMIT_ONLY"
    CAS_MATCH = "CAS_MATCH"
    POST_CLOSE = "POST_CLOSE"
    CLOSED = "CLOSED"


class PhaseRow(Effective):
    kind: str
    phase: Phase
    starts: time
    ends: time
    order_types: frozenset[str] = frozenset()
    validities: frozenset[str] = frozenset()


class AmoRow(Effective):
    segment: str
    opens: time
    closes: time


class ReleaseRow(Effective):
    segment: str
    plain: time
    other: time


class SquareOffRow(Effective):
    kind: str
    at: time


@dataclass(frozen=True, slots=True)
class PhaseSpan:
    """One phase of one day: `[starts, ends)` in UTC, and what it takes."""

    phase: Phase
    session_date: date
    starts: datetime
    ends: datetime
    order_types: frozenset[str]
    validities: frozenset[str]
    rules_backdated: bool
    day_guessed: bool = False
    """The day lies after the last one whose holidays are known: it follows the weekly pattern until they are."""


def use_exceptional_days(path: Path | None) -> None:
    """Let an operator's file of exceptional days win over the package's, in this process; None undoes it.

    Raises `RuleTableError` for a file that cannot be read, and leaves all as it was.
    """
    calendars.use_override(exceptional_days.read(path) if path else None)
    _session_of.cache_clear()


def session_of(segment: Segment, day: date, *, closing_auction: bool = False) -> list[PhaseSpan]:
    """The phases of a day in order; empty on a day without trading."""
    if segment == "CRYPTO":
        midnight = datetime.combine(day, time(), UTC)
        return [
            PhaseSpan(Phase.CONTINUOUS, day, midnight, midnight + timedelta(days=1), ALL_TYPES, ALL_VALIDITIES, False)
        ]
    return list(_session_of(segment, day, closing_auction))


def phase_at(segment: Segment, when: datetime, *, closing_auction: bool = False) -> PhaseSpan:
    """The phase that `when` (aware) lies in. Between phases, and on days off, that is CLOSED up to the next one."""
    day = when.astimezone(UTC if segment == "CRYPTO" else IST).date()
    spans = session_of(segment, day, closing_auction=closing_auction)
    for span in spans:
        if span.starts <= when < span.ends:
            return span
    after = [span.starts for span in spans if span.starts > when]
    ends = after[0] if after else next_open(segment, when, closing_auction=closing_auction)
    before = max((span.ends for span in spans if span.ends <= when), default=_at(day, time()))
    backdated, guessed = any(span.rules_backdated for span in spans), any(span.day_guessed for span in spans)
    return PhaseSpan(Phase.CLOSED, day, before, ends, frozenset(), frozenset(), backdated, guessed)


def is_trading_day(segment: Segment, day: date) -> bool:
    return segment == "CRYPTO" or bool(_sessions_on(segment, day))


def next_open(segment: Segment, when: datetime, *, closing_auction: bool = False) -> datetime:
    """When the next phase after `when` begins that takes orders. Raises LookupError where the calendar ends before."""
    day = when.astimezone(IST).date()
    for offset in range(LONGEST_CLOSURE_DAYS):
        for span in session_of(segment, day + timedelta(days=offset), closing_auction=closing_auction):
            if span.starts > when and span.order_types:
                return span.starts
    raise LookupError(f"{segment} has no session within {LONGEST_CLOSURE_DAYS} days after {when}: is its calendar old?")


def amo_window(segment: Segment, when: datetime) -> bool:
    """Whether an after-market order can be placed, changed and cancelled now: overnight and through days off."""
    if segment == "CRYPTO":
        return False
    local = when.astimezone(IST)
    row = _amo().at(_amo_key(segment, local.date()), local.date()).row
    if local.time() >= row.opens or not is_trading_day(segment, local.date()):
        return True
    return local.time() < row.closes


def amo_release(segment: Segment, order_type: str, when: datetime, *, validity: str = "DAY", disclosed: bool = False) -> datetime:  # fmt: skip
    """When an after-market order placed at `when` goes to the exchange: on the next trading day, by its type."""
    local = when.astimezone(IST)
    row = _release().at(segment, local.date()).row
    plain = order_type in PLAIN_TYPES and validity != "IOC" and not disclosed
    at = row.plain if plain else row.other
    for offset in range(LONGEST_CLOSURE_DAYS):
        day = local.date() + timedelta(days=offset)
        spans = session_of(segment, day)
        if spans and (released := max(_at(day, at), spans[0].starts)) > when:
            return released
    raise LookupError(f"{segment} has no session within {LONGEST_CLOSURE_DAYS} days after {when}: is its calendar old?")


def square_off_at(segment: Segment, day: date, *, closing_auction: bool = False) -> datetime:
    """When the platform begins to leave intraday positions of `day`. Raises LookupError for a day without trading."""
    spans = session_of(segment, day, closing_auction=closing_auction)
    if not spans:
        raise LookupError(f"{segment} does not trade on {day}")
    usual = _at(day, _square_off().at(_kind(segment, day, closing_auction), day).row.at)
    open_spans = [span for span in spans if span.phase is Phase.CONTINUOUS]
    latest = open_spans[-1].ends - SPECIAL_SESSION_MARGIN
    return min(usual, latest) if usual >= open_spans[0].starts else latest  # a Muhurat begins after the usual time


@lru_cache(maxsize=4096)
def _session_of(segment: Segment, day: date, closing_auction: bool) -> tuple[PhaseSpan, ...]:
    sessions = _sessions_on(segment, day)
    if not sessions:
        return ()
    kind, spans = _kind(segment, day, closing_auction), []
    known_until = calendar("nse").known_until
    guessed = known_until is not None and day > known_until
    if any(session.tag != "regular" for session in sessions):
        usual = _phases().at((kind, Phase.CONTINUOUS), day)
        return tuple(
            PhaseSpan(
                Phase.CONTINUOUS, day, each.opens_at, each.closes_at, usual.row.order_types, usual.row.validities,
                usual.backdated, guessed,
            )
            for each in sessions
        )  # fmt: skip
    for key in _phases().keys():  # noqa: SIM118 - not a mapping
        name, phase = key
        found = _phases().find(key, day) if name == kind else None
        if found is not None and not (found.backdated and phase is not Phase.CONTINUOUS):
            row = found.row
            spans.append(
                PhaseSpan(
                    row.phase, day, _at(day, row.starts), _at(day, row.ends), row.order_types, row.validities,
                    found.backdated, guessed,
                )
            )  # fmt: skip
    return tuple(sorted(spans, key=lambda span: span.starts))


def _sessions_on(segment: Segment, day: date) -> list[Session]:
    """The stretches of a trading day. All segments share one calendar of regular days; exceptional ones are each its own."""
    return [] if segment == "CRYPTO" else calendar("nse").sessions(day, day, segment)


def _kind(segment: Segment, day: date, closing_auction: bool) -> str:
    if segment in ("NSE", "BSE"):
        return "closing_auction" if closing_auction else "cash"
    if segment in ("NFO", "BFO"):
        return "derivatives"
    if segment in ("CDS", "BCD"):
        return "currency"
    return "commodity_summer" if _new_york_summer(day) else "commodity_winter"


def _amo_key(segment: Segment, day: date) -> str:
    if segment != "MCX":
        return segment
    return "MCX_SUMMER" if _new_york_summer(day) else "MCX_WINTER"


def _new_york_summer(day: date) -> bool:
    return bool(datetime.combine(day, time(12), NEW_YORK).dst())


def _at(day: date, at: time) -> datetime:
    return datetime.combine(day, at, IST).astimezone(UTC)


@cache
def _phases() -> RuleTable[PhaseRow]:
    return load(FILE, "phase", PhaseRow, lambda row: (row.kind, row.phase))


@cache
def _amo() -> RuleTable[AmoRow]:
    return load(FILE, "amo", AmoRow, lambda row: row.segment)


@cache
def _release() -> RuleTable[ReleaseRow]:
    return load(FILE, "amo_release", ReleaseRow, lambda row: row.segment)


@cache
def _square_off() -> RuleTable[SquareOffRow]:
    return load(FILE, "square_off", SquareOffRow, lambda row: row.kind)
