"""Bands, halts, exposure, bans and corporate actions, each at its edge."""

import math
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from trading_platform.identifiers import Symbol
from trading_platform.markets.contracts import Contract
from trading_platform.markets.corporate_actions import CorporateAction, adjust, adjust_position
from trading_platform.markets.margins import margin_of
from trading_platform.markets.market_halts import MarketHalt, MarketState, trigger_points
from trading_platform.markets.position_limits import (
    BanList,
    Exposure,
    ban_after_day,
    check_ban,
    check_exposure,
    future_equivalent,
    option_delta,
    option_price,
)
from trading_platform.markets.price_bands import (
    Activity,
    CircuitLimits,
    DynamicBand,
    check_exit_room,
    check_price,
    closing_auction_limits,
    locked,
)

D = Decimal
DAY = date(2026, 11, 23)
IST = ZoneInfo("Asia/Kolkata")
LIMITS = CircuitLimits(D(90), D(110))
BUSY, QUIET = Activity(50, 10, 3), Activity(49, 10, 3)


def at(clock: str) -> datetime:
    return datetime.combine(DAY, time.fromisoformat(clock), IST).astimezone(UTC)


def derivative(kind: str = "FUT", name: str = "SBIN", strike: int = 0) -> Contract:
    return Contract(
        2, 1, f"{name}26NOV{kind}", name, D(0), date(2026, 12, 29), D(strike), D("0.05"), 750, kind,  # type: ignore[arg-type]
        "NFO-FUT", "NFO",
    )  # fmt: skip


# --- prices ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("price", "nearest"), [("90", None), ("110", None), ("89.95", 90), ("110.05", 110)])
def test_circuit_limits_are_inclusive(price: str, nearest: int | None) -> None:
    denial = check_price(D(price), LIMITS)
    assert (denial and denial.nearest) == nearest


def test_zero_and_zero_means_no_limits() -> None:
    assert check_price(D(10**9), CircuitLimits(D(0), D(0))) is None
    assert check_exit_room("buy", D(1), CircuitLimits(D(0), D(0)), D("0.01")) is None
    assert check_price(D(1), CircuitLimits(D(0), D(10))) is None


def test_a_market_is_locked_when_one_side_is_empty() -> None:
    assert locked(LIMITS, D(110), sellers=False, buyers=True) == "upper"
    assert locked(LIMITS, D(90), sellers=True, buyers=False) == "lower"
    assert locked(LIMITS, D(110), sellers=True, buyers=True) is None
    assert locked(LIMITS, D("109.95"), sellers=False, buyers=True) is None


def test_no_entry_whose_exit_could_not_be_placed() -> None:
    assert check_exit_room("buy", D("90.89"), LIMITS, D("0.01")) is not None
    assert check_exit_room("buy", D("90.9"), LIMITS, D("0.01")) is None
    assert check_exit_room("sell", D("108.91"), LIMITS, D("0.01")) is not None


def test_the_closing_auction_is_within_three_percent() -> None:
    limits = closing_auction_limits(D("1573.15"), D("0.10"))
    assert limits == CircuitLimits(D("1526.0"), D("1620.3"))
    assert all(abs(bound / D("1573.15") - 1) <= D("0.03") for bound in (limits.lower, limits.upper))


def test_a_band_is_flexed_after_its_cooling_and_slides_as_a_whole() -> None:
    band = DynamicBand.of_day(D(1000), D("0.05"))
    assert (band.lower, band.upper) == (D(900), D(1100))
    assert band.traded(D("1098.95"), at("11:00"), BUSY, BUSY).armed_at is None, "9.895 % is not 9.90 %"
    assert band.traded(D(1099), at("11:00"), BUSY, QUIET).armed_at is None
    armed = band.traded(D(1099), at("11:00"), BUSY, BUSY)
    assert armed.at(at("11:14:59"), D("0.05")) == armed
    flexed = armed.at(at("11:15"), D("0.05"))
    assert (flexed.lower, flexed.upper, flexed.flexes) == (D(950), D(1150), 1)
    late = band.traded(D("901"), at("15:01"), BUSY, BUSY).at(at("15:06"), D("0.05"))
    assert (late.lower, late.upper) == (D(850), D(1050)), "five minutes in the last half hour"
    widths = [flexed.upper]
    for hour in range(4):
        flexed = flexed.traded(flexed.upper, at("12:00") + timedelta(hours=2 * hour), BUSY, BUSY)
        flexed = flexed.at(at("12:00") + timedelta(hours=2 * hour + 1), D("0.05"))
        widths.append(flexed.upper)
    assert [two - one for one, two in pairwise(widths)] == [50, 30, 30, 20]


# --- market-wide halts -----------------------------------------------------------------------------------------------


def test_trigger_points_are_those_of_the_exchange_s_example(vectors: dict[str, Any]) -> None:
    known = vectors["mwcb_points"]
    points = [*trigger_points(D(known["close"])).values()]
    assert points == [D(each) for each in known["exact"]]
    for exact, published in zip(points, known["nse_published"], strict=True):
        assert abs(exact - D(published.replace("x", "5"))) <= D(known["tolerance"])


@pytest.mark.parametrize(
    ("clock", "move", "state", "minutes"),
    [
        ("12:59:59", "0.10", MarketState.HALTED, 45),
        ("13:00:00", "0.10", MarketState.HALTED, 15),
        ("14:29:59", "0.10", MarketState.HALTED, 15),
        ("14:30:00", "0.10", MarketState.WARNING, None),
        ("12:59:59", "0.15", MarketState.HALTED, 105),
        ("13:59:59", "0.15", MarketState.HALTED, 45),
        ("14:00:00", "0.15", MarketState.CLOSED, None),
        ("09:20:00", "0.20", MarketState.CLOSED, None),
        ("11:00:00", "0.0999", MarketState.WARNING, None),
        ("11:00:00", "0.0949", MarketState.OPEN, None),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_the_market_stops_by_level_and_time(
    clock: str, move: str, state: MarketState, minutes: int | None, sign: int
) -> None:
    halt = MarketHalt.of_day({"NIFTY 50": D(25_000)}).on_index("NIFTY 50", 25_000 * (1 + sign * D(move)), at(clock))
    assert halt.state is state
    assert halt.halted_until == (at(clock) + timedelta(minutes=minutes) if minutes else None)


def test_a_halt_ends_in_a_pre_open_and_its_level_counts_once() -> None:
    day = MarketHalt.of_day({"NIFTY 50": D(25_000), "SENSEX": D(80_000)})
    halted = day.on_index("SENSEX", D(72_000), at("12:00"))
    assert "SENSEX moved -10.00%" in halted.why
    assert halted.at(at("12:44:59")).state is MarketState.HALTED
    assert halted.at(at("12:45")).state is MarketState.PRE_OPEN
    again = halted.at(at("13:00"))
    assert again.state is MarketState.OPEN
    assert again.on_index("NIFTY 50", D(22_400), at("13:05")).state is MarketState.WARNING, "10 % has counted today"
    assert again.on_index("NIFTY 50", D(21_250), at("13:05")).state is MarketState.HALTED
    assert again.on_index("NIFTY 50", D(21_250), at("14:05")).at(at("23:00")).state is MarketState.CLOSED


# --- exposure --------------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.floats(50, 200), st.floats(50, 200), st.floats(0.01, 2), st.floats(0.05, 1.5), st.floats(0, 0.1))
def test_deltas_and_prices_are_black_and_scholes(
    spot: float, strike: float, years: float, vol: float, rate: float
) -> None:
    d1 = (math.log(spot / strike) + (rate + vol**2 / 2) * years) / (vol * math.sqrt(years))
    assert option_delta("CE", spot, strike, years, vol, rate) == pytest.approx(norm.cdf(d1), abs=1e-12)
    call, put = (option_price(kind, spot, strike, years, vol, rate) for kind in ("CE", "PE"))  # type: ignore[arg-type]
    assert call - put == pytest.approx(spot - strike * math.exp(-rate * years), abs=1e-8), "put-call parity"
    bump = spot * 1e-5
    slope = (
        option_price("PE", spot + bump, strike, years, vol, rate) - option_price("PE", spot - bump, strike, years, vol, rate)
    ) / (2 * bump)  # fmt: skip
    assert option_delta("PE", spot, strike, years, vol, rate) == pytest.approx(slope, abs=1e-4)


def test_futures_equivalents() -> None:
    assert future_equivalent(derivative(), -1500, D(800), at("11:00"), 0.2) == -1500
    put = future_equivalent(derivative("PE", strike=800), 750, D(800), at("11:00"), 0.2)
    assert -400 < put < -300
    assert Exposure.of([D(10), D(-4), D(-3)]) == Exposure(D(10), D(7))


def test_in_a_ban_only_what_reduces_the_exposure_passes() -> None:
    bans = BanList(DAY, frozenset({"SBIN"}))

    def judged(before: int, after: int, name: str = "SBIN") -> str | None:  # fmt: skip
        denial = check_ban(derivative(name=name), bans, DAY, before=D(before), after=D(after))
        return denial.code if denial else None

    assert judged(1500, 750) is None
    assert judged(-1500, -750) is None
    assert judged(1500, 1500) == "BAN_PERIOD"
    assert judged(0, 750) == "BAN_PERIOD"
    assert judged(750, -750) == "BAN_PERIOD", "turning a position round opens a new one"
    assert judged(0, 750, "INFY") is None


def test_without_today_s_ban_list_nothing_new_goes_out() -> None:
    stale = BanList(date(2026, 11, 20), frozenset())
    for bans in (None, stale):
        denial = check_ban(derivative(), bans, DAY, before=D(0), after=D(750))
        assert denial is not None
        assert denial.code == "BAN_LIST_MISSING"
        assert check_ban(derivative(), bans, DAY, before=D(750), after=D(0)) is None
        assert check_ban(derivative(name="NIFTY"), bans, DAY, before=D(0), after=D(65)) is None


def test_the_exchange_s_ban_file() -> None:
    data = b"Securities in Ban For Trade Date 23-NOV-2026:\n1,SAIL\n2,SAMMAANCAP\n"
    assert BanList.from_csv(data, DAY).underlyings == {"SAIL", "SAMMAANCAP"}


@pytest.mark.parametrize(
    ("was", "share", "then"),
    [(False, "0.95", False), (False, "0.9501", True), (True, "0.81", True), (True, "0.80", False)],
)
def test_entering_and_leaving_a_ban(was: bool, share: str, then: bool) -> None:
    assert ban_after_day(was, D(share), DAY) is then


def test_exposure_limits_at_their_edge() -> None:
    crore = D(10_000_000)
    at_limit = Exposure(D(1500) * crore, D(0))
    assert check_exposure(at_limit, D(1), DAY, intraday=False) is None
    above = Exposure(D(1500) * crore + 1, D(0))
    denial = check_exposure(above, D(1), DAY, intraday=False)
    assert denial is not None
    assert denial.code == "POSITION_NET"
    assert check_exposure(above, D(1), DAY, intraday=True) is None
    house = check_exposure(Exposure(D(101), D(0)), D(1), DAY, intraday=True, house_limit=D(100))
    assert house is not None
    assert house.code == "POSITION_HOUSE"


def test_margins_are_never_below_the_premium_and_never_above_the_value() -> None:
    assert margin_of("delivery", "buy", D(1000), DAY).total == 1000
    assert margin_of("intraday", "buy", D(1000), DAY).total == 200
    assert margin_of("options", "buy", D(6500), DAY).total == 6500
    short = margin_of("options", "sell", D(6500), DAY, underlying_value=D(1_690_000))
    assert D(6500) < short.total < D(1_690_000)
    with pytest.raises(ValueError, match="underlying_value"):
        margin_of("options", "sell", D(6500), DAY)


# --- corporate actions -----------------------------------------------------------------------------------------------


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
