"""A deployment whose lake holds real hours of two symbols, with a champion and a challenger to score their tail."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.features.bars import real_hours
from trading_platform.features.definition import FEATURE_SETS, feature_hash
from trading_platform.features.reference import with_reference
from trading_platform.features.stream import History, compute
from trading_platform.identifiers import DatasetId, StrategyId, VersionId
from trading_platform.learning.artifact import write_artifact
from trading_platform.learning.outliers import fit_outliers
from trading_platform.learning.registry import deploy, register
from trading_platform.market_data.lake import Lake
from trading_platform.storage.control import Dataset, ModelVersion
from trading_platform.storage.databases import Databases

SYMBOLS = ("BTC/USDT", "ETH/USDT")
STRATEGY = StrategyId("barrier_long")
HISTORY, TAIL = 2_600, 300


@dataclass
class Market:
    """A dataset in the lake, and ways to put versions on it."""

    platform: Databases
    lake: Lake
    dataset_id: DatasetId
    bars: pl.DataFrame
    replay_from: datetime
    features: str = "standard"

    def dataset(self, kind: str = "files", dataset_id: str | None = None) -> DatasetId:
        """A row of control.datasets; the lake has the bars of `self.dataset_id` alone."""
        chosen = DatasetId(dataset_id or self.dataset_id)
        with self.platform.control() as session:
            session.add(
                Dataset(
                    dataset_id=chosen, kind=kind, venue="binance", source="test", interval_seconds=3600,
                    symbols={symbol: {} for symbol in SYMBOLS},
                    replay_from=None if kind == "venue" else self.replay_from,
                )
            )  # fmt: skip
        return chosen

    def version(self, version_id: str, *, seed: int = 0, dataset_id: str | None = None, **columns: object) -> VersionId:
        """Register a logistic model with weights of its own; the middle of its confidences is the threshold."""
        history = self.history(SYMBOLS[0])
        chosen = FEATURE_SETS[self.features]
        names = [feature.name for feature in chosen]
        known = history.matrix[np.isfinite(history.matrix).all(axis=1)]
        scale = np.where(np.ptp(known, axis=0) > 0.0, known.std(0), 1.0)
        weights = np.random.default_rng(seed).normal(0, 0.3, len(names))
        certified = bool(columns.pop("certified", False))
        document = {
            "kind": "logistic",
            "features": names,
            "feature_hash": columns.get("feature_hash", feature_hash(chosen)),
            "model": {"kind": "logistic", "mean": known.mean(0).tolist(), "scale": scale.tolist(),
                      "weights": weights.tolist(), "intercept": 0.0},
            "calibrator": {"method": "identity"},
            "venn_abers": None,
            "threshold": 0.5,
            "certified": certified,
            "outliers": fit_outliers(known, np.ones(len(names), dtype=bool)).document(),
        }  # fmt: skip
        path, sha256 = write_artifact(self.platform.settings.artifacts_dir, document)
        values: dict[str, object] = {
            "version_id": version_id, "dataset_id": dataset_id or self.dataset_id, "strategy_id": STRATEGY,
            "kind": "logistic", "origin": "initial", "data_version": "d", "feature_hash": document["feature_hash"],
            "code_version": "c", "lock_hash": "l", "params": {}, "seed": seed, "rows": len(known), "metrics": {},
            "artifact_path": path, "artifact_sha256": sha256, "certified": certified,
            "trained_to": self.replay_from - timedelta(hours=30),
        }  # fmt: skip
        with self.platform.control() as session:
            register(session, ModelVersion(**(values | columns)))
        return VersionId(version_id)

    def deploy(self, version_id: str, role: str = "champion", at: datetime | None = None) -> None:
        with self.platform.control() as session:
            deploy(
                session, self.platform.settings, dataset_id=self.dataset_id, strategy_id=STRATEGY, role=role,
                version_id=VersionId(version_id), market_time=at or self.replay_from, reason="test", by="test",
            )  # fmt: skip

    def history(self, symbol: str) -> History:
        """Features of all bars of a symbol, in one batch."""
        return compute(with_reference(self.bars).filter(pl.col("symbol") == symbol), FEATURE_SETS[self.features])


@pytest.fixture
def market(platform: Databases, market_data: Path) -> Market:
    lake = Lake(platform.settings.lake_dir)
    bars = pl.concat([real_hours(market_data, symbol)[-HISTORY:] for symbol in SYMBOLS])
    lake.write_bars(bars)
    replay_from = bars["open_time"].unique().sort()[-TAIL]
    return Market(platform, lake, DatasetId("files_test"), bars, replay_from)


@pytest.fixture
def served(market: Market) -> Market:
    """The market with a champion and a challenger deployed."""
    market.dataset()
    for number, role in enumerate(("champion", "challenger")):
        market.version(f"v_{role}", seed=number)
        market.deploy(f"v_{role}", role)
    return market
