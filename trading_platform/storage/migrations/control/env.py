"""Alembic environment of the control database. Always called with a connection; see `storage.migrate`."""

from alembic import context

from trading_platform.storage.control import ControlBase
from trading_platform.storage.migrate import VERSION_TABLE

config = context.config
schema = config.attributes["schema"]
context.configure(
    connection=config.attributes["connection"],
    target_metadata=ControlBase.metadata,
    version_table=VERSION_TABLE,
    version_table_schema=schema,
    include_schemas=True,
    include_name=lambda name, kind, _: kind != "schema" or name == schema,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
