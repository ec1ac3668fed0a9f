"""Alembic environment of a group schema. Scripts name the placeholder schema `GROUP`; the connection translates it."""

from alembic import context

from trading_platform.storage.group import GroupBase
from trading_platform.storage.migrate import VERSION_TABLE

config = context.config
context.configure(
    connection=config.attributes["connection"],
    target_metadata=GroupBase.metadata,
    version_table=VERSION_TABLE,
    version_table_schema=config.attributes["schema"],
    include_schemas=True,
    include_name=lambda name, kind, _: kind != "schema" or name == "GROUP",
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
