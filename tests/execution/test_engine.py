"""The engine as a process against the sandbox as a process, over a real socket, with the engine killed on the way.

The test plays the scorer: it writes signals for every step that the sandbox replays. What must hold afterwards is
compared with the sandbox's own books, which the engine never sees.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import and_, func, insert, or_, select, update

from jobs.pass_books import compare_books
from trading_platform.accounts.users import NewUser, create_user
from trading_platform.compliance.audit import seal, verify
from trading_platform.execution.paper import STARTING_BALANCE, account_id, provision
from trading_platform.identifiers import DatasetId, GroupId, UserId
from trading_platform.market_data.datasets import IngestOptions, ingest
from trading_platform.market_data.lake import Lake
from trading_platform.settings import Settings
from trading_platform.stack.servers import free_port
from trading_platform.storage.control import Group, MarketProgress, ModelVersion, Signal
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import AuditRow, EngineLease, Fill, Intent, Order, Outcome, Position, SignalCursor
from trading_platform.torture.comparison import OPEN_AT_VENUE

ALICE, GROUP = UserId("alice"), GroupId("g1")
TOKEN = "a-token-for-tests"
KILL_AT = (15, 40)
STEPS = 69  # the last one, number 68, is an entry: something is held when the replay stops


class Deployment:
    """A synthetic dataset, a sandbox and an engine."""

    def __init__(self, platform: Databases) -> None:
        port = free_port()
        given = platform.settings.model_dump() | {
            "sandbox_url": f"http://127.0.0.1:{port}",
            "sandbox_admin_token": SecretStr(TOKEN),
        }
        self.settings = Settings(**given)
        self.databases = Databases(self.settings)
        options = IngestOptions(bars=800, symbols=("ALPHA/USDT", "BRAVO/USDT"))
        lake = Lake(self.settings.lake_dir)
        self.dataset = DatasetId(ingest(self.databases, lake, "synthetic", options).dataset_id)
        self.tail = self._tail(lake)
        self.processes: list[subprocess.Popen[bytes]] = []
        self.seq = 0
        self.start("sandbox", "serve", "--dataset", self.dataset, "--port", str(port))
        self.wait_for(lambda: self.status() != {}, "the sandbox")
        create_user(
            self.databases,
            NewUser("alice@example.com", "Alice", "trader", GROUP, "correct horse battery", user_id=ALICE),
            actor="test",
        )
        self.account = provision(self.databases, self.settings, ALICE, self.dataset)
        with self.databases.control() as session:
            session.add(_version(self.dataset))

    def _tail(self, lake: Lake) -> list[tuple[datetime, list[dict[str, Any]]]]:
        from trading_platform.storage.control import Dataset

        with self.databases.control() as session:
            replay_from = session.get_one(Dataset, self.dataset).replay_from
        bars = lake.bars(self.dataset, start=replay_from).sort("available_at", "symbol")
        grouped = bars.partition_by("available_at", maintain_order=True)
        return [(rows["available_at"][0], rows.to_dicts()) for rows in grouped]

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "TP_HOME_DIR": str(self.settings.home),
            "TP_DATABASE_URL": _secret(self.settings.database_url),
            "TP_REDIS_URL": _secret(self.settings.redis_url),
            "TP_SANDBOX_URL": str(self.settings.sandbox_url),
            "TP_SANDBOX_ADMIN_TOKEN": TOKEN,
        }
        process = subprocess.Popen([sys.executable, "-m", "trading_platform.cli", *arguments], env=environment)
        self.processes.append(process)
        return process

    def start_engine(self) -> subprocess.Popen[bytes]:
        process = self.start("engine", "--group", GROUP, "--dataset", self.dataset)
        self.wait_for(self.engine_runs, "the engine")
        return process

    def engine_runs(self) -> bool:
        with self.databases.group(GROUP) as session:
            row = session.execute(select(EngineLease.state, EngineLease.expires_at > func.now())).one_or_none()
        return row is not None and bool(row[1]) and row[0] == "RUNNING"

    def status(self) -> dict[str, Any]:
        try:
            return dict(self.get("/sandbox/status").json())
        except httpx.HTTPError:
            return {}

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"{self.settings.sandbox_url}{path}", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=10)

    def signal(self, market_time: datetime, bars: list[dict[str, Any]], number: int) -> None:
        """What a scorer would write: every fourth bar is worth a trade, with barriers half a percent away."""
        rows = []
        for bar in bars:
            self.seq += 1
            close, act = bar["close"], number % 4 == 0
            rows.append(
                {
                    "dataset_id": self.dataset, "seq": self.seq, "signal_id": f"s{self.seq}", "strategy_id": "barrier_long",
                    "version_id": "v_test", "role": "champion", "symbol": bar["symbol"],
                    "bar_open_time": bar["open_time"], "available_at": market_time, "price": Decimal(repr(close)),
                    "state": "ok" if act else "abstain", "probability": 0.7, "confidence": 0.7, "threshold": 0.6,
                    "certified": False, "direction": "long" if act else "flat",
                    "target_price": Decimal(repr(round(close * 1.005, 6))),
                    "stop_price": Decimal(repr(round(close * 0.995, 6))),
                    "exit_by": market_time + timedelta(hours=6), "expires_at": market_time + timedelta(hours=1),
                    "volatility": "high", "trend": "up", "liquidity": "normal", "session": "us",
                }
            )  # fmt: skip
        with self.databases.control() as session:
            session.execute(insert(Signal), rows)
            session.merge(MarketProgress(dataset_id=self.dataset, scored_through=market_time, last_seq=self.seq))

    def wait_for(self, ready: Any, what: str, seconds: float = 90.0) -> None:
        deadline = time.monotonic() + seconds
        while not ready():
            assert time.monotonic() < deadline, f"{what} did not come up"
            time.sleep(0.05)

    def close(self) -> None:
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            process.wait(15)
        self.databases.close()


def _secret(value: SecretStr | None) -> str:
    assert value is not None
    return value.get_secret_value()


def _version(dataset: str) -> ModelVersion:
    return ModelVersion(
        version_id="v_test", dataset_id=dataset, strategy_id="barrier_long", kind="logistic", origin="manual",
        data_version="d", feature_hash="f", code_version="c", lock_hash="l", params={}, seed=1, rows=1, metrics={},
        artifact_path="none", artifact_sha256="none",
    )  # fmt: skip


@pytest.fixture
def deployment(platform: Databases) -> Iterator[Deployment]:
    made = Deployment(platform)
    yield made
    made.close()


@pytest.mark.timeout(400)
def test_killed_engines_lose_no_order_and_double_none(deployment: Deployment) -> None:
    engine = deployment.start_engine()
    httpx.post(
        f"{deployment.settings.sandbox_url}/sandbox/replay/start",
        json={"participants": ["engine-g1"], "speed": "max"}, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=10,
    ).raise_for_status()  # fmt: skip
    for number, (market_time, bars) in enumerate(deployment.tail[:STEPS]):
        deployment.wait_for(lambda n=number: deployment.status().get("steps_done", 0) > n, f"step {number}", 30)
        deployment.signal(market_time, bars, number)
        if number in KILL_AT:
            time.sleep(0.02 * KILL_AT.index(number))  # somewhere between reading the signal and booking the fill
            engine.kill()
            engine.wait(10)
            engine = deployment.start_engine()
    deployment.wait_for(lambda: settled(deployment), "the last orders", 60)
    compared = compare_books(deployment.settings, deployment.databases, deployment.dataset)
    assert compared.differences == []

    with deployment.databases.group(GROUP) as session:
        orders = {order.client_order_id: order for order in session.scalars(select(Order))}
        intents = session.scalars(select(Intent).where(Intent.state != "DENIED")).all()
        fills = session.scalars(select(Fill)).all()
        outcomes = session.scalars(select(Outcome)).all()
        held = {row.symbol: row.quantity for row in session.scalars(select(Position))}
    theirs = {
        row["client_order_id"]: row
        for row in deployment.get(f"/sandbox/books/orders?account_id={deployment.account}").json()
    }
    their_fills = deployment.get(f"/sandbox/books/fills?account_id={deployment.account}").json()

    purposes = {intent.client_order_id: intent.purpose for intent in intents}
    sent = {name: order for name, order in orders.items() if order.venue_order_id is not None}
    assert (
        sum(purposes[name] != "stop" for name in sent) >= 10
    )  # signals that expire while a killed engine starts again are rightly left out
    assert set(sent) == set(theirs)
    for name, order in sent.items():
        row = theirs[name]
        assert (order.symbol, order.side, order.venue_order_id) == (row["symbol"], row["side"], row["order_id"])
        assert (order.quantity, order.filled_quantity) == (Decimal(row["quantity"]), Decimal(row["filled"]))
    assert {(f.trade_id, f.price, f.quantity, f.fee) for f in fills} == {
        (row["trade_id"], Decimal(row["price"]), Decimal(row["quantity"]), Decimal(row["fee"])) for row in their_fills
    }
    once = [(each.symbol, each.purpose, each.market_time) for each in intents if each.purpose != "stop"]
    assert len(set(once)) == len(once)
    assert_every_position_has_its_stop(held, theirs, purposes)

    assert len(outcomes) >= 4
    assert_cash_adds_up(deployment, outcomes, their_fills, held)
    seal(deployment.databases, GROUP)
    found = verify(deployment.databases, GROUP)
    assert found.whole
    assert found.verified == found.entries > 50
    with deployment.databases.group(GROUP) as session:
        ways = session.execute(
            select(AuditRow.exchange, AuditRow.source_ip, AuditRow.clock_offset_ms).where(AuditRow.event_type == "SEND")
        ).all()
    assert {(exchange, address) for exchange, address, _ in ways} == {("binance", "127.0.0.1")}
    assert all(abs(offset) < 1_000 for *_, offset in ways), "the sandbox runs by this machine's clock"

    assert (compared.orders, compared.fills) == (len(theirs), len(their_fills))
    assert any(held.values())
    flatten_without_another_bar(deployment)
    a_wrong_book_is_found_out(deployment)


def assert_every_position_has_its_stop(
    held: dict[str, Decimal], theirs: dict[str, dict[str, Any]], purposes: dict[str, str]
) -> None:
    """What waits at the exchange is a stop under each position, of its size, and nothing else."""
    waiting = [(name, row) for name, row in theirs.items() if row["state"] in OPEN_AT_VENUE]
    assert {purposes[name] for name, _ in waiting} == {"stop"}
    left = {symbol: quantity for symbol, quantity in held.items() if quantity}
    for _, row in waiting:
        assert 0 <= left.pop(row["symbol"]) - Decimal(row["quantity"]) < Decimal("0.0001"), (
            "less than a step is not sold"
        )
    assert not left


def a_wrong_book_is_found_out(deployment: Deployment) -> None:
    with deployment.databases.group(GROUP) as session:
        fill = session.scalars(select(Fill).order_by(Fill.trade_id)).first()
        assert fill is not None
        fill.price += Decimal("0.01")
        name = fill.trade_id
    found = compare_books(deployment.settings, deployment.databases, deployment.dataset).differences
    assert len(found) == 1
    assert f" {name}: order " in found[0]


def flatten_without_another_bar(deployment: Deployment) -> None:
    """Asked to leave everything, the engine does so at once, and enters nothing more."""
    with deployment.databases.control() as session:
        session.execute(update(Group).where(Group.group_id == GROUP).values(desired_state="FLATTEN"))

    def flat() -> bool:
        with deployment.databases.group(GROUP) as session:
            return session.scalar(select(func.sum(Position.quantity))) == 0

    deployment.wait_for(flat, "the empty book", 30)
    with deployment.databases.group(GROUP) as session:
        last = session.scalars(select(Outcome).order_by(Outcome.recorded_at.desc())).first()
        assert last is not None
        assert last.exit_reason in {"flatten", "target", "stop", "time"}
    balances = deployment.get(f"/sandbox/books/balances?account_id={deployment.account}").json()
    assert all(Decimal(amount["free"]) < 1 for asset, amount in balances.items() if asset != "USDT")


def settled(deployment: Deployment) -> bool:
    with deployment.databases.group(GROUP) as session:
        unfinished = session.scalar(
            select(func.count())
            .select_from(Intent)
            .where(
                or_(
                    Intent.state.in_(("SENDING", "UNKNOWN")),
                    and_(Intent.state == "SUBMITTED", Intent.purpose != "stop"),
                )
            )
        )
        consumed = session.scalars(select(SignalCursor.seq)).one_or_none()
        # An entry is filled a moment before its stop is even planned: the last word is the stop's.
        held = set(session.scalars(select(Position.entry_intent_id).where(Position.quantity > 0)))
        protected = set(
            session.scalars(select(Intent.entry_intent_id).where(Intent.purpose == "stop", Intent.state == "SUBMITTED"))
        )
    return unfinished == 0 and consumed == deployment.seq and held <= protected


def assert_cash_adds_up(
    deployment: Deployment, outcomes: list[Outcome], their_fills: list[dict[str, Any]], held: dict[str, Decimal]
) -> None:
    """Money is conserved: start + what sells brought - what buys cost - fees = the venue's cash; net P&L is its part."""
    spent = sum((Decimal(f["price"]) * Decimal(f["quantity"]) for f in their_fills if f["side"] == "buy"), Decimal(0))
    received = sum(
        (Decimal(f["price"]) * Decimal(f["quantity"]) - Decimal(f["fee"]) for f in their_fills if f["side"] == "sell"),
        Decimal(0),
    )
    answer = deployment.get("/sandbox/status").json()
    assert answer["orders"] >= len(outcomes) * 2
    cash = STARTING_BALANCE - spent + received
    with deployment.databases.group(GROUP) as session:
        open_entries = session.scalars(select(Position.entry_intent_id).where(Position.quantity > 0)).all()
        open_ids = session.scalars(select(Intent.client_order_id).where(Intent.intent_id.in_(open_entries))).all()
        still_out = sum(
            (f.price * f.quantity for f in session.scalars(select(Fill).where(Fill.client_order_id.in_(open_ids)))),
            Decimal(0),
        )
        tags = session.scalars(select(AuditRow.detail).where(AuditRow.event_type == "PLAN")).first()
    assert sum((outcome.net_pnl for outcome in outcomes), Decimal(0)) == cash - STARTING_BALANCE + still_out
    for outcome in outcomes:
        assert outcome.gross_pnl - outcome.costs == outcome.net_pnl
        assert outcome.success == (outcome.net_pnl > 0)
        assert outcome.exit_reason in {"target", "stop", "time"}
        assert (outcome.volatility, outcome.session, outcome.confidence) == ("high", "us", 0.7)
        assert outcome.costs > 0
    assert all(quantity >= 0 for quantity in held.values())
    assert tags is not None
    assert account_id(ALICE, deployment.dataset) == deployment.account
