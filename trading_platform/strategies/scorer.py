"""The scorer: every closed bar, through every serving version, into signals.

One process a dataset, under a lease. A step is all bars that became available at one market time; its signals, the
platform's market clock (`market_progress`) and the wake-up of the engines are one transaction that also checks the
lease. So a killed scorer comes back to the step after the last committed one, a second one stands by, and one that
slept through its lease writes nothing.

Where scoring begins: at `replay_from` on replayed and synthetic datasets, everything before it is history; on a live
market after the newest bar that the champion learnt from.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncGenerator, Callable
from datetime import datetime, timedelta
from typing import Any

import polars as pl
import structlog
from sqlalchemy import bindparam, func, insert
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import OperationalError
from sqlalchemy.sql.dml import ReturningInsert

from trading_platform.features.definition import FEATURE_SETS
from trading_platform.features.reference import reference_symbol, with_reference
from trading_platform.features.stream import SymbolStream
from trading_platform.identifiers import DatasetId, Symbol, Venue
from trading_platform.learning.registry import CHAMPION
from trading_platform.market_data.bar import Bar
from trading_platform.market_data.feed import BarFeed, Step
from trading_platform.market_data.lake import Lake
from trading_platform.observability import metrics
from trading_platform.observability.alerts import raise_alert, resolve_alert
from trading_platform.observability.heartbeat import BEAT_EVERY_SECONDS, beat
from trading_platform.observability.traces import current_trace_id, tracer
from trading_platform.storage.control import Dataset, MarketProgress, Signal
from trading_platform.storage.databases import Databases
from trading_platform.storage.lease import RENEW_EVERY_SECONDS, Lease, process_name
from trading_platform.strategies.definition import strategy_of
from trading_platform.strategies.serving import LIVE, Deployed, ServingRefusedError, deployed, serving_now
from trading_platform.strategies.signals import signal

log = structlog.get_logger(__name__)

LOOK_FOR_MODELS_SECONDS = 1.0
POLL_SECONDS = 0.5
DATABASE_PATIENCE_SECONDS = 30.0
LONGEST_REFILL_BARS = 1_000
"""A symbol silent for longer than this does not make a live feed begin at its last bar."""


class Scorer:
    """Scores one dataset. `run` is its life; `stop` ends it."""

    def __init__(self, databases: Databases, lake: Lake, dataset_id: DatasetId, holder: str | None = None) -> None:
        self.databases, self.lake, self.dataset_id = databases, lake, dataset_id
        self.service = f"scorer:{dataset_id}"
        self.lease = Lease(databases, self.service, holder or process_name())
        with databases.control() as session:
            self.dataset = session.get_one(Dataset, dataset_id)
            self.features = FEATURE_SETS[strategy_of(session, dataset_id).features]
        self.reference = reference_symbol(self.dataset.symbols)
        self.stop = asyncio.Event()
        self.deployed: list[Deployed] = []
        self.streams: dict[Symbol, SymbolStream] = {}
        self._reference_close = math.nan
        self._state = "standby"
        self._looked_at = 0.0
        self._steps = 0
        self._scored_through: datetime | None = None

    # --- life --------------------------------------------------------------------------------------------------------

    async def run(self, feed: BarFeed) -> None:
        """Wait for the lease and a champion, catch up, then score steps until `stop` is set.

        When the feed ends, the scorer stays and says so. Raises `LeaseLostError` when another one took over,
        `ServingRefusedError` when a version is deployed that must not serve.
        """
        if not await self._until(self.lease.acquire, "standby"):
            return
        scoring = asyncio.create_task(self._score(feed))
        keeping = asyncio.create_task(self._keep_lease())
        stopping = asyncio.create_task(self.stop.wait())
        try:
            done, _ = await asyncio.wait({scoring, keeping, stopping}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (scoring, keeping, stopping):
                task.cancel()
            await asyncio.gather(scoring, keeping, stopping, return_exceptions=True)
            await asyncio.to_thread(self.lease.release)

    async def _score(self, feed: BarFeed) -> None:
        if not await self._until(self._models_ready, "waiting"):
            return
        start = await asyncio.to_thread(self.warm_up)
        await self._enter("running")
        steps = feed.steps(start)
        try:
            async for step in steps:
                await asyncio.to_thread(self.take, step)
        finally:
            if isinstance(steps, AsyncGenerator):
                await steps.aclose()
        log.info("feed_ended", dataset_id=self.dataset_id, steps=self._steps)
        await self._enter("ended")
        await self.stop.wait()

    async def _keep_lease(self) -> None:
        """Renew the lease and say that the scorer lives. Raises `LeaseLostError` when another one took over."""
        while True:
            await asyncio.to_thread(_patiently, self.lease.renew)
            await asyncio.to_thread(_patiently, self._beat)
            await asyncio.sleep(RENEW_EVERY_SECONDS)

    async def _until(self, ready: Callable[[], bool], state: str) -> bool:
        """Poll until `ready()`; False when asked to stop before."""
        await self._enter(state)
        beaten = time.monotonic()
        while not self.stop.is_set():
            if await asyncio.to_thread(ready):
                return True
            if time.monotonic() - beaten > BEAT_EVERY_SECONDS:
                await asyncio.to_thread(self._beat)
                beaten = time.monotonic()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stop.wait(), POLL_SECONDS)
        return False

    async def _enter(self, state: str) -> None:
        self._state = state
        await asyncio.to_thread(self._beat)

    def _beat(self) -> None:
        detail = {
            "dataset": self.dataset_id,
            "versions": {each.role: each.version_id for each in self.deployed},
            "steps": self._steps,
            "scored_through": self._scored_through.isoformat() if self._scored_through else None,
        }
        with self.databases.control() as session:
            beat(session, self.service, self._state, detail)

    # --- models ------------------------------------------------------------------------------------------------------

    def load_models(self) -> bool:
        """Load what serves now, if that has changed. False while no champion does. Raises `ServingRefusedError`."""
        self._looked_at = time.monotonic()
        with self.databases.control() as session:
            known = [(each.deployment_id, each.trained.certified) for each in self.deployed]
            if serving_now(session, self.dataset_id) == known:
                return bool(self.deployed)
            self.deployed = deployed(session, self.databases.settings, self.dataset)
        for each in self.deployed:
            log.info("serving", dataset_id=self.dataset_id, role=each.role, version_id=each.version_id)
        return bool(self.deployed)

    def _models_ready(self) -> bool:
        """`load_models` while waiting: a refusal is told to people, and waited out."""
        title = "A deployed model must not serve"
        try:
            ready = self.load_models()
        except ServingRefusedError as error:
            self._state = "refused"
            log.error("serving_refused", dataset_id=self.dataset_id, reason=str(error))
            with self.databases.control() as session:
                raise_alert(session, severity="critical", source=self.service, title=title, detail=str(error))
            return False
        if ready:
            with self.databases.control() as session:
                resolve_alert(session, source=self.service, title=title)
        return ready

    # --- scoring -----------------------------------------------------------------------------------------------------

    def warm_up(self) -> datetime | None:
        """Bring the features' state up to where scoring begins. Returns the market time that the feed starts after."""
        with self.databases.control() as session:
            progress = session.get(MarketProgress, self.dataset_id)
        if progress is not None:
            self._scored_through = progress.scored_through
            bars = self.lake.bars(self.dataset_id, as_of=progress.scored_through)
        elif self.dataset.kind == LIVE:
            self._scored_through = self._learnt_through()
            bars = self.lake.bars(self.dataset_id, as_of=self._scored_through)
        else:
            bars = self.lake.bars(self.dataset_id, end=self.dataset.replay_from)
        self.streams = {}
        closes = bars.filter(pl.col("symbol") == (self.reference or "")).sort("open_time")["close"]
        if len(closes):
            self._reference_close = float(closes[-1])
        for (symbol,), rows in with_reference(bars).partition_by("symbol", as_dict=True, maintain_order=True).items():
            self._stream(Symbol(str(symbol))).extend(rows)
        if self._scored_through is None and len(bars):
            self._scored_through = _moment(bars["available_at"].max())
        log.info("warm", dataset_id=self.dataset_id, bars=len(bars), scored_through=str(self._scored_through))
        return self._feed_after(bars)

    def take(self, step: Step) -> int:
        """Push a step's bars through the features and, unless it was scored before, write its signals: how many."""
        began = time.perf_counter()
        if time.monotonic() - self._looked_at > LOOK_FOR_MODELS_SECONDS:
            _patiently(self.load_models)
        for bar in step.bars:
            if bar.symbol == self.reference:
                self._reference_close = bar.close
        rows = [
            (bar, self._stream(bar.symbol).push(bar, self._reference_close)) for bar in step.bars if self._is_new(bar)
        ]
        if self._scored_through is not None and step.available_at <= self._scored_through:
            return 0
        with tracer(__name__).start_as_current_span("score_step") as span:
            signals = [signal(each, bar, row, current_trace_id()) for bar, row in rows for each in self.deployed]
            scored = time.perf_counter()
            _patiently(lambda: self._commit(step.available_at, signals))
            span.set_attributes({"dataset": self.dataset_id, "bars": len(rows), "signals": len(signals)})
        self._scored_through = step.available_at
        self._steps += 1
        self._measure(step, signals, scored - began, time.perf_counter() - began)
        return len(signals)

    def _commit(self, available_at: datetime, signals: list[dict[str, Any]]) -> None:
        """One transaction: signals in a gap-free sequence, the market clock, the wake-up.

        Safe to repeat: a step that was committed although its commit was not heard of is left alone.
        """
        with self.databases.control() as session:
            self.lease.check(session)
            progress = session.get(MarketProgress, self.dataset_id)
            last = progress.last_seq if progress else 0
            if progress is not None and progress.scored_through >= available_at:
                return
            for seq, columns in enumerate(signals, start=last + 1):
                columns["seq"] = seq
            if signals:
                session.execute(insert(Signal.__table__), signals)  # type: ignore[arg-type]
            moved = {"dataset_id": self.dataset_id, "scored_through": available_at, "last_seq": last + len(signals)}
            session.execute(_MOVE_CLOCK, moved)

    def _measure(self, step: Step, signals: list[dict[str, Any]], scoring: float, whole: float) -> None:
        for each in signals:
            metrics.SIGNALS.labels(self.dataset_id, each["role"], each["state"]).inc()
        metrics.SCORING_SECONDS.labels(self.dataset_id).observe(scoring / max(len(signals), 1))
        metrics.SCORER_STEP_SECONDS.labels(self.dataset_id).observe(whole)
        metrics.MARKET_TIME.labels(self.dataset_id).set(step.available_at.timestamp())
        log.debug(
            "step_scored", market_time=step.available_at.isoformat(), signals=len(signals), seconds=round(whole, 6)
        )

    # --- where to begin ----------------------------------------------------------------------------------------------

    def _learnt_through(self) -> datetime | None:
        """When the newest bar that the champion learnt from became available; None for an imported one."""
        champion = next(each for each in self.deployed if each.role == CHAMPION)
        if champion.trained.trained_to is None:
            return None
        return champion.trained.trained_to + timedelta(seconds=self.dataset.interval_seconds)

    def _feed_after(self, bars: pl.DataFrame) -> datetime | None:
        """Where the feed takes over from the lake.

        On a live market the collector may have written less than was scored: the feed then begins where the first
        symbol ends in the lake, and known bars pass without being taken twice.
        """
        through = self._scored_through
        if self.dataset.kind != LIVE or through is None or bars.is_empty():
            return through
        oldest = through - LONGEST_REFILL_BARS * timedelta(seconds=self.dataset.interval_seconds)
        ends = bars.group_by("symbol").agg(pl.col("available_at").max())["available_at"].to_list()
        return min((_moment(end) for end in ends if end > oldest), default=through)

    def _stream(self, symbol: Symbol) -> SymbolStream:
        if symbol not in self.streams:
            self.streams[symbol] = SymbolStream(Venue(self.dataset.venue), self.dataset.interval_seconds, self.features)
        return self.streams[symbol]

    def _is_new(self, bar: Bar) -> bool:
        last = self._stream(bar.symbol).last_open_time
        return last is None or bar.open_time > last


def _move_clock() -> ReturningInsert[Any]:
    """The market clock moved on and, in the same round trip, the engines woken at the commit."""
    names = ("dataset_id", "scored_through", "last_seq")
    new = upsert(MarketProgress).values({name: bindparam(name) for name in names})
    return new.on_conflict_do_update(
        index_elements=[MarketProgress.dataset_id],
        set_={
            "scored_through": new.excluded.scored_through,
            "last_seq": new.excluded.last_seq,
            "updated_at": func.now(),
        },
    ).returning(func.pg_notify("signals", MarketProgress.dataset_id))


# Made once: it is executed for every bar.
_MOVE_CLOCK = _move_clock()


def _patiently(work: Callable[[], object]) -> None:
    """Do it again while PostgreSQL is away, for a while: a restarting server costs a pause, not the process."""
    deadline = time.monotonic() + DATABASE_PATIENCE_SECONDS
    while True:
        try:
            work()
        except OperationalError as error:
            if time.monotonic() > deadline:
                raise
            log.warning("database_away", error=str(error.orig))
            time.sleep(POLL_SECONDS)
        else:
            return


def _moment(value: Any) -> datetime:
    assert isinstance(value, datetime)
    return value
