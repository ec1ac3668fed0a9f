"""One deployment for the room: users in two groups with rows of their own, and a client of a fresh application."""

import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy import make_url

from tests.conftest import drop_databases
from trading_platform.accounts.roles import Role
from trading_platform.accounts.users import NewUser, create_user
from trading_platform.api.application import create_app
from trading_platform.api.identity import Services
from trading_platform.identifiers import GroupId, UserId
from trading_platform.settings import Settings
from trading_platform.storage.control import Dataset, MarketProgress, ModelVersion, Signal
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import Account, EngineLease, EquityPoint, Fill, Order, Outcome, Position
from trading_platform.storage.migrate import migrate

PASSWORD = "four plain words here"
START = datetime(2024, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
ORDERS = 25
PEOPLE: list[tuple[str, Role, str]] = [
    ("ann", "trader", "g1"),
    ("ben", "trader", "g2"),
    ("cat", "trader", "g1"),
    ("officer", "compliance", "g1"),
    ("builder", "engineer", "g2"),
    ("root", "admin", "g1"),
]


@pytest.fixture(scope="session")
def deployment(postgres_url: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings of a migrated deployment with six users; ann, ben and cat have 25 orders each."""
    settings = deployment_settings(postgres_url, redis_url, tmp_path_factory.mktemp("api"), f"api_{os.getpid()}")
    databases = Databases(settings)
    migrate(databases)
    for name, role, group in PEOPLE:
        person = NewUser(f"{name}@example.com", name, role, GroupId(group), PASSWORD, user_id=UserId(name))
        create_user(databases, person, actor="test")
    seed_market(databases)
    for name, role, group in PEOPLE:
        if role == "trader":
            seed_books(databases, GroupId(group), name)
    databases.close()
    yield settings
    drop_databases(settings)


def deployment_settings(postgres_url: str, redis_url: str, home: Path, name: str) -> Settings:
    return Settings(
        home_dir=home,
        database_url=SecretStr(make_url(postgres_url).set(database=name).render_as_string(hide_password=False)),
        redis_url=SecretStr(redis_url),
        environment="test",
    )


@dataclass
class Api:
    """A client of an application of its own, and how to log in."""

    client: httpx.AsyncClient
    app: FastAPI
    databases: Databases

    async def log_in(self, name: str) -> dict[str, str]:
        """Headers of a new session of that user; the password's way in is tested in test_login.py."""
        role, group = next((role, group) for person, role, group in PEOPLE if person == name)
        token = await self.services.sessions.start(
            UserId(name), GroupId(group), role, f"{name}@example.com", name.capitalize()
        )
        return {"Authorization": f"Bearer {token}"}

    @property
    def services(self) -> Services:
        found: Services = self.app.state.services
        return found


@pytest.fixture
async def api(deployment: Settings) -> AsyncIterator[Api]:
    databases = Databases(deployment)
    app = create_app(databases)
    transport = httpx.ASGITransport(app, client=("127.0.0.1", 50000))
    async with httpx.AsyncClient(transport=transport, base_url="http://platform.test") as client:
        await app.state.services.sessions._redis.flushdb()
        yield Api(client, app, databases)
    await app.state.services.live.close()
    await app.state.services.sessions._redis.aclose()
    await databases.aclose()


def seed_market(databases: Databases) -> None:
    with databases.control() as session:
        session.add(
            Dataset(
                dataset_id="d1", kind="synthetic", venue="binance", source="seed", interval_seconds=3600, symbols={}
            )
        )
        session.flush()
        session.add(
            ModelVersion(
                version_id="v1", dataset_id="d1", strategy_id="barrier_long", kind="logistic", origin="initial",
                data_version="x", feature_hash="x", code_version="x", lock_hash="x", params={}, seed=1, rows=10,
                metrics={}, artifact_path="x", artifact_sha256="x",
            )
        )  # fmt: skip
        session.flush()
        session.add_all(signal(seq) for seq in range(1, 31))
        session.add(MarketProgress(dataset_id="d1", scored_through=START + 30 * HOUR, last_seq=30))


def signal(seq: int) -> Signal:
    at = START + seq * HOUR
    return Signal(
        dataset_id="d1", seq=seq, signal_id=f"s{seq}", strategy_id="barrier_long", version_id="v1", role="champion",
        symbol=("BTC/USDT", "ETH/USDT")[seq % 2], bar_open_time=at - HOUR, available_at=at, price=Decimal("42000.5"),
        state=("ok", "abstain")[seq % 2], probability=0.6, confidence=0.58, confidence_lower=0.5,
        confidence_upper=0.65, threshold=0.55, certified=False, direction="long", target_price=Decimal(43000),
        stop_price=Decimal(41000), exit_by=at + 12 * HOUR, expires_at=at + HOUR, volatility="high", trend="up",
        liquidity="deep", session="us",
    )  # fmt: skip


def seed_books(databases: Databases, group_id: GroupId, user: str) -> None:
    account = f"acc_{user}"
    with databases.group(group_id) as session:
        session.add(
            Account(user_id=user, account_id=account, venue="binance", kind="sandbox", dataset_id="d1", currency="USDT")
        )
        session.add(
            Account(
                user_id=user, account_id=f"live_{user}", venue="binance", kind="live", currency="USDT", created_at=START
            )
        )
        for number in range(ORDERS):
            at = START + number // 2 * HOUR  # two at each market time: paging must not lose one of them
            key = f"{user}-{number:03d}"
            session.add(
                Order(
                    user_id=user, client_order_id=key, intent_id=key, account_id=account, symbol="BTC/USDT", contract="BTC/USDT", side="buy",
                    order_type="market", quantity=Decimal("0.01"), state="FILLED", market_time=at, epoch=1,
                )
            )  # fmt: skip
            session.add(
                Fill(
                    user_id=user, account_id=account, symbol="BTC/USDT", trade_id=key, client_order_id=key, side="buy",
                    price=Decimal("42000.10"), quantity=Decimal("0.01"), fee=Decimal("0.42"), fee_currency="USDT",
                    market_time=at,
                )
            )  # fmt: skip
            session.add(
                Outcome(
                    user_id=user, outcome_id=key, account_id=account, dataset_id="d1", strategy_id="barrier_long",
                    version_id="v1", arm="champion", signal_id="s1", symbol="BTC/USDT", contract="BTC/USDT", currency="USDT", confidence=0.6,
                    certified=False, volatility="high", trend="up", liquidity="deep", session="us", entry_time=at,
                    exit_time=at + HOUR, exit_reason="target", quantity=Decimal("0.01"), entry_price=Decimal(42000),
                    exit_price=Decimal(42500), gross_pnl=Decimal(5), costs=Decimal("0.8"), net_pnl=Decimal("4.2"),
                    net_return=0.01, success=True,
                )
            )  # fmt: skip
            session.add(
                EquityPoint(
                    user_id=user, account_id=account, market_time=START + number * HOUR, cash=Decimal(9000),
                    positions_value=Decimal(1000 + number), equity=Decimal(10_000 + number), currency="USDT",
                )
            )  # fmt: skip
        session.add(
            Position(
                user_id=user, account_id=account, strategy_id="barrier_long", symbol="BTC/USDT",
                quantity=Decimal("0.010000"), average_price=Decimal(42000), realized_pnl=Decimal("12.5"), fees=Decimal("0.42"),
            )
        )  # fmt: skip
        session.merge(
            EngineLease(group_id=group_id, holder="h", epoch=3, expires_at=datetime.now(UTC) + HOUR, state="RUNNING")
        )
