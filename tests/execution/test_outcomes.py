"""Closed trades against arithmetic done by hand."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from trading_platform.execution.outcomes import closed_trade

D = Decimal
START = datetime(2024, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Traded:
    price: Decimal
    quantity: Decimal
    fee: Decimal
    fee_currency: str
    market_time: datetime = START


def unpriced(asset: str) -> Decimal:
    raise AssertionError(f"nobody should ask for the price of {asset}")


def test_binance_takes_the_fee_in_what_is_received() -> None:
    """Buy 2 at 100 (fee 0.002 BTC), sell 1.998 at 110 (fee 0.21978 USDT).

    Laid out 200; came back 1.998 x 110 - 0.21978 = 219.56022; net 19.56022. Gross (110 - 100) x 2 = 20; costs 0.43978,
    which is 0.002 x 110 (the fee in kind, at the price it could have been sold at) + 0.21978.
    """
    trade = closed_trade(
        [Traded(D(100), D(2), D("0.002"), "BTC")],
        [Traded(D(110), D("1.998"), D("0.21978"), "USDT", START + timedelta(hours=3))],
        base="BTC", quote="USDT", worth=unpriced,
    )  # fmt: skip
    assert (trade.gross, trade.costs, trade.net) == (D(20), D("0.43978"), D("19.56022"))
    assert trade.net_return == 0.0978011
    assert (trade.entry_time, trade.exit_time) == (START, START + timedelta(hours=3))


def test_several_fills_and_dust_that_cannot_be_sold() -> None:
    """Buy 1 at 10 and 3 at 12 = 46, no fees; sell 3 at 11 = 33 and leave 1 as dust: net -13, gross (11 - 11.5) x 4 = -2."""
    trade = closed_trade(
        [Traded(D(10), D(1), D(0), "USDT"), Traded(D(12), D(3), D(0), "USDT")],
        [Traded(D(11), D(1), D(0), "USDT"), Traded(D(11), D(2), D(0), "USDT")],
        base="BTC", quote="USDT", worth=unpriced,
    )  # fmt: skip
    assert (trade.entry_price, trade.exit_price, trade.quantity) == (D("11.5"), D(11), D(4))
    assert (trade.gross, trade.net, trade.costs) == (D(-2), D(-13), D(11))


def test_fees_in_quote_on_both_sides_and_in_a_third_asset() -> None:
    """Buy 1 at 100 with 1 USDT of fee, sell it at 120 with 0.01 BNB of fee at 300: 120 - 3 - 101 = 16."""
    trade = closed_trade(
        [Traded(D(100), D(1), D(1), "USDT")], [Traded(D(120), D(1), D("0.01"), "BNB")],
        base="BTC", quote="USDT", worth={"BNB": D(300)}.__getitem__,
    )  # fmt: skip
    assert (trade.gross, trade.costs, trade.net) == (D(20), D(4), D(16))
    assert trade.net_return == 16 / 101


@given(
    st.lists(st.tuples(st.integers(1, 10_000), st.integers(1, 1_000)), min_size=1, max_size=6),
    st.integers(1, 10_000),
    st.randoms(use_true_random=False),
)
def test_the_order_in_which_fills_come_does_not_matter(bought: list[tuple[int, int]], exit_price: int, random) -> None:  # type: ignore[no-untyped-def]
    fills = [Traded(D(price), D(quantity), D(quantity) / 1_000, "BTC") for price, quantity in bought]
    total = sum((fill.quantity - fill.fee for fill in fills), D(0))
    exits = [Traded(D(exit_price), total / 2, D(exit_price) * total / 2_000, "USDT")] * 2
    first = closed_trade(fills, exits, base="BTC", quote="USDT", worth=unpriced)
    random.shuffle(fills)
    second = closed_trade(fills, exits, base="BTC", quote="USDT", worth=unpriced)
    assert first == second
    money = exits[0].price * total - 2 * exits[0].fee - sum((fill.price * fill.quantity for fill in fills), D(0))
    assert first.net == money
    assert first.gross - first.costs == first.net
    assert first.costs > 0
