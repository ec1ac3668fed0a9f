"""A deployment with one group, and a way to write audit entries as an engine does."""

from collections.abc import Callable

import pytest

from trading_platform.compliance.audit import record
from trading_platform.identifiers import GroupId
from trading_platform.storage.control import Group, Shard
from trading_platform.storage.databases import Databases
from trading_platform.storage.migrate import migrate_group

Write = Callable[..., None]


def add_group(databases: Databases, name: str) -> GroupId:
    with databases.control() as session:
        session.merge(Shard(shard_id="shard0", url_key="shard0"))
        session.flush()
        session.add(Group(group_id=name, shard_id="shard0", schema_name=f"group_{name}"))
    migrate_group(databases, GroupId(name))
    return GroupId(name)


@pytest.fixture
def group(platform: Databases) -> GroupId:
    return add_group(platform, "one")


@pytest.fixture
def write(platform: Databases, group: GroupId) -> Write:
    """Write n entries in one transaction."""

    def write(n: int = 1, **columns: object) -> None:
        with platform.group(group) as session:
            for _ in range(n):
                record(session, **({"user_id": "ann", "actor": "engine", "event_type": "SEND"} | columns))

    return write
