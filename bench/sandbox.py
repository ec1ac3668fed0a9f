"""Orders a second at the sandbox through raw HTTP, beside a server that does nothing: `python bench/sandbox.py [--orders N]`.

Each order is a limit order that rests or a market order that trades, in turn, through Kite's door with its checks, margin,
book and durable journal. The floor is the same HTTP server (aiohttp on uvloop) answering the same bytes without looking at
the request. Both servers are held to one core and the client to another; connections are kept open, one request at a time
each. Rate limits are off. Ratios count: the machine slows both alike.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable
from urllib.parse import urlencode

import numpy as np
import uvloop
from aiohttp import web
from kiteconnect import KiteConnect
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

SHARE = "INFY"
KEYS = {"api_key": "bench_key", "api_secret": "bench_secret"}
ANSWER = b'{"status":"success","data":{"order_id":"2611230000000000001"}}'
Exchange = Callable[[asyncio.StreamReader, asyncio.StreamWriter, int], Awaitable[float]]


def on_core(core: int) -> list[str]:
    return ["taskset", "-c", str(core)] if (os.cpu_count() or 1) > 1 else []


def start(core: int, *arguments: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([*on_core(core), sys.executable, *arguments], stdout=subprocess.PIPE)


def tell(admin: str, path: str, body: dict[str, object]) -> dict[str, str]:
    request = urllib.request.Request(admin + path, json.dumps(body).encode(), method="POST")
    with urllib.request.urlopen(request, timeout=30) as answer:
        return dict(json.load(answer))


def floor_server() -> None:
    """Answers any POST with the same bytes; prints its port."""

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=ANSWER, content_type="application/json")

    async def serve() -> None:
        app = web.Application()
        app.router.add_post("/{path:.*}", answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        print(runner.addresses[0][1], flush=True)
        await asyncio.Event().wait()

    uvloop.run(serve())


def request_of(path: str, fields: dict[str, object], authorization: str) -> bytes:
    body = urlencode(fields)
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Kite-Version: 3\r\nAuthorization: {authorization}\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


def orders(price: float) -> list[dict[str, object]]:
    """A limit order that rests, and a market order that trades at once."""
    common = {"exchange": "NSE", "tradingsymbol": SHARE, "quantity": 1, "product": "CNC", "validity": "DAY"}
    rests = {**common, "transaction_type": "BUY", "order_type": "LIMIT", "price": round(price * 0.97, 1)}
    buys = {**common, "transaction_type": "BUY", "order_type": "MARKET", "market_protection": -1}
    return [rests, buys]


async def pour(port: int, requests: list[bytes], count: int, connections: int) -> tuple[float, np.ndarray]:
    """(orders a second, latency of each in milliseconds). Raises where an answer is not a success."""
    latencies: list[float] = []
    left = iter(range(count))

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in left:
            began = time.perf_counter()
            writer.write(requests[number % len(requests)])
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            body = await reader.readexactly(length)
            if b" 200 " not in head[:20]:
                raise RuntimeError(body.decode())
            latencies.append((time.perf_counter() - began) * 1_000)
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(connections)))
    return count / (time.perf_counter() - began), np.array(latencies)


def measure(port: int, requests: list[bytes], count: int, connections: int) -> dict[str, float]:
    uvloop.run(pour(port, requests, min(count, 200), connections))
    rate, latencies = uvloop.run(pour(port, requests, count, connections))
    return {
        "orders_per_second": round(rate), "p50_ms": round(float(np.percentile(latencies, 50)), 3),
        "p99_ms": round(float(np.percentile(latencies, 99)), 3),
    }  # fmt: skip


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--orders", type=int, default=3_000)
    arguments.add_argument("--connections", type=int, nargs="+", default=[1, 16])
    arguments.add_argument("--floor", action="store_true", help=argparse.SUPPRESS)
    asked = arguments.parse_args()
    if asked.floor:
        floor_server()
    else:
        show(run(asked), asked.orders)


def run(asked: argparse.Namespace) -> list[dict[str, object]]:
    """Both servers, every number of connections."""
    if on_core(1):
        os.sched_setaffinity(0, {1})
    floor = start(0, __file__, "--floor")
    command = "from trading_platform.cli import main; main()"
    sandbox = start(0, "-c", command, "sandbox", "--no-limits", "--speed", "1")
    try:
        assert floor.stdout is not None
        assert sandbox.stdout is not None
        bare = int(floor.stdout.readline())
        where = json.loads(sandbox.stdout.readline())
        tell(where["admin"], "/clock", {"run": False})
        tell(where["admin"], "/accounts", {"account_id": "bench", **KEYS, "balances": {"INR": "1000000000000"}})
        token = tell(where["admin"], "/kite/request_token", {"api_key": KEYS["api_key"]})["request_token"]
        kite = KiteConnect(KEYS["api_key"], root=where["kite"]["root"])
        kite.set_access_token(kite.generate_session(token, api_secret=KEYS["api_secret"])["access_token"])
        price = kite.ltp(f"NSE:{SHARE}")[f"NSE:{SHARE}"]["last_price"]
        authorization = f"token {kite.api_key}:{kite.access_token}"
        requests = [request_of("/orders/regular", each, authorization) for each in orders(price)]
        port = int(where["kite"]["root"].rsplit(":", 1)[1])
        runs: list[dict[str, object]] = []
        with Progress(transient=True) as progress:
            task = progress.add_task("orders", total=2 * len(asked.connections))
            for connections in asked.connections:
                for server, at in (("floor", bare), ("sandbox", port)):
                    found = measure(at, requests, asked.orders, connections)
                    runs.append({"server": server, "connections": connections, **found})
                    progress.advance(task)
    finally:
        for process in (floor, sandbox):
            process.terminate()
            process.wait(20)
    return runs


def show(runs: list[dict[str, object]], count: int) -> None:
    table = Table(
        "connections", "server", "orders/s", "p50 ms", "p99 ms", title=f"{count:,} orders, server on one core"
    )
    for run in runs:
        table.add_row(*(str(run[name]) for name in ("connections", "server", "orders_per_second", "p50_ms", "p99_ms")))
    Console().print(table)
    by_name = {(run["server"], run["connections"]): run["orders_per_second"] for run in runs}
    ratios = {
        f"{connections}": round(float(str(rate)) / float(str(by_name["floor", connections])), 3)
        for (server, connections), rate in by_name.items()
        if server == "sandbox"
    }
    print(json.dumps({"bench": "sandbox", "orders": count, "runs": runs, "share_of_floor_by_connections": ratios}))


if __name__ == "__main__":
    main()
