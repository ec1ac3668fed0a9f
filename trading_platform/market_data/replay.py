"""Bars of the lake at the pace of the sandbox's replay, for datasets whose exchange streams no bars (Kite streams ticks).

The lake says what the bars are, the sandbox's clock when they become known: a step is given out once market time has
reached it, so that nobody decides on a bar before the exchange has traded it.
"""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime

import aiohttp
import structlog

from trading_platform.market_data.feed import LakeFeed, Step

log = structlog.get_logger(__name__)

WAIT_SECONDS = 10.0
"""How long the sandbox may hold an answer back while market time is not there yet."""
RETRY_SECONDS = 0.5


class ReplayFeed:
    """The steps of a `LakeFeed`, each when the sandbox's market time has reached it."""

    def __init__(self, bars: LakeFeed, sandbox_url: str, token: str) -> None:
        self._bars = bars
        self._url = f"{sandbox_url}/sandbox/clock/wait"
        self._headers = {"Authorization": f"Bearer {token}"}

    async def steps(self, after: datetime | None) -> AsyncIterator[Step]:
        """Ends with the last bar of the lake; goes on through restarts of the sandbox."""
        timeout = aiohttp.ClientTimeout(total=WAIT_SECONDS * 2)
        async with aiohttp.ClientSession(headers=self._headers, timeout=timeout) as client:
            reached: datetime | None = None
            async for step in self._bars.steps(after):
                while reached is None or reached < step.available_at:
                    reached = await self._market_time(client, step.available_at)
                yield step

    async def _market_time(self, client: aiohttp.ClientSession, until: datetime) -> datetime | None:
        """The sandbox's market time, at the latest when it is `until`; None where there is none yet or no answer."""
        question = {"until": until.isoformat(), "seconds": str(WAIT_SECONDS)}
        try:
            async with client.get(self._url, params=question) as answer:
                answer.raise_for_status()
                found = (await answer.json())["market_time"]
        except (aiohttp.ClientError, TimeoutError) as error:
            log.warning("replay_clock_not_reached", error=repr(error))
            await asyncio.sleep(RETRY_SECONDS)
            return None
        return None if found is None else datetime.fromisoformat(found)
