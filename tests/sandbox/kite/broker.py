"""An Indian exchange behind the sandbox's Kite door: minutes of one Friday, the official client, and the clock in our hands."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import aiohttp
import polars as pl
from kiteconnect import KiteConnect

from trading_platform.sandbox.server import Options, Sandbox, build
from trading_platform.stack.servers import free_port
from trading_platform.storage.control import Dataset

IST = ZoneInfo("Asia/Kolkata")
TOKEN = "token-of-the-tests"
FRIDAY, MONDAY = date(2026, 11, 20), date(2026, 11, 23)
PRICES = {"INFY": 1500.0, "SBIN": 800.0, "NIFTY 50": 26_000.0}
CASH = "1000000"


def minutes(day: date, count: int, first: time = time(9, 15)) -> list[dict[str, Any]]:
    """Bars of `count` minutes: prices that rise by a rupee in ten thousand a minute."""
    rows = []
    start = datetime.combine(day, first, IST).astimezone(UTC)
    for index in range(count):
        opened = start + timedelta(minutes=index)
        for symbol, base in PRICES.items():
            price = round(base * (1 + 0.0001 * index) / 0.05) * 0.05
            rows.append(
                {
                    "symbol": symbol, "open_time": opened, "open": round(price, 2), "high": round(price + 1, 2),
                    "low": round(price - 1, 2), "close": round(price, 2), "volume": 100_000.0,
                    "available_at": opened + timedelta(minutes=1), "session_date": day,
                }
            )  # fmt: skip
    return rows


def market() -> pl.DataFrame:
    """Friday's first hour and last minutes, and Monday's first ones."""
    rows = minutes(FRIDAY, 60) + minutes(FRIDAY, 5, time(15, 25)) + minutes(MONDAY, 5)
    return pl.DataFrame(rows).with_columns(pl.col("open_time", "available_at").dt.cast_time_unit("us"))


@dataclass
class Broker:
    """The sandbox, its control routes, and official clients of it."""

    sandbox: Sandbox
    control_url: str
    kite_url: str
    session: aiohttp.ClientSession

    async def control(self, path: str, body: Any) -> Any:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with self.session.post(f"{self.control_url}/sandbox/{path}", json=body, headers=headers) as answer:
            answer.raise_for_status()
            return await answer.json()

    async def steps(self, count: int) -> None:
        """Let exactly `count` more minutes happen."""
        for _ in range(count):
            step = await anext(aiter(self.sandbox.source.steps(self.sandbox.exchange.market_time)))
            self.sandbox.exchange.step(step)
            self.sandbox.clock.on_step()
        await self.sandbox.exchange.durable()

    async def until(self, day: date, clock: time) -> None:
        """Go on to the minute that ends at that time."""
        wanted = int(datetime.combine(day, clock, IST).timestamp() * 1_000)
        while (self.sandbox.exchange.market_time or 0) < wanted:
            await self.steps(1)

    async def client(self, name: str = "alice") -> KiteConnect:
        """The official client, logged in as its documentation says."""
        body = {"account_id": name, "api_key": f"key_{name}", "api_secret": f"secret_{name}", "balances": {"INR": CASH}}
        await self.control("accounts", body)
        token = (await self.control("kite/request_token", {"api_key": f"key_{name}"}))["request_token"]
        kite = KiteConnect(f"key_{name}", root=self.kite_url)
        session = await call(kite.generate_session, token, api_secret=f"secret_{name}")
        kite.set_access_token(session["access_token"])
        return kite


async def call(method: Callable[..., Any], *values: Any, **named: Any) -> Any:
    """A call of the official client, which blocks, away from the event loop that serves it."""
    return await asyncio.to_thread(method, *values, **named)


@asynccontextmanager
async def broker(folder: Path, **options: Any) -> AsyncIterator[Broker]:
    dataset = Dataset(
        dataset_id="nse_of_the_tests", kind="files", venue="nse", source="test", interval_seconds=60, symbols={},
        replay_from=datetime.combine(FRIDAY, time(9, 15), IST).astimezone(UTC), details={},
    )  # fmt: skip
    port, kite_port = free_port(), free_port()
    sandbox = build(dataset, market(), Options(folder, TOKEN, kite_port=kite_port, **options))
    async with sandbox.running("127.0.0.1", port), aiohttp.ClientSession() as session:
        made = Broker(sandbox, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{kite_port}", session)
        await made.steps(2)
        yield made
