"""One deployment for the room's tests, a fresh group for each, and a way to write audit entries as an engine does."""

import itertools
from collections.abc import Callable, Iterator

import pytest

from tests.compliance.seeding import add_group, deployment
from trading_platform.compliance.audit import record
from trading_platform.identifiers import GroupId
from trading_platform.storage.databases import Databases

Write = Callable[..., None]
numbers = itertools.count(1)


@pytest.fixture(scope="session")
def databases(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Databases]:
    with deployment(postgres_url, tmp_path_factory.mktemp("home"), "compliance") as made:
        yield made


@pytest.fixture
def group(databases: Databases) -> GroupId:
    return add_group(databases, f"g{next(numbers)}")


@pytest.fixture
def write(databases: Databases, group: GroupId) -> Write:
    """Write n entries in one transaction."""

    def write(n: int = 1, **columns: object) -> None:
        with databases.group(group) as session:
            for _ in range(n):
                record(session, **({"user_id": "ann", "actor": "engine", "event_type": "SEND"} | columns))

    return write
