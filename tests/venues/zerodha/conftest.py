from collections.abc import AsyncIterator

import pytest

from tests.venues.zerodha.replayed import Replayed, replay


@pytest.fixture
async def kite() -> AsyncIterator[Replayed]:
    async with replay() as server:
        yield server
