"""Request limits: per user and per address, counted in Valkey so that all instances count together.

Reads go on with a counter of this process where Valkey is away; whatever logs in or changes something fails closed.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from time import time

from limits import RateLimitItem, RateLimitItemPerHour, RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage, Storage
from limits.aio.strategies import FixedWindowRateLimiter
from redis.asyncio import Redis
from redis.exceptions import RedisError

from trading_platform.accounts.joined_calls import JoinedCalls

READS: RateLimitItem = RateLimitItemPerMinute(1200, namespace="reads")
WRITES: RateLimitItem = RateLimitItemPerMinute(60, namespace="writes")
LOGINS_OF_ONE: RateLimitItem = RateLimitItemPerMinute(5, 5, namespace="login-one")
"""Failed log-ins to one account from one address."""
LOGINS_OF_ACCOUNT: RateLimitItem = RateLimitItemPerHour(50, namespace="login-account")
LOGINS_OF_ADDRESS: RateLimitItem = RateLimitItemPerMinute(100, 5, namespace="login-address")
"""Wide enough for an office behind one address."""


class TooManyError(RuntimeError):
    """A limit is used up. `retry_after` is in whole seconds."""

    def __init__(self, limit: RateLimitItem, retry_after: int) -> None:
        super().__init__(f"more than {limit}; try again in {retry_after} s")
        self.limit = limit
        self.retry_after = retry_after


class LimitsUnavailableError(RuntimeError):
    """Valkey cannot be reached and the request must be counted."""


@dataclass(frozen=True)
class _Hit:
    key: str
    expiry: int
    amount: int


class JoinedValkeyStorage(Storage):
    """Counters in Valkey for the `limits` library; hits that wait at the same moment go in one pipeline."""

    STORAGE_SCHEME = None

    def __init__(self, redis: Redis) -> None:
        super().__init__()
        self._redis = redis
        self._count = JoinedCalls(self._count_many)

    @property
    def base_exceptions(self) -> tuple[type[Exception], ...]:
        return RedisError, OSError, TimeoutError

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        return await self._count(_Hit(key, expiry, amount))

    async def get(self, key: str) -> int:
        return int(await self._redis.get(key) or 0)

    async def get_expiry(self, key: str) -> float:
        return time() + max(await self._redis.pttl(key), 0) / 1000

    async def check(self) -> bool:
        return bool(await self._redis.ping())

    async def reset(self) -> int | None:
        raise RuntimeError("counters expire by themselves; resetting all of them at once is not offered")

    async def clear(self, key: str) -> None:
        await self._redis.delete(key)

    async def _count_many(self, hits: Sequence[_Hit]) -> Sequence[int]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for hit in hits:
                pipe.incrby(hit.key, hit.amount)
                pipe.expire(hit.key, hit.expiry, nx=True)
            answers = await pipe.execute()
        return [int(count) for count in answers[::2]]


class Limiter:
    """Counts requests; raises `TooManyError` beyond a limit."""

    def __init__(self, redis: Redis) -> None:
        self._shared = FixedWindowRateLimiter(JoinedValkeyStorage(redis))
        self._local = FixedWindowRateLimiter(MemoryStorage())

    async def count(self, limit: RateLimitItem, *who: str) -> None:
        """Count a request that must be counted: log-ins and writes. Raises `LimitsUnavailableError` without Valkey."""
        with _fail_closed():
            await _hit(self._shared, limit, who)

    async def count_read(self, limit: RateLimitItem, *who: str) -> None:
        """Count a read; without Valkey by this process alone."""
        try:
            await self.count(limit, *who)
        except LimitsUnavailableError:
            await _hit(self._local, limit, who)

    async def require_left(self, limit: RateLimitItem, *who: str) -> None:
        """Raise `TooManyError` where the limit is used up, without counting."""
        with _fail_closed():
            if not await self._shared.test(limit, *who):
                raise await _refusal(self._shared, limit, who)

    async def forget(self, limit: RateLimitItem, *who: str) -> None:
        """Start the limit anew: a successful log-in forgives the failed ones before it."""
        with _fail_closed():
            await self._shared.clear(limit, *who)


async def _hit(limiter: FixedWindowRateLimiter, limit: RateLimitItem, who: Sequence[str]) -> None:
    if not await limiter.hit(limit, *who):
        raise await _refusal(limiter, limit, who)


async def _refusal(limiter: FixedWindowRateLimiter, limit: RateLimitItem, who: Sequence[str]) -> TooManyError:
    stats = await limiter.get_window_stats(limit, *who)
    return TooManyError(limit, max(1, ceil(stats.reset_time - time())))


@contextmanager
def _fail_closed() -> Iterator[None]:
    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        raise LimitsUnavailableError(f"the request counter does not answer ({type(error).__name__})") from error
