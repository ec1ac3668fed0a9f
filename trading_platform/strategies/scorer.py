"""The scorer: every closed bar, through the champion and the challenger, into signals.

One process a dataset, under a lease. A step is all bars that became available at one market time; its signals, the
platform's market clock (`market_progress`) and the wake-up of the engines are one transaction. A killed scorer comes
back to the step after the last committed one, and a signal's id is the content of (version, symbol, bar): nothing is
scored twice. Models of replayed or synthetic lineage never reach a live market, because versions, deployments and
signals belong to one dataset.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import structlog
from sqlalchemy import func, insert, select, text
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from trading_platform.features.definition import feature_hash
from trading_platform.features.stream import Row, SymbolStream
from trading_platform.identifiers import DatasetId, Symbol, Venue, VersionId, content_id
from trading_platform.learning.registry import serving
from trading_platform.learning.servable import Servable, load
from trading_platform.market_data.bar import Bar
from trading_platform.market_data.feed import BarFeed, Step
from trading_platform.market_data.lake import Lake
from trading_platform.observability import metrics
from trading_platform.observability.heartbeat import BEAT_EVERY_SECONDS, beat
from trading_platform.observability.traces import tracer
from trading_platform.storage.control import Dataset, MarketProgress, Signal
from trading_platform.storage.databases import Databases
from trading_platform.storage.lease import RENEW_EVERY_SECONDS, Lease, LeaseLostError, process_name
from trading_platform.strategies.definition import StrategyDefinition

log = structlog.get_logger(__name__)

LOOK_FOR_MODELS_SECONDS = 1.0
PLACES = Decimal("1e-12")


class Stopped(Exception):
    """The scorer was asked to end."""


@dataclass(frozen=True)
class Deployed:
    """A version in service."""

    role: str
    version_id: VersionId
    servable: Servable


@dataclass
class Scorer:
    """Scores one dataset with one strategy. `run` is its life."""

    databases: Databases
    lake: Lake
    dataset_id: DatasetId
    strategy: StrategyDefinition
    streams: dict[str, SymbolStream] = field(default_factory=dict)
    deployed: list[Deployed] = field(default_factory=list)
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.lease = Lease(self.databases, f"scorer:{self.dataset_id}", process_name())
        with self.databases.control() as session:
            self.dataset = session.get_one(Dataset, self.dataset_id)
        self._looked_at = 0.0
        self._steps = 0

    async def run(self, feed: BarFeed) -> None:
        """Wait for the lease and a champion, catch up, then score steps until the feed ends or `stop` is set."""
        await self._until(self.lease.acquire, "standby")
        keeping = asyncio.create_task(self._keep_lease())
        try:
            await self._until(self._load_models, "waiting")
            after = self.warm_up()
            await self._follow(feed, after, keeping)
        finally:
            keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError, LeaseLostError):
                await keeping
            self.lease.release()

    async def _follow(self, feed: BarFeed, after: datetime | None, keeping: "asyncio.Task[None]") -> None:
        """The loop over steps; ends early when asked to, and with an error when the lease is lost."""
        steps = aiter(feed.steps(after))
        while not self.stop.is_set():
            upcoming = asyncio.ensure_future(anext(steps))
            stopping = asyncio.ensure_future(self.stop.wait())
            done, _ = await asyncio.wait({upcoming, stopping, keeping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if keeping in done:
                keeping.result()
            if upcoming not in done:
                upcoming.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await upcoming
                break
            try:
                self.take(upcoming.result())
            except StopAsyncIteration:
                log.info("feed_ended", dataset_id=self.dataset_id, steps=self._steps)
                await self._idle()
                break
        close = getattr(steps, "aclose", None)
        if close is not None:
            await close()

    def warm_up(self) -> datetime | None:
        """Bring the features' state up to what has been scored. Returns the `available_at` the feed starts after.

        Nothing before the replay tail is ever scored; with live data nothing before now is.
        """
        with self.databases.control() as session:
            progress = session.get(MarketProgress, self.dataset_id)
        scored = progress.scored_through if progress else None
        if scored is not None:
            bars = self.lake.bars(self.dataset_id, as_of=scored)
        else:
            bars = self.lake.bars(self.dataset_id, end=self.dataset.replay_from)
        self.streams = {symbol: SymbolStream(Venue(self.dataset.venue)) for symbol in sorted(self.dataset.symbols)}
        newest: datetime | None = None
        for (symbol,), rows in bars.partition_by("symbol", as_dict=True, maintain_order=True).items():
            self.streams[symbol].extend(rows)
            last: datetime = rows["available_at"][-1]
            newest = last if newest is None else max(newest, last)
        self._scored_through = scored or newest
        log.info("warm", dataset_id=self.dataset_id, bars=len(bars), scored_through=str(scored))
        return newest

    def take(self, step: Step) -> int:
        """Push a step's bars through the features and, unless they were scored before, write their signals."""
        started = time.perf_counter()
        rows = [(bar, self.streams[bar.symbol].push(bar)) for bar in step.bars if bar.symbol in self.streams]
        if self._scored_through is not None and step.available_at <= self._scored_through:
            return 0
        if time.monotonic() - self._looked_at > LOOK_FOR_MODELS_SECONDS:
            self._load_models()
        with tracer(__name__).start_as_current_span("score_step") as span:
            trace_id = format(span.get_span_context().trace_id, "032x")
            signals = [self._signal(deployed, bar, row, trace_id) for bar, row in rows for deployed in self.deployed]
            scored = time.perf_counter()
            self._commit(step.available_at, signals)
        self._scored_through = step.available_at
        self._steps += 1
        for signal in signals:
            metrics.SIGNALS.labels(self.dataset_id, signal["role"], signal["state"]).inc()
        metrics.SCORING_SECONDS.labels(self.dataset_id).observe((scored - started) / max(len(signals), 1))
        metrics.MARKET_TIME.labels(self.dataset_id).set(step.available_at.timestamp())
        return len(signals)

    def _commit(self, available_at: datetime, signals: list[dict[str, Any]]) -> None:
        """One transaction: signals in a gap-free sequence, the market clock, the wake-up."""
        with self.databases.control() as session:
            self.lease.check(session)
            last = session.scalar(select(MarketProgress.last_seq).where(MarketProgress.dataset_id == self.dataset_id))
            for seq, signal in enumerate(signals, start=(last or 0) + 1):
                signal["seq"] = seq
            if signals:
                session.execute(insert(Signal), signals)
            self._advance(session, available_at, (last or 0) + len(signals))
            session.execute(text("select pg_notify('signals', :dataset)"), {"dataset": self.dataset_id})

    def _advance(self, session: Session, available_at: datetime, seq: int) -> None:
        new = upsert(MarketProgress).values(dataset_id=self.dataset_id, scored_through=available_at, last_seq=seq)
        session.execute(
            new.on_conflict_do_update(
                index_elements=[MarketProgress.dataset_id],
                set_={"scored_through": available_at, "last_seq": seq, "updated_at": func.now()},
            )
        )

    def _signal(self, deployed: Deployed, bar: Bar, row: Row, trace_id: str) -> dict[str, Any]:
        """What one version says of one bar."""
        servable, barriers = deployed.servable, self.strategy.barriers
        volatility = self.strategy.barrier_volatility(row.sigma)
        warm = math.isfinite(volatility)
        expired = servable.expired(bar.available_at)
        scored = servable.score(row.features) if warm and not expired else None
        if expired:
            state = "expired"
        elif scored is None or scored.outlier:
            state = "outlier"
        else:
            state = "ok" if scored.confidence >= servable.threshold else "abstain"
        return {
            "dataset_id": self.dataset_id,
            "signal_id": content_id("s", deployed.version_id, bar.symbol, bar.open_time.isoformat()),
            "strategy_id": self.strategy.strategy_id,
            "version_id": deployed.version_id,
            "role": deployed.role,
            "symbol": bar.symbol,
            "bar_open_time": bar.open_time,
            "available_at": bar.available_at,
            "price": _money(bar.close),
            "state": state,
            "probability": scored.probability if scored else None,
            "confidence": scored.confidence if scored else None,
            "confidence_lower": scored.lower if scored else None,
            "confidence_upper": scored.upper if scored else None,
            "threshold": servable.threshold,
            "certified": servable.certified and state == "ok",
            "direction": "long" if state == "ok" else "flat",
            "target_price": _money(barriers.target_price(bar.close, volatility if warm else 0.0)),
            "stop_price": _money(barriers.stop_price(bar.close, volatility if warm else 0.0)),
            "exit_by": barriers.exit_by(bar.available_at, bar.interval_seconds),
            "expires_at": bar.available_at + timedelta(seconds=bar.interval_seconds),
            **row.conditions,
            "trace_id": trace_id,
        }

    # --- service life ------------------------------------------------------------------------------------------------

    def _load_models(self) -> bool:
        """Read what serves now; a version is loaded once. False while there is no champion."""
        self._looked_at = time.monotonic()
        with self.databases.control() as session:
            current = serving(session, self.dataset_id, self.strategy.strategy_id)
        if current.champion is None:
            return False
        loaded = {each.version_id: each.servable for each in self.deployed}
        self.deployed = [
            Deployed(
                role,
                VersionId(version.version_id),
                loaded.get(VersionId(version.version_id))
                or load(self.databases.settings, version, feature_hash=feature_hash()),
            )
            for role, version in current.versions()
        ]
        return True

    async def _keep_lease(self) -> None:
        """Renew the lease and say that the scorer lives. Raises `LeaseLostError` when another one took over."""
        last_beat = 0.0
        while True:
            await asyncio.to_thread(self.lease.renew)
            if time.monotonic() - last_beat >= BEAT_EVERY_SECONDS:
                last_beat = time.monotonic()
                await asyncio.to_thread(self._beat, "running" if self.streams else "waiting")
            await asyncio.sleep(RENEW_EVERY_SECONDS)

    def _beat(self, state: str) -> None:
        detail: Mapping[str, Any] = {
            "dataset": self.dataset_id,
            "versions": [each.version_id for each in self.deployed],
            "steps": self._steps,
        }
        with self.databases.control() as session:
            beat(session, "scorer", state, detail)

    async def _until(self, ready: Any, state: str) -> None:
        """Poll until `ready()`; raises `Stopped` when asked to end meanwhile."""
        for _ in _forever():
            if self.stop.is_set():
                raise Stopped
            if await asyncio.to_thread(ready):
                return
            await asyncio.to_thread(self._beat, state)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stop.wait(), 0.5)

    async def _idle(self) -> None:
        """The feed has ended: stay, hold the lease and say so, until asked to stop."""
        with self.databases.control() as session:
            beat(session, "scorer", "ended", {"dataset": self.dataset_id, "steps": self._steps})
        await self.stop.wait()


def tradable_symbols(dataset: Dataset) -> list[Symbol]:
    """The dataset's symbols, in the order that feeds and books use."""
    return [Symbol(name) for name in sorted(dataset.symbols)]


def _money(value: float) -> Decimal:
    return Decimal(repr(value)).quantize(PLACES)


def _forever() -> Iterator[None]:
    while True:
        yield
