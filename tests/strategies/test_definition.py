"""Strategies: found by entry point, configured with history, one volatility in labels and signals."""

from datetime import timedelta
from decimal import Decimal

import numpy as np
import polars as pl
import pytest
from sqlalchemy import select

from tests.strategies.conftest import Market
from trading_platform.features.definition import NAMES, feature_hash
from trading_platform.features.stream import SymbolStream
from trading_platform.identifiers import Venue
from trading_platform.learning.samples import label_symbol
from trading_platform.market_data.bar import Bar
from trading_platform.storage.control import StrategyConfig
from trading_platform.storage.databases import Databases
from trading_platform.strategies.barrier_long import BARRIER_LONG
from trading_platform.strategies.definition import StrategyError, configure, installed, strategy, training_plan


def test_the_default_strategy_is_installed() -> None:
    assert "barrier_long" in installed()
    assert strategy("barrier_long") == BARRIER_LONG
    with pytest.raises(StrategyError, match="barrier_long"):
        strategy("no_such_strategy")


def test_the_newest_configuration_is_in_force_and_the_older_ones_are_history(platform: Databases) -> None:
    with platform.control() as session:
        assert strategy("barrier_long", session) == BARRIER_LONG
        assert configure(session, "barrier_long", {"barriers": {"horizon_bars": 24}}, "ann") == 1
        assert configure(session, "barrier_long", {"capital_fraction": "0.05", "target_coverage": 0.2}, "bob") == 2
    with platform.control() as session:
        now = strategy("barrier_long", session)
        rows = session.scalars(select(StrategyConfig).order_by(StrategyConfig.revision)).all()
    assert (now.barriers, now.capital_fraction, now.target_coverage) == (BARRIER_LONG.barriers, Decimal("0.05"), 0.2)
    assert [(row.revision, row.changed_by) for row in rows] == [(1, "ann"), (2, "bob")]
    assert rows[0].config == {"barriers": {"horizon_bars": 24}}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"leverage": 10}, "leverage"),
        ({"barriers": {"horizon_bars": 0}}, "horizon_bars"),
        ({"barriers": {"horizon": 3}}, "horizon"),
        ({"capital_fraction": "1.5"}, "capital_fraction"),
        ({"capital_fraction": "much"}, "barrier_long"),
        ({"valid_bars": 0}, "valid_bars"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused_and_leaves_no_row(
    platform: Databases, config: dict[str, object], said: str
) -> None:
    with platform.control() as session, pytest.raises(StrategyError, match=said):
        configure(session, "barrier_long", config, "ann")
    with platform.control() as session:
        assert session.scalars(select(StrategyConfig)).all() == []


def test_labels_and_live_rows_set_their_barriers_with_the_same_number(market: Market) -> None:
    """A label's exit is the first close beyond the barriers that the live row of its bar would have announced."""
    plan = training_plan(BARRIER_LONG)
    assert (plan.features, plan.feature_hash) == (NAMES, feature_hash())
    bars = market.bars.filter(pl.col("symbol") == "BTC/USDT")
    features = plan.compute(bars)
    labels = label_symbol(bars, features.barrier_volatility, plan)
    close, available = bars["close"].to_list(), bars["available_at"].to_list()
    stream = SymbolStream(Venue("binance"), 3600)
    compared = 0
    for number, values in enumerate(bars.head(900).iter_rows(named=True)):
        volatility = stream.push(Bar(**values)).barrier_volatility(12)
        assert np.array_equal(volatility, features.barrier_volatility[number], equal_nan=True)
        if not np.isfinite(volatility):
            assert labels.label[number] == -1
            continue
        target = plan.barriers.target_price(close[number], volatility)
        stop = plan.barriers.stop_price(close[number], volatility)
        end = number + 1
        while not (
            close[end] >= target or close[end] <= stop or available[end] >= available[number] + timedelta(hours=12)
        ):
            end += 1
        assert labels.end_index[number] == end
        compared += 1
    assert compared == 501
