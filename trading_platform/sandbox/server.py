"""Putting the exchange together for one dataset and serving it on a port."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl
import structlog
from aiohttp import web

from trading_platform.identifiers import DatasetId, Symbol, Venue
from trading_platform.market_data import synthetic
from trading_platform.market_data.bar import Bar
from trading_platform.market_data.feed import BarFeed, LakeFeed, Step, VenueFeed
from trading_platform.market_data.lake import Lake
from trading_platform.markets.instruments import Instrument
from trading_platform.observability.heartbeat import BEAT_EVERY_SECONDS, beat
from trading_platform.sandbox.binance.rest import Rest, binance_errors
from trading_platform.sandbox.binance.streams import Streams
from trading_platform.sandbox.clock import Clock, Mode
from trading_platform.sandbox.control import Control
from trading_platform.sandbox.exchange import Exchange
from trading_platform.sandbox.journal import Journal
from trading_platform.storage.control import Dataset
from trading_platform.storage.databases import Databases

log = structlog.get_logger(__name__)

LARGEST_BODY = 1 << 16
MODES: dict[str, Mode] = {"files": "replay", "synthetic": "synthetic", "venue": "live"}


class NothingToTradeError(RuntimeError):
    """The dataset cannot be turned into an exchange."""


@dataclass
class Sandbox:
    """An exchange, its clock and where its bars come from."""

    exchange: Exchange
    clock: Clock
    source: BarFeed
    databases: Databases
    token: str

    def app(self) -> web.Application:
        app = web.Application(client_max_size=LARGEST_BODY, middlewares=[binance_errors])
        rest = Rest(self.exchange)
        streams = Streams(self.exchange)
        app.add_routes([*rest.routes(), *streams.routes(), *Control(self.exchange, self.clock, self.token).routes()])
        return app

    async def serve(self, host: str, port: int) -> None:
        """Serve until SIGTERM or SIGINT."""
        stop = asyncio.Event()
        for signum in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(signum, stop.set)
        runner = web.AppRunner(self.app(), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, host, port).start()
        log.info("sandbox_serves", port=port, dataset_id=self.exchange.dataset_id, state=self.clock.state)
        ticking = asyncio.create_task(self.clock.run(self.source.steps(self.exchange.market_time)))
        beating = asyncio.create_task(self._beat())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({stopping, beating}, return_when=asyncio.FIRST_COMPLETED)
        for task in (ticking, beating, stopping):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await runner.cleanup()
        self.exchange.journal.close()

    async def _beat(self) -> None:
        while True:
            await asyncio.to_thread(self._say, self.clock.state, {"steps": self.exchange.steps})
            await asyncio.sleep(BEAT_EVERY_SECONDS)

    def _say(self, state: str, detail: dict[str, int]) -> None:
        with self.databases.control() as session:
            beat(session, "sandbox", state, detail)


def assemble(databases: Databases, lake: Lake, dataset_id: DatasetId, journal: Path, token: str) -> Sandbox:
    """The exchange for a dataset, its books rebuilt from the journal. Raises `NothingToTradeError`."""
    with databases.control() as session:
        dataset = session.get(Dataset, dataset_id)
    if dataset is None:
        raise NothingToTradeError(f"no dataset {dataset_id!r}; `trading-platform lake show` lists them")
    history = lake.bars(dataset_id, end=dataset.replay_from)
    tail = lake.bars(dataset_id, start=dataset.replay_from) if dataset.replay_from else history.clear()
    if tail.is_empty() and history.is_empty():
        raise NothingToTradeError(f"dataset {dataset_id!r} has no bars in the lake")
    priced = (history if len(history) else tail).group_by("symbol").agg(pl.col("close").last())
    prices = dict(priced.iter_rows())
    instruments = {
        symbol: Instrument.from_file(Venue("binance"), Symbol(symbol), Decimal(repr(prices[symbol])))
        for symbol in sorted(dataset.symbols)
        if symbol in prices
    }
    exchange = Exchange(dataset_id, dataset.interval_seconds, instruments, Journal(journal / "journal.log"))
    for (symbol,), rows in history.partition_by("symbol", as_dict=True).items():
        exchange.candles[symbol].load(rows)
    commands = exchange.rebuild()
    log.info("books_rebuilt", commands=commands, market_time=str(exchange.market_time))
    times = tail["available_at"].unique().sort()
    clock = Clock(
        exchange,
        MODES[dataset.kind],
        dataset.replay_from,
        times[-1] if len(times) else None,
        len(times),
    )
    return Sandbox(exchange, clock, _source(dataset, lake), databases, token)


def _source(dataset: Dataset, lake: Lake) -> BarFeed:
    if dataset.kind == "venue":
        return VenueFeed(
            DatasetId(dataset.dataset_id), [Symbol(name) for name in sorted(dataset.symbols)], dataset.interval_seconds
        )
    tail = LakeFeed(lake, dataset.dataset_id, start=dataset.replay_from)
    return Endless(tail, dataset) if dataset.kind == "synthetic" else tail


@dataclass
class Endless:
    """The stored tail of a synthetic market, then the same series for ever."""

    tail: LakeFeed
    dataset: Dataset

    async def steps(self, after: datetime | None) -> AsyncIterator[Step]:
        last = after
        async for step in self.tail.steps(after):
            last = step.available_at
            yield step
        details, interval = self.dataset.details, timedelta(seconds=self.dataset.interval_seconds)
        start = datetime.fromisoformat(details["start"])
        assert last is not None
        more = synthetic.stream(
            details["seed"],
            (last - start) // interval,
            dataset=self.dataset.dataset_id,
            start=start,
            symbols=details["symbols"],
            interval_seconds=self.dataset.interval_seconds,
        )
        for frame in more:
            bars = [Bar(**row) for row in frame.iter_rows(named=True)]
            yield Step(bars[0].available_at, bars)
