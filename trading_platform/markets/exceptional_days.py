"""Days on which an exchange departs from its calendar: sessions on days off, ad-hoc closures, half days.

The package's own table is `data/exceptional_days.toml`. Exchanges announce such days at short notice (elections on
2026-01-15 were announced six days before), so an operator may keep a file of the same form that wins, date by
date (`use_exceptional_days` of `sessions.py`).
"""

import tomllib
from datetime import date, time
from functools import cache
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trading_platform.markets.effective import DATA, RuleTableError

Segment = Literal["NSE", "BSE", "NFO", "BFO", "CDS", "BCD", "MCX"]
SHARES_AND_CURRENCY: frozenset[Segment] = frozenset({"NSE", "BSE", "NFO", "BFO", "CDS", "BCD"})
FILE = DATA / "exceptional_days.toml"


class ClosureRow(BaseModel):
    """No trading in `segments` on what would be a regular day."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    date: date
    segments: frozenset[Segment] = SHARES_AND_CURRENCY
    source: str = Field(min_length=3)


class SessionRow(ClosureRow):
    """Continuous trading in `segments` from `opens` to `closes`, IST."""

    opens: time
    closes: time
    tag: Literal["special", "muhurat", "extended", "half_day"]

    @model_validator(mode="after")
    def _opens_before_it_closes(self) -> Self:
        if self.opens >= self.closes:
            raise ValueError(f"opens at {self.opens} and closes at {self.closes}")
        return self


class ExceptionalDays(BaseModel):
    """One file. Unknown keys are errors: a misspelt closure would be a day of trading."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    session: tuple[SessionRow, ...] = ()
    closure: tuple[ClosureRow, ...] = ()

    def dates(self, segment: Segment) -> set[date]:
        return {row.date for row in (*self.session, *self.closure) if segment in row.segments}


def read(path: Path) -> ExceptionalDays:
    """The days of a file. Raises `RuleTableError` for one that cannot be read or says something impossible."""
    try:
        return ExceptionalDays.model_validate(tomllib.loads(path.read_text()))
    except (OSError, tomllib.TOMLDecodeError) as problem:
        raise RuleTableError(f"cannot read the exceptional days in {path}: {problem}") from problem
    except ValidationError as problem:
        first = problem.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise RuleTableError(f"{path.name}, {where}: {first['msg']}") from problem


def sessions_and_closures(segment: Segment, override: ExceptionalDays | None) -> tuple[list[SessionRow], set[date]]:
    """Sessions beside the regular ones, and days without those, of a segment. A date in `override` has that file's alone."""
    sessions: dict[date, list[SessionRow]] = {}
    closures: set[date] = set()
    for days in (_packaged(), override or ExceptionalDays()):
        for day in days.dates(segment):
            sessions.pop(day, None)
            closures.discard(day)
        for row in days.session:
            if segment in row.segments:
                sessions.setdefault(row.date, []).append(row)
        closures |= {row.date for row in days.closure if segment in row.segments}
    return [row for rows in sessions.values() for row in rows], closures


@cache
def _packaged() -> ExceptionalDays:
    return read(FILE)
