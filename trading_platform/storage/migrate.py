"""Migrations: one Alembic line for the control database, one for group schemas, each with its own version table.

`migrate` is resumable: it walks the control database and then every group on every server, and a second run goes on
where the first one stopped. Expand first, contract a release later; an engine refuses a schema of another revision.
"""

from collections.abc import Callable
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from trading_platform.identifiers import GroupId
from trading_platform.storage.control import SCHEMA as CONTROL_SCHEMA
from trading_platform.storage.databases import Databases, ensure_databases

MIGRATIONS = Path(__file__).parent / "migrations"
VERSION_TABLE = "schema_version"


class WrongRevisionError(RuntimeError):
    """A schema is not at the revision that this code was written for."""


def migrate(databases: Databases, on_step: Callable[[str], None] = lambda _: None) -> None:
    """Bring the control database and all group schemas to the newest revision, creating what is missing."""
    ensure_databases(databases.settings)
    on_step("control database")
    upgrade(databases.engine(), "control", CONTROL_SCHEMA)
    for group_id in databases.group_ids():
        on_step(f"group {group_id}")
        migrate_group(databases, group_id)


def migrate_group(databases: Databases, group_id: GroupId) -> None:
    """Create the group's schema where it is missing and bring it to the newest revision."""
    _, schema = databases.group_address(group_id)
    upgrade(databases.group_engine(group_id), "group", schema)


def upgrade(engine: Engine, line: str, schema: str) -> None:
    """Run one line of migrations (`control` or `group`) inside `schema`, under a lock, in one transaction."""
    with engine.begin() as connection:
        connection.execute(text("select pg_advisory_xact_lock(hashtext(:name))"), {"name": f"migrate.{schema}"})
        connection.execute(text(f'create schema if not exists "{schema}"'))
        command.upgrade(alembic_config(line, schema, connection), "head")


def require_current(engine: Engine, line: str, schema: str) -> None:
    """Raise `WrongRevisionError` unless `schema` is at the head of its line."""
    head = ScriptDirectory(str(MIGRATIONS / line)).get_current_head()
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": VERSION_TABLE, "version_table_schema": schema}
        )
        found = context.get_current_revision()
    if found != head:
        raise WrongRevisionError(
            f"schema {schema!r} is at revision {found}, this release needs {head}; run `trading-platform migrate`"
        )


def alembic_config(line: str, schema: str, connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS / line))
    config.attributes["schema"] = schema
    config.attributes["connection"] = connection
    return config
