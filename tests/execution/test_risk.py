"""Every limit at its edge: at the limit passes, one step further is denied, and exits pass where entries may not."""

from dataclasses import replace
from decimal import Decimal

import pytest

from trading_platform.execution.denial_codes import ABOUT, Denial
from trading_platform.execution.limits import Limits, Scope
from trading_platform.execution.risk import Standing, Wish, check
from trading_platform.markets.denials import Denial as VenueDenial

D = Decimal
LIMITS = Limits(D(1_000), D(2_000), 3, 5, 50, D(100), D(10), D(3_000), 4, 20, D("0.2"))
AT_THE_EDGE = Standing(
    "user", "ann", "USDT", LIMITS, position_notional=D(1_000), gross_notional=D(2_000), open_positions=2, open_orders=3,
    orders_this_second=4, orders_this_minute=19, orders_today=49, lost_today=D("99.99"), drawdown=D("0.1999"),
)  # fmt: skip
FINE = Wish(
    entry=True, quantity=D(10), price=D(100), last_price=D(100), step=D("0.1"), minimum_notional=D(10), cash=D(1_000),
    standings=(AT_THE_EDGE,),
)  # fmt: skip


def denied(wish: Wish) -> str | None:
    found = check(wish)
    return None if found is None else found.partition(":")[0]


def test_an_order_at_every_limit_passes() -> None:
    assert check(FINE) is None


@pytest.mark.parametrize("scope", ["user", "account", "strategy", "group"])
@pytest.mark.parametrize(
    ("change", "denial"),
    [
        ({"position_notional": D("1000.01")}, Denial.NOTIONAL_POSITION),
        ({"gross_notional": D("2000.01")}, Denial.NOTIONAL_GROSS),
        ({"open_positions": 3}, Denial.POSITIONS_TOO_MANY),
        ({"open_orders": 4}, Denial.ORDERS_OPEN),
        ({"lost_today": D(100)}, Denial.LOSS_DAILY),
        ({"drawdown": D("0.2")}, Denial.LOSS_DRAWDOWN),
        ({"orders_this_second": 5}, Denial.RATE_SECOND),
        ({"orders_this_minute": 20}, Denial.RATE_MINUTE),
        ({"orders_today": 50}, Denial.RATE_DAY),
    ],
)
def test_a_limit_of_any_scope_denies_one_step_further(scope: Scope, change: dict[str, Decimal], denial: Denial) -> None:
    narrow = replace(AT_THE_EDGE, scope=scope, scope_id="x", **change)  # type: ignore[arg-type]
    free = Standing("user", "ann", "USDT", replace(LIMITS, max_open_positions=99))
    wish = replace(FINE, standings=(narrow,) if scope == "user" else (free, narrow))
    assert denied(wish) == denial
    assert f"scope={scope} id=x currency=USDT" in str(check(wish))
    assert check(replace(wish, entry=False)) is None


@pytest.mark.parametrize(
    ("change", "denial"),
    [
        ({"quantity": D("10.1"), "cash": D(5_000)}, Denial.QUANTITY_ORDER),
        ({"price": D("100.01"), "cash": D(5_000)}, Denial.NOTIONAL_ORDER),
        ({"cash": D("999.99")}, Denial.BALANCE_SHORT),
        ({"last_price": D("83.3")}, Denial.PRICE_SANITY),
        ({"halted": "platform"}, Denial.HALT_ACTIVE),
        ({"flattening": True}, Denial.ENGINE_FLATTENING),
        ({"breaker": lambda: "market:NIFTY 50"}, Denial.BREAKER_OPEN),
        ({"stale_session": "ended"}, Denial.AUTH_STALE),
        ({"other_address": "10.0.0.9"}, Denial.ADDRESS_CHANGED),
        ({"session_ending": "2026-07-01T09:50:00+00:00"}, Denial.SESSION_ENDING),
        ({"certified_enough": False}, Denial.SIGNAL_UNCERTIFIED),
        ({"stale": True}, Denial.SIGNAL_STALE),
        ({"duplicate": True}, Denial.INTENT_DUPLICATE),
        ({"own_opposite": True}, Denial.ORDER_SELF_TRADE),
        ({"standings": ()}, Denial.LIMITS_MISSING),
        ({"standings": (replace(AT_THE_EDGE, limits=None),)}, Denial.LIMITS_MISSING),
        ({"standings": (replace(AT_THE_EDGE, scope="group"),)}, Denial.LIMITS_MISSING),
    ],
)
def test_one_step_further_is_denied_for_entries_and_not_for_exits(change: dict[str, object], denial: Denial) -> None:
    wish = replace(FINE, **change)  # type: ignore[arg-type]
    assert denied(wish) == denial
    assert ABOUT[denial].exits_too is False
    assert check(replace(wish, entry=False)) is None


@pytest.mark.parametrize(
    ("change", "denial"),
    [
        ({"armed": False}, Denial.ACCOUNT_NOT_ARMED),
        ({"tradable": False}, Denial.INSTRUMENT_UNKNOWN),
        ({"unknown_outcome": True}, Denial.ORDER_UNKNOWN_OUTCOME),
        ({"quantity": D(0)}, Denial.QUANTITY_TOO_SMALL),
        ({"quantity": D("0.0999")}, Denial.QUANTITY_TOO_SMALL),
        ({"quantity": D("9.95")}, Denial.QUANTITY_STEP),
    ],
)
def test_what_the_venue_itself_would_refuse_holds_for_exits_too(change: dict[str, object], denial: Denial) -> None:
    for entry in (True, False):
        assert denied(replace(FINE, entry=entry, **change)) == denial  # type: ignore[arg-type]
    assert ABOUT[denial].exits_too is True


def test_the_smallest_order_of_the_venue_passes() -> None:
    assert check(replace(FINE, quantity=D("0.1"))) is None


def test_a_price_as_far_as_tolerated_passes_and_a_price_of_zero_does_not() -> None:
    dear = replace(FINE, quantity=D(8), price=D(120), last_price=D(100))
    assert check(dear) is None
    assert denied(replace(dear, price=D("120.01"))) == Denial.PRICE_SANITY
    assert denied(replace(FINE, price=D(0), minimum_notional=D(0))) == Denial.PRICE_INVALID


def test_a_rule_of_the_market_is_said_with_the_nearest_value_that_passes() -> None:
    rule = VenueDenial("PRICE_CIRCUIT", "price 101 is above the limit of 100", D(100))
    assert check(replace(FINE, venue_rule=rule)) == (
        "PRICE_CIRCUIT: nearest=100 why=price 101 is above the limit of 100"
    )


def test_a_denial_says_the_figure_and_the_limit() -> None:
    over = replace(AT_THE_EDGE, orders_today=50)
    assert check(replace(FINE, standings=(over,))) == "RATE_DAY: scope=user id=ann currency=USDT orders=51 limit=50"
