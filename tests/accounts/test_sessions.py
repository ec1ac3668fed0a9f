"""Sessions: found by their token alone, ended by time, by hand and all at once; a thousand readers at once."""

import asyncio
import hashlib
from datetime import timedelta

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from trading_platform.accounts.joined_calls import JoinedCalls
from trading_platform.accounts.sessions import Sessions, SessionsUnavailableError, valkey
from trading_platform.identifiers import GroupId, UserId
from trading_platform.settings import Settings
from trading_platform.stack.servers import free_port

ANN = UserId("ann")


async def start(sessions: Sessions, user: UserId = ANN) -> str:
    return await sessions.start(user, GroupId("g1"), "trader", f"{user}@example.com", "Ann")


async def test_the_token_is_kept_nowhere_on_the_server(redis: Redis) -> None:
    token = await start(Sessions(redis))
    keys = await redis.keys("*")
    stored = b" ".join([*keys, await redis.get("session:" + hashlib.sha256(token.encode()).hexdigest())])
    assert token.encode() not in stored
    assert len(token) >= 43  # 256 bits


async def test_a_session_says_who_it_is_and_unknown_tokens_say_nothing(redis: Redis) -> None:
    sessions = Sessions(redis)
    found = await sessions.find(await start(sessions))
    assert found is not None
    assert (found.user.user_id, found.user.group_id, found.user.role, found.confirmed) == ("ann", "g1", "trader", True)
    for token in ("", "x", "a" * 5000, "\u2603"):
        assert await sessions.find(token) is None


async def test_use_keeps_a_session_and_idleness_ends_it(redis: Redis) -> None:
    sessions = Sessions(redis, idle=timedelta(seconds=0.6))
    used, idle = await start(sessions), await start(sessions)
    for _ in range(6):
        await asyncio.sleep(0.2)
        assert await sessions.find(used) is not None
    assert await sessions.find(idle) is None


async def test_no_use_keeps_a_session_beyond_its_lifetime(redis: Redis) -> None:
    sessions = Sessions(redis, lifetime=timedelta(seconds=0.5))
    token = await start(sessions)
    for _ in range(3):
        assert await sessions.find(token) is not None
        await asyncio.sleep(0.1)
    await asyncio.sleep(0.4)
    assert await sessions.find(token) is None


async def test_ending_all_ends_one_users_sessions_seen_by_any_process(redis: Redis) -> None:
    here, there = Sessions(redis), Sessions(redis)
    tokens = [await start(here), await start(there)]
    other = await start(here, UserId("ben"))
    assert await there.end_all(ANN) == 2
    assert [await here.find(token) for token in tokens] == [None, None]
    assert await here.find(other) is not None
    assert await there.end_all(ANN) == 0


async def test_ending_one_leaves_the_others(redis: Redis) -> None:
    sessions = Sessions(redis)
    first, second = await start(sessions), await start(sessions)
    await sessions.end(first)
    await sessions.end("never was")
    assert await sessions.find(first) is None
    assert await sessions.find(second) is not None
    assert await sessions.end_all(ANN) == 1


async def test_a_thousand_readers_share_few_connections(redis: Redis) -> None:
    sessions = Sessions(redis)
    tokens = [await start(sessions, UserId(f"u{number}")) for number in range(20)]
    before = int((await redis.info("clients"))["connected_clients"])
    found = await asyncio.gather(*(sessions.find(tokens[number % 20]) for number in range(1000)))
    assert [session and session.user.user_id for session in found] == [f"u{number % 20}" for number in range(1000)]
    assert int((await redis.info("clients"))["connected_clients"]) <= before + 20


async def test_without_valkey_nobody_is_let_in() -> None:
    away = valkey(Settings(redis_url=SecretStr(f"redis://127.0.0.1:{free_port()}/0")))
    sessions = Sessions(away)
    with pytest.raises(SessionsUnavailableError):
        await sessions.find("some token")
    with pytest.raises(SessionsUnavailableError):
        await start(sessions)
    await away.aclose()


async def test_joined_calls_answer_each_its_own_and_an_error_reaches_all_who_waited() -> None:
    batches: list[int] = []

    async def double(numbers: object) -> list[int]:
        assert isinstance(numbers, list)
        batches.append(len(numbers))
        await asyncio.sleep(0.01)
        if -1 in numbers:
            raise ConnectionError("gone")
        return [2 * number for number in numbers]

    joined = JoinedCalls[int, int](double)
    assert await asyncio.gather(*(joined(number) for number in range(100))) == [2 * number for number in range(100)]
    assert sum(batches) == 100
    assert len(batches) <= 2
    failed = await asyncio.gather(joined(-1), joined(5), return_exceptions=True)
    assert [type(error) for error in failed] == [ConnectionError, ConnectionError]
    assert await joined(4) == 8


async def test_a_caller_who_gives_up_does_not_take_others_along() -> None:
    async def slow(numbers: object) -> list[int]:
        assert isinstance(numbers, list)
        await asyncio.sleep(0.05)
        return numbers

    joined = JoinedCalls[int, int](slow)
    first, second = asyncio.create_task(joined(1)), asyncio.create_task(joined(2))
    await asyncio.sleep(0.01)
    first.cancel()
    assert await second == 2
