"""The strategies that ship for India: shares taken into delivery on daily bars, index futures on minutes.

Both are long or flat with the barriers of `barrier_long.py`; what differs is the cost of a trade, which labels are net of,
and how much of an account one position takes. An index is not for sale: its future is (`Intent.contract`).
"""

from decimal import Decimal

from trading_platform.identifiers import StrategyId
from trading_platform.learning.labels import BarrierSpec
from trading_platform.strategies.definition import StrategyDefinition

DELIVERY_LONG = StrategyDefinition(
    strategy_id=StrategyId("delivery_long"),
    description="Shares in delivery (CNC); profit and stop one 10-day deviation away; leaves after 10 days at the latest.",
    # Both sides of a delivery trade by data/charges.toml of 2026: .1189 % to buy, .1037 % to sell, without the
    # depository's 15.34 rupees a sale.
    barriers=BarrierSpec(profit_multiple=1.0, stop_multiple=1.0, horizon_bars=10, cost_per_side=0.0012),
    target_coverage=0.5,  # shares rise more often than they fall: every second bar is worth holding
    valid_bars=500,
    capital_fraction=Decimal("0.05"),
)
INDEX_FUTURES_LONG = StrategyDefinition(
    strategy_id=StrategyId("index_futures_long"),
    description="The index by its nearest future (NRML), paid in full; barriers one 30-minute deviation away.",
    # Futures of 2026: .05 % of the sale in tax, .002 % stamp on the purchase, about .005 % a side for the rest.
    barriers=BarrierSpec(profit_multiple=1.0, stop_multiple=1.0, horizon_bars=30, cost_per_side=0.0003),
    target_coverage=0.05,
    valid_bars=50_000,
    capital_fraction=Decimal("0.3"),
)
