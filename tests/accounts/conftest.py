"""A Valkey client of the test's own, on an empty database."""

from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from trading_platform.accounts.sessions import valkey
from trading_platform.settings import Settings


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    client = valkey(Settings(redis_url=SecretStr(redis_url)))
    await client.flushdb()
    yield client
    await client.aclose()
