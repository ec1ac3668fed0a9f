"""The compiled loop's charges against the exact schedules, and the order list's against a broker's published example."""

import json
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.backtest.made import PLAIN, bars, wishes
from trading_platform.backtest.charges import (
    KINDS,
    FlatSchedule,
    IndianSchedule,
    Schedule,
    SpotSchedule,
    charge_terms,
    total,
)
from trading_platform.backtest.kernel import FLAT, LONG, SHORT, Funds, charge_of
from trading_platform.backtest.simulation import run

D = Decimal
DAY = date(2026, 8, 3)
SCHEDULES: list[Schedule] = [
    SpotSchedule("binance"), SpotSchedule("bitfinex"), FlatSchedule(D("0.0007")),
    *(IndianSchedule(segment) for segment in ("delivery", "intraday", "futures", "options")),
]  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(SCHEDULES), st.sampled_from(range(4)), st.decimals("0.01", "90000000", places=2))
def test_the_loops_charge_is_the_schedules(schedule: Schedule, kind: int, value: Decimal) -> None:
    _, terms = charge_terms(schedule, np.array([DAY], dtype="datetime64[D]"))
    side, liquidity = KINDS[kind]
    exact = float(total(schedule, side, value, DAY, liquidity))
    assert charge_of(terms[0], kind, float(value)) == pytest.approx(exact, rel=1e-9, abs=1e-6)


def test_rates_change_with_the_day_of_the_order() -> None:
    """Futures: .02 % of the sale until March 2026, .05 % from April: on 1,000,000 that is 300 more."""
    days = np.array(["2026-03-30", "2026-03-30", "2026-04-01", "2026-04-02"], dtype="datetime64[D]")
    eras, terms = charge_terms(IndianSchedule("futures"), days)
    assert eras.tolist() == [0, 2]
    assert charge_of(terms[1], 1, 1e6) - charge_of(terms[0], 1, 1e6) == pytest.approx(300.0)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_charges_by_head_are_the_exact_ones_and_add_up_to_the_loops(schedule: Schedule) -> None:
    """Takers and makers, buys and sales, below and above the broker's cap, before and after a change of rates."""
    rng = np.random.default_rng(5)
    close = 500.0 * np.exp(np.cumsum(rng.normal(0, 0.02, 600)))
    made = bars([(price, price * 1.01, price * 0.99, price) for price in close])
    dates = np.datetime64("2026-03-20") + np.arange(len(close)) // 30
    made = replace(made, days=dates)
    wished = wishes(
        rng.choice([LONG, SHORT, FLAT], len(close)).tolist(), (close * 0.97).tolist(), (close * 1.02).tolist()
    )
    result = run(made, wished, PLAIN, Funds(1e7, 0.0, 0.9, 0.01, 0.0, False), schedule)
    assert {"target", "signal"} <= set(result.orders["reason"])
    charge = result.orders["charge"].to_numpy()
    np.testing.assert_allclose(sum(result.charges.values()), charge, rtol=1e-12, atol=1e-9)
    exact = result.itemised()
    assert set(exact["head"]) == {head for head, amounts in result.charges.items() if amounts.any()}
    for head, order, amount in exact.select("head", "order", "amount").iter_rows():
        assert result.charges[head][order] == pytest.approx(float(amount), rel=1e-9, abs=1e-6)


VECTORS = Path(__file__).resolve().parents[3] / "shared" / "design" / "zerodha-vectors.json"


@pytest.mark.skipif(not VECTORS.exists(), reason="the specification's vectors are not here (../shared/design)")
def test_round_trips_of_the_specification_net_to_the_paisa() -> None:
    """The published net of each round trip of equal sides, through the loop and through the order list."""
    played = 0
    for vector in json.loads(VECTORS.read_text())["charges"]:
        if vector["buy_qty"] != vector["sell_qty"] or (
            vector["expect"]["dp"] != "0" and vector["segment"] != "delivery"
        ):
            continue
        quantity, day = vector["buy_qty"], date.fromisoformat(vector["trade_date"])
        prices = [float(vector["buy_price"]), float(vector["sell_price"])]
        made = bars([(price,) * 4 for price in prices])
        made = replace(made, days=np.array([day, day], dtype="datetime64[D]"))
        funds = Funds(1e9, float(quantity), 0.0, 1.0, 0.0, False)
        result = run(made, wishes([LONG, FLAT]), PLAIN, funds, IndianSchedule(vector["segment"], vector["exchange"]))
        net = D(vector["expect"]["net"])
        assert result.trades["net"][0] == pytest.approx(float(net), abs=0.005), vector["id"]
        gross = (D(vector["sell_price"]) - D(vector["buy_price"])) * quantity
        assert gross - result.itemised()["amount"].sum() == pytest.approx(net, abs=D("0.000001")), vector["id"]
        played += 1
    assert played >= 3


def test_a_round_trip_in_shares_costs_what_the_order_list_itemises() -> None:
    """400 shares intraday, bought at 1,000 and sold at 1,100: the order list adds up to the loop's charges."""
    funds = Funds(1e6, 400.0, 0.0, 1.0, 0.0, False)
    result = run(bars([(1000,) * 4, (1100,) * 4]), wishes([LONG, FLAT]), PLAIN, funds, IndianSchedule("intraday"))
    items = result.itemised()
    assert set(items["head"]) == {"brokerage", "transaction_tax", "exchange", "sebi", "gst", "stamp"}
    assert float(items["amount"].sum()) == pytest.approx(result.order_rows[:, 5].sum(), abs=0.005)
    assert items.filter(items["head"] == "brokerage")["amount"].to_list() == [D(20), D(20)]
    assert result.trades["net"][0] == pytest.approx(40_000 - float(items["amount"].sum()))
    np.testing.assert_allclose(result.equity[-1] - 1e6, result.trades["net"][0])
