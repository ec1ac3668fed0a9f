"""Engines and sessions: which database, which schema, which pool.

`Databases` is the one door. A process makes one and passes it down; tests make one on a server of their own.

    databases = Databases(settings())
    with databases.control() as session: ...            # control tables
    with databases.group(GroupId("g1")) as session: ... # that group's tables, on the shard that holds it
"""

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Any

import psycopg
from sqlalchemy import URL, Engine, create_engine, make_url, select, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from trading_platform.identifiers import GroupId
from trading_platform.settings import Settings
from trading_platform.storage.control import Group, Shard
from trading_platform.storage.group import SCHEMA as GROUP_PLACEHOLDER

POOL_SIZE = 5
MAX_OVERFLOW = 5
STATEMENT_TIMEOUT_MS = 30_000
FIRST_SHARD = "shard0"


class Database(StrEnum):
    """The databases of one deployment; the control database's name is the stem of the others."""

    CONTROL = ""
    DAGSTER = "_dagster"
    OPTUNA = "_optuna"
    ANALYTICS = "_analytics"
    SHARD0 = "_shard0"


class NoDatabaseError(RuntimeError):
    """Nothing says where PostgreSQL is."""


class UnknownGroupError(LookupError):
    """The shard map has no such group."""


def database_url(settings: Settings, database: Database = Database.CONTROL) -> URL:
    """The address of one of the databases, with the psycopg 3 driver. Raises `NoDatabaseError` where none is known."""
    if settings.database_url is None:
        raise NoDatabaseError(
            "No PostgreSQL address is known: TP_DATABASE_URL is not set and no running stack left one in "
            f"{settings.run_dir / 'endpoints.json'}. Start the platform (`trading-platform up`) or set TP_DATABASE_URL."
        )
    url = make_url(settings.database_url.get_secret_value())
    return url.set(drivername="postgresql+psycopg", database=f"{url.database}{database.value}")


def plain_url(url: URL) -> str:
    """The same address for tools that take a driverless `postgresql://` URL."""
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def ensure_databases(settings: Settings) -> None:
    """Create the databases that do not exist yet. Safe to run by several processes at once."""
    maintenance = create_engine(
        database_url(settings).set(database="postgres"), isolation_level="AUTOCOMMIT", pool_size=1
    )
    try:
        with maintenance.connect() as connection:
            connection.execute(text("select pg_advisory_lock(hashtext('trading_platform.ensure_databases'))"))
            existing = set(connection.scalars(text("select datname from pg_database")))
            for database in Database:
                name = database_url(settings, database).database
                if name not in existing:
                    connection.execute(text(f'create database "{name}"'))
    finally:
        maintenance.dispose()


class Databases:
    """Pooled engines of one process, made on first use.

    Group schemas are reached by `schema_translate_map`, so that one pool a server serves all its groups and no
    statement depends on a session's search_path (which transaction pooling would break).
    """

    def __init__(
        self, settings: Settings, *, pool_size: int = POOL_SIZE, max_overflow: int = MAX_OVERFLOW,
        asleep_after: timedelta | None = None,
    ) -> None:  # fmt: skip
        """`asleep_after`: the server ends a transaction in which this process has done nothing for so long. For holders of
        a lease, who must not keep rows, and successors out, while they are stopped."""
        self.settings = settings
        self._asleep_after = asleep_after
        self._pool_size = pool_size
        self._max_overflow = max_overflow
        self._engine = lru_cache(maxsize=None)(self._make_engine)
        self._async_engine = lru_cache(maxsize=None)(self._make_async_engine)
        self._groups: dict[GroupId, tuple[URL, str]] = {}
        self._made: list[Engine] = []
        self._async_made: list[AsyncEngine] = []

    # --- synchronous -------------------------------------------------------------------------------------------------

    @contextmanager
    def control(self) -> Iterator[Session]:
        """A session on the control database, committed on leaving, rolled back on an exception."""
        with Session(self.engine(), expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def group(self, group_id: GroupId) -> Iterator[Session]:
        """A session on the group's schema, committed on leaving, rolled back on an exception."""
        with Session(self.group_engine(group_id), expire_on_commit=False) as session, session.begin():
            yield session

    def engine(self, database: Database = Database.CONTROL) -> Engine:
        return self._engine(database_url(self.settings, database))

    def group_engine(self, group_id: GroupId) -> Engine:
        url, schema = self.group_address(group_id)
        return self._engine(url).execution_options(schema_translate_map={GROUP_PLACEHOLDER: schema})

    # --- asynchronous ------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def control_async(self) -> AsyncIterator[AsyncSession]:
        async with AsyncSession(self.async_engine(), expire_on_commit=False) as session, session.begin():
            yield session

    @asynccontextmanager
    async def group_async(self, group_id: GroupId) -> AsyncIterator[AsyncSession]:
        async with AsyncSession(self.async_group_engine(group_id), expire_on_commit=False) as session, session.begin():
            yield session

    def async_engine(self, database: Database = Database.CONTROL) -> AsyncEngine:
        return self._async_engine(database_url(self.settings, database))

    def async_group_engine(self, group_id: GroupId) -> AsyncEngine:
        """Looks the group up synchronously the first time; the address is cached."""
        url, schema = self.group_address(group_id)
        return self._async_engine(url).execution_options(schema_translate_map={GROUP_PLACEHOLDER: schema})

    async def connect_async(self, group_id: GroupId) -> psycopg.AsyncConnection:
        """A connection to the group's server outside of any pool, committing each statement; the caller closes it."""
        url, _ = self.group_address(group_id)
        arguments = _connect_args(self._asleep_after, _UnpipelinedAsync)
        return await psycopg.AsyncConnection.connect(plain_url(url), autocommit=True, **arguments)

    # --- the shard map -----------------------------------------------------------------------------------------------

    def group_address(self, group_id: GroupId) -> tuple[URL, str]:
        """(server's URL, schema name) of a group. Raises `UnknownGroupError`."""
        if group_id not in self._groups:
            with self.control() as session:
                row = session.execute(
                    select(Shard.url_key, Group.schema_name)
                    .join(Shard, Shard.shard_id == Group.shard_id)
                    .where(Group.group_id == group_id)
                ).one_or_none()
            if row is None:
                raise UnknownGroupError(f"no group {group_id!r} in the shard map; see `trading-platform groups list`")
            self._groups[group_id] = (self.shard_url(row.url_key), row.schema_name)
        return self._groups[group_id]

    def group_ids(self) -> list[GroupId]:
        """All groups, in order of their id."""
        with self.control() as session:
            return [GroupId(group_id) for group_id in session.scalars(select(Group.group_id).order_by(Group.group_id))]

    def shard_url(self, url_key: str) -> URL:
        """`shard0` is the sibling of the control database; any other key is looked up in TP_SHARD_URLS."""
        if url_key == FIRST_SHARD:
            return database_url(self.settings, Database.SHARD0)
        if url_key not in self.settings.shard_urls:
            raise NoDatabaseError(f"the shard map names {url_key!r}, but TP_SHARD_URLS has no address under that key")
        url = make_url(self.settings.shard_urls[url_key].get_secret_value())
        return url.set(drivername="postgresql+psycopg")

    async def aclose(self) -> None:
        """Dispose of the asynchronous pools; call it from the event loop that used them."""
        for engine in self._async_made:
            await engine.dispose()
        self.close()

    def close(self) -> None:
        for engine in self._made:
            engine.dispose()

    def _make_engine(self, url: URL) -> Engine:
        engine = create_engine(
            url,
            pool_size=self._pool_size,
            max_overflow=self._max_overflow,
            pool_pre_ping=True,
            connect_args=_connect_args(self._asleep_after, _Unpipelined),
        )
        self._made.append(engine)
        return engine

    def _make_async_engine(self, url: URL) -> AsyncEngine:
        engine = create_async_engine(
            url,
            pool_size=self._pool_size,
            max_overflow=self._max_overflow,
            pool_pre_ping=True,
            connect_args=_connect_args(self._asleep_after, _UnpipelinedAsync),
        )
        self._async_made.append(engine)
        return engine


class _Unpipelined(psycopg.Cursor[Any]):
    """Executes many statements one by one.

    psycopg would send them as a pipeline, whose end may reach the server as Sync and then Flush. The server's watch over
    idle transactions begins with the former and is ended by the latter, so a process that is stopped then would keep its
    rows, and its successor out, for as long as it sleeps.
    """

    def executemany(self, query: Any, params_seq: Iterable[Any], *, returning: bool = False) -> None:
        changed = 0
        for params in params_seq:
            self.execute(query, params)
            changed += self.rowcount
        self._rowcount = changed


class _UnpipelinedAsync(psycopg.AsyncCursor[Any]):
    """Like `_Unpipelined`."""

    async def executemany(self, query: Any, params_seq: Iterable[Any], *, returning: bool = False) -> None:
        changed = 0
        for params in params_seq:
            await self.execute(query, params)
            changed += self.rowcount
        self._rowcount = changed


def _connect_args(asleep_after: timedelta | None, watched: type[Any]) -> dict[str, Any]:
    """`watched`: the cursor of connections whose server watches over idle transactions."""
    options = {"statement_timeout": str(STATEMENT_TIMEOUT_MS), "timezone": "UTC"}
    if asleep_after is not None:
        options["idle_in_transaction_session_timeout"] = str(int(asleep_after.total_seconds() * 1_000))
    return ({"cursor_factory": watched} if asleep_after is not None else {}) | {
        "connect_timeout": 10,
        "options": " ".join(f"-c {name}={value}" for name, value in options.items()),
        # Server-side prepared statements break behind transaction pooling.
        "prepare_threshold": None,
    }
