"""Binance's public klines over REST, for the live feed: one call, a session of its own, and nothing else imported.

ccxt is for what it is good at, accounts and orders of many exchanges. Importing it costs 6 s of CPU and 75 MB, which
every scorer and collector would pay at each start for this one public call.
"""

import asyncio
from typing import Any

import aiohttp

REST_URL = "https://api.binance.com"
STREAM_URL = "wss://stream.binance.com:9443"
TRIES = 5
FIRST_PAUSE = 0.1
TIMEOUT_SECONDS = 10.0
SLOW_DOWN = {418, 429}
"""Binance's answers to too many requests; `Retry-After` says for how many seconds to stay away."""


def stream_url(base_url: str | None) -> str:
    """The WebSocket address that belongs to a REST address, without a path; the real exchange's where none is given."""
    return STREAM_URL if base_url is None else base_url.rstrip("/").replace("http", "ws", 1)


class KlinesUnavailableError(ConnectionError):
    """The venue did not answer after several tries."""


class KlinesRefusedError(ValueError):
    """The venue says that the request is wrong, such as a symbol that it does not list."""


class KlinesClient:
    """One HTTP session; close it."""

    def __init__(self, base_url: str | None) -> None:
        self._url = f"{(base_url or REST_URL).rstrip('/')}/api/v3/klines"
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(TIMEOUT_SECONDS), trust_env=True)

    async def rows(self, symbol: str, interval: str, start_ms: int, limit: int) -> list[list[Any]]:
        """Klines opened at or after `start_ms`, oldest first: [open ms, open, high, low, close, volume, close ms, ...].

        Prices are strings, as the venue sends them. Raises `KlinesUnavailableError` or `KlinesRefusedError`.
        """
        query = {"symbol": symbol, "interval": interval, "startTime": str(start_ms), "limit": str(limit)}
        failure = ""
        for attempt in range(TRIES):
            pause = FIRST_PAUSE * 2**attempt
            try:
                async with self._session.get(self._url, params=query) as answer:
                    if answer.status == 200:
                        rows: list[list[Any]] = await answer.json(content_type=None)
                        return rows
                    failure = f"{answer.status} {(await answer.text())[:200]}"
                    if answer.status in SLOW_DOWN:
                        pause = max(pause, float(answer.headers.get("Retry-After", 1)))
                    elif answer.status < 500:
                        raise KlinesRefusedError(f"{self._url} refused {query}: {failure}")
            except (aiohttp.ClientError, TimeoutError) as error:
                failure = repr(error)
            await asyncio.sleep(pause)
        raise KlinesUnavailableError(f"{self._url} did not answer in {TRIES} tries; the last: {failure}")

    async def close(self) -> None:
        await self._session.close()
