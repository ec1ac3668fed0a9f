"""Fixtures that all tests share: real servers, one of each a test session, and a clean deployment on them."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import make_url

from trading_platform.settings import Settings
from trading_platform.stack.servers import Postgres, Valkey, running
from trading_platform.storage.databases import Database, Databases, database_url
from trading_platform.storage.migrate import migrate

SHARED = Path(__file__).resolve().parents[2] / "shared"
MEMORY, ENOUGH_BYTES = Path("/dev/shm"), 6 * 2**30

# Each test of the platform copies five databases, forty megabytes: a tenth of a second in memory, up to two on a disk.
if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ENOUGH_BYTES:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


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


@pytest.fixture(scope="session")
def migrated(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings of a deployment that was migrated and is never used: the databases of each test are copies of it."""
    settings = _settings(postgres_url, f"migrated_{os.getpid()}", tmp_path_factory.mktemp("migrated"))
    databases = Databases(settings)
    migrate(databases)
    databases.close()
    return settings


@pytest.fixture
def platform(
    migrated: Settings, postgres_url: str, redis_url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Databases]:
    """An empty, migrated deployment with a home folder of its own. `platform.settings` are its settings."""
    name = f"t{abs(hash(request.node.nodeid)) % 10**9}_{os.getpid()}"
    settings = _settings(postgres_url, name, tmp_path / "home", redis_url)
    with _maintenance(settings) as connection:
        for database in Database:
            copy, original = (database_url(given, database).database for given in (settings, migrated))
            connection.execute(f'create database "{copy}" template "{original}" strategy file_copy')
    databases = Databases(settings)
    yield databases
    databases.close()
    drop_databases(settings)


def drop_databases(settings: Settings) -> None:
    """All databases of a deployment that a test made."""
    with _maintenance(settings) as connection:
        for database in Database:
            connection.execute(f'drop database if exists "{database_url(settings, database).database}" with (force)')


def _settings(postgres_url: str, database: str, home: Path, redis_url: str | None = None) -> Settings:
    url = make_url(postgres_url).set(database=database).render_as_string(hide_password=False)
    return Settings(
        home_dir=home,
        database_url=SecretStr(url),
        redis_url=SecretStr(redis_url) if redis_url else None,
        environment="test",
    )


def _maintenance(settings: Settings) -> "psycopg.Connection[tuple[object, ...]]":
    url = database_url(settings).set(drivername="postgresql", database="postgres")
    return psycopg.connect(url.render_as_string(hide_password=False), autocommit=True)
