"""The files of a day's records: CSV that spreadsheets open safely, a page, and a manifest with the hash of each.

Everything written here is the same byte for byte when it is written again from the same books. What differs from
run to run (when, from which export) stands in the manifest alone.
"""

import csv
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

SCHEMA_VERSION = 1
"""Of the CSV columns; it goes up when a column is renamed, removed or changes its meaning."""
IST = timezone(timedelta(hours=5, minutes=30), "IST")
MANIFEST = "manifest.json"
RETENTION_YEARS = 5
# A spreadsheet runs a cell that starts like this as a formula; a user agent or a message could be one.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


@dataclass
class RecordFolder:
    """One day's folder. Each file appears whole or not at all."""

    path: Path
    written: dict[str, dict[str, Any]] = field(default_factory=dict)

    def csv(self, name: str, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> int:
        """Write `name`.csv with a header; returns the number of rows."""
        count = 0
        with self._file(f"{name}.csv") as handle:
            writer = csv.writer(handle, lineterminator="\r\n")  # RFC 4180
            writer.writerow(columns)
            for row in rows:
                writer.writerow([None if (value := row[column]) is None else cell(value) for column in columns])
                count += 1
        self.written[f"{name}.csv"]["rows"] = count
        return count

    def text(self, name: str, content: str) -> None:
        with self._file(name) as handle:
            handle.write(content)

    def manifest(self, **about: Any) -> None:
        """What the folder holds, with sha256 and number of rows of each file, and the only time stamp in it."""
        content = {
            **about,
            "schema_version": SCHEMA_VERSION,
            "files": dict(sorted(self.written.items())),
            "generated_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        with self._file(MANIFEST) as handle:
            json.dump(content, handle, indent=2, default=str)
            handle.write("\n")

    @property
    def paths(self) -> list[Path]:
        return [self.path / name for name in self.written]

    @contextmanager
    def _file(self, name: str) -> Iterator[IO[str]]:
        self.path.mkdir(parents=True, exist_ok=True)
        partial = self.path / f".{name}.partial"
        with partial.open("w", encoding="utf-8", newline="") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        partial.replace(self.path / name)
        with (self.path / name).open("rb") as handle_read:
            self.written[name] = {"sha256": hashlib.file_digest(handle_read, "sha256").hexdigest()}


def cell(value: Any) -> str:
    """A value as text: numbers without exponent, UTC times with Z, Indian ones (without zone in the models) with
    +05:30, both in milliseconds, objects as JSON, text that a spreadsheet would run as a formula behind a quote.

    >>> cell(Decimal("0.010000000000")), cell("=1+1"), cell(None), cell(True)
    ('0.01', "'=1+1", '', 'Y')
    """
    match value:
        case None:
            text = ""
        case bool():
            text = "Y" if value else "N"
        case Decimal():
            text = format(value, "f")
            text = text.rstrip("0").rstrip(".") if "." in text else text
        case datetime():
            text = stamp(value)
        case dict() | list():
            text = json.dumps(value, sort_keys=True, ensure_ascii=False)
        case str() if value.startswith(FORMULA_STARTS):
            text = f"'{value}"
        case _:
            text = str(value)
    return text


def stamp(value: datetime) -> str:
    """ISO 8601 in milliseconds: aware times in UTC with Z; naive ones are Indian time and get +05:30."""
    if value.tzinfo is None:
        return value.replace(tzinfo=IST).isoformat(timespec="milliseconds")
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def keep_until(day: date) -> date:
    """Five years after the end of the Indian financial year (1 April to 31 March) that `day` belongs to.

    >>> keep_until(date(2026, 11, 19)), keep_until(date(2027, 3, 31)), keep_until(date(2027, 4, 1))
    (datetime.date(2032, 3, 31), datetime.date(2032, 3, 31), datetime.date(2033, 3, 31))
    """
    ends = day.year if (day.month, day.day) <= (3, 31) else day.year + 1
    return date(ends + RETENTION_YEARS, 3, 31)
