"""The account's limits: edges, the reserve, two processes at once, and what survives which restart."""

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, date, datetime, timedelta

import pytest
from redis.asyncio import Redis

from trading_platform.venues.port import Refused, Throttled
from trading_platform.venues.zerodha.errors import as_result
from trading_platform.venues.zerodha.limits import (
    Bucket,
    DaySpentError,
    LocalWindow,
    RateLimiter,
    bucket_of,
    limits_of,
)
from trading_platform.venues.zerodha.transport import Failure, KiteTransport

TODAY = date(2026, 11, 23)
NOW = datetime(2026, 11, 23, 5, tzinfo=UTC)


class Recorded:
    """A day count that says what it was given, and how often it was asked."""

    def __init__(self, sent: int) -> None:
        self.sent, self.asked = sent, 0

    async def sent_on(self, day: date) -> int:
        assert day == TODAY
        self.asked += 1
        return self.sent


@pytest.fixture
async def redis(redis_url: str):  # type: ignore[no-untyped-def]
    client = Redis.from_url(redis_url)
    await client.flushdb()
    yield client
    await client.aclose()


def limiter(redis: Redis, sent: int = 0, account: str = "acc") -> RateLimiter:
    return RateLimiter(redis, account, "key", Recorded(sent), lambda: NOW)


@pytest.mark.parametrize(
    ("method", "path", "bucket"),
    [
        ("POST", "/orders/regular", Bucket.ORDER), ("PUT", "/orders/regular/1", Bucket.ORDER),
        ("DELETE", "/orders/amo/1", Bucket.ORDER), ("GET", "/orders", Bucket.OTHER), ("GET", "/quote/ltp", Bucket.QUOTE),
        ("GET", "/instruments/historical/1/day", Bucket.HISTORICAL), ("GET", "/instruments", Bucket.OTHER),
        ("POST", "/gtt/triggers", Bucket.OTHER),
    ],
)  # fmt: skip
def test_what_counts_towards_what(method: str, path: str, bucket: Bucket) -> None:
    assert bucket_of(method, path) is bucket


def test_the_broker_s_numbers() -> None:
    """Kite's documentation and forum: 10 a second, 400 a minute, 5,000 a day; 1 quote, 3 historical, 10 others."""
    assert limits_of(Bucket.ORDER, TODAY).allowed(reducing=True) == (10, 400, 5000)
    assert limits_of(Bucket.ORDER, TODAY).allowed(reducing=False) == (8, 380, 4500)
    assert [limits_of(bucket, TODAY).a_second for bucket in (Bucket.QUOTE, Bucket.HISTORICAL, Bucket.OTHER)] == [
        1,
        3,
        10,
    ]


async def test_eight_entries_a_second_and_two_more_exits(redis: Redis) -> None:
    limits = limiter(redis)
    assert [await limits.take(Bucket.ORDER) for _ in range(8)] == [None] * 8
    wait = await limits.take(Bucket.ORDER)
    assert wait is not None
    assert timedelta(0) < wait <= timedelta(seconds=1)
    assert [await limits.take(Bucket.ORDER, reducing=True) for _ in range(2)] == [None] * 2
    assert await limits.take(Bucket.ORDER, reducing=True) is not None
    assert await limits.take(Bucket.QUOTE) is None  # counted apart
    await asyncio.sleep(wait.total_seconds())
    assert await limits.take(Bucket.ORDER, reducing=True) is None


async def test_accounts_do_not_count_together(redis: Redis) -> None:
    first, second = limiter(redis), limiter(redis, account="other")
    for _ in range(8):
        await first.take(Bucket.ORDER)
    assert await second.take(Bucket.ORDER) is None


async def test_the_day_is_spent_at_4500_for_entries_and_5000_for_exits(redis: Redis) -> None:
    limits = limiter(redis, sent=4_499)
    assert await limits.take(Bucket.ORDER) is None
    with pytest.raises(DaySpentError):
        await limits.take(Bucket.ORDER)
    assert await limits.take(Bucket.ORDER, reducing=True) is None
    await redis.set(f"kite:day:acc:{TODAY}", 5_000)
    with pytest.raises(DaySpentError):
        await limits.take(Bucket.ORDER, reducing=True)


async def test_the_day_s_count_survives_the_process_and_a_lost_valkey(redis: Redis) -> None:
    for _ in range(3):
        await limiter(redis).take(Bucket.ORDER)
    record = Recorded(3)
    again = RateLimiter(redis, "acc", "key", record, lambda: NOW)
    await again.take(Bucket.ORDER)
    assert (int(await redis.get(f"kite:day:acc:{TODAY}") or 0), record.asked) == (4, 0)
    await redis.flushdb()
    await again.take(Bucket.ORDER)
    assert (int(await redis.get(f"kite:day:acc:{TODAY}") or 0), record.asked) == (4, 1)


async def test_without_valkey_a_process_counts_alone() -> None:
    away = Redis.from_url("redis://127.0.0.1:1", socket_connect_timeout=0.2)
    limits = limiter(away, sent=4_495)
    assert [await limits.take(Bucket.ORDER) for _ in range(5)] == [None] * 5
    with pytest.raises(DaySpentError):
        await limits.take(Bucket.ORDER)
    await away.aclose()


def test_a_window_of_one_process_slides() -> None:
    window, most = LocalWindow(), (2, 3, -1)
    assert [window.take(most, at) for at in (0.0, 0.5)] == [None, None]
    assert window.take(most, 0.75) == timedelta(seconds=0.25)
    assert window.take(most, 1.0) is None
    assert window.take(most, 1.5) == timedelta(seconds=58.5)
    assert window.take(most, 60.0) is None


SENDER = """
import asyncio, json, sys, time
from datetime import UTC, datetime
from redis.asyncio import Redis
from trading_platform.venues.zerodha.limits import Bucket, RateLimiter

class Nothing:
    async def sent_on(self, day): return 0

async def main():
    redis = Redis.from_url(sys.argv[1])
    limits = RateLimiter(redis, "shared", "key", Nothing(), lambda: datetime(2026, 11, 23, tzinfo=UTC))
    await redis.incr("ready")
    while int(await redis.get("ready")) < 2:
        await asyncio.sleep(0.01)
    ends, sent = time.time() + 4.0, []
    while time.time() < ends:
        wait = await limits.take(Bucket.ORDER)
        if wait is None:
            sent.append(time.time())
        else:
            await asyncio.sleep(wait.total_seconds())
    print(json.dumps(sent))

asyncio.run(main())
"""


async def test_two_processes_share_one_limit(redis: Redis, redis_url: str) -> None:
    started = [
        subprocess.Popen([sys.executable, "-c", SENDER, redis_url], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    told = [json.loads(each.communicate(timeout=60)[0]) for each in started]
    sent = sorted(at for times in told for at in times)
    assert min(len(times) for times in told) > 0
    # Whatever the offset of the broker's clock, none of its seconds sees more than the hard limit.
    for offset in (0.0, 0.2, 0.4, 0.6, 0.8):
        assert max(Counter(int(at + offset) for at in sent).values()) <= 10
    granted = await redis.zrange("kite:limit:order:shared", 0, -1, withscores=True)
    stamps = [score for _, score in granted]
    assert all(stamps[place + 8] - stamps[place] >= 1_000_000 for place in range(len(stamps) - 8))


async def test_what_is_not_sent_is_throttled_and_a_spent_day_is_refused(redis: Redis) -> None:
    transport = KiteTransport("key", "token", root="http://127.0.0.1:1", limiter=limiter(redis, sent=4_500))
    answer = await transport.call("POST", "/orders/regular", form={})
    assert isinstance(answer, Failure)
    assert not answer.sent
    refused = as_result(answer, "place")
    assert isinstance(refused, Refused)
    assert refused.code == "RATE_DAY"
    for stamp in range(400):
        await redis.zadd("kite:limit:order:acc", {f"x{stamp}": time.time() * 1e6 - 3_000_000})
    await redis.set(f"kite:day:acc:{TODAY}", 0)
    answer = await transport.call("DELETE", "/orders/regular/1", reducing=True)
    assert isinstance(answer, Failure)
    throttled = as_result(answer, "cancel")
    assert isinstance(throttled, Throttled)
    assert timedelta(seconds=50) < throttled.retry_after < timedelta(seconds=60)
    await transport.close()
