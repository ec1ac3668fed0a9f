"""A deployment whose analytics database was filled and built once: two groups, some trades, a refusal, an alert."""

from collections.abc import Iterator

import pytest

from tests.compliance.seeding import deployment
from trading_platform.storage.databases import Databases


@pytest.fixture(scope="module")
def databases(
    postgres_url: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Databases]:
    name = request.module.__name__.rsplit(".", maxsplit=1)[-1]
    with deployment(postgres_url, tmp_path_factory.mktemp("home"), name) as made:
        yield made
