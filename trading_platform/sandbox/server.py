"""Putting the exchange together for one dataset, and serving it on a port."""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl
import structlog
from aiohttp import web
from sqlalchemy.exc import SQLAlchemyError

from trading_platform.identifiers import Symbol, Venue
from trading_platform.market_data.lake import Lake
from trading_platform.markets.instruments import Instrument
from trading_platform.observability.heartbeat import BEAT_EVERY_SECONDS, beat
from trading_platform.sandbox.binance.gateway import WEIGHT_A_MINUTE, WEIGHT_A_MINUTE_IN_REPLAY, Gateway
from trading_platform.sandbox.binance.market_data import MarketData, Symbols
from trading_platform.sandbox.binance.shapes import INTERVALS
from trading_platform.sandbox.binance.streams import Streams
from trading_platform.sandbox.binance.trading import Trading
from trading_platform.sandbox.candles import MOST_KEPT
from trading_platform.sandbox.clock import Clock, Mode, Speed, Tail
from trading_platform.sandbox.control import Control
from trading_platform.sandbox.exchange import Exchange, Genesis
from trading_platform.sandbox.kite.listing import DerivedSource, instruments, listing
from trading_platform.sandbox.kite.margins import margins_by
from trading_platform.sandbox.kite.surface import REDIRECT, Kite, surface
from trading_platform.sandbox.liquidity import Level
from trading_platform.sandbox.live import LiveSource
from trading_platform.sandbox.sources import ReplaySource, Source, SyntheticSource
from trading_platform.storage.control import Dataset
from trading_platform.storage.databases import Databases

log = structlog.get_logger(__name__)

LARGEST_BODY = 1 << 16
MODES: dict[str, Mode] = {"files": "replay", "synthetic": "synthetic", "venue": "live"}
EIGHT = Decimal("1e-8")


class NothingToTradeError(RuntimeError):
    """The dataset cannot be turned into an exchange."""


@dataclass(frozen=True)
class Options:
    """How an exchange is served. `weight_limit` None: Binance's for a live market, a hundred times that in a replay."""

    journal: Path
    token: str
    seed: int = 7
    speed: Speed = "max"
    pace: float = 1.0
    latency_seconds: float = 0.0
    weight_limit: int | None = None
    kite_port: int | None = None
    """Of Kite Connect, for datasets of Indian exchanges."""
    kite_limits: bool = False
    """Count Kite requests by the wall clock, as the broker does; a replay's days are too short for that."""
    kite_redirect: str = REDIRECT


@dataclass
class Sandbox:
    """An exchange, its clock, its surfaces, and where its bars come from."""

    exchange: Exchange
    clock: Clock
    source: Source
    streams: Streams
    app: web.Application
    on_beat: Callable[[str, dict[str, object]], Awaitable[None]]
    kite: Kite | None = None
    kite_port: int | None = None
    port: int = 0
    """Of the first door, once it is open."""

    async def serve(self, host: str, port: int) -> None:
        """Serve until SIGTERM or SIGINT, or until market time cannot go on (then raise what stopped it)."""
        stop = asyncio.Event()
        for signum in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(signum, stop.set)
        async with self.running(host, port) as ticking:
            stopping = asyncio.create_task(stop.wait())
            # A market that never ends has a clock that never returns; a replay's does, and the exchange goes on serving.
            await asyncio.wait({stopping, ticking}, return_when=asyncio.FIRST_COMPLETED)
            if ticking.done():
                ticking.result()
            await stopping

    @contextlib.asynccontextmanager
    async def running(self, host: str, port: int) -> AsyncIterator["asyncio.Task[None]"]:
        """Serve for the length of an `async with`; yields the task that drives the clock."""
        await self.exchange.durable()
        runner = web.AppRunner(self.app, access_log=None, shutdown_timeout=1.0)
        runners = [runner]
        await runner.setup()
        self.port = await _listen(runner, host, port)
        if self.kite is not None and self.kite_port is not None:
            runners.append(web.AppRunner(self.kite.app, access_log=None, shutdown_timeout=1.0))
            await runners[-1].setup()
            self.kite_port = await _listen(runners[-1], host, self.kite_port)
        log.info("sandbox_serves", port=self.port, dataset_id=self.exchange.genesis.dataset_id, state=self.clock.state)
        tasks = [
            asyncio.create_task(self.clock.run(self.source.steps(self.exchange.market_time))),
            asyncio.create_task(self._beat()),
        ]
        try:
            yield tasks[0]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.streams.close()
            if self.kite is not None:
                await self.kite.ticker.close()
            for each in runners:
                await each.cleanup()
            self.exchange.journal.close()

    async def _beat(self) -> None:
        while True:
            status = self.clock.status()
            detail = {name: status[name] for name in ("dataset_id", "market_time", "steps_done", "orders", "trades")}
            await self.on_beat(self.clock.state, detail)
            await asyncio.sleep(BEAT_EVERY_SECONDS)


def assemble(databases: Databases, lake: Lake, dataset_id: str, options: Options) -> Sandbox:
    """The exchange of a dataset, its books rebuilt from the journal. Raises `NothingToTradeError`."""
    with databases.control() as session:
        dataset = session.get(Dataset, dataset_id)
    if dataset is None:
        raise NothingToTradeError(f"no dataset {dataset_id!r}; `trading-platform lake show` lists them")
    until = dataset.replay_from or datetime.now(UTC)
    bars = lake.bars(dataset_id, start=until - MOST_KEPT * timedelta(seconds=dataset.interval_seconds))
    if bars.is_empty():
        raise NothingToTradeError(f"dataset {dataset_id!r} has no bars in the lake; ingest it first")
    sandbox = build(dataset, bars, options)

    async def on_beat(state: str, detail: dict[str, object]) -> None:
        await asyncio.to_thread(_say, databases, state, detail)

    return replace(sandbox, on_beat=on_beat)


def build(dataset: Dataset, bars: pl.DataFrame, options: Options) -> Sandbox:
    """The exchange of a dataset row and its bars. Raises `NothingToTradeError`."""
    mode = MODES[dataset.kind]
    if dataset.venue == "nse":
        return _kite(dataset, bars, options, mode)
    if unpaired := sorted(symbol for symbol in bars["symbol"].unique() if "/" not in symbol):
        raise NothingToTradeError(f"this is a spot exchange of pairs such as BTC/USDT; the dataset has {unpaired}")
    tail = bars.filter(pl.col("open_time") >= dataset.replay_from) if dataset.replay_from else bars.clear()
    history = bars.filter(pl.col("open_time") < dataset.replay_from) if dataset.replay_from else bars
    priced = (bars if history.is_empty() else history).group_by("symbol", maintain_order=True).agg(pl.col("close").last())  # fmt: skip
    genesis = Genesis(
        str(dataset.dataset_id),
        dataset.interval_seconds,
        options.seed,
        [instrument(symbol, Decimal(repr(price))) for symbol, price in sorted(priced.iter_rows())],
    )
    exchange = Exchange.open(options.journal, genesis, _wall_ms if mode == "live" else None)
    _show_history(exchange, bars, history, mode)
    times = tail["available_at"].unique().sort().dt.timestamp("ms")
    span = Tail(times[0], times[-1], len(times)) if len(times) else Tail(None, None, 0)
    clock = Clock(exchange, mode, span, options.speed, options.pace)
    symbols, streams = Symbols(exchange), Streams(exchange)
    limit = WEIGHT_A_MINUTE if mode == "live" else WEIGHT_A_MINUTE_IN_REPLAY
    gateway = Gateway(exchange, options.weight_limit or limit, options.latency_seconds)
    app = web.Application(client_max_size=LARGEST_BODY)
    app.add_routes(
        [
            *MarketData(exchange, gateway, symbols).routes(),
            *Trading(exchange, gateway, symbols, streams).routes(),
            *streams.routes(),
            *Control(exchange, clock, options.token).routes(),
        ]
    )
    return Sandbox(exchange, clock, _source(dataset, tail, exchange, streams), streams, app, _silent)


def _kite(dataset: Dataset, bars: pl.DataFrame, options: Options, mode: Mode) -> Sandbox:
    """An Indian exchange behind a broker: shares of the dataset, and futures that follow its indices."""
    tail = bars.filter(pl.col("open_time") >= dataset.replay_from) if dataset.replay_from else bars.clear()
    history = bars.filter(pl.col("open_time") < dataset.replay_from) if dataset.replay_from else bars
    days = (tail if len(tail) else bars)["session_date"]
    book = listing(bars["symbol"].unique().to_list(), days.min(), days.max())  # type: ignore[arg-type]
    genesis = Genesis(
        str(dataset.dataset_id), dataset.interval_seconds, options.seed, instruments(book), fee_rate=Decimal(0),
        watched=[each.tradingsymbol for each in book if each.is_index], on_margin=True,
    )  # fmt: skip
    exchange = Exchange.open(options.journal, genesis, margin_of=margins_by(book))
    _show_history(exchange, bars, history, mode)
    times = tail["available_at"].unique().sort().dt.timestamp("ms")
    span = Tail(times[0], times[-1], len(times)) if len(times) else Tail(None, None, 0)
    kite = surface(exchange, book, limits=options.kite_limits, redirect=options.kite_redirect)
    clock = Clock(exchange, mode, span, options.speed, options.pace, on_step=kite.after_step)
    streams = Streams(exchange)
    app = web.Application(client_max_size=LARGEST_BODY)
    app.add_routes([*Control(exchange, clock, options.token, kite.sessions).routes(), web.get("/api/v3/ping", _pong)])
    source = DerivedSource(ReplaySource(tail), book)
    return Sandbox(exchange, clock, source, streams, app, _silent, kite, options.kite_port)


async def _listen(runner: web.AppRunner, host: str, port: int) -> int:
    """Open a port, a free one for 0; returns which it is."""
    await web.TCPSite(runner, host, port).start()
    return int(runner.addresses[0][1])


async def _pong(_: web.Request) -> web.Response:
    return web.json_response({})


def instrument(symbol: str, price: Decimal) -> Instrument:
    """A spot pair with filters like those of Binance at such a price.

    Steps there are worth about a tenth to one unit of quote currency: 0.00001 for a pair at 60,000, 0.1 at 2. A tick
    times a step always fits the eight decimals of an amount.
    """
    found = Instrument.from_file(Venue("binance"), Symbol(symbol), price)
    step = Decimal(1).scaleb(-(price.adjusted() + 1))
    return replace(found, step=max(step, EIGHT / found.tick, EIGHT))


def _show_history(exchange: Exchange, bars: pl.DataFrame, history: pl.DataFrame, mode: Mode) -> None:
    """Let klines show what was before the market time; the last of it is the first price of a new exchange."""
    known = history
    if exchange.market_time is not None:
        known = bars.filter(pl.col("available_at") <= datetime.fromtimestamp(exchange.market_time / 1_000, UTC))
    for (symbol,), rows in known.partition_by("symbol", as_dict=True, maintain_order=True).items():
        if symbol in exchange.candles:
            exchange.candles[str(symbol)].put_before(rows)
    for symbol, market in exchange.markets.items():
        candles = exchange.candles[symbol]
        if market.last is None and len(candles):
            opened, *_, close, volume = candles.row(len(candles) - 1)
            market.liquidity.refresh(Decimal(repr(close)), Decimal(repr(volume)), opened)
    if mode == "live" and exchange.market_time is None and len(known):
        exchange.market_time = int(known["available_at"].dt.timestamp("ms").max())  # type: ignore[arg-type]


def _source(dataset: Dataset, tail: pl.DataFrame, exchange: Exchange, streams: Streams) -> Source:
    if dataset.kind == "venue":

        def on_quote(symbol: str, bid: Level, ask: Level) -> None:
            exchange.quote(symbol, bid, ask)
            streams.quoted(symbol)

        interval = exchange.genesis.interval_seconds
        return LiveSource(
            sorted(exchange.instruments), INTERVALS[interval], interval * 1_000, on_quote, dataset.details.get("base_url")
        )  # fmt: skip
    if dataset.kind == "synthetic" and "synthetic" in dataset.details and "drill" not in dataset.details:
        return SyntheticSource(tail, dataset.details["synthetic"])
    return ReplaySource(tail)


def _say(databases: Databases, state: str, detail: dict[str, object]) -> None:
    try:
        with databases.control() as session:
            beat(session, "sandbox", state, detail)
    except SQLAlchemyError as error:  # the market goes on while the database restarts
        log.warning("heartbeat_not_written", error=str(error).splitlines()[0])


async def _silent(state: str, detail: dict[str, object]) -> None:
    """An exchange without a platform around it tells nobody."""


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000
