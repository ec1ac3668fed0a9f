"""Rules by date: a table of rows, each in force from a day on, so that a rate or a time is never a constant in code.

    table = load(PHASES, "phase", PhaseRow, key=lambda row: (row.kind, row.phase))
    found = table.at(("cash", "CONTINUOUS"), date(2026, 8, 3))
    found.row.ends, found.backdated

A file is TOML with one array of tables. Every row says from when it holds (`from`), until when if it has ended (`until`,
the last day), and where that is written (`source`). Rows of one key must follow one another without overlap or gap; a day
before the oldest row gets that row, marked as backdated: older history is then computed by rules known to be younger.
"""

import tomllib
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

DATA = Path(__file__).parent / "data"


class RuleTableError(ValueError):
    """A rule file is not what it must be; the message names the file, the row and what is wrong."""


class NoRuleError(LookupError):
    """No rule is known for a key, or none that is in force on a day."""


class Effective(BaseModel):
    """What every row of a rule file has. Unknown fields are errors: a misspelt `until` would hold for ever."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    starts_on: date = Field(alias="from")
    until: date | None = None
    source: str = Field(min_length=3)

    @model_validator(mode="after")
    def _ends_after_it_starts(self) -> Self:
        if self.until is not None and self.until < self.starts_on:
            raise ValueError(f"`until` {self.until} is before `from` {self.starts_on}")
        return self

    def holds_on(self, day: date) -> bool:
        return self.starts_on <= day and (self.until is None or day <= self.until)


Row = TypeVar("Row", bound=Effective)


@dataclass(frozen=True, slots=True)
class InForce(Generic[Row]):
    """A row, and whether it is younger than the day that it was asked for."""

    row: Row
    backdated: bool


class RuleTable(Generic[Row]):
    """Rows by key, each key's in order of time."""

    def __init__(self, name: str, rows: list[Row], key: Callable[[Row], Hashable]) -> None:
        self.name = name
        self._by_key: dict[Hashable, list[Row]] = {}
        for row in sorted(rows, key=lambda row: row.starts_on):
            line = self._by_key.setdefault(key(row), [])
            if line:
                _must_follow(name, key(row), line[-1], row)
            line.append(row)

    def at(self, key: Hashable, day: date) -> InForce[Row]:
        """The row of `key` on `day`. Raises `NoRuleError` for an unknown key, and for a day after its end."""
        line = self._by_key.get(key)
        if line is None:
            raise NoRuleError(f"{self.name} has no rule for {key}; it has {', '.join(map(str, self._by_key))}")
        if day < line[0].starts_on:
            return InForce(line[0], backdated=True)
        for row in reversed(line):
            if row.holds_on(day):
                return InForce(row, backdated=False)
        raise NoRuleError(f"{self.name}: the last rule for {key} ended on {line[-1].until}, none is in force on {day}")

    def find(self, key: Hashable, day: date) -> InForce[Row] | None:
        """As `at`, None instead of an error: for what may rightly not exist on a day."""
        try:
            return self.at(key, day)
        except NoRuleError:
            return None

    def keys(self) -> Iterator[Any]:
        return iter(self._by_key)

    def rows(self, key: Hashable) -> list[Row]:
        return list(self._by_key.get(key, ()))


def _must_follow(name: str, key: Hashable, older: Effective, row: Effective) -> None:
    if older.until is None or older.until >= row.starts_on:
        raise RuleTableError(
            f"{name}: two rows for {key} hold on {row.starts_on}; the older one needs an `until` before it"
        )
    if older.until + timedelta(days=1) != row.starts_on:
        raise RuleTableError(f"{name}: no row for {key} holds between {older.until} and {row.starts_on}")


def load(path: Path, array: str, kind: type[Row], key: Callable[[Row], Hashable]) -> RuleTable[Row]:
    """The table in `path` under `[[array]]`. Raises `RuleTableError`."""
    try:
        entries = tomllib.loads(path.read_text())[array]
    except (OSError, tomllib.TOMLDecodeError, KeyError) as problem:
        raise RuleTableError(f"{path.name}: cannot read its table [[{array}]]: {problem!r}") from problem
    rows = []
    for number, entry in enumerate(entries, 1):
        try:
            rows.append(kind.model_validate(entry))
        except ValidationError as problem:
            first = problem.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the row"
            raise RuleTableError(f"{path.name}: [[{array}]] no. {number}, {where}: {first['msg']}") from problem
    return RuleTable(f"{path.name} [[{array}]]", rows, key)
