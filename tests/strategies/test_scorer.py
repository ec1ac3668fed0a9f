"""The scorer against what the whole history says at once, under kills, take-overs and foreign models."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
import psycopg
import pytest
from sqlalchemy import delete, func, select, update

from tests.strategies.conftest import SYMBOLS, TAIL, Market
from trading_platform.identifiers import Symbol, VersionId, content_id
from trading_platform.learning.registry import version, withdraw_certificate
from trading_platform.learning.servable import load
from trading_platform.market_data.bar import Bar
from trading_platform.market_data.feed import LakeFeed, Step
from trading_platform.storage.control import Alert, Lease, MarketProgress, ServiceStatus, Signal
from trading_platform.storage.databases import database_url
from trading_platform.storage.lease import LeaseLostError
from trading_platform.strategies import barrier_long
from trading_platform.strategies.scorer import Scorer
from trading_platform.strategies.serving import ServingRefusedError

NOT_OURS = {"trace_id", "created_at"}


def signals(market: Market) -> list[dict[str, Any]]:
    """All signals in sequence, without what differs from run to run."""
    with market.platform.control() as session:
        rows = session.scalars(select(Signal).order_by(Signal.seq)).all()
        names = [column.key for column in Signal.__mapper__.column_attrs if column.key not in NOT_OURS]
        return [{name: getattr(row, name) for name in names} for row in rows]


def expected(market: Market, versions: dict[str, str]) -> list[dict[str, Any]]:
    """The same rows from one batch over the whole history: time, then symbol, champion before challenger."""
    rows = []
    for symbol in SYMBOLS:
        bars = market.bars.filter(pl.col("symbol") == symbol)
        history = market.history(symbol)
        for role, version_id in versions.items():
            with market.platform.control() as session:
                servable = load(market.platform.settings, version(session, version_id))
            scored = servable.score_many(history.matrix)
            for n in range(len(bars) - TAIL, len(bars)):
                close, available = bars["close"][n], bars["available_at"][n]
                distance = history.sigma[n] * np.sqrt(12.0)
                state = "outlier" if scored.outlier[n] else "ok" if scored.confidence[n] >= 0.5 else "abstain"
                rows.append(
                    {
                        "dataset_id": market.dataset_id, "strategy_id": "barrier_long", "version_id": version_id,
                        "role": role, "symbol": symbol, "bar_open_time": bars["open_time"][n], "available_at": available,
                        "signal_id": content_id("s", version_id, symbol, bars["open_time"][n].isoformat()),
                        "price": Decimal(repr(close)), "state": state,
                        "probability": scored.probability[n], "confidence": scored.confidence[n],
                        "confidence_lower": 0.0, "confidence_upper": 1.0, "threshold": 0.5, "certified": False,
                        "direction": "long" if state == "ok" else "flat",
                        "target_price": close * (1 + distance), "stop_price": close * (1 - distance),
                        "exit_by": available + timedelta(hours=12), "expires_at": available + timedelta(hours=1),
                        **{name: str(values[n]) for name, values in history.conditions.items()},
                    }
                )  # fmt: skip
    rows.sort(key=lambda row: (row["available_at"], row["symbol"], row["role"] != "champion"))
    return [row | {"seq": seq} for seq, row in enumerate(rows, start=1)]


def assert_same(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    assert [row["seq"] for row in found] == list(range(1, len(wanted) + 1))
    close = {"probability", "confidence", "target_price", "stop_price"}
    for ours, theirs in zip(found, wanted, strict=True):
        assert {name: value for name, value in ours.items() if name not in close} == {
            name: value for name, value in theirs.items() if name not in close
        }
        for name in close:
            assert float(ours[name]) == pytest.approx(float(theirs[name]), rel=1e-12), name


async def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)


def state(market: Market, dataset_id: str = "files_test") -> str | None:
    with market.platform.control() as session:
        return session.scalar(select(ServiceStatus.state).where(ServiceStatus.service == f"scorer:{dataset_id}"))


def feed(market: Market) -> LakeFeed:
    return LakeFeed(market.lake, market.dataset_id, start=market.replay_from)


@contextlib.asynccontextmanager
async def running(scorer: Scorer, bars: Any) -> AsyncIterator[None]:
    task = asyncio.create_task(scorer.run(bars))
    try:
        yield
    finally:
        scorer.stop.set()
        await asyncio.wait_for(task, 20)


async def test_the_tail_is_scored_as_one_batch_over_the_history_would(served: Market) -> None:
    heard: list[str] = []
    address = database_url(served.platform.settings).set(drivername="postgresql")
    listening = psycopg.connect(address.render_as_string(hide_password=False), autocommit=True)
    listening.execute("listen signals")
    async with running(Scorer(served.platform, served.lake, served.dataset_id), feed(served)):
        await until(lambda: state(served) == "ended")
    assert_same(signals(served), expected(served, {"champion": "v_champion", "challenger": "v_challenger"}))
    with served.platform.control() as session:
        progress = session.get_one(MarketProgress, served.dataset_id)
        assert progress.scored_through == served.bars["available_at"].max()
        assert progress.last_seq == TAIL * 4
        traces = session.scalars(select(Signal.trace_id).distinct()).all()
    assert {trace for trace in traces if trace and len(trace) != 32} == set()
    heard += [notice.payload for notice in listening.notifies(timeout=0.5)]
    listening.close()
    assert heard
    assert set(heard) == {"files_test"}


async def test_a_strategy_on_the_wide_features_is_scored_as_one_batch_would(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer bars and the reference's close, which warm-up and steps bring to every symbol."""
    monkeypatch.setattr(barrier_long, "BARRIER_LONG", replace(barrier_long.BARRIER_LONG, features="wide"))
    market.features = "wide"
    market.dataset()
    market.version("v_wide")
    market.deploy("v_wide")
    async with running(Scorer(market.platform, market.lake, market.dataset_id), feed(market)):
        await until(lambda: state(market) == "ended")
    assert_same(signals(market), expected(market, {"champion": "v_wide"}))


@pytest.mark.timeout(300)
def test_a_killed_scorer_goes_on_where_it_was_with_identical_rows(served: Market) -> None:
    """Twice by SIGKILL in the middle; the second restart waits out the dead one's lease by itself."""
    settings = served.platform.settings
    assert settings.database_url is not None
    environment = os.environ | {
        "TP_HOME_DIR": str(settings.home),
        "TP_DATABASE_URL": settings.database_url.get_secret_value(),
    }
    command = [sys.executable, "-m", "trading_platform.cli", "scorer", "--dataset", "files_test", "--from-lake"]
    for upto in (20, 120, TAIL):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 90
            while _last_seq(served) < upto * 4:
                assert time.monotonic() < deadline, f"{_last_seq(served)} signals are not {upto * 4}"
                assert process.poll() is None
                time.sleep(0.03)
            process.send_signal(signal.SIGKILL if upto < TAIL else signal.SIGTERM)
            assert process.wait(30) == (-signal.SIGKILL if upto < TAIL else 0)
        finally:
            process.kill()
        if upto < TAIL:
            assert _last_seq(served) < TAIL * 4, "it was killed too late to show anything"
        if upto == 20:
            with served.platform.control() as session:  # as if the lease's time had passed
                session.execute(update(Lease).values(expires_at=func.now()))
    assert_same(signals(served), expected(served, {"champion": "v_champion", "challenger": "v_challenger"}))


def _last_seq(market: Market) -> int:
    with market.platform.control() as session:
        return session.scalar(select(MarketProgress.last_seq)) or 0


async def test_it_waits_for_a_champion_and_follows_deployments(market: Market) -> None:
    market.dataset()
    market.version("v_one", seed=1)
    market.version("v_two", seed=2, certified=True)
    scorer = Scorer(market.platform, market.lake, market.dataset_id)
    steps = [step async for step in feed(market).steps(None)]
    gate: asyncio.Queue[Step] = asyncio.Queue()

    class Gated:
        async def steps(self, after: datetime | None) -> AsyncIterator[Step]:
            assert after == market.replay_from  # the last bar of the history became available then
            while True:
                yield await gate.get()

    async with running(scorer, Gated()):
        await until(lambda: state(market) == "waiting")
        assert signals(market) == []
        market.deploy("v_one")
        gate.put_nowait(steps[0])
        await until(lambda: _last_seq(market) == 2)
        market.deploy("v_two")
        await asyncio.sleep(1.1)
        gate.put_nowait(steps[1])
        await until(lambda: _last_seq(market) == 4)
        gate.put_nowait(steps[1])  # said again: known
        gate.put_nowait(steps[2])
        await until(lambda: _last_seq(market) == 6)
        assert scorer.deployed[0].servable.certified
        with market.platform.control() as session:
            withdraw_certificate(session, "v_two", market_time=steps[2].available_at, evidence={"certified_trades": 40})
        await asyncio.sleep(1.1)
        gate.put_nowait(steps[3])
        await until(lambda: _last_seq(market) == 8)
        assert not scorer.deployed[0].servable.certified
    found = signals(market)
    assert [row["version_id"] for row in found] == ["v_one"] * 2 + ["v_two"] * 6
    by_then = [row["version_id"] == "v_two" and row["state"] == "ok" for row in found[:6]] + [False, False]
    assert [row["certified"] for row in found] == by_then


async def test_a_second_scorer_stands_by_and_takes_over(served: Market) -> None:
    first, second = (Scorer(served.platform, served.lake, served.dataset_id) for _ in range(2))
    async with contextlib.AsyncExitStack() as stack:
        assert first.lease.acquire()
        await stack.enter_async_context(running(second, feed(served)))
        await asyncio.sleep(1.0)
        assert _last_seq(served) == 0
        assert second.lease.epoch == 0
        first.lease.release()
        await until(lambda: state(served) == "ended")
        assert second.lease.epoch == 2
    assert _last_seq(served) == TAIL * 4


async def test_one_that_slept_through_its_lease_writes_nothing(served: Market) -> None:
    scorer = Scorer(served.platform, served.lake, served.dataset_id)
    assert scorer.lease.acquire()
    scorer.load_models()
    scorer.warm_up()
    steps = [step async for step in feed(served).steps(None)]
    assert scorer.take(steps[0]) == 4
    with served.platform.control() as session:
        session.execute(update(Lease).values(expires_at=func.now()))
    with pytest.raises(LeaseLostError):
        scorer.take(steps[1])
    other = Scorer(served.platform, served.lake, served.dataset_id)
    assert other.lease.acquire()
    with pytest.raises(LeaseLostError):
        scorer.lease.renew()
    assert _last_seq(served) == 4


async def test_a_commit_that_was_not_heard_of_is_not_made_twice(served: Market) -> None:
    scorer = Scorer(served.platform, served.lake, served.dataset_id)
    assert scorer.lease.acquire()
    scorer.load_models()
    scorer.warm_up()
    first = await anext(aiter(feed(served).steps(None)))
    written: list[dict[str, Any]] = []
    commit = scorer._commit
    scorer._commit = lambda at, rows: (written.extend(rows), commit(at, rows))[1]  # type: ignore[method-assign]
    assert scorer.take(first) == 4
    commit(first.available_at, written)
    assert [row["seq"] for row in signals(served)] == [1, 2, 3, 4]


async def test_after_its_expiry_a_version_is_not_asked(market: Market) -> None:
    market.dataset()
    ends = market.replay_from + timedelta(hours=TAIL / 2)
    market.version("v_old", expires_at=ends)
    market.deploy("v_old")
    async with running(Scorer(market.platform, market.lake, market.dataset_id), feed(market)):
        await until(lambda: state(market) == "ended")
    found = signals(market)
    assert {row["state"] for row in found if row["available_at"] > ends} == {"expired"}
    assert "expired" not in {row["state"] for row in found if row["available_at"] <= ends}
    assert {row["confidence"] for row in found if row["state"] == "expired"} == {None}


async def test_a_new_symbol_is_an_outlier_until_its_features_are_warm(served: Market) -> None:
    scorer = Scorer(served.platform, served.lake, served.dataset_id)
    assert scorer.lease.acquire()
    scorer.load_models()
    scorer.warm_up()
    step = await anext(aiter(feed(served).steps(None)))
    new = Bar(**{name: getattr(step.bars[0], name) for name in Bar.__slots__} | {"symbol": Symbol("NEW/USDT")})
    scorer.take(Step(step.available_at, [new]))
    for row in signals(served):
        assert (row["state"], row["direction"], row["confidence"]) == ("outlier", "flat", None)
        assert row["target_price"] == row["stop_price"] == row["price"]


async def test_a_model_of_synthetic_lineage_never_serves_a_live_market(market: Market) -> None:
    market.dataset(kind="venue")
    market.dataset(kind="synthetic", dataset_id="made_up")
    market.version("v_parent", dataset_id="made_up")
    market.version("v_child", parent_id="v_parent")
    market.deploy("v_child")
    scorer = Scorer(market.platform, market.lake, market.dataset_id)
    with pytest.raises(ServingRefusedError, match="never served live"):
        scorer.load_models()
    async with running(scorer, feed(market)):
        await until(lambda: state(market) == "refused")
    with market.platform.control() as session:
        assert session.scalars(select(Alert.severity)).all() == ["critical"]
        assert session.scalar(select(func.count()).select_from(Signal)) == 0


async def test_a_version_of_other_features_is_refused(market: Market) -> None:
    market.dataset()
    market.version("v_other", feature_hash="f_other")
    market.deploy("v_other")
    with pytest.raises(ServingRefusedError, match="f_other"):
        Scorer(market.platform, market.lake, market.dataset_id).load_models()


async def test_on_a_live_market_scoring_begins_after_what_was_learnt_and_the_feed_fills_a_late_lake(
    market: Market,
) -> None:
    market.dataset(kind="venue")
    learnt = market.bars["open_time"].max() - timedelta(hours=50)
    market.version("v_live", trained_to=learnt)
    market.deploy("v_live")

    class Everything:
        """What the venue has, whatever the collector has written."""

        asked: datetime | None = None

        async def steps(self, after: datetime | None) -> AsyncIterator[Step]:
            self.asked = after
            for (moment,), rows in market.bars.sort("available_at", "symbol").group_by(
                "available_at", maintain_order=True
            ):
                if after is None or moment > after:
                    yield Step(moment, [Bar(**row) for row in rows.iter_rows(named=True)])

    venue = Everything()
    async with running(Scorer(market.platform, market.lake, market.dataset_id), venue):
        await until(lambda: state(market) == "ended")
    assert venue.asked == learnt + timedelta(hours=1)
    whole = signals(market)
    assert [row["bar_open_time"] for row in whole[::2]] == [learnt + timedelta(hours=n) for n in range(1, 51)]

    # The collector had written less than was scored: the feed starts earlier, the scores are those of before.
    scored = learnt + timedelta(hours=26)
    late = market.lake.root.with_name("late")
    market.lake.root = late
    market.lake.write_bars(market.bars.filter(pl.col("available_at") <= scored - timedelta(hours=7)))
    with market.platform.control() as session:
        session.execute(delete(Signal).where(Signal.available_at > scored))
        session.execute(update(MarketProgress).values(scored_through=scored, last_seq=50))
    async with running(Scorer(market.platform, market.lake, market.dataset_id), venue):
        await until(lambda: state(market) == "ended" and _last_seq(market) == 100)
    assert venue.asked == scored - timedelta(hours=7)
    assert signals(market) == whole


def test_versions_carry_the_barriers_of_their_labels(market: Market) -> None:
    market.dataset()
    plan = {"barriers": {"profit_multiple": 2.0, "stop_multiple": 0.5, "horizon_bars": 6, "cost_per_side": 0.001}}
    market.version("v_wide", params={"plan": plan})
    market.deploy("v_wide")
    scorer = Scorer(market.platform, market.lake, market.dataset_id)
    assert scorer.load_models()
    assert scorer.deployed[0].version_id == VersionId("v_wide")
    assert scorer.deployed[0].barriers.horizon_bars == 6
