"""Files as plain tables: text, JSON, feather and parquet, packed or not, with nothing understood yet.

A table's columns are strings, numbers or times as the file has them; a headerless file's are `c0`, `c1`, .... What the
columns mean is decided in `columns.py`.
"""

import gzip
import json
import re
from io import BytesIO
from pathlib import Path
from typing import Any

import orjson
import polars as pl

TEXT_SUFFIXES = {".csv", ".txt", ".tsv"}
SUFFIXES = TEXT_SUFFIXES | {".json", ".feather", ".arrow", ".ipc", ".parquet", ".pq"}
DELIMITERS = ",;\t|"


class UnreadableFileError(ValueError):
    """A file is not what it must be; the message says what was found, what was expected and what to do."""


def is_data_file(path: Path) -> bool:
    """Whether the name ends like a file of bars, `.gz` aside."""
    return _suffix(path) in SUFFIXES


def load_table(path: Path, content: bytes) -> tuple[pl.DataFrame, bool]:
    """(the table, whether its columns have names of their own). Raises `UnreadableFileError`."""
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    suffix = _suffix(path)
    if suffix not in SUFFIXES:
        raise UnreadableFileError(
            f"{path.name}: unknown kind of file. Expected one of {', '.join(sorted(SUFFIXES))}, with or without .gz"
        )
    try:
        table, named = _loaded(suffix, content)
    except (pl.exceptions.PolarsError, ValueError, OSError) as error:
        raise UnreadableFileError(f"{path.name}: cannot be read as {suffix.lstrip('.')}: {error}") from error
    if table.is_empty():
        raise UnreadableFileError(f"{path.name}: no rows, only the columns {', '.join(table.columns) or '(none)'}")
    return table, named


def _loaded(suffix: str, content: bytes) -> tuple[pl.DataFrame, bool]:
    if suffix in TEXT_SUFFIXES:
        return _text(content)
    if suffix == ".json":
        return _json(content)
    if suffix in {".parquet", ".pq"}:
        return pl.read_parquet(BytesIO(content)), True
    return pl.read_ipc(BytesIO(content)), True


def _suffix(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _text(content: bytes) -> tuple[pl.DataFrame, bool]:
    """Delimited text, every field a string, so that one bad field spoils one row and not the file."""
    lines = content[:20_000].decode("utf-8-sig", errors="replace").splitlines()
    if not lines:
        raise ValueError("the file is empty")
    delimiter = max(DELIMITERS, key=lambda candidate: max(line.count(candidate) for line in lines[:3]))
    skipped = 1 if len(lines) > 1 and delimiter not in lines[0] and delimiter in lines[1] else 0
    named = not _starts_with_data(lines[skipped].split(delimiter))
    table = pl.read_csv(
        BytesIO(content),
        separator=delimiter,
        has_header=named,
        skip_rows=skipped,
        infer_schema=False,
        truncate_ragged_lines=True,
        quote_char='"',
    )
    table = table.select(pl.all().str.strip_chars())
    if named:
        return table.rename({name: name.strip() for name in table.columns}), True
    return _numbered(table), False


def _starts_with_data(fields: list[str]) -> bool:
    """A header has words only; a row of data has a number somewhere beside its words."""
    return any(re.fullmatch(r"\s*-?\d+(\.\d+)?([eE][-+]?\d+)?\s*", field) for field in fields)


def _json(content: bytes) -> tuple[pl.DataFrame, bool]:
    """A list of rows, a list of objects, or Kite's `{"data": {"candles": [rows]}}`."""
    rows: Any = _parsed(content)
    while isinstance(rows, dict):
        inside = next((rows[name] for name in ("data", "candles", "result", "rows") if name in rows), None)
        if inside is None:
            raise ValueError(f"found an object with {sorted(rows)[:8]}, expected a list of bars or data.candles")
        rows = inside
    if not isinstance(rows, list) or not rows:
        raise ValueError("found no list of bars")
    if isinstance(rows[0], dict):
        return pl.DataFrame(rows, infer_schema_length=None, strict=False), True
    if not isinstance(rows[0], list):
        raise ValueError(f"found a list of {type(rows[0]).__name__}, expected a list of rows")
    return _numbered(_from_rows(rows)), False


def _parsed(content: bytes) -> Any:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:  # NaN and Infinity are not JSON, yet Python and pandas write them
        return json.loads(content)


def _from_rows(rows: list[list[Any]]) -> pl.DataFrame:
    """Rows of numbers become float columns; where a column also has words, all of it becomes strings."""
    width = max(len(row) for row in rows)
    if all(len(row) == width for row in rows):
        columns: list[Any] = list(zip(*rows, strict=True))
    else:
        columns = list(zip(*(row + [None] * (width - len(row)) for row in rows), strict=True))
    return pl.DataFrame([_column(f"c{n}", values) for n, values in enumerate(columns)])


def _column(name: str, values: tuple[Any, ...]) -> pl.Series:
    if any(isinstance(value, str) for value in values):
        return pl.Series(name, [None if value is None else str(value) for value in values], pl.String)
    return pl.Series(name, values, pl.Float64, strict=False)


def _numbered(table: pl.DataFrame) -> pl.DataFrame:
    return table.rename({name: f"c{n}" for n, name in enumerate(table.columns)})
