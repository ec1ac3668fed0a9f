"""Deployments with an analytics database; one of them built by dbt, once, for all tests that read the models."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from tests.compliance.seeding import WALL, Books, add_group, add_shared, deployment
from trading_platform.storage.analytics import dbt_environment, export, prepare
from trading_platform.storage.databases import Database, Databases

PROJECT = Path(__file__).resolve().parents[2] / "dbt"
RESULTS = [("60000", "60600"), ("60100", "59800"), ("61000", "61900.5"), ("60500", "60100"), ("59000", "59700")]
Dbt = Callable[..., dict[str, str]]


@pytest.fixture(scope="module")
def databases(
    postgres_url: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Databases]:
    name = request.module.__name__.rsplit(".", maxsplit=1)[-1]
    with deployment(postgres_url, tmp_path_factory.mktemp("home"), name) as made:
        yield made


@dataclass
class Built:
    """A deployment whose models are built. `empty_run` and `run` are dbt's results by node."""

    databases: Databases
    books: list[Books]
    dbt: Dbt
    empty_run: dict[str, str]
    run: dict[str, str]

    def rows(self, sql: str) -> list[dict[str, Any]]:
        with self.databases.engine(Database.ANALYTICS).connect() as connection:
            return [dict(row) for row in connection.execute(text(sql)).mappings()]


@pytest.fixture(scope="session")
def built(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    with deployment(postgres_url, tmp_path_factory.mktemp("home"), "built") as databases:
        dbt = _dbt(databases, tmp_path_factory.mktemp("dbt"))
        prepare(databases.engine(Database.ANALYTICS))
        empty_run = dbt("build", "--exclude", "test_type:generic")
        books = _seed(databases)
        export(databases)
        yield Built(databases, books, dbt, empty_run, dbt("build"))


def _seed(databases: Databases) -> list[Books]:
    """Group one: Ann, 20 trades of both arms, a refusal, 11 orders within a second. Group two: Bob, a trade on either side of midnight."""
    one = Books(databases, add_group(databases, "one"))
    add_shared(databases, one.group)
    one.open_account()
    for number in range(20):
        one.trade(*RESULTS[number % 5], arm="challenger" if number % 3 == 0 else "champion")
    one.deny("POSITIONS_TOO_MANY: open=5 limit=5")
    one.audit("LIMITS", WALL + timedelta(hours=3), actor="trader:u_0123456789")
    for _ in range(11):
        one.audit("SEND", WALL + timedelta(hours=2), client_order_id="c", symbol="ETH/USDT", dataset_id="files_btc")
    two = Books(databases, add_group(databases, "two"), user="bob", trades=100)
    two.open_account()
    midnight = WALL + timedelta(hours=13, minutes=30)  # in India; a trade's number is added in seconds
    two.trade("50000", "51000", wall=midnight - timedelta(seconds=101))  # the last second of the day
    two.trade("50000", "51000", wall=midnight - timedelta(seconds=101))  # the first of the next
    return [one, two]


def _dbt(databases: Databases, folder: Path) -> Dbt:
    """dbt in this process (its import and its parsing are most of its cost): dbt(*arguments) -> {node: status}."""

    def run(*arguments: str) -> dict[str, str]:
        from dbt.cli.main import dbtRunner

        options = ["--project-dir", str(PROJECT), "--profiles-dir", str(PROJECT), "--quiet"]
        options += ["--target-path", str(folder / "target"), "--log-path", str(folder / "logs")]
        with pytest.MonkeyPatch.context() as environment:
            for name, value in dbt_environment(databases.settings).items():
                environment.setenv(name, value)
            done = dbtRunner().invoke([*arguments, *options])
        if done.exception is not None:
            raise done.exception
        return {result.node.name: str(result.status) for result in done.result}

    return run
