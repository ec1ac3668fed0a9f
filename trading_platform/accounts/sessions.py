"""Log-in sessions, kept in Valkey: a random token in the browser, its hash and the user's snapshot on the server.

A session ends after `IDLE` without use and after `LIFETIME` whatever happens. The snapshot holds the role, so a
changed role or password and a disabled user must end the user's sessions (`end_all`). Losing Valkey loses log-ins and
nothing else; while it is away, a session that this process has seen within `TRUST_WITHOUT_VALKEY` may still read.
"""

import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TypeVar

import orjson
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from trading_platform.accounts.joined_calls import JoinedCalls
from trading_platform.accounts.roles import Role
from trading_platform.identifiers import GroupId, UserId
from trading_platform.settings import Settings

IDLE = timedelta(hours=4)
LIFETIME = timedelta(hours=24)
TRUST_WITHOUT_VALKEY = timedelta(minutes=5)
TOUCH_EVERY = timedelta(minutes=1)
REMEMBERED = 20_000
VALKEY_TIMEOUT_SECONDS = 2.0
T = TypeVar("T")


class SessionsUnavailableError(RuntimeError):
    """Valkey cannot be reached, so nobody can be logged in or checked."""


@dataclass(frozen=True)
class SessionUser:
    """Who is asking: the snapshot taken at log-in."""

    user_id: UserId
    group_id: GroupId
    role: Role
    email: str
    display_name: str
    logged_in_at: float
    """Wall time, seconds since 1970 UTC."""
    expires_at: float

    @property
    def is_staff(self) -> bool:
        """May look at other users' rows: compliance and admin."""
        return self.role in ("compliance", "admin")


@dataclass(frozen=True)
class Found:
    """A valid session. `confirmed` is False when Valkey was away and this process vouches for it: reads only."""

    user: SessionUser
    confirmed: bool


def valkey(settings: Settings, *, connections: int = 32) -> Redis:
    """An asynchronous client. It fails fast: a caller with a user waiting must not wait for retries."""
    if settings.redis_url is None:
        raise SessionsUnavailableError(
            "no Valkey address is known: TP_REDIS_URL is not set and no running stack left one in "
            f"{settings.run_dir / 'endpoints.json'}; start the platform or set TP_REDIS_URL"
        )
    pool: BlockingConnectionPool = BlockingConnectionPool.from_url(
        settings.redis_url.get_secret_value(),
        max_connections=connections,
        timeout=VALKEY_TIMEOUT_SECONDS,
        socket_timeout=VALKEY_TIMEOUT_SECONDS,
        socket_connect_timeout=VALKEY_TIMEOUT_SECONDS,
        health_check_interval=30,
        retry=Retry(NoBackoff(), 1),
    )
    return Redis.from_pool(pool)


class Sessions:
    """All log-in sessions of the platform."""

    def __init__(self, redis: Redis, *, idle: timedelta = IDLE, lifetime: timedelta = LIFETIME) -> None:
        self._redis = redis
        self._idle = idle
        self._lifetime = lifetime
        self._read = JoinedCalls(self._read_many)
        self._touch = JoinedCalls(self._touch_many)
        self._seen: OrderedDict[str, tuple[float, float, SessionUser]] = OrderedDict()
        """key -> (last confirmed, last touched, user); both are monotonic seconds."""

    async def start(self, user_id: UserId, group_id: GroupId, role: Role, email: str, display_name: str) -> str:
        """Log a user in; returns the token, which is stored nowhere. Raises `SessionsUnavailableError`."""
        now = time.time()
        token = secrets.token_urlsafe(32)
        user = SessionUser(user_id, group_id, role, email, display_name, now, now + self._lifetime.total_seconds())
        key, index = _key(token), _index(user_id)
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.set(key, orjson.dumps(asdict(user)), px=_milliseconds(min(self._idle, self._lifetime)))
            pipe.zremrangebyscore(index, 0, now)
            pipe.zadd(index, {key: user.expires_at})
            pipe.pexpire(index, _milliseconds(self._lifetime))
            await _answer(pipe.execute())
        return token

    async def find(self, token: str) -> Found | None:
        """The session behind a token, kept alive by being asked for; None where it ended or never was.

        Raises `SessionsUnavailableError` where Valkey is away and this process has not seen the session lately.
        """
        key = _key(token)
        try:
            value = await self._read(key)
        except (RedisError, OSError, TimeoutError) as error:
            return self._vouched(key, error)
        if value is None:
            self._seen.pop(key, None)
            return None
        user = _user(value)
        if user.expires_at <= time.time():
            return None
        await self._remember(key, user)
        return Found(user, confirmed=True)

    async def end(self, token: str) -> None:
        """Log out. Raises `SessionsUnavailableError`."""
        key = _key(token)
        known = self._seen.pop(key, None)
        value = await _answer(self._redis.getdel(key))
        user = _user(value) if value else known[2] if known else None
        if user is not None:
            await _answer(self._redis.zrem(_index(user.user_id), key))

    async def end_all(self, user_id: UserId) -> int:
        """Log a user out everywhere; returns how many sessions that were. Raises `SessionsUnavailableError`."""
        index = _index(user_id)
        keys = await _answer(self._redis.zrange(index, 0, -1))
        ended: int = await _answer(self._redis.delete(*keys)) if keys else 0
        await _answer(self._redis.delete(index))
        for key in [key for key, (_, _, user) in self._seen.items() if user.user_id == user_id]:
            del self._seen[key]
        return ended

    async def ping(self) -> None:
        """Raise `SessionsUnavailableError` unless Valkey answers."""
        await _answer(self._redis.ping())

    async def _read_many(self, keys: Sequence[str]) -> Sequence[bytes | str | None]:
        found: list[bytes | str | None] = await self._redis.mget(keys)
        return found

    async def _touch_many(self, expiries: Sequence[tuple[str, int]]) -> Sequence[bool]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for key, milliseconds in expiries:
                pipe.pexpire(key, milliseconds)
            found: list[bool] = await pipe.execute()
        return found

    async def _remember(self, key: str, user: SessionUser) -> None:
        """Vouch for it later, and push its idle end away, at most once a `TOUCH_EVERY` (or a quarter of `idle`)."""
        now = time.monotonic()
        _, touched, _ = self._seen.get(key, (0.0, float("-inf"), user))
        due = now - touched >= min(TOUCH_EVERY, self._idle / 4).total_seconds()
        self._seen[key] = (now, now if due else touched, user)
        self._seen.move_to_end(key)
        if due:
            remaining = timedelta(seconds=user.expires_at - time.time())
            await _answer(self._touch((key, _milliseconds(min(self._idle, remaining)))))
        while len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)

    def _vouched(self, key: str, error: BaseException) -> Found:
        confirmed, _, user = self._seen.get(key, (float("-inf"), 0.0, None))
        fresh = time.monotonic() - confirmed <= TRUST_WITHOUT_VALKEY.total_seconds()
        if user is None or not fresh or user.expires_at <= time.time():
            raise SessionsUnavailableError(f"the session store does not answer ({type(error).__name__})") from error
        return Found(user, confirmed=False)


async def _answer(call: Awaitable[T]) -> T:
    try:
        return await call
    except (RedisError, OSError, TimeoutError) as error:
        raise SessionsUnavailableError(f"the session store does not answer ({type(error).__name__})") from error


def _key(token: str) -> str:
    return "session:" + hashlib.sha256(token.encode()).hexdigest()


def _index(user_id: UserId) -> str:
    return f"sessions:{user_id}"


def _user(value: bytes | str) -> SessionUser:
    return SessionUser(**orjson.loads(value))


def _milliseconds(span: timedelta) -> int:
    return max(1, int(span.total_seconds() * 1000))
