from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading_platform.identifiers import Symbol, Venue
from trading_platform.markets.instruments import Instrument, platform_symbol

BTC = Instrument.from_ccxt(
    Venue("binance"),
    {
        "symbol": "BTC/USDT", "base": "BTC", "quote": "USDT", "active": True,
        "precision": {"price": 0.01, "amount": 1e-05}, "limits": {"cost": {"min": 5.0}},
    },
)  # fmt: skip


def test_filters_of_the_exchange_become_exact_decimals():
    assert (BTC.tick, BTC.step, BTC.minimum_notional) == (Decimal("0.01"), Decimal("0.00001"), Decimal("5.0"))


@given(st.decimals(min_value=0, max_value=10**6, places=9))
def test_a_rounded_quantity_is_on_the_step_and_never_more_than_asked_for(quantity: Decimal):
    rounded = BTC.round_quantity(quantity)
    assert rounded % BTC.step == 0
    assert 0 <= quantity - rounded < BTC.step


@pytest.mark.parametrize(
    ("written", "venue", "expected"),
    [
        ("BTCUSDT", None, "BTC/USDT"), ("btc_usdt", None, "BTC/USDT"), ("ETH/BTC", "binance", "ETH/BTC"),
        ("BTCUSD", "bitfinex", "BTC/USD"), ("NIFTY", None, "NIFTY 50"), ("M&M", "nse", "M&M"),
        ("BAJAJ-AUTO", "nse", "BAJAJ-AUTO"),
    ],
)  # fmt: skip
def test_spellings(written, venue, expected):
    assert platform_symbol(written, venue) == expected


def test_an_index_cannot_be_traded_and_a_share_trades_in_whole_pieces():
    assert not Instrument.from_file(Venue("nse"), Symbol("NIFTY 50"), Decimal("17000")).tradable
    share = Instrument.from_file(Venue("nse"), Symbol("INFY"), Decimal("1500"))
    assert (share.tick, share.step, share.quote, share.tradable) == (Decimal("0.05"), Decimal(1), "INR", True)


def test_a_small_price_gets_a_small_tick():
    assert Instrument.from_file(Venue("binance"), Symbol("ADA/BTC"), Decimal("0.000053")).tick == Decimal("1E-9")
