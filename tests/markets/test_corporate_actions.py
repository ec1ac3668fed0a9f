"""What splits, bonuses, dividends and demergers do to history and to what is held: nothing is won or lost by them."""

from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading_platform.identifiers import Symbol
from trading_platform.markets.corporate_actions import CorporateAction, adjust, adjust_position

D = Decimal
DAY = date(2026, 11, 23)


def bars(closes: list[float]) -> pl.DataFrame:
    days = [date(2026, 1, 5) + timedelta(days=n) for n in range(len(closes))]
    return pl.DataFrame(
        {
            "symbol": "X", "session_date": days, "open": closes, "high": closes, "low": closes, "close": closes,
            "volume": [100.0] * len(closes),
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("action", "factor", "shares"),
    [
        (("split", D(10), D(1)), 0.1, 10), (("bonus", D(1), D(1)), 0.5, 2), (("bonus", D(1), D(2)), 2 / 3, 1.5),
    ],
)  # fmt: skip
def test_history_before_a_split_or_bonus_is_of_today_s_shares(
    action: tuple[Any, Decimal, Decimal], factor: float, shares: float
) -> None:
    kind, ratio, per = action
    ex = CorporateAction(Symbol("X"), date(2026, 1, 7), kind, ratio, per)
    after = [1000 * factor, 1010 * factor]
    seen = adjust(bars([990.0, 1000.0, *after]), [ex], date(2026, 2, 1))
    assert seen["close"].to_list() == pytest.approx([990 * factor, 1000 * factor, *after])
    assert seen["volume"].to_list() == pytest.approx([100 * shares, 100 * shares, 100, 100])
    returns = seen["close"].pct_change().drop_nulls().to_list()
    assert returns[1] == pytest.approx(0), "no jump on the ex-date"


def test_an_action_is_not_known_before_its_ex_date() -> None:
    ex = CorporateAction(Symbol("X"), date(2026, 1, 7), "split", D(10))
    frame = bars([990.0, 1000.0])
    assert adjust(frame, [ex], date(2026, 1, 6)).equals(frame)
    other = CorporateAction(Symbol("Y"), date(2026, 1, 6), "split", D(10))
    assert adjust(frame, [other], date(2026, 2, 1)).equals(frame)


def test_a_dividend_lowers_the_prices_before_it() -> None:
    ex = CorporateAction(Symbol("X"), date(2026, 1, 7), "dividend", amount=D(20))
    seen = adjust(bars([500.0, 1000.0, 980.0]), [ex], date(2026, 2, 1))
    assert seen["close"].to_list() == pytest.approx([490, 980, 980])
    with pytest.raises(ValueError, match="not believable"):
        CorporateAction(Symbol("X"), DAY, "dividend", amount=D(20)).price_factor(D(20))


@settings(max_examples=100)
@given(st.integers(1, 10_000), st.decimals("1", "5000", places=2), st.integers(1, 10), st.integers(1, 10))
def test_what_a_holder_has_is_worth_the_same(quantity: int, price: Decimal, ratio: int, per: int) -> None:
    action = CorporateAction(Symbol("X"), DAY, "bonus", D(ratio), D(per))
    held = adjust_position(D(quantity), price, action, price)
    assert held.quantity == held.quantity.to_integral_value()
    worth = held.quantity * price / action.shares + held.cash
    assert abs(worth - quantity * price) < D("0.000001") * quantity * price
    assert abs(held.average_price * action.shares - price) < D("0.000001")


def test_a_demerger_parts_the_cost() -> None:
    """Three shares of the new company for two old ones, 80 % of the value stays: nothing is won or lost on the day."""
    action = CorporateAction(Symbol("X"), DAY, "demerger", D(3), D(2), retained=D("0.8"), into=Symbol("Y"))
    held = adjust_position(D(101), D(500), action, D(1000))
    assert held.received is not None
    assert (held.quantity, held.average_price) == (D(101), D(400))
    assert (held.received.symbol, held.received.quantity) == ("Y", D(151))
    new_price = D(1000) * D("0.2") / D("1.5")
    worth = held.quantity * 800 + held.received.quantity * new_price + held.cash
    assert abs(worth - 101 * 1000) < D("0.000001")
    cost = held.average_price + held.received.average_price * D("1.5")
    assert abs(cost - 500) < D("0.000001")
    assert adjust_position(D(101), D(500), replace(action, into=None), D(1000)).received is None
