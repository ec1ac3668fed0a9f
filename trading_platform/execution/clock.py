"""The engine's side of market time: in a replay it tells the sandbox when it has finished with a step."""

import time
from datetime import UTC, datetime
from typing import Protocol

import aiohttp
import structlog

log = structlog.get_logger(__name__)

ACK_TIMEOUT_SECONDS = 5.0


class MarketClock(Protocol):
    """Told when everything up to a market time is done and settled."""

    waits: bool
    """Whether the market stands still until then."""

    def seconds(self, market_time: datetime) -> float:
        """The clock that orders per second are counted by. In a replay it is market time, so that speed is no limit."""
        ...

    def now(self, market_time: datetime | None) -> datetime:
        """The market's clock, by which sessions open and close. `market_time`: up to when data are known."""
        ...

    async def done(self, market_time: datetime) -> None: ...

    async def close(self) -> None: ...


class WallClock:
    """Live markets wait for nobody."""

    waits = False

    def seconds(self, market_time: datetime) -> float:
        return time.time()

    def now(self, market_time: datetime | None) -> datetime:
        return datetime.now(UTC)

    async def done(self, market_time: datetime) -> None:
        """Nothing to tell."""

    async def close(self) -> None:
        """Nothing to close."""


class ReplayClock:
    """Acknowledges to the sandbox, which holds the next step back until all engines have. Losing one acknowledgement
    costs the replay a few seconds and nothing else."""

    waits = True

    def __init__(self, sandbox_url: str, token: str, participant: str) -> None:
        self._url = f"{sandbox_url}/sandbox/clock/ack"
        self._headers = {"Authorization": f"Bearer {token}"}
        self._participant = participant
        self._session: aiohttp.ClientSession | None = None

    def seconds(self, market_time: datetime) -> float:
        return market_time.timestamp()

    def now(self, market_time: datetime | None) -> datetime:
        return market_time or datetime.now(UTC)

    async def done(self, market_time: datetime) -> None:
        body = {"participant": self._participant, "market_time": market_time.isoformat()}
        try:
            async with self._client().post(self._url, json=body, headers=self._headers) as answer:
                answer.raise_for_status()
        except (aiohttp.ClientError, TimeoutError) as error:
            log.warning("replay_clock_not_reached", error=repr(error), market_time=str(market_time))

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ACK_TIMEOUT_SECONDS))
        return self._session
