"""What a strategy is: where its trades end, how often it wants to act, how much it stakes; and where it is configured.

A definition comes from code, announced by the entry point `trading_platform.strategies`. What may be tuned without a
release is overridden by the newest row of `control.strategy_configs`, whose older rows are the history.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from importlib.metadata import entry_points
from typing import Any

import polars as pl
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from trading_platform.features.definition import FEATURE_SETS, feature_hash
from trading_platform.features.reference import with_reference
from trading_platform.features.stream import compute
from trading_platform.identifiers import StrategyId, Symbol
from trading_platform.learning.labels import BarrierSpec
from trading_platform.learning.plan import SymbolFeatures, TrainingPlan
from trading_platform.markets.instruments import is_index
from trading_platform.storage.control import Dataset, StrategyConfig

ENTRY_POINTS = "trading_platform.strategies"


class StrategyError(ValueError):
    """No such strategy, or a configuration it does not understand."""


@dataclass(frozen=True)
class StrategyDefinition:
    """A long-or-flat strategy on the platform's feature set.

    `barriers` are in units of the bar's volatility over the horizon (`Row.barrier_volatility`), the same number in
    labels, signals and exits. The threshold on confidence is the certified one where a version is certified;
    elsewhere it is chosen in validation so that `target_coverage` of the bars are traded, and signals are marked
    uncertified. `valid_bars`: intervals after which a version's signals expire; `capital_fraction`: default share of
    equity in one position.
    """

    strategy_id: StrategyId
    description: str
    barriers: BarrierSpec
    target_coverage: float
    valid_bars: int
    capital_fraction: Decimal
    features: str = "standard"
    """The feature set it learns and is scored from, by its name in `FEATURE_SETS`."""


def training_plan(strategy: StrategyDefinition) -> TrainingPlan:
    """What learning needs to know of a strategy: barriers, features, how often it trades, how long a model is good."""
    chosen = FEATURE_SETS[strategy.features]

    def compute_symbol(bars: pl.DataFrame) -> SymbolFeatures:
        history = compute(bars, chosen)
        volatility = history.barrier_volatility(strategy.barriers.horizon_bars)
        return SymbolFeatures(history.matrix, volatility, history.conditions)

    return TrainingPlan(
        strategy_id=strategy.strategy_id,
        barriers=strategy.barriers,
        features=tuple(feature.name for feature in chosen),
        feature_hash=feature_hash(chosen),
        compute=compute_symbol,
        target_coverage=strategy.target_coverage,
        valid_bars=strategy.valid_bars,
        prepare=with_reference,
    )


def strategy_of(session: Session, dataset_id: str) -> StrategyDefinition:
    """The strategy that ships for a dataset's market, with its configuration in force."""
    dataset = session.get_one(Dataset, dataset_id)
    return strategy(_shipped_for(dataset.venue, [Symbol(name) for name in dataset.symbols]), session)


def _shipped_for(venue: str, symbols: Sequence[Symbol]) -> str:
    if venue != "nse":
        return "barrier_long"
    return "index_futures_long" if all(is_index(symbol) for symbol in symbols) else "delivery_long"


def installed() -> list[str]:
    """Ids of the strategies that are installed, in order."""
    return sorted(entry.name for entry in entry_points(group=ENTRY_POINTS))


def strategy(strategy_id: str, session: Session | None = None) -> StrategyDefinition:
    """The definition in force: the code's, with the newest configuration row applied where a session is given."""
    found = {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}
    if strategy_id not in found:
        raise StrategyError(f"no strategy {strategy_id!r}; installed: {', '.join(sorted(found)) or 'none'}")
    definition: StrategyDefinition = found[strategy_id].load()
    if session is None:
        return definition
    newest = session.scalars(
        select(StrategyConfig.config)
        .where(StrategyConfig.strategy_id == strategy_id)
        .order_by(StrategyConfig.revision.desc())
        .limit(1)
    ).one_or_none()
    return definition if newest is None else configured(definition, newest)


def configured(definition: StrategyDefinition, config: Mapping[str, Any]) -> StrategyDefinition:
    """The definition with a configuration applied. Raises `StrategyError`, naming what is wrong and what is known."""
    known = {"barriers", "target_coverage", "valid_bars", "capital_fraction"}
    if unknown := set(config) - known:
        raise StrategyError(f"{definition.strategy_id} has no setting {sorted(unknown)}; it has {sorted(known)}")
    try:
        barriers = BarrierSpec(**(asdict(definition.barriers) | dict(config.get("barriers", {}))))
        changed = replace(
            definition,
            barriers=barriers,
            target_coverage=float(config.get("target_coverage", definition.target_coverage)),
            valid_bars=int(config.get("valid_bars", definition.valid_bars)),
            capital_fraction=Decimal(str(config.get("capital_fraction", definition.capital_fraction))),
        )
    except (TypeError, ValueError, ArithmeticError) as problem:
        raise StrategyError(f"{definition.strategy_id}: {problem}") from problem
    if not (0 < changed.target_coverage <= 1 and 0 < changed.capital_fraction <= 1 and changed.valid_bars > 0):
        raise StrategyError(
            f"{definition.strategy_id}: target_coverage and capital_fraction lie in (0, 1], valid_bars above 0; got "
            f"{changed.target_coverage}, {changed.capital_fraction}, {changed.valid_bars}"
        )
    return changed


def configure(session: Session, strategy_id: str, config: Mapping[str, Any], changed_by: str) -> int:
    """Write a new revision of a strategy's configuration; returns its number.

    `config` replaces the one before as a whole; what it leaves out is as in code. It decides the next training and the
    stakes of new positions; a version that serves keeps the barriers it was trained with. Raises `StrategyError` on a
    configuration that is not understood.
    """
    configured(strategy(strategy_id), config)
    session.execute(text("select pg_advisory_xact_lock(hashtext(:name))"), {"name": f"strategy_configs:{strategy_id}"})
    newest = session.scalar(select(func.max(StrategyConfig.revision)).where(StrategyConfig.strategy_id == strategy_id))
    revision = (newest or 0) + 1
    session.add(StrategyConfig(strategy_id=strategy_id, revision=revision, config=dict(config), changed_by=changed_by))
    return revision
