"""What wakes an idle engine: PostgreSQL's NOTIFY, which the scorer sends with the signals' own commit.

Only a hint. Whatever is missed (a lost connection, a pool that drops LISTEN) is found by the next poll.
"""

import asyncio
import contextlib

import psycopg
import structlog

from trading_platform.identifiers import DatasetId
from trading_platform.settings import Settings
from trading_platform.storage.databases import database_url, plain_url

log = structlog.get_logger(__name__)

CHANNEL = "signals"
RECONNECT_SECONDS = 2.0


class SignalBell:
    """Rings when signals of a dataset were committed. `listen` runs as a task beside the engine."""

    def __init__(self, settings: Settings, dataset_id: DatasetId) -> None:
        self._address = plain_url(database_url(settings))
        self._dataset_id = dataset_id
        self._rung = asyncio.Event()

    def ring(self) -> None:
        self._rung.set()

    async def wait(self, seconds: float) -> None:
        """Return when it rings, or has rung since the last time, and at the latest after `seconds`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        self._rung.clear()

    async def listen(self) -> None:
        """Listen without end, through every reconnection."""
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(
                    self._address, autocommit=True, prepare_threshold=None, connect_timeout=10
                ) as connection:
                    await connection.execute(f"listen {CHANNEL}")
                    async for notice in connection.notifies():
                        if notice.payload == self._dataset_id:
                            self.ring()
            except (psycopg.Error, OSError) as error:
                log.warning("signal_bell_lost", error=f"{type(error).__name__}: {error}"[:200])
            await asyncio.sleep(RECONNECT_SECONDS)
