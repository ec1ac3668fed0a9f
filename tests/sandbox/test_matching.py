"""Single cases of matching, with the numbers worked out by hand."""

from decimal import Decimal
from pathlib import Path

import pytest

from tests.sandbox.markets import BTC, bar, buy, exchange, funded, sell, step
from trading_platform.sandbox.exchange import Exchange
from trading_platform.sandbox.liquidity import LEVELS
from trading_platform.sandbox.orders import Order
from trading_platform.sandbox.rules import Refusal, RefusedError

FLAT = (40_000, 40_100, 39_900, 40_000)


@pytest.fixture
def market(tmp_path: Path) -> Exchange:
    """BTC/USDT at 40,000: a step behind it, nobody in the book but the synthetic levels."""
    found = exchange(tmp_path / "journal")
    found.step(step(0, bar(0, *FLAT)))
    return found


def average(order: Order) -> Decimal:
    return order.quote_filled / order.filled


def test_a_market_order_walks_the_levels_and_a_larger_one_pays_more(market: Exchange) -> None:
    asks = market.markets[BTC].depth("SELL")
    alice = funded(market, usdt="100000000")
    order = market.place_order(alice, buy("2.5"))
    expected, left = Decimal(0), Decimal("2.5")
    for level in asks:
        part = min(level.quantity, left)
        expected, left = expected + part * level.price, left - part
    assert order.state == "FILLED"
    assert order.quote_filled == expected
    assert alice.balance("USDT").free == Decimal(100_000_000) - expected
    assert alice.balance("BTC").free == Decimal(100) + Decimal("2.5") * Decimal("0.999")
    market.step(step(1, bar(1, *FLAT)))
    small = market.place_order(alice, buy("0.01"))
    market.step(step(2, bar(2, *FLAT)))
    large = market.place_order(alice, buy("20"))
    assert Decimal(40_000) < average(small) < average(large)


def test_a_market_order_larger_than_the_book_gets_the_book_and_expires(market: Exchange) -> None:
    depth = sum(level.quantity for level in market.markets[BTC].depth("SELL"))
    alice = funded(market, usdt="100000000")
    order = market.place_order(alice, buy(str(depth + 5)))
    assert (order.state, order.reason, order.filled) == ("EXPIRED", "INSUFFICIENT_LIQUIDITY", depth)
    assert alice.balance("USDT").locked == 0
    assert market.markets[BTC].depth("SELL") == []
    assert market.place_order(alice, buy("1", client_id="more")).filled == 0
    market.step(step(1, bar(1, *FLAT)))
    assert len(market.markets[BTC].depth("SELL")) == LEVELS


def test_an_order_that_a_bar_traded_through_fills_at_its_own_price_from_a_tenth_of_the_volume(market: Exchange) -> None:
    alice = funded(market, usdt="10000000")
    first, second = market.place_order(alice, buy("70", "39950")), market.place_order(alice, buy("70", "39940"))
    market.step(step(1, bar(1, 40_000, 40_010, 39_900, 40_000, volume=1_000)))
    assert (first.state, average(first)) == ("FILLED", 39_950)
    assert (second.state, second.filled) == ("PARTIALLY_FILLED", 30)
    assert first.trades[0].maker


def test_at_the_very_extreme_the_queue_goes_first(market: Exchange) -> None:
    """A hundredth of the volume trades there: what was ahead of the order, then the order."""
    alice = funded(market, usdt="10000000")
    best = market.markets[BTC].depth("BUY")[0]
    order = market.place_order(alice, buy("9", str(best.price)))
    assert order.ahead == best.quantity
    low = float(best.price)
    market.step(step(1, bar(1, 40_000, 40_010, low, 40_000, volume=1_000)))
    expected = max(Decimal(10) - best.quantity, Decimal(0))
    assert order.filled == min(expected, 9)
    untouched = market.place_order(alice, buy("1", "39000"))
    market.step(step(2, bar(2, 40_000, 40_010, 39_500, 40_000)))
    assert untouched.filled == 0


def test_a_resting_order_that_the_close_has_crossed_trades_with_the_new_book(market: Exchange) -> None:
    """A bar without volume fills nobody while it forms; but nobody may sell below a standing bid either."""
    alice = funded(market)
    order = market.place_order(alice, buy("1", "39900"))
    market.step(step(1, bar(1, 39_500, 39_500, 39_500, 39_500, volume=0)))
    assert order.filled > 0
    assert average(order) == 39_900
    best = market.markets[BTC].best("SELL")
    assert best is not None
    assert order.state == "FILLED" or best.price > 39_900


def test_two_customers_meet_inside_the_spread_at_the_price_that_stood_there(market: Exchange) -> None:
    alice, bob = funded(market, "alice"), funded(market, "bob")
    offered = market.place_order(alice, sell("0.5", "40000"))
    taken = market.place_order(bob, buy("0.5", "40050"))
    assert (offered.state, taken.state) == ("FILLED", "FILLED")
    assert average(taken) == 40_000
    assert offered.trades[0].trade_id == taken.trades[0].trade_id
    assert (offered.trades[0].maker, taken.trades[0].maker) == (True, False)
    assert bob.balance("USDT").free == Decimal(1_000_000) - 20_000
    assert bob.balance("USDT").locked == 0


def test_of_equal_prices_the_earlier_order_trades_first(market: Exchange) -> None:
    alice, bob = funded(market, "alice"), funded(market, "bob")
    first = market.place_order(alice, sell("0.5", "40000.5"))
    second = market.place_order(bob, sell("0.5", "40000.5"))
    market.place_order(bob, buy("0.7", "40000.5"))
    assert (first.filled, second.filled) == (Decimal("0.5"), Decimal("0.2"))


def test_fok_ioc_and_post_only(market: Exchange) -> None:
    alice = funded(market, usdt="100000000")
    best = market.markets[BTC].depth("SELL")[0]
    limit, more = str(best.price), str(best.quantity + 1)
    killed = market.place_order(alice, buy(more, limit, time_in_force="FOK"))
    assert (killed.state, killed.filled, killed.reason) == ("EXPIRED", 0, "UNFILLED_FOK_ORDER_EXPIRED")
    with pytest.raises(RefusedError) as refusal:
        market.place_order(alice, buy("1", limit, post_only=True))
    assert refusal.value.reason is Refusal.WOULD_TAKE
    partial = market.place_order(alice, buy(more, limit, time_in_force="IOC", client_id="ioc"))
    assert (partial.state, partial.filled) == ("EXPIRED", best.quantity)
    assert alice.balance("USDT").locked == 0


@pytest.mark.parametrize(
    ("opened", "low", "expected"),
    [(40_000, 39_000, 39_500), (39_200, 39_000, 39_200)],
    ids=["triggers-at-the-stop", "gaps-below-it"],
)
def test_a_stop_sells_near_its_price_or_near_the_open_that_jumped_over_it(
    market: Exchange, opened: float, low: float, expected: int
) -> None:
    alice = funded(market)
    order = market.place_order(alice, sell("0.1", stop="39500"))
    assert (order.state, order.working_since, alice.balance("BTC").locked) == ("NEW", None, Decimal("0.1"))
    market.step(step(1, bar(1, opened, 40_050, low, 39_900)))
    assert order.state == "FILLED"
    assert Decimal(expected) * Decimal("0.999") < average(order) < expected


def test_a_triggered_stop_limit_rests_where_it_cannot_fill(market: Exchange) -> None:
    alice = funded(market)
    order = market.place_order(alice, sell("0.1", "39600", stop="39500"))
    market.step(step(1, bar(1, 40_000, 40_050, 39_450, 39_480)))
    assert (order.state, order.filled) == ("NEW", 0)
    assert order.working_since is not None
    market.step(step(2, bar(2, 39_480, 39_700, 39_400, 39_500)))
    assert (order.state, average(order)) == ("FILLED", 39_600)


def test_a_stop_buy_spends_no_more_than_it_has_locked(market: Exchange) -> None:
    alice = funded(market, usdt="42000")
    order = market.place_order(alice, buy("0.99", stop="40400", stop_rises=True))
    market.step(step(1, bar(1, 48_000, 48_000, 47_000, 47_500)))
    assert order.state == "EXPIRED"
    assert 0 < order.quote_filled <= Decimal("0.99") * 40_400 * Decimal("1.05")
    assert alice.balance("USDT").free == Decimal(42_000) - order.quote_filled
    assert alice.balance("USDT").locked == 0


class TestOneCancelsTheOther:
    """A take-profit limit above and a stop below, on the same coins."""

    @pytest.fixture
    def legs(self, market: Exchange) -> tuple[Order, Order]:
        alice = funded(market, btc="1")
        pair = sell("1", "40500", "above", post_only=True), sell("1", None, "below", stop="39500")
        listed = market.place_list(alice, "both", *pair)
        above, below = (market.books.orders[number] for number in listed.order_ids)
        assert alice.balance("BTC").locked == 1, "the coins are locked once"
        return above, below

    def test_the_limit_fills_and_the_stop_expires(self, market: Exchange, legs: tuple[Order, Order]) -> None:
        market.step(step(1, bar(1, 40_000, 40_600, 39_900, 40_550)))
        assert (legs[0].state, legs[1].state, legs[1].reason) == ("FILLED", "EXPIRED", "OCO_TRIGGER")

    def test_the_stop_triggers_and_takes_over_the_coins(self, market: Exchange, legs: tuple[Order, Order]) -> None:
        market.step(step(1, bar(1, 40_000, 40_100, 39_400, 39_450)))
        assert (legs[0].state, legs[1].state) == ("EXPIRED", "FILLED")
        assert market.books.accounts["alice"].balance("BTC").locked == 0

    def test_a_bar_that_reaches_both_takes_the_worse(self, market: Exchange, legs: tuple[Order, Order]) -> None:
        market.step(step(1, bar(1, 40_000, 40_600, 39_400, 40_000)))
        assert (legs[0].state, legs[1].state) == ("EXPIRED", "FILLED")

    def test_cancelling_one_cancels_both(self, market: Exchange, legs: tuple[Order, Order]) -> None:
        market.cancel_order(legs[1])
        assert {leg.state for leg in legs} == {"CANCELED"}
        assert market.books.accounts["alice"].balance("BTC").locked == 0


def test_a_quote_quantity_buys_what_it_can_pay_for(market: Exchange) -> None:
    alice = funded(market)
    order = market.place_order(alice, buy("0", client_id="q", quote_quantity=Decimal(1_000)))
    step_size = market.instruments[BTC].step
    assert order.state == "FILLED"
    assert 1_000 - step_size * 41_000 < order.quote_filled <= 1_000


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (buy("0.000001"), Refusal.LOT_SIZE),
        (buy("0"), Refusal.LOT_SIZE),
        (buy("1", "39000.001"), Refusal.PRICE_FILTER),
        (buy("0.0001", "40000"), Refusal.NOTIONAL),
        (buy("1000"), Refusal.BALANCE),
        (sell("101", "41000"), Refusal.BALANCE),
        (sell("1", stop="40500"), Refusal.WOULD_TRIGGER),
    ],
    ids=lambda value: value.name if isinstance(value, Refusal) else "",
)
def test_what_breaks_a_rule_is_refused_and_changes_nothing(market: Exchange, request_, reason: Refusal) -> None:
    alice = funded(market)
    with pytest.raises(RefusedError) as refusal:
        market.place_order(alice, request_)
    assert refusal.value.reason is reason
    assert alice.orders == {}
    assert alice.balance("USDT").free == 1_000_000


def test_a_client_order_id_is_free_again_once_its_order_is_done(market: Exchange) -> None:
    """As on Binance: unique among open orders."""
    alice = funded(market)
    first = market.place_order(alice, buy("1", "39000", "mine"))
    with pytest.raises(RefusedError) as refusal:
        market.place_order(alice, buy("1", "39000", "mine"))
    assert refusal.value.reason is Refusal.DUPLICATE
    market.cancel_order(first)
    second = market.place_order(alice, buy("1", "39000", "mine"))
    assert alice.by_client_id["mine"] is second
