"""Limits: exact at the edge, shared by instances, and closed when nobody counts."""

import asyncio

import pytest
from limits import RateLimitItemPerMinute, RateLimitItemPerSecond
from pydantic import SecretStr
from redis.asyncio import Redis

from trading_platform.accounts.limits import Limiter, LimitsUnavailableError, TooManyError
from trading_platform.accounts.sessions import valkey
from trading_platform.settings import Settings
from trading_platform.stack.servers import free_port

SEVEN = RateLimitItemPerMinute(7, namespace="test")


async def test_the_limit_is_met_exactly_by_all_instances_together(redis: Redis) -> None:
    instances = [Limiter(redis), Limiter(redis)]
    answers = await asyncio.gather(
        *(instances[number % 2].count(SEVEN, "ann") for number in range(30)), return_exceptions=True
    )
    refused = [error for error in answers if isinstance(error, TooManyError)]
    assert len(refused) == 30 - 7
    assert all(1 <= error.retry_after <= 60 for error in refused)
    await instances[0].count(SEVEN, "ben")


async def test_a_new_window_starts_empty(redis: Redis) -> None:
    two_a_second = RateLimitItemPerSecond(2, namespace="test")
    limiter = Limiter(redis)
    for _ in range(2):
        await limiter.count(two_a_second, "ann")
    with pytest.raises(TooManyError):
        await limiter.count(two_a_second, "ann")
    await asyncio.sleep(1.1)
    await limiter.count(two_a_second, "ann")


async def test_asking_does_not_count_and_forgetting_starts_anew(redis: Redis) -> None:
    limiter = Limiter(redis)
    for _ in range(20):
        await limiter.require_left(SEVEN, "ann")
    for _ in range(7):
        await limiter.count(SEVEN, "ann")
    with pytest.raises(TooManyError):
        await limiter.require_left(SEVEN, "ann")
    await limiter.forget(SEVEN, "ann")
    await limiter.count(SEVEN, "ann")


async def test_without_valkey_reads_are_counted_here_and_the_rest_is_refused() -> None:
    away = valkey(Settings(redis_url=SecretStr(f"redis://127.0.0.1:{free_port()}/0")))
    limiter = Limiter(away)
    with pytest.raises(LimitsUnavailableError):
        await limiter.count(SEVEN, "ann")
    for _ in range(7):
        await limiter.count_read(SEVEN, "ann")
    with pytest.raises(TooManyError):
        await limiter.count_read(SEVEN, "ann")
    await away.aclose()
