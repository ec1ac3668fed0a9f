"""The daily compliance records: what happened on one Indian date, as CSV files and one page an officer can read.

    records = write_daily_records(databases, date(2026, 11, 19))
    records.paths      # <reports>/2026-11-19/{order_audit_log.csv, …, daily_records.html, manifest.json}
    records.figures    # what the page's headline says

The day is that of the wall clock in India; in a replay the market time stands beside it in a column of its own. The
books are read from the analytics database (export and dbt models first), the audit chains are sealed and verified
where they are. These are records and working papers, not filings: filings are the broker's.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Connection, bindparam, inspect, select, text

from trading_platform.compliance.audit import COLUMNS, LEAF, Verification, canonical, seal, verify
from trading_platform.compliance.findings import REFUSALS, Finding, find
from trading_platform.compliance.page import render
from trading_platform.compliance.record_files import IST, RecordFolder, keep_until
from trading_platform.identifiers import GroupId
from trading_platform.storage.databases import Database, Databases
from trading_platform.storage.group import AuditSeal

Progress = Callable[[str, float], None]
log = structlog.get_logger(__name__)

PRICES = {"live market": "live market prices", "replayed": "replayed data", "synthetic": "synthetic data"}


@dataclass(frozen=True)
class Record:
    """One CSV: a model of schema `compliance`, the column that holds its day, and the order of its rows."""

    name: str
    title: str
    day: str
    order: str
    columns_on_page: tuple[str, ...]


RECORDS = (
    Record(
        "ops_rate", "Order rate against 10 a second, 400 a minute, 5,000 a day", "trade_date",
        "group_id, account_ref, exchange, window_kind, window_start",
        ("account_ref", "account_kind", "data_label", "exchange", "window_kind", "window_start", "total", "ops_limit", "over_limit", "breached"),
    ),
    Record(
        "order_to_trade_ratio", "Order-to-trade ratio", "trade_date", "group_id, segment, strategy_id, account_kind, data_label",
        ("group_id", "segment", "strategy_id", "account_kind", "data_label", "entries", "modifications", "cancels", "trades", "ratio_net", "slab"),
    ),
    Record(
        "algo_tagging", "Algo tagging", "trade_date", "group_id, strategy_id, version, account_kind, data_label, change_ref",
        ("group_id", "strategy_id", "version", "class", "registered", "algo_id_expected", "algo_id_sent", "orders", "orders_untagged", "orders_wrong_id"),
    ),
    Record(
        "risk_control_log", "Risk controls: refused orders and halts", "event_date", "event_ts_utc, event_id",
        ("event_ts_ist", "group_id", "action", "scope", "scope_ref", "reason", "actor", "reset_by", "reset_reason"),
    ),
    Record(
        "access_log", "Access", "event_date", "event_ts_utc, event_id",
        ("event_ts_ist", "user_ref", "role", "action", "result", "source_ip"),
    ),
    Record(
        "incident_log", "Incidents", "event_date", "started_at_utc, alert_id",
        ("started_at_ist", "severity", "component", "impact", "duration_minutes", "technical_glitch", "occurrences", "open"),
    ),
    Record(
        "strategy_register", "Strategy register", "registered_date", "strategy_id, dataset_id, deployment_id",
        ("strategy_id", "class", "role", "version", "model_kind", "data_label", "approved_by", "reason", "serves_from", "serves_to", "registration_ref"),
    ),
)  # fmt: skip
"""Beside the order and trade audit log, which is streamed and gets the hashes of the chain."""


class NotBuiltError(RuntimeError):
    """The compliance models are not in the analytics database yet."""


@dataclass(frozen=True)
class Records:
    """The files written, and the headline figures (JSON-serialisable)."""

    paths: list[Path]
    figures: dict[str, Any]


def write_daily_records(
    databases: Databases,
    day: date,
    groups: Sequence[GroupId] | None = None,
    progress: Progress = lambda what, fraction: None,
) -> Records:
    """Write the records of one Indian date to `<reports>/<day>/`, for all groups or (in a folder below) for some.

    Writing a day again from the same books gives the same bytes, but for the manifest's `generated_at`. Raises
    `NotBuiltError` where the models are missing and `ValueError` for a day that has not begun.
    """
    if day > datetime.now(IST).date():
        raise ValueError(f"{day} has not begun in India; records are of today or earlier")
    chosen = list(groups) if groups else databases.group_ids()
    folder = RecordFolder(databases.settings.reports_dir / day.isoformat() / ("+".join(chosen) if groups else ""))
    chains = {}
    for number, group_id in enumerate(chosen):
        progress(f"verifying the audit chain of group {group_id}", number / (len(chosen) + 1))
        seal(databases, group_id)
        chains[group_id] = verify(databases, group_id)
    progress("writing the records", len(chosen) / (len(chosen) + 1))
    with databases.engine(Database.ANALYTICS).connect() as connection:
        connection.execute(text("set transaction isolation level repeatable read, read only"))
        books = _Books(connection, day, chosen, everything=not groups)
        books.require_models()
        trail = _Trail(databases, books)
        folder.csv("order_audit_log", trail.columns, trail)
        tables = {record.name: books.rows(record) for record in RECORDS}
        for record in RECORDS:
            folder.csv(record.name, books.columns(record.name), tables[record.name])
        counts = books.event_counts()
        exported_at = books.exported_at()
        hourly = books.hourly_counts()
        labels = books.labels()
        traded = books.traded()
    findings = find(day, chains, tables, counts, trail.unlike_sealed, trail.unsealed, exported_at)
    figures = _figures(day, chosen, chains, counts, tables, findings, trail)
    page = render(
        day=day, groups=chosen if groups else None, labels=labels, figures=figures, chains=trail.chains(chains),
        findings=findings, hourly=hourly, traded=traded, records=RECORDS, tables=tables, keep_until=keep_until(day),
        files=sorted(folder.written.items()),
    )  # fmt: skip
    folder.text("daily_records.html", page)
    folder.manifest(
        day=day, time_zone="Asia/Kolkata", groups=chosen, data=labels, keep_until=keep_until(day), books_as_of=exported_at,
        chains={group_id: {"whole": found.whole, "problems": found.problems} for group_id, found in chains.items()},
        figures=figures,
    )  # fmt: skip
    progress("records written", 1.0)
    log.info("compliance_records_written", day=day.isoformat(), folder=str(folder.path), findings=len(findings))
    return Records(folder.paths, figures)


def _figures(
    day: date, groups: Sequence[GroupId], chains: Mapping[GroupId, Verification], counts: Mapping[str, int],
    tables: Mapping[str, list[dict[str, Any]]], findings: Sequence[Finding], trail: "_Trail",
) -> dict[str, Any]:  # fmt: skip
    return {
        "day": day.isoformat(),
        "groups": len(groups),
        "chains_whole": all(found.whole for found in chains.values()),
        "audit_entries": trail.entries,
        "audit_entries_sealed": trail.entries - trail.unsealed,
        "orders_sent": counts.get("SEND", 0),
        "fills": counts.get("FILL", 0),
        "rejected": counts.get("REJECT", 0),
        "risk_blocks": counts.get("RISK_BLOCK", 0),
        "halts": sum(row["action"] == "halted" for row in tables["risk_control_log"]),
        "rate_breaches": sum(row["breached"] for row in tables["ops_rate"]),
        "log_ins_refused": sum(row["result"] in REFUSALS for row in tables["access_log"]),
        "incidents": len(tables["incident_log"]),
        "exceptions": sum(finding.severity != "note" for finding in findings),
    }


class _Books:
    """One day of the analytics database, for some groups or for the whole platform, in one snapshot."""

    def __init__(self, connection: Connection, day: date, groups: Sequence[GroupId], *, everything: bool) -> None:
        self.connection = connection
        self.day = day
        self.groups = groups
        self.everything = everything
        self.start = datetime.combine(day, time.min, IST).astimezone(UTC)
        self.end = self.start + timedelta(days=1)

    def require_models(self) -> None:
        present = set(inspect(self.connection).get_table_names(schema="compliance"))
        if missing := sorted({record.name for record in RECORDS} - present):
            raise NotBuiltError(
                f"the analytics database has no compliance models {', '.join(missing)}; "
                "run the export and `dbt build` first (Dagster: materialize group marts)"
            )

    def rows(self, record: Record) -> list[dict[str, Any]]:
        """A record's rows of the day. The register is no log: it holds all that was decided up to the day."""
        day = f"{record.day} <= :day" if record.name == "strategy_register" else f"{record.day} = :day"
        return self._query(
            f"select * from compliance.{record.name} where {day}{self._mine(record.name)} order by {record.order}"
        )

    def columns(self, table: str) -> list[str]:
        return [column["name"] for column in inspect(self.connection).get_columns(table, schema="compliance")]

    def entries(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """The day's audit entries, (as the record shows them, as the trail holds them), group by group, by seq."""
        shown, held = (
            self._audit("compliance.order_audit_log", "event_ts_utc"),
            self._audit("raw.audit_log", "event_ts"),
        )
        return zip(shown, held, strict=True)

    def event_counts(self) -> dict[str, int]:
        found = self._query(
            "select event_type, count(*) as n from compliance.order_audit_log "
            "where event_ts_utc >= :start and event_ts_utc < :end and group_id in :groups group by 1"
        )
        return {row["event_type"]: row["n"] for row in found}

    def hourly_counts(self) -> list[dict[str, Any]]:
        """Events by hour of the day in India: hour, sent, filled, refused."""
        return self._query(
            "select extract(hour from event_ts_ist)::int as hour, count(*) filter (where event_type = 'SEND') as sent, "
            "count(*) filter (where event_type = 'FILL') as filled, "
            "count(*) filter (where event_type in ('REJECT', 'RISK_BLOCK')) as refused from compliance.order_audit_log "
            "where event_ts_utc >= :start and event_ts_utc < :end and group_id in :groups group by 1 order by 1"
        )

    def traded(self) -> list[dict[str, Any]]:
        """What was traded: a row a strategy and instrument, wall time and market time beside each other."""
        return self._query(
            "select group_id, strategy_id, tradingsymbol, account_kind, data_label, "
            "count(*) filter (where event_type = 'SEND') as sent, count(*) filter (where event_type = 'FILL') as fills, "
            "count(*) filter (where event_type = 'REJECT') as rejected, "
            "count(*) filter (where event_type = 'RISK_BLOCK') as blocked, "
            "to_char(min(event_ts_ist), 'HH24:MI:SS') as first_ist, to_char(max(event_ts_ist), 'HH24:MI:SS') as last_ist, "
            "to_char(min(market_time) at time zone 'Asia/Kolkata', 'YYYY-MM-DD HH24:MI') as market_from, "
            "to_char(max(market_time) at time zone 'Asia/Kolkata', 'YYYY-MM-DD HH24:MI') as market_to "
            "from compliance.order_audit_log where event_ts_utc >= :start and event_ts_utc < :end "
            "and group_id in :groups and tradingsymbol is not null group by 1, 2, 3, 4, 5 order by 1, 2, 3, 4, 5"
        )

    def labels(self) -> list[str]:
        """Kinds of data that the day's entries stem from, e.g. ['paper trading on replayed data']."""
        found = self._query(
            "select distinct account_kind, data_label from compliance.order_audit_log "
            "where event_ts_utc >= :start and event_ts_utc < :end and group_id in :groups and data_label <> 'no market data'"
        )
        return sorted(
            f"{'live' if row['account_kind'] == 'live' else 'paper'} trading on {PRICES[row['data_label']]}"
            for row in found
        )

    def exported_at(self) -> datetime | None:
        """The time of the oldest export among the chosen groups: what happened later is not in the records."""
        (row,) = self._query(
            "select min(exported_at) as at from raw.export_watermarks where table_name = 'audit_log' and source in :groups"
        )
        at = row["at"]
        return at if isinstance(at, datetime) else None

    def _audit(self, table: str, column: str) -> Iterator[dict[str, Any]]:
        query = text(
            f"select * from {table} where {column} >= :start and {column} < :end and group_id in :groups order by group_id, seq"
        ).bindparams(bindparam("groups", expanding=True))
        stream = self.connection.execute(query.execution_options(yield_per=2_000), self._parameters())
        names = tuple(stream.keys())
        return (dict(zip(names, row, strict=True)) for row in stream)

    def _mine(self, table: str) -> str:
        """Shared records (incidents, the register) belong to every group; platform-wide rows of the others too."""
        if self.everything or table in {"incident_log", "strategy_register"}:
            return ""
        return (
            " and (group_id in :groups or group_id is null)"
            if table == "risk_control_log"
            else " and group_id in :groups"
        )

    def _query(self, sql: str) -> list[dict[str, Any]]:
        query = text(sql)
        if ":groups" in sql:
            query = query.bindparams(bindparam("groups", expanding=True))
        return [dict(row) for row in self.connection.execute(query, self._parameters()).mappings()]

    def _parameters(self) -> dict[str, Any]:
        return {"day": self.day, "start": self.start, "end": self.end, "groups": list(self.groups)}


class _Trail:
    """The day's audit entries with the chain's hashes beside them. Iterating it once fills the counts.

    `entry_hash` is recomputed from the row in the analytics database: where it differs from the hash under the seal,
    the copy is not the original.
    """

    def __init__(self, databases: Databases, books: _Books) -> None:
        self._databases = databases
        self._books = books
        self.columns = [*books.columns("order_audit_log"), "entry_hash", "prev_hash", "hash"]
        self.entries = 0
        self.unsealed = 0
        self.unlike_sealed: list[str] = []
        self._last: dict[str, dict[str, Any]] = {}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        seals: _Seals | None = None
        for shown, held in self._books.entries():
            group_id = GroupId(held["group_id"])
            if seals is None or seals.group_id != group_id:
                seals = _Seals(self._databases, group_id, first_seq=held["seq"])
            entry_hash = hashlib.sha256(canonical({name: held[name] for name in COLUMNS})).digest()
            sealed, batch = seals.of(held["seq"])
            if sealed is not None and sealed != entry_hash:
                self.unlike_sealed.append(f"{group_id}/{held['seq']}")
            row = {
                **shown,
                "entry_hash": entry_hash.hex(),
                "prev_hash": batch.previous_hash if batch else None,
                "hash": batch.hash if batch else None,
            }
            self.entries += 1
            self.unsealed += batch is None
            self._last[group_id] = row
            yield row

    def chains(self, verified: Mapping[GroupId, Verification]) -> list[dict[str, Any]]:
        """A row a group for the page: figures that later days do not change."""
        return [
            {
                "group_id": group_id,
                "whole": found.whole,
                "problems": found.problems,
                "last_seq": self._last[group_id]["seq"] if group_id in self._last else None,
                "hash": self._last[group_id]["hash"] if group_id in self._last else None,
            }
            for group_id, found in verified.items()
        ]


class _Seals:
    """The seals of one group from a seq on, read as the entries go along."""

    def __init__(self, databases: Databases, group_id: GroupId, first_seq: int) -> None:
        self.group_id = group_id
        with databases.group(group_id) as session:
            query = select(AuditSeal).where(AuditSeal.last_seq >= first_seq).order_by(AuditSeal.last_seq)
            self._seals = iter(session.scalars(query).all())
        self._batch = next(self._seals, None)
        self._leaves: dict[int, bytes] = {}

    def of(self, seq: int) -> tuple[bytes | None, AuditSeal | None]:
        """(the entry's hash under its seal, the seal); (None, None) for an entry that is not sealed yet."""
        while self._batch is not None and self._batch.last_seq < seq:
            self._batch, self._leaves = next(self._seals, None), {}
        if self._batch is None:
            return None, None
        self._leaves = self._leaves or dict(LEAF.iter_unpack(self._batch.leaves))
        return self._leaves.get(seq), self._batch
