"""Strategies on bars of whole numbers, with the statistics they had and the hash of their order list.

A change here is a change of what strategies do: it is made on purpose, with the new figures and the reason in the commit.
"""

import numpy as np
import pytest

from tests.backtest.made import MINUTE, ONE, PLAIN, bars
from trading_platform.backtest.charges import IndianSchedule, Schedule, SpotSchedule
from trading_platform.backtest.kernel import Funds, Rules
from trading_platform.backtest.simulation import Backtest, run
from trading_platform.backtest.statistics import figures
from trading_platform.backtest.strategies import sma_cross

COUNT = 20_000


def walk() -> np.ndarray:
    """(open, high, low, close) in quarters; a linear congruential generator is the same on every machine."""
    state, steps = 12_345, []
    for _ in range(COUNT * 3):
        state = (1_103_515_245 * state + 12_345) % 2**31
        steps.append(state >> 16)
    draws = np.array(steps).reshape(COUNT, 3)
    close = 40_000 + np.cumsum(draws[:, 0] % 101 - 50)
    opened = np.concatenate([[40_000], close[:-1]]) + draws[:, 1] % 11 - 5
    high = np.maximum(opened, close) + draws[:, 2] % 23
    low = np.minimum(opened, close) - draws[:, 2] // 23 % 23
    return np.column_stack([opened, high, low, close]) / 4.0


def played(rules: Rules, funds: Funds, schedule: Schedule) -> Backtest:
    made = bars(walk().tolist())
    close = made.market.close
    return run(made, sma_cross(close, 20, 80, close - 64.0, close + 128.0), rules, funds, schedule)


PATIENT = PLAIN._replace(reenter=False, next_open=True, horizon=300 * MINUTE, slippage=2.0**-12)
EXPECTED = {
    "spot": (
        PATIENT,
        ONE._replace(cash=100_000.0, quantity=2.0),
        SpotSchedule("binance"),
        173,
        -9530.84,
        "372e4fba9aff2be7",
    ),
    "intraday": (
        PLAIN,
        ONE._replace(cash=1e6, quantity=40.0),
        IndianSchedule("intraday"),
        193,
        -62136.29,
        "fee06af55411a702",
    ),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_strategy_does_what_it_did(name: str) -> None:
    rules, funds, schedule, trades, net, order_hash = EXPECTED[name]
    result = played(rules, funds, schedule)
    assert len(result.trades) == trades
    assert figures([result]).net == pytest.approx(net, abs=0.005)
    assert result.order_hash[:16] == order_hash
