"""A platform that has been at work for some weeks, written through the tables: for the tests of this room, and to look
at the pages by hand:

    python -m tests.dashboard.serving FOLDER     # servers, API, load balancer, dashboard; prints where; until Ctrl-C
"""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from trading_platform.accounts.roles import Role
from trading_platform.accounts.users import NewUser, create_user
from trading_platform.compliance.audit import record, seal
from trading_platform.identifiers import GroupId, UserId, content_id
from trading_platform.observability.alerts import raise_alert
from trading_platform.observability.heartbeat import beat
from trading_platform.storage.control import (
    Dataset,
    Deployment,
    DriftReport,
    Experiment,
    Lease,
    MarketProgress,
    ModelVersion,
    Signal,
)
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import Account, EngineLease, EquityPoint, Fill, Order, Outcome, Position

PASSWORD = "four plain words here"
HOUR = timedelta(hours=1)
START = datetime(2024, 5, 6, tzinfo=UTC)
PRICES = {"BTC/USDT": 63_480.5, "ETH/USDT": 3_102.44, "BNB/USDT": 588.1, "XRP/USDT": 0.52814}
STRATEGY = "barrier_long"
PEOPLE: list[tuple[str, str, Role, str]] = [
    ("u_ann", "Ann Archer", "trader", "g1"),
    ("u_ben", "Ben Baker", "trader", "g2"),
    ("u_cora", "Cora Clerk", "compliance", "g1"),
    ("u_dan", "Dan Dean", "engineer", "g2"),
    ("u_eve", "Eve Eaton", "admin", "g1"),
]
HELD = "XRP/USDT"
"""The instrument that everybody holds at the end."""


def email(user_id: str) -> str:
    return f"{user_id.removeprefix('u_')}@example.com"


def add_people(databases: Databases) -> None:
    for user_id, name, role, group in PEOPLE:
        create_user(
            databases,
            NewUser(email(user_id), name, role, GroupId(group), PASSWORD, user_id=UserId(user_id)),
            actor="seed",
        )


@dataclass
class Work:
    """One dataset and everything that came of it, in the control database and in the groups' books."""

    databases: Databases
    kind: str = "synthetic"
    bars: int = 120
    seed: int = 7
    dataset_id: str = ""
    closes: dict[str, list[float]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.dataset_id = content_id(self.kind, self.seed)
        self.names = {role: content_id("v", self.dataset_id, role) for role in ("champion", "challenger")}
        for symbol, price in PRICES.items():
            closes = [price]
            for _ in range(self.bars):
                closes.append(closes[-1] * math.exp(self.random.gauss(0.0002, 0.006)))
            self.closes[symbol] = closes

    @property
    def now(self) -> datetime:
        return START + self.bars * HOUR

    def add_market(self) -> None:
        """The dataset and the models that serve on it."""
        source = {"synthetic": f"seed {self.seed}", "files": "/data/binance_1h", "venue": "binance"}[self.kind]
        with self.databases.control() as session:
            session.add(
                Dataset(
                    dataset_id=self.dataset_id, kind=self.kind, venue="binance", source=source, interval_seconds=3600,
                    symbols={symbol: {"bars": 12_000} for symbol in PRICES}, replay_from=START,
                )
            )  # fmt: skip
            session.flush()
            for role, kind, loss in (("champion", "lightgbm", 0.6841), ("challenger", "logistic", 0.6857)):
                session.add(self._version(role, kind, loss))
                session.flush()
                session.add(
                    Deployment(
                        dataset_id=self.dataset_id, strategy_id=STRATEGY, role=role, version_id=self.names[role],
                        from_time=START, reason="first pass", decided_by="system",
                    )
                )  # fmt: skip

    def add_signals(self) -> None:
        """Both models on every instrument and bar, and how far that has come."""
        seq, rows = 0, []
        for bar in range(self.bars):
            for symbol in PRICES:
                for role in ("champion", "challenger"):
                    seq += 1
                    rows.append(self._signal(seq, bar, symbol, role))
        with self.databases.control() as session:
            session.add_all(rows)
            session.add(MarketProgress(dataset_id=self.dataset_id, scored_through=self.now, last_seq=seq))

    def add_learning(self) -> None:
        """An experiment with evidence, and drift checks of which the newest asks for retraining."""
        blocks = 40
        times = [START + number * 3 * HOUR for number in range(blocks)]
        widths = [0.08 / math.sqrt(1 + number / 3) for number in range(blocks)]
        evidence = {
            "wanting": ["the lower bound does not clear 0.0", "5.0 of 7 days"],
            "series": {
                "time": [moment.isoformat() for moment in times],
                "mean": [0.004 for _ in times],
                "lower": [0.004 - width for width in widths],
                "upper": [0.004 + width for width in widths],
            },
        }
        with self.databases.control() as session:
            session.add(
                Experiment(
                    experiment_id=content_id("x", self.dataset_id), dataset_id=self.dataset_id, strategy_id=STRATEGY,
                    champion_id=self.names["champion"], challenger_id=self.names["challenger"], started_at=START,
                    samples=blocks, lower=0.004 - widths[-1], upper=0.004 + widths[-1], evidence=evidence,
                )
            )  # fmt: skip
            for number, decision in enumerate(("none", "warning", "retrain")):
                until = self.now - (2 - number) * 24 * HOUR
                session.add(self._drift(until, decision))
        with self.databases.control() as session:
            retrained = self._version("champion", "lightgbm", 0.6829)
            retrained.version_id = content_id("v", self.dataset_id, "retrained")
            retrained.parent_id, retrained.origin = self.names["champion"], "drift"
            session.add(retrained)

    def add_books(self) -> None:
        """Every trader's orders, fills, trades, equity and open position; engines that are alive."""
        for user_id, _, role, group in PEOPLE:
            if role == "trader":
                self._trade(user_id, GroupId(group), arm="champion" if user_id == "u_ann" else "challenger")
        for group in ("g1", "g2"):
            with self.databases.group(GroupId(group)) as session:
                session.merge(
                    EngineLease(
                        group_id=group, holder="host-1:4711", epoch=2, state="RUNNING",
                        expires_at=datetime.now(UTC) + 8 * HOUR,
                        detail={
                            "market_time": self.now.isoformat(), "cursor": self.bars,
                            "bans": {"day": "2026-11-20", "underlyings": ["SAIL"]} if group == "g1" else None,
                            "reconciliation": {
                                "at": self.now.isoformat(), "matches": group != "g2", "set_aside": int(group == "g2"), "open_outcomes": 0,
                                "foreign_orders": 3, "late_fills": 0,
                                "differences": ["a: 2 BTC held by the books, 1 at the venue"] if group == "g2" else [],
                            },
                        },
                    )
                )  # fmt: skip
            seal(self.databases, GroupId(group))

    def add_health(self) -> None:
        """Services that are alive, one that is not, and two alerts."""
        with self.databases.control() as session:
            for service in ("engine:g1", "engine:g2", f"scorer:{self.dataset_id}", "sandbox"):
                beat(session, service, "running", {"market_time": self.now.isoformat()})
            session.add(
                Lease(
                    name=f"scorer:{self.dataset_id}", holder="host-1:4712", epoch=1,
                    expires_at=datetime.now(UTC) + 8 * HOUR,
                )
            )  # fmt: skip
            raise_alert(
                session, severity="critical", source="engine:g1", title="Reconciliation differs",
                detail="1 order is at the venue and not in the books", labels={"user_id": "u_ann"},
            )  # fmt: skip
            raise_alert(
                session, severity="warning", source=f"collector:{self.dataset_id}", title="Bars are late",
                detail="BTC/USDT: nothing for 95 s",
            )  # fmt: skip

    # --- rows --------------------------------------------------------------------------------------------------------

    def _version(self, role: str, kind: str, loss: float) -> ModelVersion:
        edges = [0.38 + 0.02 * number for number in range(12)]
        return ModelVersion(
            version_id=self.names[role], dataset_id=self.dataset_id, strategy_id=STRATEGY, kind=kind, origin="initial",
            data_version="d1", feature_hash="f1", code_version="c1", lock_hash="l1", params={}, seed=7,
            trained_from=START - 9_000 * HOUR, trained_to=START - 13 * HOUR, rows=34_812, artifact_path="a",
            artifact_sha256="0" * 64, expires_at=self.now + 500 * HOUR,
            metrics={
                "accuracy": 0.5512, "base_rate": 0.4627, "log_loss": loss, "log_loss_base_rate": 0.6904, "brier": 0.246,
                "ece": 0.0121, "precision_at_80": None, "coverage_at_80": 0.0,
                "reliability": [
                    {
                        "lower": edge, "upper": edge + 0.02, "confidence": edge + 0.01, "weight": 900.0, "rows": 900,
                        "observed": edge + 0.01 + 0.02 * math.sin(5 * edge),
                    }
                    for edge in edges
                ],
            },
        )  # fmt: skip

    def _conditions(self, bar: int, symbol: str) -> dict[str, str]:
        number = bar // 24 + len(symbol)
        return {
            "volatility": ("low", "normal", "high")[number % 3],
            "trend": ("down", "sideways", "up")[(number // 2) % 3],
            "liquidity": ("thin", "normal", "deep")[bar // 7 % 3],
            "session": ("asia", "europe", "us")[bar % 24 // 8],
        }

    def _signal(self, seq: int, bar: int, symbol: str, role: str) -> Signal:
        at = START + (bar + 1) * HOUR
        confidence = min(max(self.random.gauss(0.48, 0.07), 0.2), 0.79)
        state = "outlier" if self.random.random() < 0.005 else "ok" if confidence >= 0.55 else "abstain"
        price = Decimal(f"{self.closes[symbol][bar + 1]:.6g}")
        return Signal(
            dataset_id=self.dataset_id, seq=seq, signal_id=content_id("s", self.dataset_id, seq), strategy_id=STRATEGY,
            version_id=self.names[role], role=role, symbol=symbol, bar_open_time=at - HOUR, available_at=at,
            price=price, state=state, probability=confidence, confidence=confidence, confidence_lower=confidence - 0.04,
            confidence_upper=confidence + 0.05, threshold=0.55, certified=False, direction="long",
            target_price=price * Decimal("1.015"), stop_price=price * Decimal("0.99"), exit_by=at + 12 * HOUR,
            expires_at=at + HOUR, **self._conditions(bar, symbol),
        )  # fmt: skip

    def _drift(self, until: datetime, decision: str) -> DriftReport:
        features = {
            f"{name}_{span}": {
                "statistic": 0.01 + 0.048 * self.random.random(),
                "threshold": 0.06, "p_value": self.random.random(), "drifted": False,
            }
            for name in ("return", "volatility", "volume_ratio", "range")
            for span in (6, 24, 96)
        }  # fmt: skip
        if decision == "retrain":
            features["volatility_24"] |= {"statistic": 0.11, "p_value": 0.001, "drifted": True}
        errors = {
            "retrain on error": {"state": "none", "since": None, "statistic": 0.4512},
            "warning on log_loss": {
                "state": "none" if decision == "none" else "warning", "statistic": 0.2311,
                "since": None if decision == "none" else (until - 9 * HOUR).isoformat(),
            },
            "loss beyond promise": {"state": "none", "since": None, "statistic": None},
            "precision of published": {
                "state": "warning", "since": None, "statistic": 0.512, "trades": 212, "precision": 0.512, "lower": 0.441,
                "upper": 0.583, "promised": 0.634, "against": 31.0, "certified_trades": 0, "against_certified": None,
            },
        }  # fmt: skip
        conditions = {
            "concept trend=up": {
                "condition": "trend", "value": "up", "question": "concept", "expected": 0.62, "found": 0.48,
                "p_value": 0.0004, "rows": 310, "drifted": True,
                "said": "While the trend is up the market no longer does what the model learnt.",
            },
            "data session=asia": {
                "condition": "session", "value": "asia", "question": "data", "expected": 0.31, "found": 0.33,
                "p_value": 0.4, "rows": 900, "drifted": False,
            },
        }  # fmt: skip
        return DriftReport(
            dataset_id=self.dataset_id, strategy_id=STRATEGY, version_id=self.names["champion"],
            window_from=until - 48 * HOUR, window_to=until, features=features, error=errors, decision=decision,
            conditions=conditions,
            run_key=content_id("drift", until.isoformat()),
        )  # fmt: skip

    def _trade(self, user_id: str, group: GroupId, arm: str) -> None:
        account = content_id("a", user_id, self.dataset_id)
        common: dict[str, Any] = {"user_id": user_id, "account_id": account}
        cash = Decimal(100_000)
        with self.databases.group(group) as session:
            session.add(Account(**common, venue="binance", kind="sandbox", dataset_id=self.dataset_id, currency="USDT"))
            session.flush()
            for number, (bar, symbol) in enumerate(self._entries()):
                out = min(bar + 1 + self.random.randrange(12), self.bars)
                bought, sold = (Decimal(f"{self.closes[symbol][at]:.6g}") for at in (bar, out))
                quantity = (Decimal(10_000) / bought).quantize(Decimal("0.00001"))
                gross, costs = quantity * (sold - bought), quantity * (sold + bought) / 1000
                cash += gross - costs
                key = content_id("i", user_id, self.dataset_id, number)
                for side, at, price in (("buy", bar, bought), ("sell", out, sold)):
                    session.add_all(
                        self._order(f"{key}-{side}", common, symbol, side, quantity, price, START + at * HOUR)
                    )
                    record(
                        session, **common, dataset_id=self.dataset_id, strategy_id=STRATEGY, actor="engine",
                        event_type="SEND", client_order_id=f"{key}-{side}", symbol=symbol, side=side, quantity=quantity,
                        market_time=START + at * HOUR,
                    )  # fmt: skip
                session.add(
                    Outcome(
                        **common, outcome_id=key, dataset_id=self.dataset_id, strategy_id=STRATEGY,
                        version_id=self.names[arm], arm=arm, symbol=symbol, contract=symbol, currency="USDT", certified=False,
                        # the signal of that bar and instrument, see add_signals
                        signal_id=content_id(
                            "s", self.dataset_id,
                            8 * bar + 2 * list(PRICES).index(symbol) + (1 if arm == "champion" else 2),
                        ),
                        confidence=0.55 + 0.01 * (number % 9), entry_time=START + bar * HOUR,
                        exit_time=START + out * HOUR, exit_reason="target" if gross > costs else "stop",
                        quantity=quantity, entry_price=bought, exit_price=sold, gross_pnl=gross, costs=costs,
                        net_pnl=gross - costs, net_return=float((gross - costs) / (quantity * bought)),
                        success=gross > costs, **self._conditions(bar, symbol),
                    )
                )  # fmt: skip
                session.merge(
                    EquityPoint(
                        **common, market_time=START + out * HOUR, cash=cash, positions_value=Decimal(0), equity=cash,
                        currency="USDT",
                    )
                )  # fmt: skip
            session.add_all(
                self._order(
                    f"{account}-rejected", common, "BNB/USDT", "buy", Decimal("0.0004"), None, self.now,
                )
            )  # fmt: skip
            last = Decimal(f"{self.closes[HELD][-1]:.6g}")
            session.add(
                Position(
                    **common, strategy_id=STRATEGY, symbol=HELD, quantity=Decimal("18934.1"),
                    average_price=last * Decimal("0.995"), realized_pnl=cash - Decimal(100_000), last_price=last,
                )
            )  # fmt: skip

    def _entries(self) -> Iterator[tuple[int, str]]:
        for bar in range(2, self.bars - 1, 3):
            yield bar, self.random.choice(list(PRICES))

    def _order(
        self, key: str, common: dict[str, Any], symbol: str, side: str, quantity: Decimal, price: Decimal | None,
        at: datetime,
    ) -> list[Any]:  # fmt: skip
        """A filled order with its fill; without a price, a rejected one."""
        wall = datetime.now(UTC)
        what: dict[str, Any] = {**common, "symbol": symbol, "side": side, "client_order_id": key}
        order = Order(
            **what, contract=symbol, intent_id=key, order_type="market", quantity=quantity, market_time=at, epoch=1, sent_at=wall,
            acknowledged_at=wall + timedelta(milliseconds=7), filled_quantity=quantity if price else Decimal(0),
            average_price=price, state="FILLED" if price else "REJECTED",
            reject_text=None if price else "Filter failure: NOTIONAL", reject_code=None if price else "-1013",
        )  # fmt: skip
        if price is None:
            return [order]
        return [
            order,
            Fill(
                **what, trade_id=key, price=price, quantity=quantity, fee=quantity * price / 1000, fee_currency="USDT",
                market_time=at,
            ),
        ]  # fmt: skip


def add_work(databases: Databases, **options: Any) -> Work:
    """A dataset and all that came of it."""
    work = Work(databases, **options)
    work.add_market()
    work.add_signals()
    work.add_learning()
    work.add_books()
    work.add_health()
    return work
