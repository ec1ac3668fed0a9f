"""The loop from a change in the market to a better champion, through Dagster's own sensors and runs, with no hand on it.

A market is planted whose volume tells where the price goes, until one day it tells the opposite. What is asserted is
computed here from the planted prices, with pandas and scikit-learn, and read from the books.
"""

import asyncio
import contextlib
import itertools
import logging
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import datetime

import dagster as dg
import numpy as np
import pandas as pd
import polars as pl
import pytest
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.test_utils import freeze_time
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster._daemon.sensor import execute_sensor_iteration
from scipy.signal import lfilter
from sklearn.metrics import log_loss
from sqlalchemy import select

from tests.learning.markets import HOUR, START, frame
from trading_platform import settings as settings_module
from trading_platform.identifiers import DatasetId
from trading_platform.learning.drift import DriftPolicy
from trading_platform.market_data.feed import LakeFeed, Step
from trading_platform.market_data.lake import Lake
from trading_platform.storage.control import (
    Dataset,
    Deployment,
    DriftReport,
    Experiment,
    MarketProgress,
    ModelVersion,
    Signal,
)
from trading_platform.storage.databases import Database, Databases, database_url
from trading_platform.strategies.scorer import Scorer

pytestmark = [pytest.mark.xdist_group("dagster"), pytest.mark.timeout(600)]

SYMBOLS = ("A/USDT", "B/USDT", "C/USDT", "D/USDT")
HISTORY, QUIET, CHANGED = 4_000, 450, 5_400
TIDE, STRENGTH = 0.9, 2.0
CHANGE = START + (HISTORY + QUIET) * HOUR
END = START + (HISTORY + QUIET + CHANGED) * HOUR
HORIZON, COST = 12, 0.001
"""Of the strategy that ships: one deviation of twelve bars on either side, twelve bars at most, 0.1 % a side."""
TICK = 450 * HOUR
DATASET = DatasetId("files_loop")


class MarketClock:
    """The replay's clock: the feed gives the scorer no bar that is not out yet."""

    def __init__(self, feed: LakeFeed) -> None:
        self.feed, self.now = feed, START

    async def steps(self, after: datetime | None) -> AsyncIterator[Step]:
        async for step in self.feed.steps(after):
            while step.available_at > self.now:
                await asyncio.sleep(0.005)
            yield step


class Daemon:
    """Dagster's sensor daemon, one iteration at a time, on wall time that is wound on by ten minutes each."""

    def __init__(self, context: WorkspaceProcessContext) -> None:
        self.context, self.wall = context, time.time()

    def iterate(self) -> None:
        self.wall += 601.0
        with freeze_time(self.wall):
            for error in execute_sensor_iteration(self.context, logging.getLogger("daemon"), None, None):
                assert error is None, error


@dataclass
class Loop:
    platform: Databases
    instance: dg.DagsterInstance
    daemon: Daemon
    market: MarketClock

    def run_market(self, until: datetime) -> None:
        """Let the market go on; the scorer follows."""
        self.market.now = until
        deadline = time.monotonic() + 60
        while self.scored_through() < until:
            assert time.monotonic() < deadline, f"the scorer stands still at {self.scored_through()}"
            time.sleep(0.05)

    def scored_through(self) -> datetime:
        with self.platform.control() as session:
            progress = session.get(MarketProgress, DATASET)
            return START if progress is None else progress.scored_through

    def champions(self) -> list[Deployment]:
        with self.platform.control() as session:
            return list(
                session.scalars(
                    select(Deployment).where(Deployment.role == "champion").order_by(Deployment.deployment_id)
                )
            )


def planted_prices(bars: int, changed_from: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(closes, volumes): a slow tide that shows in the volume pulls the price one way, and from `changed_from` the other.

    Nothing else changes: the tide is as often high as low, so what can be seen of the market looks as before.
    """
    rng = np.random.default_rng(seed)
    tide = lfilter([np.sqrt(1 - TIDE**2)], [1.0, -TIDE], rng.normal(size=bars))
    pull = np.where(np.arange(bars) < changed_from, 1.0, -1.0) * np.concatenate([[0.0], tide[:-1]])
    returns = 0.005 * (rng.normal(size=bars) + STRENGTH * pull)
    return 100.0 * np.exp(np.cumsum(returns)), np.exp(tide + 0.2 * rng.normal(size=bars))


@pytest.fixture
def planted(platform: Databases) -> dict[str, np.ndarray]:
    """Closes of each symbol, in the lake as a dataset whose tail is replayed."""
    lake, closes = Lake(platform.settings.lake_dir), {}
    for seed, symbol in enumerate(SYMBOLS):
        closes[symbol], volumes = planted_prices(HISTORY + QUIET + CHANGED, HISTORY + QUIET, seed)
        lake.write_bars(frame(DATASET, symbol, closes[symbol], volumes).with_columns(venue=pl.lit("binance")))
    with platform.control() as session:
        session.add(
            Dataset(
                dataset_id=DATASET, kind="files", venue="binance", source="planted", interval_seconds=3600,
                symbols={symbol: {"first": START.isoformat(), "last": END.isoformat()} for symbol in SYMBOLS},
                replay_from=START + HISTORY * HOUR,
            )
        )  # fmt: skip
    return closes


@pytest.fixture
def loop(platform: Databases, planted: object, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loop]:
    """First models trained, the scorer scoring, the sensors on; all on embedded PostgreSQL."""
    settings = platform.settings
    assert settings.database_url is not None
    monkeypatch.setenv("TP_HOME_DIR", str(settings.home))
    monkeypatch.setenv("TP_DATABASE_URL", settings.database_url.get_secret_value())
    settings_module.settings.cache_clear()
    dagster_url = database_url(settings, Database.DAGSTER).set(drivername="postgresql+psycopg2")
    overrides = {"storage": {"postgres": {"postgres_url": dagster_url.render_as_string(hide_password=False)}}}
    origin = InProcessCodeLocationOrigin(LoadableTargetOrigin(module_name="definitions"))
    with (
        dg.instance_for_test(overrides, synchronous_run_coordinator=True, synchronous_run_launcher=True) as instance,
        WorkspaceProcessContext(instance, InProcessWorkspaceLoadTarget(origin)) as context,
    ):
        _first_models(instance)
        lake = Lake(settings.lake_dir)
        market = MarketClock(LakeFeed(lake, DATASET, start=START + HISTORY * HOUR))
        with scoring(Scorer(platform, lake, DATASET), market):
            yield Loop(platform, instance, Daemon(context), market)
    settings_module.settings.cache_clear()


def _first_models(instance: dg.DagsterInstance) -> None:
    from definitions import defs

    def run(job: str, ops: dict[str, dict[str, object]]) -> None:
        config = {"ops": {name: {"config": {"dataset_id": DATASET} | values} for name, values in ops.items()}}
        assert defs.resolve_job_def(job).execute_in_process(instance=instance, run_config=config).success

    small: dict[str, object] = {"trials": 2, "folds": 2}
    run("train", {"trained_model": small, "baseline_model": small, "serving": {}})


@contextlib.contextmanager
def scoring(scorer: Scorer, market: MarketClock) -> Iterator[None]:
    """The scorer's life, in a thread of its own."""
    thread = threading.Thread(target=lambda: asyncio.run(scorer.run(market)))
    thread.start()
    try:
        yield
    finally:
        scorer.stop.set()
        market.now = END
        thread.join(20)


def served(platform: Databases) -> pd.DataFrame:
    """What whoever was champion at the time said of each bar."""
    with platform.control() as session:
        rows = session.execute(
            select(Signal.symbol, Signal.bar_open_time, Signal.confidence, Signal.version_id).where(
                Signal.role == "champion"
            )
        ).all()
    return pd.DataFrame(rows, columns=["symbol", "bar", "confidence", "version"])


def outcomes(closes: np.ndarray) -> list[float]:
    """Of going long at each close: 1 where it ends above costs, 0 where not, NaN where it has not ended.

    Barriers one deviation away: root mean square of the log returns, exponentially weighted over a span of 100 bars,
    times the root of the horizon.
    """
    squares = pd.Series(np.log(closes)).diff().fillna(0.0).pow(2)
    width = np.sqrt(squares.ewm(span=100, adjust=False).mean().to_numpy() * HORIZON)
    found = []
    for bar, entry in enumerate(closes):
        path = closes[bar + 1 : bar + 1 + HORIZON] / entry - 1.0
        crossed = np.flatnonzero(np.abs(path) >= width[bar])
        if not len(crossed) and len(path) < HORIZON:
            found.append(np.nan)
            continue
        ended = path[crossed[0]] if len(crossed) else path[-1]
        found.append(float((1.0 + ended) * (1 - COST) / (1 + COST) > 1.0))
    return found


def losses(signals: pd.DataFrame, planted: dict[str, np.ndarray], since: datetime, until: datetime) -> float:
    """scikit-learn's log-loss of what was said of bars that opened in [since, until)."""
    labels = pd.concat(
        pd.DataFrame(
            {"symbol": symbol, "bar": [START + n * HOUR for n in range(len(closes))], "label": outcomes(closes)}
        )
        for symbol, closes in planted.items()
    )
    there = signals[(signals["bar"] >= since) & (signals["bar"] < until)]
    rows = there.merge(labels, on=["symbol", "bar"]).dropna()
    assert len(rows) > 200
    return float(log_loss(rows["label"], rows["confidence"], labels=[0.0, 1.0]))


def test_a_changed_market_is_noticed_learnt_and_served_again(loop: Loop, planted: dict[str, np.ndarray]) -> None:
    at, looks, last = START + HISTORY * HOUR, 0, END
    while at < last:
        at, looks = at + TICK, looks + 1
        loop.run_market(at)
        loop.daemon.iterate()  # evaluates
        loop.daemon.iterate()  # and acts on what was found
        if last == END and len(loop.champions()) == 2:
            last = at + TICK  # the answer is in service: see how it does

    with loop.platform.control() as session:
        reports = session.scalars(select(DriftReport).order_by(DriftReport.window_to)).all()
        experiments = {row.challenger_id: row for row in session.scalars(select(Experiment))}
    runs = loop.instance.get_runs()
    fired = {run.tags["dagster/run_key"]: run for run in runs if "dagster/sensor_name" in run.tags}
    assert {run.status for run in fired.values()} == {dg.DagsterRunStatus.SUCCESS}
    evaluations = [run for run in fired.values() if run.job_name == "evaluate"]
    assert {run.tags["dagster/sensor_name"] for run in evaluations} == {"evaluation_due"}
    assert len(evaluations) == looks == len(reports), "each time that the market had moved on, once"

    # noticed, in time and once a cool-down
    asked = [report for report in reports if report.decision == "retrain"]
    assert asked, "no drift report asks for retraining"
    assert CHANGE < asked[0].window_to < CHANGE + 600 * HOUR
    for earlier, later in itertools.pairwise(asked):
        assert later.window_to - earlier.window_to >= DriftPolicy().cool_down_bars * HOUR
    lines = [found["said"] for report in reports for found in report.conditions.values() if found["drifted"]]
    assert any("the market no longer does what the model learnt" in line for line in lines), lines

    assert sum(report.error.get("follow-up", {}).get("state") == "retrain" for report in reports) == 1

    # learnt: one run a request, from the sensor
    retrained = {key: run for key, run in fired.items() if run.job_name == "retrain"}
    assert {run.tags["dagster/sensor_name"] for run in retrained.values()} == {"drift_retraining"}
    assert set(retrained) == {report.run_key for report in asked}
    assert any("challenger ahead" in report.error for report in reports), "a challenger that wins is left to win"

    # promoted, by evidence alone
    champions = loop.champions()
    assert champions[0].from_time < CHANGE
    promoted = champions[-1]
    assert promoted.from_time > CHANGE
    experiment = experiments[promoted.version_id]
    assert promoted.reason.startswith(f"experiment {experiment.experiment_id}")
    assert (experiment.decision, promoted.decided_by) == ("promote", "dagster")
    with loop.platform.control() as session:
        version = session.get_one(ModelVersion, promoted.version_id)
    assert (version.origin, version.parent_id) == ("drift", champions[-2].version_id)

    # and served: the log-loss of what whoever was champion said
    signals = served(loop.platform)
    before = losses(signals, planted, START + HISTORY * HOUR, CHANGE - HORIZON * HOUR)
    changed = losses(signals, planted, CHANGE, asked[0].window_to)
    recovered = losses(signals, planted, promoted.from_time, at)
    print(f"log-loss {before:.3f} before, {changed:.3f} changed, {recovered:.3f} recovered")
    assert changed > before + 0.2
    assert recovered - before < (changed - before) / 3
