"""Fixtures that all tests share: real servers, one of each a test session, and a clean deployment on them."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import make_url

from trading_platform.settings import Settings
from trading_platform.stack.servers import Postgres, Valkey, running
from trading_platform.storage.databases import Database, Databases, database_url
from trading_platform.storage.migrate import migrate

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def market_data() -> Path:
    """Real market data for tests; not part of the project."""
    folder = SHARED / "market_data"
    if not folder.exists():
        pytest.skip("the folder ../shared/market_data is not here")
    return folder


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL server for this test process: TP_TEST_DATABASE_URL, or an embedded one."""
    if given := os.environ.get("TP_TEST_DATABASE_URL"):
        yield given
        return
    folder = tmp_path_factory.mktemp("postgres")
    with running(Postgres(folder, fsync=False)) as url:
        yield url


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(Valkey(tmp_path_factory.mktemp("valkey"))) as url:
        yield url


@pytest.fixture
def platform(postgres_url: str, redis_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Databases]:
    """An empty, migrated deployment with a home folder of its own. `platform.settings` are its settings."""
    name = f"t{abs(hash(request.node.nodeid)) % 10**9}_{os.getpid()}"
    settings = Settings(
        home_dir=tmp_path / "home",
        database_url=SecretStr(make_url(postgres_url).set(database=name).render_as_string(hide_password=False)),
        redis_url=SecretStr(redis_url),
        environment="test",
    )
    databases = Databases(settings)
    migrate(databases)
    yield databases
    databases.close()
    _drop(settings)


def _drop(settings: Settings) -> None:
    import psycopg

    maintenance = database_url(settings).set(drivername="postgresql", database="postgres")
    with psycopg.connect(maintenance.render_as_string(hide_password=False), autocommit=True) as connection:
        for database in Database:
            connection.execute(f'drop database if exists "{database_url(settings, database).database}" with (force)')
