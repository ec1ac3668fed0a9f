"""The collector: a supervised service that streams a dataset's bars from its venue into the lake, without end.

It holds the lease `collector:<dataset>`, so a second one waits. Bars are written in batches: the lake takes a file a
batch. A bar that is already in the lake changes nothing, so a collector that dies loses nothing: the next one starts
where the lake ends and REST fills the hole.
"""

import asyncio
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import polars as pl
import structlog
from sqlalchemy import func, update

from trading_platform.identifiers import DatasetId, Symbol
from trading_platform.market_data.bar import Bar
from trading_platform.market_data.datasets import quarantine_live, symbol_spans
from trading_platform.market_data.feed import BarFeed, VenueFeed
from trading_platform.market_data.gaps import find_gaps
from trading_platform.market_data.lake import BAR_SCHEMA, Lake
from trading_platform.market_data.quality import judge_live
from trading_platform.observability.heartbeat import beat_async
from trading_platform.storage.control import Dataset
from trading_platform.storage.databases import Databases
from trading_platform.storage.lease import RENEW_EVERY_SECONDS, Lease, process_name

log = structlog.get_logger(__name__)

FLUSH_EVERY_SECONDS = 5.0
NEIGHBOURS = 20
"""Earlier bars of a symbol beside which a new one is judged, and behind which a fresh gap is looked for."""


class UnknownDatasetError(LookupError):
    """No dataset has this id."""


@dataclass
class Collector:
    """Streams one dataset. `run` returns after `stop` (everything written, lease released) or raises `LeaseLostError`."""

    databases: Databases
    lake: Lake
    dataset_id: DatasetId
    feed: BarFeed
    after: datetime | None
    flush_seconds: float = FLUSH_EVERY_SECONDS
    holder: str = field(default_factory=process_name)
    collected: int = 0
    quarantined: int = 0
    last_available_at: datetime | None = None
    _pending: list[Bar] = field(default_factory=list)
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)

    def stop(self) -> None:
        """Ask `run` to write what it has and return."""
        self._stopping.set()

    async def run(self) -> None:
        lease = Lease(self.databases, f"collector:{self.dataset_id}", self.holder)
        if not await self._acquire(lease):
            return
        streaming = asyncio.create_task(self._stream())
        renewing = asyncio.create_task(self._renew(lease))
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            while not self._stopping.is_set():
                done, _ = await asyncio.wait(
                    {streaming, renewing, stopping}, timeout=self.flush_seconds, return_when=asyncio.FIRST_COMPLETED
                )
                await self._flush()
                for task in done & {streaming, renewing}:
                    task.result()  # raises what ended it
                if streaming in done:
                    return
        finally:
            for task in (streaming, renewing, stopping):
                task.cancel()
            await asyncio.gather(streaming, renewing, stopping, return_exceptions=True)
            await self._finish(lease)

    async def _acquire(self, lease: Lease) -> bool:
        """Wait for the lease; False when asked to stop before."""
        while not self._stopping.is_set():
            ours = await asyncio.to_thread(lease.acquire)
            await self._beat(lease, "running" if ours else "standby")
            if ours:
                log.info("lease_acquired", lease=lease.name, epoch=lease.epoch)
                return True
            try:
                async with asyncio.timeout(RENEW_EVERY_SECONDS):
                    await self._stopping.wait()
            except TimeoutError:
                continue
        return False

    async def _stream(self) -> None:
        async for step in self.feed.steps(self.after):
            self._pending += step.bars
            self.last_available_at = step.available_at

    async def _renew(self, lease: Lease) -> None:
        while True:
            await asyncio.to_thread(lease.renew)
            await self._beat(lease, "running")
            await asyncio.sleep(RENEW_EVERY_SECONDS)

    async def _beat(self, lease: Lease, state: str) -> None:
        async with self.databases.control_async() as session:
            await beat_async(session, lease.name, state, self._figures())

    async def _flush(self) -> None:
        """Write what has come, off the event loop, and tell the dataset's row."""
        bars, self._pending = self._pending, []
        set_aside = getattr(self.feed, "set_aside", None)
        aside = [set_aside.popleft() for _ in range(len(set_aside))] if set_aside else []
        if not bars and not aside:
            return
        await asyncio.to_thread(self._write, bars, [(bar, reason.value) for bar, reason in aside])
        if bars:
            spans = await asyncio.to_thread(lambda: symbol_spans(self.lake.bars(self.dataset_id)))
            async with self.databases.control_async() as session:
                await session.execute(
                    update(Dataset)
                    .where(Dataset.dataset_id == self.dataset_id)
                    .values(symbols=spans, updated_at=func.now())
                )

    def _write(self, bars: list[Bar], aside: list[tuple[Bar, str]]) -> None:
        fresh = pl.DataFrame([bar.as_row() for bar in bars], schema=BAR_SCHEMA)
        if len(fresh):
            start = fresh["open_time"].min()
            assert isinstance(start, datetime)
            span = NEIGHBOURS * bars[0].interval_seconds
            earlier = self.lake.bars(self.dataset_id, start=start - timedelta(seconds=span), end=start)
            fresh, bad = judge_live(fresh, earlier)
            self.collected += self.lake.write_bars(fresh).added
            gaps = find_gaps(pl.concat([earlier, fresh]))
            self.lake.write_gaps(gaps.filter(pl.col("last") >= start - timedelta(seconds=bars[0].interval_seconds)))
            self._set_aside(bad)
        if aside:
            rows = pl.DataFrame([bar.as_row() for bar, _ in aside], schema=BAR_SCHEMA)
            self._set_aside(rows.with_columns(reason=pl.Series([reason for _, reason in aside])))

    def _set_aside(self, bad: pl.DataFrame) -> None:
        if len(bad):
            self.quarantined += self.lake.write_quarantine(quarantine_live(bad)).added

    async def _finish(self, lease: Lease) -> None:
        await self._flush()
        await asyncio.to_thread(lease.release)
        await self._beat(lease, "stopped")
        log.info("collector_stopped", dataset_id=self.dataset_id, collected=self.collected)

    def _figures(self) -> dict[str, object]:
        return {
            "holder": self.holder,
            "collected": self.collected,
            "quarantined": self.quarantined,
            "reconnects": getattr(self.feed, "reconnects", 0),
            "last_available_at": self.last_available_at.isoformat() if self.last_available_at else None,
        }


def venue_feed(databases: Databases, lake: Lake, dataset_id: DatasetId) -> tuple[VenueFeed, datetime | None]:
    """(the feed of a dataset, where its lake ends). A live dataset is fed by the exchange, any other by the sandbox.

    Raises `UnknownDatasetError`, and ValueError where a sandbox is needed and none runs.
    """
    with databases.control() as session:
        row = session.get(Dataset, dataset_id)
        if row is None:
            raise UnknownDatasetError(f"no dataset {dataset_id!r}; `trading-platform ingest` makes one")
    base_url = row.details.get("base_url") if row.kind == "venue" else databases.settings.sandbox_url
    if row.kind != "venue" and base_url is None:
        raise ValueError(
            f"dataset {dataset_id!r} is replayed by the sandbox, and TP_SANDBOX_URL does not say where it is"
        )
    symbols = [Symbol(symbol) for symbol in sorted(row.symbols)]
    known = lake.bars(dataset_id)
    ends = known.group_by("symbol").agg(pl.col("available_at").max())["available_at"]
    after = ends.min() if row.kind == "venue" else ends.max()
    assert after is None or isinstance(after, datetime)
    return VenueFeed(dataset_id, symbols, row.interval_seconds, base_url=base_url), after


async def collect(databases: Databases, dataset_id: DatasetId, flush_seconds: float = FLUSH_EVERY_SECONDS) -> None:
    """Run the collector of one dataset until SIGTERM or SIGINT."""
    lake = Lake(databases.settings.lake_dir)
    feed, after = venue_feed(databases, lake, dataset_id)
    collector = Collector(databases, lake, dataset_id, feed, after, flush_seconds)
    _on_signals(collector.stop)
    try:
        await collector.run()
    finally:
        await databases.aclose()


def _on_signals(stop: Callable[[], None]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
