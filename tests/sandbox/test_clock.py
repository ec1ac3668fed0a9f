"""The replay barrier: nobody is overtaken, nobody can stop the market, and an ended replay stays ended."""

import asyncio
from pathlib import Path

import pytest

from tests.sandbox.markets import START_MS
from tests.sandbox.served import Served, at, serving
from trading_platform.sandbox import clock as clocks

FIRST = 30


async def until(served: Served, done: int, seconds: float = 5.0) -> dict:
    """The status once so many steps are done."""
    async with asyncio.timeout(seconds):
        while (status := await served.control("GET", "status"))["steps_done"] < done:
            await asyncio.sleep(0.005)
    return status


async def ack(served: Served, participant: str, index: int) -> None:
    await served.control("POST", "clock/ack", {"participant": participant, "market_time": at(index)})


async def test_each_step_waits_for_every_participant(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        status = await served.control("GET", "status")
        assert (status["state"], status["market_time"], status["steps_total"]) == ("waiting", None, 30)
        assert (status["first"], status["last"]) == (at(30), at(59))
        await asyncio.sleep(0.05)
        assert (await served.control("GET", "status"))["steps_done"] == 0, "nothing moves before the start"
        await served.control("POST", "replay/start", {"participants": ["a", "b"], "speed": "max"})
        for index in range(FIRST, FIRST + 30):
            status = await until(served, index - FIRST + 1)
            assert (status["state"], status["market_time"]) == ("running", at(index))
            await ack(served, "a", index)
            await asyncio.sleep(0.002)
            assert (await served.control("GET", "status"))["steps_done"] == index - FIRST + 1, "b is still at work"
            await ack(served, "b", index)
        async with asyncio.timeout(2):
            while (await served.control("GET", "status"))["state"] != "ended":
                await asyncio.sleep(0.005)
        code, rows = await served.public("klines", symbol="BTCUSDT", interval="1h", limit=1)
        assert (code, rows[0][0]) == (200, START_MS + 59 * 3_600_000), "it goes on serving"


async def test_a_silent_participant_is_left_behind_until_it_speaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clocks, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(clocks, "SLOW_STEPS_PER_SECOND", 20.0)
    async with serving(tmp_path) as served:
        await served.control("POST", "replay/start", {"participants": ["a", "dead"], "speed": "max"})
        await until(served, 1)
        await ack(served, "a", FIRST)
        began = asyncio.get_running_loop().time()
        await until(served, 2)
        assert asyncio.get_running_loop().time() - began > 0.1, "it was given its time"
        for index in range(FIRST + 1, FIRST + 6):
            await until(served, index - FIRST + 1)
            await ack(served, "a", index)
        reached = await until(served, 7)
        taken = asyncio.get_running_loop().time() - began
        assert 0.2 < taken < 1.5, "after that nobody waits for it, but time runs slowly while it may come back"
        await ack(served, "dead", FIRST + 6)
        await ack(served, "a", FIRST + 6)
        await until(served, 8)
        await ack(served, "a", FIRST + 7)
        await asyncio.sleep(0.1)
        assert (await served.control("GET", "status"))["steps_done"] == reached["steps_done"] + 1, "it counts again"


async def test_an_ended_replay_stays_ended_after_a_restart_and_after_another_start(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        await served.control("POST", "replay/start", {"participants": [], "speed": "max"})
        await until(served, 30)
    async with serving(tmp_path) as served:
        for _ in range(2):
            status = await served.control("GET", "status")
            assert (status["state"], status["steps_done"], status["market_time"]) == ("ended", 30, at(59))
            await served.control("POST", "replay/start", {"participants": ["a"], "speed": "max"})
            await asyncio.sleep(0.05)


async def test_an_interrupted_replay_goes_on_by_itself_where_it_was(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        await served.control("POST", "replay/start", {"participants": ["a"], "speed": "max"})
        await ack(served, "a", FIRST + 3)
        assert (await until(served, 5))["market_time"] == at(FIRST + 4)
    async with serving(tmp_path) as served:
        status = await served.control("GET", "status")
        assert (status["market_time"], list(status["participants"])) == (at(FIRST + 4), ["a"])
        await ack(served, "a", FIRST + 4)
        assert (await until(served, 6))["market_time"] == at(FIRST + 5)
        _, rows = await served.public("klines", symbol="ETHUSDT", interval="1h", limit=1000)
        assert [row[0] for row in rows] == [START_MS + index * 3_600_000 for index in range(FIRST + 6)]


async def test_a_speed_is_kept(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        await served.control("POST", "replay/start", {"participants": [], "speed": 50})
        await until(served, 1)
        began = asyncio.get_running_loop().time()
        await until(served, 11)
        assert 0.15 < asyncio.get_running_loop().time() - began < 0.6
        await served.control("POST", "replay/start", {"participants": [], "speed": "max"})
        await until(served, 30, seconds=1.0)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("replay/start", {"participants": "a"}),
        ("replay/start", {"participants": [], "speed": -1}),
        ("replay/start", {"speed": "max"}),
        ("clock/ack", {"participant": "a", "market_time": "2024-01-01T00:00:00"}),
        ("clock/ack", {"participant": "a", "market_time": "yesterday"}),
        ("accounts", {"account_id": "a", "api_key": "k", "api_secret": "s", "balances": {"USDT": "-1"}}),
        ("accounts", {"account_id": "a", "api_key": "k", "api_secret": "s", "balances": "much"}),
    ],
)
async def test_what_the_control_routes_cannot_understand_is_said(tmp_path: Path, path: str, body: dict) -> None:
    async with serving(tmp_path) as served:
        headers = {"Authorization": "Bearer token-of-the-tests"}
        async with served.session.post(f"{served.url}/sandbox/{path}", json=body, headers=headers) as answer:
            assert answer.status == 400
            assert len(await answer.text()) > 20
        async with served.session.post(f"{served.url}/sandbox/{path}", json=body) as answer:
            assert answer.status == 401
