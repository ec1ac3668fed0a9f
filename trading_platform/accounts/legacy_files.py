"""Reading what the old system left: users, API keys and trading sessions from CSV, JSON, SQLite or a dump of INSERTs.

Every record keeps where it came from, so that a mistake is named by file and line. Secrets are wrapped as they are
read: no error, log line or repr shows one. docs/import-legacy.md has the shapes and samples.
"""

import csv
import json
import re
import sqlite3
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr

TABLES = {
    "users": ("users", "user", "accounts_user", "auth_user"),
    "api_keys": ("api_keys", "apikeys", "api_key", "exchange_keys", "keys"),
    "sessions": ("sessions", "trading_sessions", "trading_session"),
}
"""Our name for a table -> the names it is found under."""

COLUMNS = {
    "id": ("id", "user_no", "session_id", "key_id"),
    "user": ("user_id", "user", "owner", "username_id", "user_email"),
    "email": ("email", "mail", "e_mail"),
    "name": ("name", "display_name", "full_name", "username"),
    "role": ("role", "user_role"),
    "group": ("group", "group_id", "team"),
    "password_hash": ("password_hash", "password", "hashed_password"),
    "disabled": ("disabled", "is_disabled"),
    "active": ("active", "is_active", "enabled"),
    "venue": ("venue", "exchange", "broker"),
    "label": ("label", "account", "account_name", "key_name"),
    "currency": ("currency", "quote_currency"),
    "api_key": ("api_key", "apikey", "key", "public_key"),
    "api_secret": ("api_secret", "secret", "secret_key", "apisecret", "private_key"),
    "passphrase": ("passphrase", "api_passphrase"),
    "access_token": ("access_token",),
    "started_at": ("started_at", "start", "start_time", "opened_at"),
    "ended_at": ("ended_at", "end", "end_time", "closed_at"),
    "trades": ("trades", "trade_count", "num_trades", "total_trades"),
    "wins": ("wins", "winning_trades", "won"),
    "net_pnl": ("net_pnl", "pnl", "profit", "net_profit", "realized_pnl"),
}
"""Our name for a column -> the names it is found under, without regard to case."""

SECRETS = ("api_key", "api_secret", "passphrase", "access_token", "password_hash")
SQLITE_SUFFIXES = (".db", ".sqlite", ".sqlite3")
_CANONICAL = {alias: name for name, aliases in COLUMNS.items() for alias in aliases}
_INSERT = re.compile(
    r"insert\s+(?:or\s+\w+\s+|ignore\s+)?into\s+(?P<table>[\w.\"`\[\]]+)\s*(?:\((?P<columns>[^)]*)\))?\s*values\s*",
    re.IGNORECASE,
)
_TOKEN = re.compile(r"'(?:[^'\\]|''|\\.)*'|[(),;]|[^\s'(),;]+")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": "\0"}


class LegacyFormatError(ValueError):
    """A file is in none of the documented shapes; the message says what was found and what was expected."""


@dataclass(frozen=True)
class Record:
    """One record of the old system: values under our names of the columns, secrets wrapped."""

    where: str
    """File and line, or table and row."""
    values: Mapping[str, str | SecretStr | None]
    extra: Mapping[str, Any]
    """Columns that we have no name for."""

    def text(self, column: str) -> str | None:
        """A column's text without blanks around it; None where it is missing or empty."""
        value = self.values.get(column)
        plain = value.get_secret_value() if isinstance(value, SecretStr) else value
        return plain.strip() or None if plain is not None else None


def read(source: Path) -> dict[str, list[Record]]:
    """{`users`, `api_keys`, `sessions`: records} of a folder, an SQLite file, a dump, or one CSV or JSON file.

    Raises `LegacyFormatError`.
    """
    found: dict[str, list[Record]] = {table: [] for table in TABLES}
    files = sorted(path for path in source.iterdir() if path.is_file()) if source.is_dir() else [source]
    for path in files:
        for table, record in _records(path, strict=not source.is_dir()):
            found[table].append(record)
    if not any(found.values()):
        raise LegacyFormatError(
            f"{source}: found no record; expected users, api_keys or sessions as CSV, JSON, SQLite or INSERT statements "
            f"(found {', '.join(path.name for path in files) or 'nothing'})"
        )
    return found


def _records(path: Path, *, strict: bool) -> Iterator[tuple[str, Record]]:
    suffix = path.suffix.lower()
    if suffix in SQLITE_SUFFIXES:
        yield from _sqlite(path)
    elif suffix == ".sql":
        yield from _sql_dump(path)
    elif suffix == ".csv" and (table := _our_table(path.stem)):
        yield from ((table, record) for record in _csv(path))
    elif suffix == ".json":
        yield from _json(path)
    elif strict:
        raise LegacyFormatError(
            f"{path.name} is not understood; expected users.csv, api_keys.csv or sessions.csv (or .json), an SQLite file "
            f"({', '.join(SQLITE_SUFFIXES)}) or a dump of INSERT statements (.sql)"
        )


def _csv(path: Path) -> Iterator[Record]:
    with path.open(newline="", encoding="utf-8-sig") as handle:
        reader = csv.DictReader(handle, restkey="surplus columns")
        for row in reader:
            yield _record(f"{path.name} line {reader.line_num}", row)


def _json(path: Path) -> Iterator[tuple[str, Record]]:
    """Either a list in users.json, or an object {users: [...], api_keys: [...]} under any name."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_float=str, parse_int=str)
    except ValueError as error:
        raise LegacyFormatError(f"{path.name} is not JSON: {error}") from None
    tables = {path.stem: content} if isinstance(content, list) else content
    if not isinstance(tables, dict):
        raise LegacyFormatError(f"{path.name}: expected a list of objects or an object of lists")
    for name, rows in tables.items():
        table = _our_table(name)
        if table is None or not isinstance(rows, list):
            continue
        for number, row in enumerate(rows, 1):
            if not isinstance(row, dict):
                raise LegacyFormatError(f"{path.name} {name} entry {number}: expected an object")
            yield table, _record(f"{path.name} {name} entry {number}", row)


def _sqlite(path: Path) -> Iterator[tuple[str, Record]]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        try:
            names = [name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")]
        except sqlite3.DatabaseError as error:
            raise LegacyFormatError(f"{path.name} is not an SQLite file: {error}") from None
        connection.row_factory = sqlite3.Row
        for name in names:
            if table := _our_table(name):
                quoted = name.replace('"', '""')
                for number, row in enumerate(connection.execute(f'select * from "{quoted}"'), 1):
                    yield table, _record(f"{path.name} {name} row {number}", dict(row))


def _sql_dump(path: Path) -> Iterator[tuple[str, Record]]:
    text = path.read_text(encoding="utf-8")
    line_ends = [end.start() for end in re.finditer("\n", text)]
    for insert in _INSERT.finditer(text):
        table = _our_table(insert["table"].rpartition(".")[2].strip('"`[]'))
        if table is None:
            continue
        line = bisect_left(line_ends, insert.start()) + 1
        if insert["columns"] is None:
            raise LegacyFormatError(
                f"{path.name} line {line}: INSERT without column names; dump again with `mysqldump --complete-insert` or "
                "`pg_dump --column-inserts`"
            )
        columns = [column.strip().strip('"`[]') for column in insert["columns"].split(",")]
        for start, values in _tuples(text, insert.end()):
            where = f"{path.name} line {bisect_left(line_ends, start) + 1}"
            if len(values) != len(columns):
                raise LegacyFormatError(f"{where}: {len(values)} values for {len(columns)} columns")
            yield table, _record(where, dict(zip(columns, values, strict=True)))


def _tuples(text: str, position: int) -> Iterator[tuple[int, list[str | None]]]:
    """The (…), (…) after VALUES, up to the semicolon: (offset, values)."""
    values: list[str | None] | None = None
    start = position
    for token in _TOKEN.finditer(text, position):
        word = token.group()
        if word == "(":
            values, start = [], token.start()
        elif word == ")" and values is not None:
            yield start, values
            values = None
        elif word == ";" or (values is None and word != ","):
            return
        elif values is not None and word != ",":
            values.append(_literal(word))


def _literal(word: str) -> str | None:
    if word.startswith("'"):
        body = re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[1]), word[1:-1], flags=re.DOTALL)
        return body.replace("''", "'")
    return None if word.lower() == "null" else word


def _record(where: str, row: Mapping[Any, Any]) -> Record:
    values: dict[str, str | SecretStr | None] = {}
    extra: dict[str, Any] = {}
    for column, value in row.items():
        name = _CANONICAL.get(str(column).strip().lower())
        if name is None:
            extra[str(column)] = value
        elif value is None:
            values[name] = None
        else:
            values[name] = SecretStr(str(value)) if name in SECRETS else str(value)
    return Record(where, values, extra)


def _our_table(name: str) -> str | None:
    return next((table for table, names in TABLES.items() if name.lower() in names), None)
