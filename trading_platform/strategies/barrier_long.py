"""The strategy that ships: go long where the calibrated chance of a net profit is high enough, leave at a barrier.

Barriers are symmetric, one deviation of the 12-bar horizon away: before costs a coin would be right about half the
time, so whatever precision the model shows above its base rate is its own. Costs are Binance spot's 0.1 % a side.
"""

from decimal import Decimal

from trading_platform.identifiers import StrategyId
from trading_platform.learning.labels import BarrierSpec
from trading_platform.strategies.definition import StrategyDefinition

BARRIER_LONG = StrategyDefinition(
    strategy_id=StrategyId("barrier_long"),
    description="Long or flat; profit and stop one 12-bar deviation away; leaves after 12 bars at the latest.",
    barriers=BarrierSpec(profit_multiple=1.0, stop_multiple=1.0, horizon_bars=12, cost_per_side=0.001),
    target_coverage=0.2,
    valid_bars=5_000,
    capital_fraction=Decimal("0.1"),
)
