"""Bars and a plan for an evaluation, straight from files: no lake, no database, no strategy."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from trading_platform.features.definition import FEATURE_SETS, feature_hash
from trading_platform.features.reference import with_reference
from trading_platform.features.stream import compute
from trading_platform.identifiers import StrategyId, content_id
from trading_platform.learning.labels import BarrierSpec
from trading_platform.learning.plan import SymbolFeatures, TrainingPlan
from trading_platform.market_data.quality import judge
from trading_platform.market_data.reading import ReadOptions, read
from trading_platform.market_data.resampling import resample
from trading_platform.market_data.tables import UnreadableFileError
from trading_platform.markets.calendars import DAY_SECONDS

COSTS = {"binance": 0.001, "nse": 0.0003, "nse, daily": 0.0012}
"""Cost a side as a fraction of notional: Binance spot's 0.1 %; Indian index futures (tax on the sale .05 %, stamp .002 %,
about .005 % a side for the rest) and, for daily bars, shares in delivery (.1189 % to buy, .1037 % to sell)."""
DEFAULT_COST = 0.001


@dataclass(frozen=True)
class EvaluationBars:
    """Bars of one venue and interval. `data_id`: content of the bars; `notes`: what was guessed and set aside."""

    bars: pl.DataFrame
    data_id: str
    venue: str
    interval_seconds: int
    notes: list[str]


def bars_of_files(path: Path, interval_seconds: int | None, options: ReadOptions = ReadOptions()) -> EvaluationBars:
    """Read, judge and resample the OHLCV files at `path` (see `market_data/reading.py` for what is understood).

    Raises `UnreadableFileError` where nothing can be read, ValueError where the bars are longer than `interval_seconds`.
    """
    batches, left_out = read(path, options)
    found = judge(batches, "evaluation", accept_loss=options.accept_loss)
    if found.bars.is_empty():
        raise UnreadableFileError(f"{path}: no bar is left of {found.rows:,} rows: {dict(found.reasons)}")
    bars = found.bars.sort("symbol", "open_time")
    notes = sorted({note for batch in batches for note in batch.notes})
    notes += [f"{name} left out: {why}" for name, why in left_out.items()]
    notes += [f"{count:,} rows set aside: {reason}" for reason, count in sorted(found.reasons.items())]
    have = int(bars["interval_seconds"][0])
    if interval_seconds is not None and have != interval_seconds:
        bars = resample(bars, interval_seconds)
        notes.append(f"bars of {have} s put together to bars of {interval_seconds} s")
    digest = bars.select("symbol", "open_time", "open", "high", "low", "close", "volume").hash_rows(seed=0).sum()
    return EvaluationBars(
        bars, content_id("bars", len(bars), digest), str(bars["venue"][0]), int(bars["interval_seconds"][0]), notes
    )


def cost_per_side(venue: str, interval_seconds: int) -> float:
    """What trading costs on the venue, a fraction of notional a side (see `COSTS`)."""
    return COSTS.get(f"{venue}, daily" if interval_seconds >= DAY_SECONDS else venue, COSTS.get(venue, DEFAULT_COST))


def plan_of(barriers: BarrierSpec, coverage: float, features: str = "standard") -> TrainingPlan:
    """A feature set of the platform's with these barriers, in units of the volatility over the horizon."""
    chosen = FEATURE_SETS[features]

    def compute_symbol(bars: pl.DataFrame) -> SymbolFeatures:
        history = compute(bars, chosen)
        volatility = history.barrier_volatility(barriers.horizon_bars)
        return SymbolFeatures(history.matrix, np.asarray(volatility), history.conditions)

    return TrainingPlan(
        strategy_id=StrategyId("evaluation"),
        barriers=barriers,
        features=tuple(feature.name for feature in chosen),
        feature_hash=feature_hash(chosen),
        compute=compute_symbol,
        target_coverage=coverage,
        valid_bars=1,
        prepare=with_reference,
    )
