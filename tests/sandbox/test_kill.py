"""A process of its own: kill it under load, again and again, and count what it has promised."""

import asyncio
import multiprocessing
import os
import signal
import time
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import aiohttp
import uvloop

from tests.sandbox.markets import TOKEN, bars, dataset
from tests.sandbox.served import Served
from trading_platform.sandbox.server import Options, build
from trading_platform.stack.servers import free_port

KILLS = 5
WORKERS = 8
PROCESSES = multiprocessing.get_context("forkserver")
"""Children of a process that has done the imports once. (Not of this one: polars' threads do not survive a fork.)"""
PROCESSES.set_forkserver_preload([__name__])


def serve(journal: Path, port: int) -> None:
    async def run() -> None:
        await build(dataset(30), bars(2_000), Options(journal, TOKEN)).serve("127.0.0.1", port)

    uvloop.run(run())


@dataclass
class Load:
    """Customers who place orders as fast as they are answered, and remember what they were told."""

    served: Served
    round: int
    told: dict[str, dict] = field(default_factory=dict)
    unanswered: set[str] = field(default_factory=set)

    async def run(self) -> None:
        await asyncio.gather(*(self._worker(number) for number in range(WORKERS)))

    async def _worker(self, worker: int) -> None:
        for number in range(100_000):
            name = f"r{self.round}w{worker}n{number}"
            order = {"symbol": "BTCUSDT", "side": "BUY", "quantity": "0.001", "newClientOrderId": name}
            if number % 3 == 2:
                order |= {"type": "LIMIT", "timeInForce": "GTC", "price": "38000"}
            else:
                order |= {"type": "MARKET", "side": "SELL" if number % 3 else "BUY"}
            self.unanswered.add(name)
            try:
                status, answer = await self.served.signed("POST", "order", **order)
            except (aiohttp.ClientError, OSError):
                return
            self.unanswered.discard(name)
            if status == 200:
                self.told[name] = answer


def test_what_was_acknowledged_outlives_every_kill(tmp_path: Path) -> None:
    told: dict[str, dict] = {}
    unanswered: set[str] = set()
    steps = 0
    for number in range(KILLS + 1):
        port = free_port()
        child = PROCESSES.Process(target=serve, args=(tmp_path / "journal", port))
        child.start()
        try:
            steps = asyncio.run(_round(number, port, child, steps, told, unanswered))
        finally:
            child.kill()
            child.join(10)
    assert len(told) > 100
    assert unanswered, "the kills came in the midst of it"
    assert steps > KILLS


async def _round(
    number: int, port: int, child: "multiprocessing.process.BaseProcess", steps: int, told: dict[str, dict],
    unanswered: set[str],
) -> int:  # fmt: skip
    """Compare the books with what was told; then load the exchange and kill it. The last round ends it in peace."""
    async with aiohttp.ClientSession() as session:
        served = Served(None, f"http://127.0.0.1:{port}", session)  # type: ignore[arg-type]
        await _ready(served)
        await served.open_account("alice", USDT="100000000", BTC="1000")
        status = await served.control("GET", "status")
        assert status["steps_done"] >= steps, "market time never goes back"
        await _agree(served, told, unanswered)
        if number == KILLS:
            os.kill(child.pid or 0, signal.SIGTERM)
            await asyncio.to_thread(child.join, 10)
            assert child.exitcode == 0
            return steps
        await served.control("POST", "replay/start", {"participants": [], "speed": 100})
        load = Load(served, number)
        running = asyncio.create_task(load.run())
        await asyncio.sleep(0.3 + 0.1 * number)
        steps = (await served.control("GET", "status"))["steps_done"]
        os.kill(child.pid or 0, signal.SIGKILL)
        await running
        told.update(load.told)
        unanswered |= load.unanswered
        return steps


async def _ready(served: Served) -> None:
    deadline = time.monotonic() + 30
    while True:
        assert time.monotonic() < deadline
        try:
            await served.public("ping")
        except aiohttp.ClientError:
            await asyncio.sleep(0.02)
        else:
            return


async def _agree(served: Served, told: dict[str, dict], unanswered: set[str]) -> None:
    """The books hold every order that was acknowledged, as it was, and of the others each whole or not at all."""
    orders = {order["client_order_id"]: order for order in await served.control("GET", "books/orders?account_id=alice")}
    fills: dict[str, list[dict]] = {}
    for fill in await served.control("GET", "books/fills?account_id=alice"):
        fills.setdefault(fill["client_order_id"], []).append(fill)
    missing = set(told) - set(orders)
    assert not missing, f"{len(missing)} acknowledged orders are lost"
    assert set(orders) <= set(told) | unanswered
    for name, answer in told.items():
        assert orders[name]["order_id"] == str(answer["orderId"])
        known = [(fill["trade_id"], Decimal(fill["price"]), Decimal(fill["quantity"])) for fill in fills.get(name, [])]
        promised = [(str(f["tradeId"]), Decimal(f["price"]), Decimal(f["qty"])) for f in answer["fills"]]
        assert known[: len(promised)] == promised
    cash, coins = Decimal(100_000_000), Decimal(1_000)
    for name, order in orders.items():
        quantity = sum((Decimal(fill["quantity"]) for fill in fills.get(name, [])), Decimal(0))
        assert quantity == Decimal(order["filled"])
        if order["type"] == "MARKET":
            assert order["state"] == "FILLED", "a market order is there with its fills or not at all"
        for fill in fills.get(name, []):
            sign = 1 if fill["side"] == "buy" else -1
            cash -= sign * Decimal(fill["price"]) * Decimal(fill["quantity"]) + (
                Decimal(fill["fee"]) if sign < 0 else 0
            )
            coins += sign * Decimal(fill["quantity"]) - (Decimal(fill["fee"]) if sign > 0 else 0)
    balances = await served.control("GET", "books/balances?account_id=alice")
    assert Decimal(balances["USDT"]["free"]) + Decimal(balances["USDT"]["locked"]) == cash
    assert Decimal(balances["BTC"]["free"]) + Decimal(balances["BTC"]["locked"]) == coins
