"""The stream against a real WebSocket server that drops, stays silent, repeats itself and refuses."""

import asyncio
import contextlib
import json
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from websockets.asyncio.server import ServerConnection, serve

from trading_platform.venues.zerodha.packets import values
from trading_platform.venues.zerodha.ticker import (
    MOST_INSTRUMENTS,
    KiteStream,
    SessionEndedError,
    TooManyInstrumentsError,
)

IN_SESSION = datetime(2026, 11, 23, 5, tzinfo=UTC)  # Monday, 10:30 in India
SUNDAY = datetime(2026, 11, 22, 5, tzinfo=UTC)
HEARTBEAT = b"\x00"


def ltp(token: int, paise: int) -> bytes:
    return struct.pack(">HHIi", 1, 8, token, paise)


class Broker:
    """A server whose behaviour a test gives, one function a connection; the last one is used again."""

    def __init__(self, *ways: Callable[[ServerConnection], Awaitable[None]]) -> None:
        self.ways = ways
        self.connections = 0
        self.asked: list[dict[str, Any]] = []
        self.queries: list[dict[str, list[str]]] = []

    async def __call__(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        self.queries.append(parse_qs(urlsplit(socket.request.path).query))
        way = self.ways[min(self.connections, len(self.ways) - 1)]
        self.connections += 1
        listening = asyncio.create_task(self.listen(socket))
        try:
            await way(socket)
        finally:
            listening.cancel()

    async def listen(self, socket: ServerConnection) -> None:
        async for message in socket:
            self.asked.append(json.loads(message))


class Watched:
    """A stream with everything that it told."""

    def __init__(self, address: str, *, now: datetime = IN_SESSION, silence: float = 10.0, alive: bool = True) -> None:
        self.prices: list[float] = []
        self.orders: list[str] = []
        self.syncs = 0
        self.alive = alive
        self.failing_syncs = 0
        self.stream = KiteStream(
            address, "key", lambda: "secret-token", on_rows=self.rows, on_order=lambda row: self.orders.append(row["status"]),
            resync=self.resync, session_alive=self.is_alive, now=lambda: now, silence_seconds=silence,
        )  # fmt: skip

    def rows(self, rows: Any) -> None:
        for each in rows.values():
            self.prices += values(each)["last"].tolist()

    async def resync(self) -> None:
        self.syncs += 1
        if self.syncs <= self.failing_syncs:
            raise RuntimeError("the books did not answer")

    async def is_alive(self) -> bool:
        return self.alive


@contextlib.asynccontextmanager
async def served(broker: Broker, **given: Any) -> AsyncIterator[str]:
    async with serve(broker, "127.0.0.1", 0, **given) as server:
        yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"


@contextlib.asynccontextmanager
async def running(watched: Watched) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(watched.stream.run())
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, SessionEndedError):
            await task


async def until(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def forever(socket: ServerConnection) -> None:
    await socket.wait_closed()


async def test_it_logs_in_subscribes_syncs_and_tells() -> None:
    async def way(socket: ServerConnection) -> None:
        await socket.send(HEARTBEAT)
        await socket.send(ltp(408065, 157_370))
        await forever(socket)

    broker = Broker(way)
    async with served(broker) as address:
        watched = Watched(address)
        await watched.stream.subscribe([408065, 256265], "full")
        await watched.stream.subscribe([779521], "ltp")
        async with running(watched):
            await until(lambda: watched.prices == [1573.7] and len(broker.asked) == 3 and watched.syncs == 1)
            assert broker.queries == [{"api_key": ["key"], "access_token": ["secret-token"]}]
            assert broker.asked == [
                {"a": "subscribe", "v": [408065, 256265, 779521]},
                {"a": "mode", "v": ["full", [408065, 256265]]},
                {"a": "mode", "v": ["ltp", [779521]]},
            ]
            assert watched.stream.quiet_since(5) == [256265, 779521]
            await watched.stream.unsubscribe([256265, 1])
            await until(lambda: broker.asked[-1] == {"a": "unsubscribe", "v": [256265]})
            assert dict(watched.stream.subscriptions) == {408065: "full", 779521: "ltp"}


async def test_after_a_drop_everything_is_asked_and_read_again() -> None:
    async def drops(socket: ServerConnection) -> None:
        await socket.send(ltp(1, 100))
        await asyncio.sleep(0.3)  # a reset takes with it what was not read yet
        socket.transport.abort()

    async def lives(socket: ServerConnection) -> None:
        await socket.send(ltp(1, 200))
        await forever(socket)

    broker = Broker(drops, lives)
    async with served(broker) as address:
        watched = Watched(address)
        await watched.stream.subscribe([1], "ltp")
        async with running(watched):
            await until(lambda: watched.prices == [1.0, 2.0] and watched.syncs == 2)
            await until(lambda: broker.asked.count({"a": "subscribe", "v": [1]}) >= 1)
            assert watched.stream.health.connections == 2


async def test_a_half_open_socket_is_noticed_in_session_and_left_alone_off_session() -> None:
    for now, connections in ((IN_SESSION, 2), (SUNDAY, 1)):
        broker = Broker(forever)
        async with served(broker) as address:
            watched = Watched(address, now=now, silence=0.3)
            async with running(watched):
                await until(lambda broker=broker: broker.connections >= 1)  # type: ignore[misc]
                with contextlib.suppress(TimeoutError):
                    await until(lambda broker=broker: broker.connections >= 2, 3.0)  # type: ignore[misc]
                assert broker.connections >= connections
                assert (broker.connections == 1) == (connections == 1)


async def test_heartbeats_of_a_quiet_market_keep_the_connection() -> None:
    async def quiet(socket: ServerConnection) -> None:
        while True:
            await socket.send(HEARTBEAT)
            await asyncio.sleep(0.1)

    broker = Broker(quiet)
    async with served(broker) as address:
        watched = Watched(address, silence=0.5)
        async with running(watched):
            await asyncio.sleep(1.5)
            assert (broker.connections, watched.stream.health.connected) == (1, True)


async def test_updates_come_once_and_junk_changes_nothing() -> None:
    row = {"order_id": "1", "status": "OPEN", "filled_quantity": 0, "exchange_update_timestamp": "2026-11-23 10:30:00"}
    done = row | {"status": "COMPLETE", "filled_quantity": 5}

    async def way(socket: ServerConnection) -> None:
        for update in (row, done, row, done):
            await socket.send(json.dumps({"type": "order", "data": update}))
        for junk in (
            "{",
            "[]",
            '{"type": "order"}',
            '{"type": "order", "data": null}',
            '{"type": "error", "data": "no"}',
        ):
            await socket.send(junk)
        for junk in (b"\x00\x01", b"\xff\xff\xff", struct.pack(">HH", 1, 9) + bytes(9)):
            await socket.send(junk)
        await socket.send(ltp(1, 500))
        await forever(socket)

    broker = Broker(way)
    async with served(broker) as address:
        watched = Watched(address)
        async with running(watched):
            await until(lambda: watched.prices == [5.0])
            assert watched.orders == ["OPEN", "COMPLETE"]
            assert (watched.stream.health.bad_frames, broker.connections) == (6, 1)


async def test_a_dead_session_ends_the_stream_and_a_living_one_tries_again() -> None:
    async def refuse(connection: ServerConnection, _: object) -> Any:
        return connection.respond(403, "Forbidden\n")

    broker = Broker(forever)
    async with served(broker, process_request=refuse) as address:
        with pytest.raises(SessionEndedError):
            await Watched(address, alive=False).stream.run()
        watched = Watched(address, alive=True)
        async with running(watched) as task:
            await asyncio.sleep(0.5)
            assert not task.done()


async def test_books_that_cannot_be_read_give_the_connection_up() -> None:
    broker = Broker(forever)
    async with served(broker) as address:
        watched = Watched(address)
        watched.failing_syncs = 1
        async with running(watched):
            await until(lambda: watched.syncs == 2 and broker.connections == 2)


async def test_one_connection_takes_3000_instruments() -> None:
    stream = Watched("ws://127.0.0.1:1").stream
    await stream.subscribe(range(MOST_INSTRUMENTS), "full")
    await stream.subscribe([5], "ltp")
    with pytest.raises(TooManyInstrumentsError, match="3001"):
        await stream.subscribe([MOST_INSTRUMENTS + 1])
    assert len(stream.subscriptions) == MOST_INSTRUMENTS


async def test_the_token_is_in_no_log(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    watched = Watched("ws://127.0.0.1:1")
    async with running(watched):
        await asyncio.sleep(0.3)
    told = capsys.readouterr()
    assert "stream_lost" in told.out + told.err + caplog.text
    assert "secret-token" not in told.out + told.err + caplog.text
