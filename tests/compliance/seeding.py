"""Books such as an engine leaves behind: a deployment, groups, and trades with all the rows that belong to them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import psycopg
from pydantic import SecretStr
from sqlalchemy import make_url
from sqlalchemy.orm import Session

from trading_platform.identifiers import GroupId, content_id
from trading_platform.settings import Settings
from trading_platform.storage.control import (
    Alert,
    Dataset,
    Deployment,
    Experiment,
    Group,
    Halt,
    LoginEvent,
    ModelVersion,
    Shard,
    Signal,
    User,
)
from trading_platform.storage.databases import Database, Databases, database_url
from trading_platform.storage.group import Account, AuditRow, EquityPoint, Fill, Intent, Order, Outcome, Position
from trading_platform.storage.migrate import migrate, migrate_group

WALL = datetime(2026, 11, 19, 5, 0, tzinfo=UTC)  # 10:30 in India
MARKET = datetime(2021, 3, 1, tzinfo=UTC)
FEE = Decimal("0.001")
DATASET = "files_btc"
CHAMPION, CHALLENGER = "v_champion", "v_challenger"
CONDITIONS = [("high", "up", "deep", "asia"), ("low", "down", "thin", "europe"), ("low", "flat", "deep", "america")]


@contextmanager
def deployment(postgres_url: str, home: Path, name: str) -> Iterator[Databases]:
    """An empty, migrated deployment in databases of its own, dropped on leaving."""
    url = make_url(postgres_url).set(database=name).render_as_string(hide_password=False)
    settings = Settings(home_dir=home, database_url=SecretStr(url), environment="test")
    databases = Databases(settings)
    migrate(databases)
    try:
        yield databases
    finally:
        databases.close()
        server = database_url(settings).set(drivername="postgresql", database="postgres")
        with psycopg.connect(server.render_as_string(hide_password=False), autocommit=True) as connection:
            for database in Database:
                connection.execute(
                    f'drop database if exists "{database_url(settings, database).database}" with (force)'
                )


def add_group(databases: Databases, name: str) -> GroupId:
    with databases.control() as session:
        session.merge(Shard(shard_id="shard0", url_key="shard0"))
        session.flush()
        session.add(Group(group_id=name, shard_id="shard0", schema_name=f"group_{name}"))
    migrate_group(databases, GroupId(name))
    return GroupId(name)


def add_shared(databases: Databases, group: GroupId) -> None:
    """Dataset, two versions that serve, an experiment, a user, an alert, a halt, log-ins."""
    with databases.control() as session:
        session.add(
            Dataset(
                dataset_id=DATASET, kind="files", venue="binance", source="btc.csv", interval_seconds=3600,
                symbols={"BTC/USDT": {"bars": 100}}, replay_from=MARKET,
            )
        )  # fmt: skip
        session.add(
            User(
                user_id="ann", email="ann@example.org", display_name="Ann", password_hash="$argon2id$do-not-export",
                role="trader", group_id=group,
            )
        )  # fmt: skip
        session.flush()
        for version, kind in ((CHAMPION, "lightgbm"), (CHALLENGER, "logistic")):
            session.add(
                ModelVersion(
                    version_id=version, dataset_id=DATASET, strategy_id="barrier_long", kind=kind, origin="initial",
                    data_version="d1", feature_hash="f1", code_version="c1", lock_hash="l1", params={"folds": 5},
                    seed=1, trained_to=MARKET - timedelta(days=1), rows=1000, metrics={"log_loss": 0.68, "brier": 0.24},
                    artifact_path=version, artifact_sha256="0" * 64, created_at=WALL - timedelta(hours=1),
                )
            )  # fmt: skip
        session.flush()
        for version, role in ((CHAMPION, "champion"), (CHALLENGER, "challenger")):
            session.add(
                Deployment(
                    dataset_id=DATASET, strategy_id="barrier_long", role=role, version_id=version, from_time=MARKET,
                    reason="first pass", decided_by="system", created_at=WALL - timedelta(hours=1),
                )
            )  # fmt: skip
        session.add(
            Experiment(
                experiment_id="e1", dataset_id=DATASET, strategy_id="barrier_long", champion_id=CHAMPION,
                challenger_id=CHALLENGER, started_at=MARKET, samples=200, lower=-0.01, upper=0.02,
            )
        )  # fmt: skip
        session.add(
            Alert(
                fingerprint="a", severity="critical", source="engine:one", title="Reconciliation differs",
                detail="1 order", raised_at=WALL, last_seen_at=WALL + timedelta(minutes=7),
            )
        )  # fmt: skip
        session.add(
            Halt(
                scope="group", scope_id=group, reason="drill", set_by="ann", set_at=WALL, cleared_by="bob",
                cleared_at=WALL + timedelta(minutes=9), clear_reason="drill over",
            )
        )  # fmt: skip
        for minute, (action, result) in enumerate([("login", "ok"), ("login", "refused"), ("logout", "ok")]):
            session.add(
                LoginEvent(
                    at=WALL + timedelta(minutes=minute), user_id="ann", email="ann@example.org", action=action,
                    result=result, source_ip="127.0.0.1", user_agent="test",
                )
            )  # fmt: skip


@dataclass
class Books:
    """Writes complete trades of one user into a group."""

    databases: Databases
    group: GroupId
    user: str = "ann"
    trades: int = 0

    @property
    def account(self) -> str:
        return f"acct_{self.group}_{self.user}"

    def open_account(self) -> None:
        with self.databases.group(self.group) as session:
            session.add(
                Account(
                    user_id=self.user, account_id=self.account, venue="binance", kind="sandbox", dataset_id=DATASET,
                    currency="USDT",
                )
            )  # fmt: skip
            session.add(
                Position(
                    user_id=self.user, account_id=self.account, strategy_id="barrier_long", symbol="BTC/USDT",
                    quantity=Decimal(0), average_price=Decimal(0),
                )
            )  # fmt: skip

    def trade(self, entry: str, exit_: str, *, wall: datetime = WALL, arm: str = "champion") -> None:
        """Buy 0.01 BTC at `entry`, sell at `exit_` two bars later, with every row that an engine writes for it."""
        number = self.trades
        self.trades += 1
        bar = MARKET + timedelta(hours=3 * number)
        wall += timedelta(seconds=number)
        quantity, bought, sold = Decimal("0.01"), Decimal(entry), Decimal(exit_)
        costs = FEE * quantity * (bought + sold)
        gross = quantity * (sold - bought)
        volatility, trend, liquidity, hours = CONDITIONS[number % 3]
        signal = self._signals(number, bar, bought, arm, wall)
        with self.databases.group(self.group) as session:
            entry_intent = self._order(session, number, "entry", bar, bought, signal, arm, wall, None)
            self._order(session, number, "exit", bar + timedelta(hours=2), sold, signal, arm, wall, entry_intent)
            session.add(
                Outcome(
                    user_id=self.user, outcome_id=content_id("o", entry_intent), account_id=self.account,
                    dataset_id=DATASET, strategy_id="barrier_long", version_id=f"v_{arm}", arm=arm, signal_id=signal,
                    symbol="BTC/USDT", contract="BTC/USDT", currency="USDT", confidence=0.55 + 0.4 * (number % 10) / 10, certified=False,
                    volatility=volatility, trend=trend, liquidity=liquidity, session=hours, entry_time=bar,
                    exit_time=bar + timedelta(hours=2), exit_reason="target" if gross > 0 else "stop",
                    quantity=quantity, entry_price=bought, exit_price=sold, gross_pnl=gross, costs=costs,
                    net_pnl=gross - costs, net_return=float((gross - costs) / (quantity * bought)),
                    success=gross > costs,
                )
            )  # fmt: skip
            session.add(
                EquityPoint(
                    user_id=self.user, account_id=self.account, market_time=bar + timedelta(hours=2),
                    cash=Decimal(1000) + gross - costs, positions_value=Decimal(0),
                    equity=Decimal(1000) + gross - costs, currency="USDT",
                )
            )  # fmt: skip

    def audit(self, event_type: str, wall: datetime, **columns: object) -> None:
        with self.databases.group(self.group) as session:
            session.add(
                AuditRow(
                    user_id=self.user, account_id=self.account, event_type=event_type, event_ts=wall,
                    **({"actor": "engine", "strategy_id": "barrier_long"} | columns),
                )
            )  # fmt: skip

    def deny(self, reason: str, wall: datetime = WALL) -> None:
        """An intent that risk refused: no order follows."""
        number = self.trades
        self.trades += 1
        with self.databases.group(self.group) as session:
            session.add(
                self._intent(number, "entry", MARKET, Decimal(1), "s_none", "champion", wall, None, denial=reason)
            )
        self.audit("RISK_BLOCK", wall, status_message=reason, dataset_id=DATASET, symbol="BTC/USDT")

    def _signals(self, number: int, bar: datetime, price: Decimal, arm: str, wall: datetime) -> str:
        volatility, trend, liquidity, hours = CONDITIONS[number % 3]
        with self.databases.control() as session:
            for role in ("champion", "challenger"):
                session.merge(
                    Signal(
                        dataset_id=DATASET, seq=2 * number + (role == "challenger"), strategy_id="barrier_long",
                        signal_id=f"s_{role}_{number}", version_id=f"v_{role}", role=role, symbol="BTC/USDT",
                        bar_open_time=bar - timedelta(hours=1), available_at=bar, price=price, state="ok",
                        probability=0.6, confidence=0.55 + 0.4 * (number % 10) / 10, confidence_lower=0.5,
                        confidence_upper=0.9, threshold=0.5, certified=False, direction="long",
                        target_price=price + 100, stop_price=price - 100, exit_by=bar + timedelta(hours=12),
                        expires_at=bar + timedelta(hours=1), volatility=volatility, trend=trend, liquidity=liquidity,
                        session=hours, created_at=wall,
                    )
                )  # fmt: skip
        return f"s_{arm}_{number}"

    def _intent(
        self, number: int, purpose: str, bar: datetime, price: Decimal, signal: str, arm: str, wall: datetime,
        entry: str | None, denial: str | None = None,
    ) -> Intent:  # fmt: skip
        name = f"{self.user}_{number}_{purpose}"
        return Intent(
            user_id=self.user, intent_id=f"i_{name}", decision_key=f"d_{name}", client_order_id=f"c_{name}",
            account_id=self.account, dataset_id=DATASET, strategy_id="barrier_long", version_id=f"v_{arm}", arm=arm,
            signal_id=signal, purpose=purpose, entry_intent_id=entry, symbol="BTC/USDT", contract="BTC/USDT",
            side="buy" if purpose == "entry" else "sell", order_type="market", quantity=Decimal("0.01"),
            reference_price=price, market_time=bar, state="DENIED" if denial else "DONE", denial=denial, epoch=1,
            created_at=wall,
        )  # fmt: skip

    def _order(
        self, session: Session, number: int, purpose: str, bar: datetime, price: Decimal, signal: str, arm: str,
        wall: datetime, entry: str | None,
    ) -> str:  # fmt: skip
        intent = self._intent(number, purpose, bar, price, signal, arm, wall, entry)
        session.add(intent)
        client_id = intent.client_order_id
        common = {
            "user_id": self.user, "account_id": self.account, "symbol": "BTC/USDT", "side": intent.side,
        }  # fmt: skip
        session.add(
            Order(
                **common, contract=intent.contract, client_order_id=client_id, intent_id=intent.intent_id, venue_order_id=f"9{client_id}",
                order_type="market", quantity=intent.quantity, filled_quantity=intent.quantity, average_price=price,
                state="FILLED", market_time=bar, sent_at=wall, acknowledged_at=wall, epoch=1,
            )
        )  # fmt: skip
        session.add(
            Fill(
                **common, trade_id=f"t_{client_id}", client_order_id=client_id, price=price, quantity=intent.quantity,
                fee=FEE * intent.quantity * price, fee_currency="USDT", market_time=bar, received_at=wall,
            )
        )  # fmt: skip
        session.flush()
        for event, extra in (
            ("PLAN", {}),
            ("RISK_PASS", {}),
            ("SEND", {"order_type_sent": "market", "attempt": 1}),
            ("ACK", {"status": "SUBMITTED", "latency_ms": 4.5, "venue_order_id": f"9{client_id}"}),
            ("FILL", {"status": "FILLED", "price": price, "trade_id": f"t_{client_id}"}),
        ):
            session.add(
                AuditRow(
                    **common, event_ts=wall, market_time=bar, dataset_id=DATASET, strategy_id="barrier_long",
                    strategy_version=f"v_{arm}", intent_id=intent.intent_id, actor="engine", event_type=event,
                    client_order_id=client_id, tag=client_id, quantity=intent.quantity, **extra,
                )
            )  # fmt: skip
            session.flush()
        return intent.intent_id
