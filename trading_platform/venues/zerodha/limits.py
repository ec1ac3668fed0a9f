"""How often an account may ask: windows shared by all processes in Valkey, with a reserve for cancellations and exits.

    limiter = RateLimiter(valkey(settings), "acc_1", "api_key", day_count)
    wait = await limiter.take(Bucket.ORDER)              # None: go; else how long until there is room
    wait = await limiter.take(Bucket.ORDER, reducing=True)

The broker counts orders per clock second of its own clock, which we do not see: a sliding second is never fuller than any
clock second may be. Time is Valkey's, so that processes agree. Where Valkey is away each process counts for itself, since
an engine must be able to leave a position; the day's count then begins at what is on record in the group's books.
"""

import hashlib
import secrets
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock_time
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Protocol
from zoneinfo import ZoneInfo

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy import func, select

from trading_platform.identifiers import AccountId, GroupId, UserId
from trading_platform.markets.effective import Effective, RuleTable, load
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import Order

IST = ZoneInfo("Asia/Kolkata")
FILE = Path(__file__).with_name("limits.toml")
KEEP_DAY_SECONDS = 36 * 3_600
log = structlog.get_logger(__name__)

TAKE = """
local now = redis.call('TIME'); now = now[1] * 1000000 + now[2]
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - 60000000)
local function full(span, limit)
  if limit < 0 then return 0 end
  local stamps = redis.call('ZRANGEBYSCORE', KEYS[1], string.format('(%.0f', now - span), '+inf', 'WITHSCORES')
  local used = #stamps / 2
  if used < limit then return 0 end
  return tonumber(stamps[2 * (used - limit + 1)]) + span - now
end
local wait = math.max(full(1000000, tonumber(ARGV[1])), full(60000000, tonumber(ARGV[2])))
if wait > 0 then return {'wait', string.format('%.0f', wait)} end
local most = tonumber(ARGV[3])
if most >= 0 then
  local used = redis.call('GET', KEYS[2])
  if not used then return {'unknown', '0'} end
  if tonumber(used) >= most then return {'day', used} end
  redis.call('INCR', KEYS[2])
end
redis.call('ZADD', KEYS[1], string.format('%.0f', now), string.format('%.0f:%s', now, ARGV[4]))
redis.call('PEXPIRE', KEYS[1], 61000)
return {'go', '0'}
"""
"""KEYS: stamps of the last minute, the day's count. ARGV: most a second, a minute, a day (-1: no limit), a unique name."""


class Bucket(StrEnum):
    """What the broker counts together."""

    ORDER = "order"
    QUOTE = "quote"
    HISTORICAL = "historical"
    OTHER = "other"


class DaySpentError(RuntimeError):
    """The day's orders are used up: nothing more can be sent until tomorrow."""


class LimitRow(Effective):
    bucket: Bucket
    a_second: int
    a_minute: int | None = None
    a_day: int | None = None
    reserve_a_second: int = 0
    reserve_a_minute: int = 0
    reserve_a_day: int = 0

    def allowed(self, reducing: bool) -> tuple[int, int, int]:
        """Most a second, a minute and a day, -1 where there is no limit; the reserve is for what reduces risk."""
        keep = 0 if reducing else 1
        minute = -1 if self.a_minute is None else self.a_minute - keep * self.reserve_a_minute
        day = -1 if self.a_day is None else self.a_day - keep * self.reserve_a_day
        return self.a_second - keep * self.reserve_a_second, minute, day


class DayCount(Protocol):
    """How many order requests an account has sent on a day, from where it survives every restart."""

    async def sent_on(self, day: date) -> int: ...


@dataclass(frozen=True)
class OrdersOnRecord:
    """The day's count from the group's own books: every order whose sending was written down before it went out."""

    databases: Databases
    group_id: GroupId
    user_id: UserId
    account_id: AccountId

    async def sent_on(self, day: date) -> int:
        starts = datetime.combine(day, clock_time(), IST)
        query = select(func.count()).select_from(Order).where(
            Order.user_id == self.user_id, Order.account_id == self.account_id, Order.sent_at >= starts,
            Order.sent_at < starts + timedelta(days=1),
        )  # fmt: skip
        async with self.databases.group_async(self.group_id) as session:
            return int(await session.scalar(query) or 0)


@dataclass
class LocalWindow:
    """The same windows for one process alone, on the monotonic clock."""

    stamps: deque[float] = field(default_factory=deque)
    day: date | None = None
    sent_today: int = 0

    def take(self, most: tuple[int, int, int], now: float) -> timedelta | None:
        while self.stamps and self.stamps[0] <= now - 60:
            self.stamps.popleft()
        wait = 0.0
        for span, limit in ((1.0, most[0]), (60.0, most[1])):
            inside = [stamp for stamp in self.stamps if stamp > now - span]
            if 0 <= limit <= len(inside):
                wait = max(wait, inside[len(inside) - limit] + span - now)
        if wait > 0:
            return timedelta(seconds=wait)
        if 0 <= most[2] <= self.sent_today:
            raise DaySpentError(_spent(self.sent_today))
        self.sent_today += 1
        self.stamps.append(now)
        return None


class RateLimiter:
    """The limits of one account and its API key. `now` is wall time: it says which day in India it is."""

    def __init__(
        self, redis: Redis, account_id: str, api_key: str, day_count: DayCount,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:  # fmt: skip
        self._redis, self._day_count, self._now = redis, day_count, now
        self._account, self._app = account_id, hashlib.sha256(api_key.encode()).hexdigest()[:16]
        self._take = redis.register_script(TAKE)
        self._local = {bucket: LocalWindow() for bucket in Bucket}
        self._valkey_away = False

    async def take(self, bucket: Bucket, *, reducing: bool = False) -> timedelta | None:
        """Count one request: None where it may go now, else how long until one may. Raises `DaySpentError`."""
        day = self._now().astimezone(IST).date()
        most = limits_of(bucket, day).allowed(reducing)
        try:
            wait = await self._shared(bucket, day, most)
        except (RedisError, OSError, TimeoutError) as error:
            if not self._valkey_away:
                log.warning("limits_counted_by_this_process_alone", account=self._account, error=str(error))
            self._valkey_away = True
            return await self._alone(bucket, day, most)
        self._valkey_away = False
        return wait

    async def _shared(self, bucket: Bucket, day: date, most: tuple[int, int, int]) -> timedelta | None:
        whose = self._account if bucket is Bucket.ORDER else self._app
        keys = [f"kite:limit:{bucket}:{whose}", f"kite:day:{self._account}:{day.isoformat()}"]
        for _ in range(2):
            verdict, number = await self._take(keys=keys, args=[*most, secrets.token_hex(6)])
            text, number = _text(verdict), int(number)
            if text != "unknown":
                break
            # Valkey has no count of this day: a first order, or it was restarted. What is on record counts.
            await self._redis.set(keys[1], await self._day_count.sent_on(day), ex=KEEP_DAY_SECONDS, nx=True)
        if text == "day":
            raise DaySpentError(_spent(number))
        return None if text == "go" else timedelta(microseconds=max(number, 1))

    async def _alone(self, bucket: Bucket, day: date, most: tuple[int, int, int]) -> timedelta | None:
        window = self._local[bucket]
        if window.day != day:
            window.day = day
            window.sent_today = await self._day_count.sent_on(day) if bucket is Bucket.ORDER else 0
        return window.take(most, time.monotonic())


def bucket_of(method: str, path: str) -> Bucket:
    """Which limit a request counts towards."""
    if path.startswith("/orders") and method != "GET":
        return Bucket.ORDER
    if path.startswith("/quote"):
        return Bucket.QUOTE
    return Bucket.HISTORICAL if path.startswith("/instruments/historical") else Bucket.OTHER


def limits_of(bucket: Bucket, day: date) -> LimitRow:
    """The limits in force on a day."""
    return _limits().at(bucket, day).row


def _spent(sent: int) -> str:
    return f"{sent} order requests were sent today; what is left of the day's budget is for cancellations and exits"


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


@cache
def _limits() -> RuleTable[LimitRow]:
    return load(FILE, "limit", LimitRow, lambda row: row.bucket)
