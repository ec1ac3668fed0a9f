"""What happens inside a bar, worked out by hand; and what must hold for every run."""

import importlib.util
import sys
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.backtest.made import FREE, MINUTE, ONE, PLAIN, START, bars, orders, play, wishes
from trading_platform.backtest.charges import FlatSchedule
from trading_platform.backtest.kernel import FLAT, HOLD, LONG, SHORT, Funds
from trading_platform.backtest.simulation import NONE, finer_bars, run
from trading_platform.backtest.strategies import sma_cross

PEERS = Path(__file__).resolve().parents[3] / "shared" / "peers_bench"
ENTERED = (100, 101, 99, 100)
"""A long with stop 95 and target 110 is entered at this bar's close."""


def long_then(*later: tuple[float, float, float, float]) -> list[tuple[int, str, float, str]]:
    count = len(later) + 1
    return orders(
        play([ENTERED, *later], wishes([LONG] + [HOLD] * len(later), [95.0] * count, [110.0] * count))
    )[1:]  # fmt: skip


@pytest.mark.parametrize(
    ("bar", "found"),
    [
        ((100, 109.99, 95.01, 100), []),
        ((100, 104, 95, 96), [(1, "sell", 95.0, "stop")]),  # touched is reached
        ((100, 110, 99, 105), [(1, "sell", 110.0, "target")]),
        ((94, 97, 93, 96), [(1, "sell", 94.0, "stop")]),  # a gap through the stop fills at the open
        ((95, 97, 93, 96), [(1, "sell", 95.0, "stop")]),
        ((112, 115, 111, 113), [(1, "sell", 112.0, "target")]),  # and through the target, for better
        ((94, 120, 93, 119), [(1, "sell", 94.0, "stop")]),  # the open came first
        ((112, 120, 90, 91), [(1, "sell", 112.0, "target")]),
        ((100, 111, 94, 100), [(1, "sell", 95.0, "stop")]),  # both inside: the stop
    ],
)
def test_a_long_inside_one_bar(
    bar: tuple[float, float, float, float], found: list[tuple[int, str, float, str]]
) -> None:
    assert long_then(bar) == found


@pytest.mark.parametrize(
    ("bar", "found"),
    [
        ((100, 105, 92, 101), [(1, "buy", 105.0, "stop")]),
        ((107, 108, 100, 101), [(1, "buy", 107.0, "stop")]),
        ((100, 104, 90, 101), [(1, "buy", 90.0, "target")]),
        ((88, 91, 87, 90), [(1, "buy", 88.0, "target")]),
        ((100, 105, 90, 101), [(1, "buy", 105.0, "stop")]),
    ],
)
def test_a_short_inside_one_bar(
    bar: tuple[float, float, float, float], found: list[tuple[int, str, float, str]]
) -> None:
    result = play([ENTERED, bar], wishes([SHORT, HOLD], [105.0] * 2, [90.0] * 2))
    assert orders(result)[1:] == found


@pytest.mark.parametrize(
    ("fine", "found"),
    [
        ([(100, 111, 99, 108), (108, 109, 94, 96)], (1, "sell", 110.0, "target")),
        ([(100, 103, 94, 96), (96, 111, 95.5, 100)], (1, "sell", 95.0, "stop")),
        ([(100, 103, 96, 97), (93, 111, 92, 100)], (1, "sell", 93.0, "stop")),  # it opens beyond the stop
        ([(100, 111, 94, 100), (100, 100, 100, 100)], (1, "sell", 95.0, "stop")),  # no finer bar tells either
    ],
)
def test_finer_bars_say_which_barrier_came_first(
    fine: list[tuple[float, float, float, float]], found: tuple[int, str, float, str]
) -> None:
    low, high = min(row[2] for row in fine), max(row[1] for row in fine)
    coarse = bars([ENTERED, (100, high, low, fine[-1][3])])
    inside = bars([(100, 101, 99, 100), (100, 101, 99, 100), *fine], step=MINUTE // 2)
    result = run(
        coarse, wishes([LONG, HOLD], [95.0] * 2, [110.0] * 2), PLAIN, ONE, FREE, finer_bars(coarse, inside)
    )  # fmt: skip
    assert orders(result)[1] == found


def test_an_order_that_waits_for_the_open_gets_the_open_and_its_barriers_count_in_that_bar() -> None:
    rules = PLAIN._replace(next_open=True)
    rows = [ENTERED, (102, 103, 94, 101), (101, 101, 101, 101)]
    result = play(rows, wishes([LONG, HOLD, HOLD], [95.0] * 3, [110.0] * 3), rules)
    assert orders(result) == [(1, "buy", 102.0, "entry"), (1, "sell", 95.0, "stop")]
    gapped = play([ENTERED, (90, 91, 89, 90)], wishes([LONG, HOLD], [95.0] * 2), rules)
    assert orders(gapped) == [(1, "buy", 90.0, "entry"), (1, "sell", 90.0, "stop")]


def test_on_closes_the_range_of_a_bar_does_not_count() -> None:
    rows = [ENTERED, (100, 120, 80, 100), (100, 111, 99, 110), (110, 110, 110, 110)]
    result = play(rows, wishes([LONG, HOLD, HOLD, HOLD], [95.0] * 4, [110.0] * 4), PLAIN._replace(intrabar=False))
    assert orders(result) == [(0, "buy", 100.0, "entry"), (2, "sell", 110.0, "target")]


def test_the_time_barrier_is_a_moment_of_market_time() -> None:
    rows = [ENTERED] * 5
    for horizon, bar in ((2 * MINUTE, 2), (2 * MINUTE + 1, 3), (1, 1)):
        result = play(rows, wishes([LONG] + [HOLD] * 4), PLAIN._replace(horizon=horizon))
        assert orders(result)[1] == (bar, "sell", 100.0, "time")


def test_a_bar_that_is_not_over_decides_nothing_but_can_reach_a_stop() -> None:
    partial = PLAIN._replace(partial_last=True)
    assert orders(play([ENTERED], wishes([LONG]), partial)) == []
    held = play([ENTERED, (100, 101, 94, 97)], wishes([LONG, FLAT], [95.0] * 2), partial)
    assert orders(held)[1:] == [(1, "sell", 95.0, "stop")]
    open_still = play([ENTERED, (100, 101, 96, 97)], wishes([LONG, FLAT], [95.0] * 2), partial)
    assert orders(open_still)[1:] == []
    assert open_still.equity[-1] == 10_000.0 - 3.0  # marked at the last price


def test_a_stopped_trade_is_entered_again_only_on_a_new_intention_if_so_ruled() -> None:
    rows = [ENTERED, (100, 100, 94, 96), ENTERED, ENTERED, ENTERED]
    wished = wishes([LONG, LONG, LONG, FLAT, LONG], [95.0] * 5)
    again = [found[0] for found in orders(play(rows, wished)) if found[1] == "buy"]
    once = [found[0] for found in orders(play(rows, wished, PLAIN._replace(reenter=False))) if found[1] == "buy"]
    assert (again, once) == ([0, 1, 4], [0, 4])


def test_a_signal_against_the_position_turns_it_round_at_one_price() -> None:
    result = play([ENTERED, (100, 104, 100, 104), (104, 104, 90, 90)], wishes([LONG, SHORT, FLAT]))
    assert orders(result) == [
        (0, "buy", 100.0, "entry"), (1, "sell", 104.0, "signal"), (1, "sell", 104.0, "entry"), (2, "buy", 90.0, "signal"),
    ]  # fmt: skip
    assert result.trades["net"].to_list() == [4.0, 14.0]


def test_slippage_is_against_market_and_stop_orders_and_spares_targets() -> None:
    rules = PLAIN._replace(slippage=0.01)
    result = play([ENTERED, (100, 111, 99, 105)], wishes([LONG, HOLD], None, [110.0] * 2), rules)
    assert orders(result) == [(0, "buy", 101.0, "entry"), (1, "sell", 110.0, "target")]
    stopped = play([ENTERED, (100, 101, 94, 96)], wishes([LONG, HOLD], [95.0] * 2), rules)
    assert orders(stopped)[1] == (1, "sell", pytest.approx(94.05), "stop")


def test_sizes_are_whole_steps_and_an_entry_that_cannot_be_paid_is_refused() -> None:
    funds = Funds(cash=1_000.0, quantity=0.0, fraction=0.5, step=0.3, minimum_notional=0.0, fee_in_base=False)
    assert play([(10, 10, 10, 10)], wishes([LONG]), funds=funds).orders["quantity"].to_list() == [pytest.approx(49.8)]
    exact = funds._replace(step=0.1)  # 50 / 0.1 is a whole number though 0.1 is no binary one
    assert play([(10, 10, 10, 10)], wishes([LONG]), funds=exact).orders["quantity"].to_list() == [pytest.approx(50.0)]
    for minimum, count in ((500.0, 1), (500.01, 0)):
        small = play([(10, 10, 10, 10)], wishes([LONG]), funds=exact._replace(minimum_notional=minimum))
        assert len(small.orders) == count
    whole = funds._replace(fraction=1.0, step=0.01)
    charged = play([(10, 10, 10, 10)], wishes([LONG]), funds=whole, schedule=FlatSchedule(Decimal("0.001")))
    assert charged.orders["quantity"][0] == pytest.approx(99.9)  # 999 and .999 of charges
    dear = play([ENTERED], wishes([LONG]), funds=ONE._replace(cash=99.99))
    assert (len(dear.orders), dear.refused) == (0, 1)
    assert play([ENTERED], wishes([LONG]), funds=ONE._replace(cash=100.0)).refused == 0


def test_a_fee_in_kind_leaves_dust_that_is_written_off() -> None:
    """By hand: buy 2 for 200, the fee of .1 % is .002; of 1.998, 1.99 are sold at 110 for 218.9, less .2189."""
    funds = ONE._replace(quantity=2.0, step=0.01, fee_in_base=True)
    result = play(
        [ENTERED, (110, 110, 110, 110)], wishes([LONG, FLAT]), funds=funds, schedule=FlatSchedule(Decimal("0.001"))
    )
    assert result.orders["quantity"].to_list() == [2.0, pytest.approx(1.99)]
    assert result.trades["net"][0] == pytest.approx(218.9 - 0.2189 - 200.0)
    assert result.equity[-1] == pytest.approx(10_000.0 + 218.9 - 0.2189 - 200.0)


@st.composite
def walks(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """(bars in hundredths, wishes): whole numbers, so that sums are exact."""
    count = draw(st.integers(2, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    close = 10_000 + np.cumsum(rng.integers(-120, 121, count))
    opened = np.concatenate([[10_000], close[:-1]]) + rng.integers(-60, 61, count)
    high = np.maximum(opened, close) + rng.integers(0, 100, count)
    low = np.minimum(opened, close) - rng.integers(0, 100, count)
    rows = np.column_stack([opened, high, low, close]) / 64.0
    return rows, rng.choice([SHORT, FLAT, LONG, HOLD], count)


@settings(max_examples=200, deadline=None)
@given(walks(), st.booleans(), st.booleans(), st.booleans(), st.booleans())
def test_books_balance_and_fills_lie_within_their_bars(
    walk: tuple[np.ndarray, np.ndarray], next_open: bool, intrabar: bool, reenter: bool, charged: bool
) -> None:
    rows, wanted = walk
    close = rows[:, 3]
    rules = PLAIN._replace(next_open=next_open, intrabar=intrabar, reenter=reenter, horizon=9 * MINUTE)
    side = np.where(wanted == SHORT, -1.0, 1.0)
    schedule = FlatSchedule(Decimal("0.001")) if charged else FREE
    result = play(rows.tolist(), wishes(wanted.tolist(), close - side, close + 2 * side), rules, schedule=schedule)
    for row in result.orders.iter_rows(named=True):
        assert rows[row["bar"], 2] <= row["price"] <= rows[row["bar"], 1]
    signed = np.where(result.orders["side"] == "buy", 1.0, -1.0) * result.orders["quantity"].to_numpy()
    cash = 10_000.0 - float((signed * result.orders["price"].to_numpy()).sum()) - result.orders["charge"].sum()
    assert result.equity[-1] == pytest.approx(cash + signed.sum() * close[-1], abs=1e-7)
    if signed.sum() == 0:
        assert result.trades["net"].sum() == pytest.approx(result.equity[-1] - 10_000.0, abs=1e-7)
    peaks = np.maximum(np.maximum.accumulate(result.equity), 10_000.0)
    np.testing.assert_allclose(result.drawdown, result.equity / peaks - 1.0, atol=1e-12)
    assert result.deepest == min(0.0, result.drawdown.min())


@settings(max_examples=200, deadline=None)
@given(walks(), st.booleans(), st.booleans(), st.booleans())
def test_longs_on_bars_upside_down_are_shorts(
    walk: tuple[np.ndarray, np.ndarray], next_open: bool, intrabar: bool, reenter: bool
) -> None:
    """Prices mirrored about a level and every intention turned: the same trades with the same gains."""
    rows, wanted = walk
    rules = PLAIN._replace(next_open=next_open, intrabar=intrabar, reenter=reenter, horizon=9 * MINUTE)
    side = np.where(wanted == SHORT, -1.0, 1.0)
    close, level = rows[:, 3], 1_024.0
    mirrored = level - rows[:, [0, 2, 1, 3]]
    turned = np.where(np.abs(wanted) == 1, -wanted, wanted)
    one = play(rows.tolist(), wishes(wanted.tolist(), close - side, close + 2 * side), rules)
    other = play(
        mirrored.tolist(), wishes(turned.tolist(), level - (close - side), level - (close + 2 * side)), rules
    )  # fmt: skip
    assert one.trades["net"].to_list() == other.trades["net"].to_list()
    assert one.trades["reason"].to_list() == other.trades["reason"].to_list()


def test_broken_bars_and_arrays_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="quarantine"):
        play([(100, 99, 98, 100)], wishes([LONG]))
    with pytest.raises(ValueError, match="one length"):
        play([ENTERED, ENTERED], wishes([LONG]))
    with pytest.raises(ValueError, match="ascending"):
        run(bars([ENTERED, ENTERED], step=0), wishes([LONG, HOLD]), PLAIN, ONE, FREE)


@pytest.mark.skipif(not PEERS.exists(), reason="the peers' bar generator is not here (../shared/peers_bench)")
def test_the_peers_bars_end_at_the_peers_equity() -> None:
    """1 M bars, SMA 10/50: 27,585 fills and 9,314,233.15, as vectorbt, backtesting.py and NautilusTrader have it."""
    one = _peers_generator()(np.random.default_rng(20240607), 1_000_000, 30_000.0)
    rows = np.column_stack([one[name] for name in ("open", "high", "low", "close")])
    walk = bars(rows, start=START)
    wished = sma_cross(walk.market.close, 10, 50, NONE, NONE)
    funds = ONE._replace(cash=10_000_000.0)
    rules = PLAIN._replace(partial_last=True)
    result = run(walk, wished, rules, funds, FlatSchedule(Decimal("0.001")))
    assert (len(result.orders), f"{result.equity[-1]:.2f}") == (27_585, "9314233.15")
    assert result.drawdown.min() == pytest.approx(-0.0687, abs=5e-5)
    at_open = run(walk, wished, rules._replace(next_open=True), funds, FlatSchedule(Decimal("0.001")))
    assert f"{at_open.equity[-1]:.2f}" == "9314233.15"  # these bars have no gaps


def _peers_generator():  # type: ignore[no-untyped-def]
    sys.path.insert(0, str(PEERS))
    try:
        spec = importlib.util.spec_from_file_location("gen_bars", PEERS / "gen_bars.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.one
    finally:
        sys.path.remove(str(PEERS))
        sys.modules.pop("common", None)
