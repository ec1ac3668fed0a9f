from datetime import date
from decimal import Decimal

import pytest

from trading_platform.markets.charges import NoChargeRuleError, charges, rate


@pytest.mark.parametrize("liquidity", ["taker", "maker"])
@pytest.mark.parametrize("side", ["buy", "sell"])
def test_binance_spot_takes_a_thousandth_of_either_side(liquidity, side):
    """The published fee of a regular user: 0.1 % maker and taker."""
    found = charges("binance", "spot", Decimal("12345.67"), side=side, day=date(2022, 6, 1), liquidity=liquidity)
    assert found == {"commission": Decimal("12.34567")}


def test_bitfinex_takes_less_from_a_maker():
    day = date(2020, 1, 1)
    assert rate("bitfinex", "spot", side="buy", day=day) == Decimal("0.002")
    assert rate("bitfinex", "spot", side="buy", day=day, liquidity="maker") == Decimal("0.001")


@pytest.mark.parametrize(("venue", "day"), [("nyse", date(2022, 1, 1)), ("binance", date(2010, 1, 1))])
def test_without_a_rule_in_force_there_is_no_price_of_zero(venue, day):
    with pytest.raises(NoChargeRuleError, match=venue):
        charges(venue, "spot", Decimal(1), side="buy", day=day)
