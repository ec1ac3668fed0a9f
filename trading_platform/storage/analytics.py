"""The export of all groups' books and of the shared tables into schema `raw` of the analytics database.

    export(databases)             # {table: rows added or changed}; running it again adds nothing
    dbt_environment(settings)     # where dbt finds that database

dbt, dashboards, learning and compliance read only there, never across group schemas. A group is read in one snapshot
and written in one transaction together with its watermarks: whoever reads `raw` sees whole books, and a crash at any
point leaves the previous state. What was exported before is not read again, but for a short overlap:

    Since    rows whose change time is not older than the watermark. The watermark is the start of the oldest
             transaction that was under way in the source, less `OVERLAP` for clocks of other machines: a late commit
             carries a time that the next export still looks at.
    Whole    small tables without a change time: compared row by row; what is gone at the source goes here too.

Secrets stay where they are: credentials are not exported at all, users without their password hashes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, LiteralString, cast

import psycopg
import structlog
from psycopg import sql
from sqlalchemy import BigInteger, Column, Engine, FromClause, MetaData, String, Table, func, inspect, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateColumn

from trading_platform.settings import Settings
from trading_platform.storage import control, group
from trading_platform.storage.databases import Database, Databases, database_url
from trading_platform.storage.types import UtcDateTime

RAW = "raw"
CONTROL = "control"
"""Stands for the control database among the groups in `raw.export_watermarks`."""
OVERLAP = timedelta(minutes=1)
ANALYZE_FROM_ROWS = 500
Progress = Callable[[str, float], None]
Connection = psycopg.Connection[Any]
log = structlog.get_logger(__name__)

HORIZON: LiteralString = """
    select least(now(), min(xact_start)) from pg_stat_activity
    where datname = current_database() and pid <> pg_backend_pid()
"""


@dataclass(frozen=True)
class Since:
    """By change time. A row whose time is null (an open alert, a halt in force) is read every time."""

    column: str


@dataclass(frozen=True)
class Whole:
    """Everything, every time."""


@dataclass(frozen=True)
class Exported:
    """One table of the source and how it is followed."""

    table: FromClause
    by: Since | Whole
    without: frozenset[str] = frozenset()
    indexed: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return cast("Table", self.table).name

    @property
    def columns(self) -> list[Column[Any]]:
        return [column for column in cast("Table", self.table).columns if column.name not in self.without]


GROUP_TABLES = (
    Exported(group.Account.__table__, Whole()),
    Exported(group.Position.__table__, Whole()),
    Exported(group.LegacySession.__table__, Since("imported_at")),
    Exported(group.Intent.__table__, Since("updated_at")),
    Exported(group.Order.__table__, Since("updated_at")),
    Exported(group.Fill.__table__, Since("received_at")),
    Exported(group.EquityPoint.__table__, Since("recorded_at")),
    Exported(group.Outcome.__table__, Since("recorded_at")),
    Exported(group.AuditRow.__table__, Since("event_ts"), indexed=("event_ts",)),
)
CONTROL_TABLES = (
    Exported(control.Dataset.__table__, Whole()),
    Exported(control.User.__table__, Whole(), without=frozenset({"password_hash"})),
    Exported(control.ModelVersion.__table__, Whole()),
    Exported(control.Deployment.__table__, Whole()),
    Exported(control.Experiment.__table__, Whole()),
    Exported(control.StrategyConfig.__table__, Since("changed_at")),
    Exported(control.DriftReport.__table__, Since("created_at")),
    Exported(control.Alert.__table__, Since("resolved_at")),
    Exported(control.Halt.__table__, Since("cleared_at")),
    Exported(control.LoginEvent.__table__, Since("at"), indexed=("at",)),
    Exported(control.Signal.__table__, Since("created_at")),
)


def export(databases: Databases, progress: Progress = lambda what, fraction: None) -> dict[str, int]:
    """Bring the analytics database up to date; returns how many rows were added or changed, by table.

    Groups come before the shared tables, so that what a group's row refers to is there. Several exports at once take
    turns. A group that can't be reached stops the export; what was committed before it stays.
    """
    target_engine = databases.engine(Database.ANALYTICS)
    prepare(target_engine)
    counted = {exported.name: 0 for exported in (*GROUP_TABLES, *CONTROL_TABLES)}
    groups = databases.group_ids()
    for number, group_id in enumerate(groups):
        progress(f"exporting group {group_id}", number / (len(groups) + 1))
        _, schema = databases.group_address(group_id)
        _add(counted, _export(databases.group_engine(group_id), schema, group_id, GROUP_TABLES, target_engine))
    progress("exporting shared tables", len(groups) / (len(groups) + 1))
    _add(counted, _export(databases.engine(), control.SCHEMA, None, CONTROL_TABLES, target_engine))
    _analyze(target_engine, counted)
    progress("exported", 1.0)
    log.info("analytics_exported", groups=len(groups), rows=sum(counted.values()))
    return counted


def dbt_environment(settings: Settings) -> dict[str, str]:
    """The variables that dbt/profiles.yml reads: DBT_HOST, DBT_PORT, DBT_USER, DBT_PASSWORD, DBT_DBNAME.

    The host is an address, or a folder for a server reached by its unix socket.
    """
    url = database_url(settings, Database.ANALYTICS)
    socket_folder = url.query.get("host")
    return {
        "DBT_HOST": url.host or (socket_folder if isinstance(socket_folder, str) else "") or "localhost",
        "DBT_PORT": str(url.port or 5432),
        "DBT_USER": url.username or "postgres",
        "DBT_PASSWORD": url.password or "",
        "DBT_DBNAME": url.database or "",
    }


# --- the tables of schema raw ----------------------------------------------------------------------------------------


def raw_tables() -> MetaData:
    """Schema `raw`, from the tables of the source: the same columns and types; a group's rows carry `group_id`."""
    made = MetaData(schema=RAW)
    Table(
        "export_watermarks",
        made,
        Column("source", String, primary_key=True),
        Column("table_name", String, primary_key=True),
        Column("watermark", UtcDateTime()),
        Column("rows", BigInteger, nullable=False),
        Column("exported_at", UtcDateTime(), nullable=False, server_default=func.now()),
    )
    for exported in GROUP_TABLES:
        Table(exported.name, made, Column("group_id", String, primary_key=True), *_copied(exported))
    for exported in CONTROL_TABLES:
        Table(exported.name, made, *_copied(exported))
    return made


def prepare(engine: Engine) -> None:
    """Create what is missing in schema `raw`, and add columns that the source has got since."""
    tables = raw_tables()
    with engine.begin() as connection:
        connection.execute(text("select pg_advisory_xact_lock(hashtext('trading_platform.analytics.prepare'))"))
        connection.execute(text(f"create schema if not exists {RAW}"))
        existing = inspect(connection).get_multi_columns(schema=RAW)
        tables.create_all(connection)
        for table in tables.sorted_tables:
            present = {column["name"] for column in existing.get((RAW, table.name), [])}
            for column in table.columns if present else ():
                if column.name not in present:
                    column.nullable = True  # rows that are there already have no value for it
                    definition = CreateColumn(column).compile(dialect=postgresql.dialect())  # type: ignore[no-untyped-call]
                    connection.execute(text(f"alter table {RAW}.{table.name} add column {definition}"))


def _copied(exported: Exported) -> Iterator[Column[Any]]:
    for column in exported.columns:
        yield Column(
            column.name,
            column.type,
            primary_key=column.primary_key,
            nullable=column.nullable,
            autoincrement=False,
            index=column.name in exported.indexed,
        )


# --- copying ---------------------------------------------------------------------------------------------------------


@dataclass
class _Copy:
    """One source's tables, read in one snapshot, written in one transaction."""

    source: Connection
    target: Connection
    schema: str
    group_id: str | None
    horizon: datetime
    counted: dict[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.group_id or CONTROL

    def table(self, exported: Exported) -> None:
        """Copy what is new of one table: COPY into a temporary table, from there by primary key into `raw`."""
        incoming = sql.Identifier(f"incoming_{exported.name}")
        into = sql.Identifier(RAW, exported.name)
        self.target.execute(sql.SQL("create temp table {} (like {}) on commit drop").format(incoming, into))
        columns = _identifiers(self._columns(exported))
        reading = sql.SQL("copy ({}) to stdout").format(self._query(exported))
        writing = sql.SQL("copy {} ({}) from stdin").format(incoming, columns)
        with self.source.cursor().copy(reading) as out, self.target.cursor().copy(writing) as taken:
            for block in out:
                taken.write(block)
        changed = self.target.execute(self._upsert(exported, incoming, into)).rowcount
        if isinstance(exported.by, Whole):
            changed += self.target.execute(self._delete_missing(exported, incoming, into)).rowcount
        self._keep_watermark(exported, changed)
        self.counted[exported.name] = changed

    def _columns(self, exported: Exported) -> list[str]:
        own = [column.name for column in exported.columns]
        return own if self.group_id is None else ["group_id", *own]

    def _key(self, exported: Exported) -> list[str]:
        own = [column.name for column in exported.columns if column.primary_key]
        return own if self.group_id is None else ["group_id", *own]

    def _query(self, exported: Exported) -> sql.Composed:
        """What to read: all columns of the rows that may be new."""
        shown: list[sql.Composable] = [sql.SQL("t.{}").format(sql.Identifier(c.name)) for c in exported.columns]
        if self.group_id is not None:
            shown.insert(0, sql.SQL("{}::varchar").format(sql.Literal(self.group_id)))
        query = sql.SQL("select {} from {} t").format(
            sql.SQL(", ").join(shown), sql.Identifier(self.schema, exported.name)
        )
        watermark = self._watermark(exported)
        if isinstance(exported.by, Since) and watermark:
            column = sql.Identifier(exported.by.column)
            since = sql.Literal(watermark)
            query += sql.SQL(" where t.{0} >= {1} or t.{0} is null").format(column, since)
        return query

    def _upsert(self, exported: Exported, incoming: sql.Identifier, into: sql.Identifier) -> sql.Composed:
        """Rows that are the same are left alone, so that a second export changes nothing and counts nothing."""
        key = self._key(exported)
        others = [name for name in self._columns(exported) if name not in key]
        return sql.SQL(
            "insert into {into} as kept ({columns}) select {columns} from {incoming} "
            "on conflict ({key}) do update set {sets} where ({old}) is distinct from ({new})"
        ).format(
            into=into,
            incoming=incoming,
            columns=_identifiers(self._columns(exported)),
            key=_identifiers(key),
            sets=sql.SQL(", ").join(sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in others),
            old=sql.SQL(", ").join(sql.Identifier("kept", name) for name in others),
            new=sql.SQL(", ").join(sql.Identifier("excluded", name) for name in others),
        )

    def _delete_missing(self, exported: Exported, incoming: sql.Identifier, into: sql.Identifier) -> sql.Composed:
        key = self._key(exported)
        same = sql.SQL(" and ").join(sql.SQL("i.{0} = kept.{0}").format(sql.Identifier(name)) for name in key)
        mine = sql.SQL("true") if self.group_id is None else sql.SQL("kept.group_id = {}").format(self.group_id)
        return sql.SQL("delete from {} kept where {} and not exists (select from {} i where {})").format(
            into, mine, incoming, same
        )

    # --- watermarks --------------------------------------------------------------------------------------------------

    def _watermark(self, exported: Exported) -> datetime | None:
        row = self.target.execute(
            "select watermark from raw.export_watermarks where source = %s and table_name = %s",
            (self.name, exported.name),
        ).fetchone()
        return row[0] if row else None

    def _keep_watermark(self, exported: Exported, changed: int) -> None:
        watermark = self.horizon - OVERLAP if isinstance(exported.by, Since) else None
        self.target.execute(
            "insert into raw.export_watermarks (source, table_name, watermark, rows) values (%s, %s, %s, %s) "
            "on conflict (source, table_name) do update set watermark = excluded.watermark, "
            "rows = export_watermarks.rows + excluded.rows, exported_at = now()",
            (self.name, exported.name, watermark, changed),
        )


def _export(
    source_engine: Engine, schema: str, group_id: str | None, tables: Sequence[Exported], target_engine: Engine
) -> Mapping[str, int]:
    with _connection(source_engine) as source, _connection(target_engine) as target:
        target.execute("set local statement_timeout = 0")
        target.execute("select pg_advisory_xact_lock(hashtext('trading_platform.analytics.export'))")
        horizon = source.execute(HORIZON).fetchone()
        source.rollback()  # the snapshot must be younger than the horizon
        source.execute("set transaction isolation level repeatable read, read only")
        source.execute("set local statement_timeout = 0")
        copy = _Copy(source, target, schema, group_id, cast("tuple[datetime]", horizon)[0])
        for exported in tables:
            copy.table(exported)
        target.commit()
        return copy.counted


@contextmanager
def _connection(engine: Engine) -> Iterator[Connection]:
    """The driver's own connection (COPY is not SQLAlchemy's), rolled back on leaving unless it was committed."""
    pooled = engine.raw_connection()
    try:
        yield cast("Connection", pooled.driver_connection)
    finally:
        pooled.close()


def _identifiers(names: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(name) for name in names)


def _add(counted: dict[str, int], more: Mapping[str, int]) -> None:
    for name, rows in more.items():
        counted[name] += rows


def _analyze(engine: Engine, counted: Mapping[str, int]) -> None:
    """Fresh statistics where much is new: without them, joins of dbt's models on new tables take minutes."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for name, rows in counted.items():
            if rows >= ANALYZE_FROM_ROWS:
                connection.execute(text(f"analyze {RAW}.{name}"))
