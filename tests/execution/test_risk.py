"""Every limit at its edge: one below passes, at or above is denied, and exits pass where entries may not."""

from dataclasses import replace
from decimal import Decimal

import pytest

from trading_platform.execution.risk import Denial, Limits, Wish, check

D = Decimal
LIMITS = Limits(D(1_000), D(2_000), 3, 5, 50, D(100))
FINE = Wish(
    entry=True, quantity=D(10), price=D(100), last_price=D(100), minimum_notional=D(10), cash=D(1_000),
    position_notional=D(1_000), open_positions=2, orders_this_second=4, orders_today=49, lost_today=D("99.99"),
)  # fmt: skip


def test_an_order_at_every_limit_passes() -> None:
    assert check(FINE, LIMITS) is None


@pytest.mark.parametrize(
    ("change", "denial"),
    [
        ({"quantity": D("10.0001"), "cash": D(5_000), "position_notional": D(0)}, Denial.NOTIONAL_ORDER),
        ({"position_notional": D("1000.01")}, Denial.NOTIONAL_POSITION),
        ({"open_positions": 3}, Denial.POSITIONS_TOO_MANY),
        ({"cash": D("999.99")}, Denial.BALANCE_SHORT),
        ({"lost_today": D(100)}, Denial.LOSS_DAILY),
        ({"orders_this_second": 5}, Denial.RATE_SECOND),
        ({"orders_today": 50}, Denial.RATE_DAY),
        ({"last_price": D("83.3")}, Denial.PRICE_SANITY),
        ({"halted": "platform"}, Denial.HALT_ACTIVE),
        ({"flattening": True}, Denial.ENGINE_FLATTENING),
        ({"certified_enough": False}, Denial.SIGNAL_UNCERTIFIED),
        ({"stale": True}, Denial.SIGNAL_STALE),
    ],
)
def test_one_step_further_is_denied_for_entries_and_not_for_exits(change: dict[str, object], denial: Denial) -> None:
    wish = replace(FINE, **change)  # type: ignore[arg-type]
    denied = check(wish, LIMITS)
    assert denied is not None
    assert denied.startswith(denial)
    assert check(replace(wish, entry=False), LIMITS) is None


@pytest.mark.parametrize(
    ("change", "denial"),
    [
        ({"armed": False}, Denial.ACCOUNT_NOT_ARMED),
        ({"tradable": False}, Denial.INSTRUMENT_UNKNOWN),
        ({"unknown_outcome": True}, Denial.ORDER_UNKNOWN_OUTCOME),
        ({"quantity": D(0)}, Denial.QUANTITY_TOO_SMALL),
        ({"quantity": D("0.0999")}, Denial.QUANTITY_TOO_SMALL),
    ],
)
def test_what_the_venue_itself_would_refuse_holds_for_exits_too(change: dict[str, object], denial: Denial) -> None:
    for entry in (True, False):
        denied = check(replace(FINE, entry=entry, **change), LIMITS)  # type: ignore[arg-type]
        assert denied is not None
        assert denied.startswith(denial)


def test_the_smallest_order_of_the_venue_passes() -> None:
    assert check(replace(FINE, quantity=D("0.1")), LIMITS) is None


def test_a_denial_says_the_figure_and_the_limit() -> None:
    assert check(replace(FINE, orders_today=50), LIMITS) == "RATE_DAY: orders=50 limit=50"
