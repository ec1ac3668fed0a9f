"""The market-wide circuit breaker as a state machine: index levels in, OPEN, WARNING, HALTED, PRE_OPEN or CLOSED out.

    state = MarketHalt.of_day(previous_closes={"NIFTY 50": Decimal("24198.85")})
    state = state.on_index("NIFTY 50", level, now)
    state.at(now)       # also without a new level: a halt ends by the clock

A level counts once a day: after the halt of 10 % only 15 % stops the market again. After a halt strategies are armed again
by hand: what re-opens is the market, not our entries.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import StrEnum
from functools import cache

from trading_platform.markets.effective import DATA, Effective, NoRuleError, RuleTable, load
from trading_platform.markets.sessions import IST

FILE = DATA / "market_halts.toml"


class MarketState(StrEnum):
    OPEN = "OPEN"
    WARNING = "WARNING"
    """Near the first level: nothing new should be entered."""
    HALTED = "HALTED"
    PRE_OPEN = "PRE_OPEN"
    CLOSED = "CLOSED"


class HaltRow(Effective):
    level: Decimal
    after: time
    before: time
    halt_minutes: int
    pre_open_minutes: int
    rest_of_day: bool = False


class WarningRow(Effective):
    move: Decimal


def trigger_points(previous_close: Decimal) -> dict[Decimal, Decimal]:
    """{level: points from the previous close}, exact, ascending; exchanges publish them rounded to the tick."""
    return {level: previous_close * level for level in _levels()}


@dataclass(frozen=True)
class MarketHalt:
    """State of one trading day."""

    previous_closes: Mapping[str, Decimal]
    state: MarketState = MarketState.OPEN
    passed: Decimal = Decimal(0)
    """The highest level that has been reached today."""
    halted_until: datetime | None = None
    reopens_at: datetime | None = None
    why: str = ""
    moves: Mapping[str, Decimal] = field(default_factory=dict)
    """Latest move of each index, as a fraction of its previous close."""

    @classmethod
    def of_day(cls, previous_closes: Mapping[str, Decimal]) -> "MarketHalt":
        return cls(dict(previous_closes))

    def on_index(self, index: str, level: Decimal, at: datetime) -> "MarketHalt":
        """A new level of an index at `at` (aware). Indices without a previous close are ignored."""
        close = self.previous_closes.get(index)
        now = self.at(at)
        if close is None or now.state is MarketState.CLOSED:
            return now
        move = level / close - 1
        now = replace(now, moves={**now.moves, index: move})
        reached = max((each for each in _levels() if abs(move) >= each), default=None)
        if reached is not None and reached > now.passed:
            return now._halt(index, reached, move, at)
        if now.state in (MarketState.OPEN, MarketState.WARNING):
            warning = _warnings().at("move", at.astimezone(IST).date()).row
            near = max(map(abs, now.moves.values())) >= warning.move
            return replace(now, state=MarketState.WARNING if near else MarketState.OPEN)
        return now

    def at(self, when: datetime) -> "MarketHalt":
        """The state at a moment: halts and pre-opens end by themselves."""
        if self.halted_until is None or self.reopens_at is None or self.state is MarketState.CLOSED:
            return self
        if when >= self.reopens_at:
            return replace(self, state=MarketState.OPEN, halted_until=None, reopens_at=None)
        return replace(self, state=MarketState.PRE_OPEN) if when >= self.halted_until else self

    def _halt(self, index: str, reached: Decimal, move: Decimal, at: datetime) -> "MarketHalt":
        row = _row(reached, at)
        why = f"{index} moved {move:+.2%}, level {reached:.0%} reached at {at.astimezone(IST):%H:%M:%S} IST"
        if row.rest_of_day:
            return replace(self, state=MarketState.CLOSED, passed=reached, why=why, halted_until=None, reopens_at=None)
        if row.halt_minutes == 0:
            return replace(self, passed=reached, why=f"{why}: too late in the day to halt", state=MarketState.WARNING)
        until = at + timedelta(minutes=row.halt_minutes)
        return replace(
            self, state=MarketState.HALTED, passed=reached, why=why, halted_until=until,
            reopens_at=until + timedelta(minutes=row.pre_open_minutes),
        )  # fmt: skip


def _row(level: Decimal, at: datetime) -> HaltRow:
    local = at.astimezone(IST)
    for key in _halts().keys():  # noqa: SIM118 - not a mapping
        of_level, after = key
        if of_level == level:
            row = _halts().at((level, after), local.date()).row
            if row.after <= local.time() < row.before:
                return row
    raise NoRuleError(f"no rule for a move of {level:.0%} at {local:%H:%M}")


def levels_on(day: date) -> list[HaltRow]:
    """All rows in force on a day, for showing."""
    return [_halts().at(key, day).row for key in _halts().keys()]  # noqa: SIM118 - not a mapping


@cache
def _halts() -> RuleTable[HaltRow]:
    return load(FILE, "halt", HaltRow, lambda row: (row.level, row.after))


@cache
def _warnings() -> RuleTable[WarningRow]:
    return load(FILE, "warning", WarningRow, lambda _: "move")


@cache
def _levels() -> tuple[Decimal, ...]:
    return tuple(sorted({level for level, _ in _halts().keys()}))  # noqa: SIM118 - not a mapping
