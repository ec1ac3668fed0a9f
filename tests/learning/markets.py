"""Markets made up for tests, and the simple strategy that learns from them."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sqlalchemy import func, insert, select

from trading_platform.identifiers import DatasetId, StrategyId, content_id
from trading_platform.learning.calibration import fit_sigmoid
from trading_platform.learning.labels import BarrierSpec
from trading_platform.learning.plan import SymbolFeatures, TrainingPlan
from trading_platform.learning.samples import label_symbol
from trading_platform.market_data.lake import Lake
from trading_platform.storage.control import Dataset, ModelVersion, Signal
from trading_platform.storage.databases import Databases

START = datetime(2024, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
BARRIERS = BarrierSpec(profit_multiple=1.5, stop_multiple=1.5, horizon_bars=6, cost_per_side=0.0002)
NAMES = ("momentum_1", "momentum_6", "volume", "range", "volatility")


def walk(
    bars: int, seed: int, signal: float = 0.0, sign: NDArray[np.float64] | float = 1.0
) -> dict[str, NDArray[np.float64]]:
    """Prices and volumes of a random walk with 1 % steps.

    With `signal`, the volume of a bar tells (in units of a step) where the next six bars drift; `sign` may turn the
    meaning round over time, which is a planted drift.
    """
    rng = np.random.default_rng(seed)
    hint = rng.normal(size=bars)
    drift = np.zeros(bars)
    for lag in range(1, 7):
        drift[lag:] += hint[:-lag] / 6.0
    returns = 0.01 * (rng.normal(size=bars) + signal * drift * sign)
    close = 100.0 * np.exp(np.cumsum(returns))
    return {"close": close, "volume": np.exp(hint)}


def frame(dataset_id: str, symbol: str, close: NDArray[np.float64], volume: NDArray[np.float64]) -> pl.DataFrame:
    """A bar frame of hourly bars from `START`."""
    opened = [START + i * HOUR for i in range(len(close))]
    before = np.concatenate([close[:1], close[:-1]])
    return pl.DataFrame(
        {
            "dataset_id": dataset_id,
            "venue": "test",
            "symbol": symbol,
            "interval_seconds": 3600,
            "open_time": opened,
            "open": before,
            "high": np.maximum(before, close) * 1.001,
            "low": np.minimum(before, close) * 0.999,
            "close": close,
            "volume": volume,
            "session_date": [moment.date() for moment in opened],
            "available_at": [moment + HOUR for moment in opened],
            "revision": 0,
            "source": "made up",
        }
    ).with_columns(pl.col("open_time", "available_at").cast(pl.Datetime("us", "UTC")))


def features(bars: pl.DataFrame) -> SymbolFeatures:
    """Five point-in-time features; volatility is that of the last 50 returns."""
    logs = bars["close"].log()
    change = logs.diff()
    volatility = change.rolling_std(50).to_numpy()
    matrix = np.column_stack(
        [
            change.to_numpy(),
            logs.diff(6).to_numpy(),
            bars["volume"].log().to_numpy(),
            (bars["high"] / bars["low"]).log().to_numpy(),
            volatility,
        ]
    )
    calm = np.where(np.nan_to_num(volatility) > np.nanmedian(volatility), "high", "low")
    hour = bars["open_time"].dt.hour().to_numpy()
    return SymbolFeatures(
        matrix=matrix,
        barrier_volatility=volatility * np.sqrt(3.0),
        conditions={
            "volatility": calm,
            "trend": np.full(len(bars), "flat"),
            "liquidity": np.full(len(bars), "normal"),
            "session": np.where(hour < 12, "first half", "second half"),
        },
    )


PLAN = TrainingPlan(
    strategy_id=StrategyId("test_long"),
    barriers=BARRIERS,
    features=NAMES,
    feature_hash=content_id("f", *NAMES),
    compute=features,
    target_coverage=0.1,
    valid_bars=2_000,
)


def publish(
    databases: Databases,
    dataset_id: DatasetId,
    bars: pl.DataFrame,
    versions: dict[str, tuple[str, NDArray[np.float64]]],
    threshold: float = 0.55,
    *,
    certified: bool = False,
) -> None:
    """Write signals as the scorer does: {version: (role, confidence of each bar)}; `bars` of one symbol each."""
    computed = features(bars)
    volatility = np.nan_to_num(computed.barrier_volatility, nan=0.02).tolist()
    close, opened, available = bars["close"].to_list(), bars["open_time"].to_list(), bars["available_at"].to_list()
    symbol = bars["symbol"][0]
    with databases.control() as session:
        seq = session.scalar(select(func.max(Signal.seq)).where(Signal.dataset_id == dataset_id)) or 0
        rows = []
        for version_id, (role, confidence) in versions.items():
            for i, value in enumerate(confidence.tolist()):
                seq += 1
                rows.append(
                    {
                        "dataset_id": dataset_id,
                        "seq": seq,
                        "signal_id": content_id("s", version_id, symbol, opened[i]),
                        "strategy_id": PLAN.strategy_id,
                        "version_id": version_id,
                        "role": role,
                        "symbol": symbol,
                        "bar_open_time": opened[i],
                        "available_at": available[i],
                        "price": Decimal(repr(close[i])),
                        "state": "ok" if value >= threshold else "abstain",
                        "probability": value,
                        "confidence": value,
                        "confidence_lower": value,
                        "confidence_upper": value,
                        "threshold": threshold,
                        "certified": certified and value >= threshold,
                        "direction": "long",
                        "target_price": Decimal(repr(BARRIERS.target_price(close[i], volatility[i]))),
                        "stop_price": Decimal(repr(BARRIERS.stop_price(close[i], volatility[i]))),
                        "exit_by": BARRIERS.exit_by(available[i], 3600),
                        "expires_at": available[i] + HOUR,
                        "volatility": str(computed.conditions["volatility"][i]),
                        "trend": "flat",
                        "liquidity": "normal",
                        "session": str(computed.conditions["session"][i]),
                    }
                )
        session.execute(insert(Signal), rows)


def informed(bars: pl.DataFrame, until: int) -> NDArray[np.float64]:
    """Confidences of a model that knows what volume means, calibrated on the first `until` bars of one symbol."""
    labels = label_symbol(bars, features(bars).barrier_volatility, PLAN)
    known = labels.resolved[:until]
    odds = bars["volume"].log().to_numpy()
    scores = 1.0 / (1.0 + np.exp(-odds))
    return fit_sigmoid(scores[:until][known], labels.label[:until][known]).many(scores)


def version_row(dataset_id: str, version_id: str, **columns: Any) -> ModelVersion:
    """A registry row for tests that need no artifact."""
    return ModelVersion(
        **{
            "version_id": version_id,
            "dataset_id": dataset_id,
            "strategy_id": PLAN.strategy_id,
            "kind": "logistic",
            "origin": "initial",
            "data_version": "data",
            "feature_hash": PLAN.feature_hash,
            "code_version": "code",
            "lock_hash": "lock",
            "params": {},
            "seed": 1,
            "rows": 1,
            "metrics": {},
            "artifact_path": "none",
            "artifact_sha256": "none",
            **columns,
        }
    )


def plant(databases: Databases, lake: Lake, markets: dict[str, dict[str, NDArray[np.float64]]], name: str) -> DatasetId:
    """Put markets {symbol: prices} into lake and registry as one dataset."""
    dataset_id = DatasetId(name)
    for symbol, prices in markets.items():
        lake.write_bars(frame(dataset_id, symbol, prices["close"], prices["volume"]))
    with databases.control() as session:
        session.add(
            Dataset(
                dataset_id=dataset_id, kind="synthetic", venue="test", source="test", interval_seconds=3600, symbols={}
            )
        )
    return dataset_id
