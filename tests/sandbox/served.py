"""A sandbox served on a port of its own, inside the test's event loop, and a customer who signs by hand."""

import hashlib
import hmac
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp

from tests.sandbox.markets import START_MS, TOKEN, bars, dataset
from trading_platform.sandbox.server import Options, Sandbox, build
from trading_platform.stack.servers import free_port

BALANCES = {"USDT": "100000", "BTC": "2"}


@dataclass
class Served:
    """A running sandbox and somebody who talks to it."""

    sandbox: Sandbox
    url: str
    session: aiohttp.ClientSession

    async def control(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with self.session.request(method, f"{self.url}/sandbox/{path}", json=body, headers=headers) as answer:
            answer.raise_for_status()
            return await answer.json()

    async def open_account(self, name: str = "alice", **balances: str) -> None:
        body = {
            "account_id": name, "api_key": f"key-{name}", "api_secret": f"secret-{name}",
            "balances": balances or BALANCES,
        }  # fmt: skip
        await self.control("POST", "accounts", body)

    async def steps(self, count: int) -> None:
        """Let exactly `count` more steps happen, at once."""
        for _ in range(count):
            self.sandbox.exchange.step(await anext(self._steps()))
        await self.sandbox.exchange.durable()

    def _steps(self) -> AsyncIterator[Any]:
        return self.sandbox.source.steps(self.sandbox.exchange.market_time)

    async def public(self, path: str, **parameters: Any) -> tuple[int, Any]:
        async with self.session.get(f"{self.url}/api/v3/{path}", params=parameters) as answer:
            return answer.status, await answer.json()

    async def signed(self, method: str, path: str, name: str = "alice", **parameters: Any) -> tuple[int, Any]:
        """A signed request; `parameters` may hold another timestamp or signature."""
        given = dict(parameters)
        signature = given.pop("signature", None)
        query = urlencode({**given, "timestamp": given.get("timestamp", int(time.time() * 1_000))})
        signature = signature or hmac.new(f"secret-{name}".encode(), query.encode(), hashlib.sha256).hexdigest()
        headers = {"X-MBX-APIKEY": f"key-{name}"}
        url = f"{self.url}/api/v3/{path}?{query}&signature={signature}"
        async with self.session.request(method, url, headers=headers) as answer:
            return answer.status, await answer.json()


@asynccontextmanager
async def serving(folder: Path, count: int = 60, replay_from: int = 30, **options: Any) -> AsyncIterator[Served]:
    """Serve `count` bars a pair, of which those from `replay_from` on are the tail."""
    kind, details = options.pop("kind", "files"), options.pop("details", None)
    frame = options.pop("frame", None)
    found = Options(folder, TOKEN, **options)
    sandbox = build(dataset(replay_from, kind, details), bars(count) if frame is None else frame, found)
    port = free_port()
    async with sandbox.running("127.0.0.1", port), aiohttp.ClientSession() as session:
        yield Served(sandbox, f"http://127.0.0.1:{port}", session)


def at(index: int) -> str:
    """The market time at which bar `index` is over, as JSON has it."""
    from trading_platform.sandbox.clock import iso

    return str(iso(START_MS + (index + 1) * 3_600_000))
