"""A function called over a connection of its own, on a real server: what comes back, what breaks, what is kept apart."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import md5

import psycopg
import pytest

from trading_platform.storage.databases import Databases, database_url, plain_url
from trading_platform.storage.direct_call import DirectCall


async def connect(databases: Databases) -> psycopg.AsyncConnection:
    return await psycopg.AsyncConnection.connect(plain_url(database_url(databases.settings)), autocommit=True)


@asynccontextmanager
async def calling(databases: Databases, command: str, *types: str) -> AsyncIterator[DirectCall]:
    call = DirectCall(await connect(databases), command, types)
    try:
        yield call
    finally:
        call.close()


async def test_values_go_and_come_in_the_servers_own_words(platform: Databases) -> None:
    async with calling(platform, "select ($1 || ' at ' || $2)", "text", "timestamptz") as call:
        assert await call.send([b"BTC", b"2026-01-31T09:15:00+05:30"]) == b"BTC at 2026-01-31 03:45:00+00"
        assert await call.send([None, b"2026-01-31T09:15:00Z"]) is None


async def test_the_server_works_while_the_caller_does_and_one_call_waits_for_the_other(platform: Databases) -> None:
    async with calling(platform, "select pg_sleep($1)::text", "float8") as call:
        began = time.monotonic()
        answer = call.send([b"0.5"])
        with pytest.raises(psycopg.InterfaceError, match="still to come"):
            call.send([b"0"])
        time.sleep(0.4)
        assert await answer == b""
        assert time.monotonic() - began < 0.8
        assert await call.send([b"0"]) == b""


async def test_more_than_the_kernel_takes_at_once_arrives_whole(platform: Databases) -> None:
    async with calling(platform, "select length($1)::text || md5($1)", "text") as call:
        value = b"0123456789abcdef" * 1_000_000
        assert await call.send([value]) == b"16000000" + md5(value).hexdigest().encode()
        assert await call.send([b"x"]) == b"1" + md5(b"x").hexdigest().encode()


async def test_an_error_of_the_server_is_told_as_what_it_is_and_ends_nothing(platform: Databases) -> None:
    async with calling(platform, "select (1 / $1)::text", "int4") as call:
        with pytest.raises(psycopg.errors.DivisionByZero):
            await call.send([b"0"])
        assert await call.send([b"1"]) == b"1"


@pytest.mark.parametrize("during", [True, False])
async def test_a_connection_that_the_server_ends_is_closed_and_left_alone(platform: Databases, during: bool) -> None:
    async with (
        calling(platform, "select pg_backend_pid()::text || pg_sleep($1)", "float8") as call,
        await connect(platform) as other,
    ):
        pid = await call.send([b"0"])
        answer = call.send([b"30"]) if during else None
        await other.execute("select pg_terminate_backend(%s::int)", ((pid or b"").decode(),))
        if answer is not None:
            with pytest.raises(psycopg.OperationalError):
                await answer
        deadline = time.monotonic() + 10
        while not call.closed and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        assert call.closed
        used = time.process_time()
        await asyncio.sleep(0.3)
        assert time.process_time() - used < 0.2, "the event loop is called again and again for a socket that is gone"
        with pytest.raises(psycopg.OperationalError):
            call.send([b"0"])


async def test_closing_fails_the_call_that_is_under_way(platform: Databases) -> None:
    async with calling(platform, "select pg_sleep($1)::text", "float8") as call:
        answer = call.send([b"30"])
        call.close()
        with pytest.raises(psycopg.InterfaceError, match="before the answer came"):
            await answer


async def test_an_answer_that_nobody_waits_for_is_not_taken_for_the_next_ones(platform: Databases) -> None:
    async with calling(platform, "select pg_sleep($1)::text || $1", "float8") as call:
        call.send([b"0.2"]).cancel()
        with pytest.raises(psycopg.InterfaceError):
            call.send([b"0.1"])
        await asyncio.sleep(0.5)
        assert await call.send([b"0"]) == b"0"
