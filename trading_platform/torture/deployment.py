"""What is tortured: a database server, groups with an account each, half of them at Binance's door and half at Kite's."""

import asyncio
import secrets
import subprocess
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from trading_platform.accounts.users import NewUser, create_user
from trading_platform.accounts.vault import Vault
from trading_platform.identifiers import AccountId, DatasetId, GroupId, UserId
from trading_platform.settings import Settings
from trading_platform.stack.processes import die_with_parent
from trading_platform.stack.servers import Postgres
from trading_platform.storage.control import Dataset, MarketProgress, ModelVersion
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import Account, Subscription
from trading_platform.storage.migrate import migrate
from trading_platform.torture.exchange import Exchange
from trading_platform.venues.zerodha.login import open_session
from trading_platform.venues.zerodha.transport import KiteTransport

STRATEGY = "barrier_long"
SHARE_OF_CAPITAL = Decimal("0.02")
SYMBOLS = {"binance": ("BTC/USDT", "ETH/USDT"), "zerodha": ("HDFCBANK", "INFY", "RELIANCE", "SBIN", "TCS")}
CASH = {"binance": ("USDT", Decimal(1_000_000)), "zerodha": ("INR", Decimal(5_000_000_000))}
"""So much that an order is often more than the book holds: partial fills, and rests that wait."""
ENOUGH = 10**15


@dataclass(frozen=True)
class Traded:
    """One group with its account."""

    group_id: GroupId
    user_id: UserId
    account_id: AccountId
    venue: str
    dataset_id: DatasetId


@dataclass
class Deployment:
    """A platform's database of its own. `start` brings the server up, at first and after every kill."""

    folder: Path
    exchange: Exchange
    groups: int
    venues: tuple[str, ...]
    postgres: Postgres = field(init=False)
    process: "subprocess.Popen[bytes] | None" = None
    settings: Settings = field(init=False)
    databases: Databases = field(init=False)
    traded: list[Traded] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.postgres = Postgres(self.folder / "postgres", fsync=False)
        self.postgres.prepare()

    def start(self) -> None:
        """It refuses to start while a killed server's last child is still there: then it is tried again, as in life."""
        deadline = time.monotonic() + 60
        while self.process is None or self.process.poll() is not None or not self.postgres.is_ready():
            if time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start; its log is {self.folder / 'postgres.log'}")
            if self.process is None or self.process.poll() is not None:
                self._launch()
            time.sleep(0.05)

    def _launch(self) -> None:
        self.postgres.recover()
        with (self.folder / "postgres.log").open("ab") as log:
            self.process = subprocess.Popen(self.postgres.command(), stdout=log, stderr=log, preexec_fn=die_with_parent)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        self.databases.close()
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "TP_HOME_DIR": str(self.folder / "home"), "TP_DATABASE_URL": self.postgres.url,
            "TP_SANDBOX_URL": str(self.exchange.where["binance"]["rest"]),
            "TP_SANDBOX_KITE_URL": str(self.exchange.where["kite"]["root"]),
            "TP_SANDBOX_ADMIN_TOKEN": self.exchange.token, "TP_LOG_LEVEL": "WARNING",
        }  # fmt: skip

    def fill(self) -> None:
        """Schemas, datasets, users, accounts with keys, subscriptions without limits that would be in the way."""
        given = self.environment
        self.settings = Settings(
            home_dir=Path(given["TP_HOME_DIR"]), database_url=SecretStr(given["TP_DATABASE_URL"]),
            sandbox_url=given["TP_SANDBOX_URL"], sandbox_kite_url=given["TP_SANDBOX_KITE_URL"],
            sandbox_admin_token=SecretStr(given["TP_SANDBOX_ADMIN_TOKEN"]), environment="torture",
        )  # fmt: skip
        self.databases = Databases(self.settings)
        migrate(self.databases)
        for venue in self.venues:
            self._dataset(venue)
        for number in range(self.groups):
            self.traded.append(self._group(number, self.venues[number % len(self.venues)]))

    def _dataset(self, venue: str) -> None:
        with self.databases.control() as session:
            dataset_id = dataset_of(venue)
            session.add(
                Dataset(
                    dataset_id=dataset_id, kind="synthetic", venue="nse" if venue == "zerodha" else venue, source="torture",
                    interval_seconds=60, symbols={}, details={},
                )
            )  # fmt: skip
            session.flush()
            session.add(
                ModelVersion(
                    version_id=version_of(venue), dataset_id=dataset_id, strategy_id=STRATEGY, kind="logistic",
                    origin="manual", data_version="d", feature_hash="f", code_version="c", lock_hash="l", params={},
                    seed=1, rows=1, metrics={}, artifact_path="none", artifact_sha256="none",
                )
            )  # fmt: skip
            session.add(
                MarketProgress(dataset_id=dataset_id, scored_through=datetime(2026, 1, 1, tzinfo=UTC), last_seq=0)
            )

    def _group(self, number: int, venue: str) -> Traded:
        traded = Traded(
            GroupId(f"t{number:02d}"),
            UserId(f"user{number:02d}"),
            AccountId(f"acc{number:02d}"),
            venue,
            dataset_of(venue),
        )
        person = NewUser(
            f"{traded.user_id}@example.com",
            traded.user_id,
            "trader",
            traded.group_id,
            secrets.token_hex(16),
            user_id=traded.user_id,
        )
        create_user(self.databases, person, actor="torture")
        currency, cash = CASH[venue]
        keys = {"api_key": f"key-{traded.account_id}", "api_secret": f"secret-{traded.account_id}"}
        self.exchange.tell("/accounts", {"account_id": traded.account_id, **keys, "balances": {currency: str(cash)}})
        if venue == "zerodha":
            keys["access_token"] = asyncio.run(self._log_in(keys))
        vault = Vault(self.settings)
        with self.databases.group(traded.group_id) as session:
            session.add(
                Account(
                    user_id=traded.user_id, account_id=traded.account_id, venue=venue, kind="sandbox",
                    dataset_id=traded.dataset_id, currency=currency,
                )
            )  # fmt: skip
            session.add(
                Subscription(
                    user_id=traded.user_id, account_id=traded.account_id, strategy_id=STRATEGY,
                    capital_fraction=SHARE_OF_CAPITAL, changed_by="torture",
                )
            )  # fmt: skip
            for name, secret in keys.items():
                session.add(vault.seal(traded.user_id, traded.account_id, name, secret))
            _lift_limits(session)
        return traded

    async def _log_in(self, keys: dict[str, str]) -> str:
        token = self.exchange.tell("/kite/request_token", {"api_key": keys["api_key"]})["request_token"]
        transport = KiteTransport(keys["api_key"], None, root=self.exchange.where["kite"]["root"])
        try:
            return (await open_session(transport, token, keys["api_secret"])).access_token
        finally:
            await transport.close()


def dataset_of(venue: str) -> DatasetId:
    return DatasetId(f"torture_{venue}")


def version_of(venue: str) -> str:
    return f"v_torture_{venue}"


def _lift_limits(session: Any) -> None:
    from sqlalchemy import update

    from trading_platform.storage.group import RiskLimits

    session.flush()
    session.execute(
        update(RiskLimits).values(
            max_order_notional=ENOUGH, max_position_notional=ENOUGH, max_daily_loss=ENOUGH, max_orders_per_second=1_000,
            max_orders_per_day=1_000_000, max_open_positions=100,
        )
    )  # fmt: skip
