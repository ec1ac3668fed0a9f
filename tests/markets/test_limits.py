"""Bands, halts, exposure, bans and margins, each at its edge."""

import math
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from trading_platform.markets.contracts import Contract
from trading_platform.markets.margins import margin_of
from trading_platform.markets.market_halts import MarketHalt, MarketState, trigger_points
from trading_platform.markets.position_limits import (
    BadBanListError,
    BanList,
    Exposure,
    ban_after_day,
    check_ban,
    check_exposure,
    check_share,
    future_equivalent,
    option_delta,
    option_price,
    utilisation,
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
from trading_platform.markets.price_ranges import check_limit_protection, check_stop_range

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
    limits = closing_auction_limits(D("1573.15"), D("0.10"), DAY)
    assert limits == CircuitLimits(D("1526.0"), D("1620.3"))
    assert all(abs(bound / D("1573.15") - 1) <= D("0.03") for bound in (limits.lower, limits.upper))


def test_a_band_is_flexed_after_its_cooling_and_slides_as_a_whole() -> None:
    band = DynamicBand.of_day(D(1000), D("0.05"), DAY)
    assert band.limits == CircuitLimits(D(900), D(1100))
    assert band.traded(D("1098.95"), at("11:00"), BUSY, BUSY).armed_at is None, "9.895 % is not 9.90 %"
    assert band.traded(D(1099), at("11:00"), BUSY, QUIET).armed_at is None
    armed = band.traded(D(1099), at("11:00"), BUSY, BUSY)
    assert armed.at(at("11:14:59"), D("0.05")) == armed
    flexed = armed.at(at("11:15"), D("0.05"))
    assert (flexed.limits, flexed.flexes) == (CircuitLimits(D(950), D(1150)), 1)
    late = band.traded(D("901"), at("15:01"), BUSY, BUSY).at(at("15:06"), D("0.05"))
    assert late.limits == CircuitLimits(D(850), D(1050)), "five minutes in the last half hour"
    widths = [flexed.limits.upper]
    for hour in range(4):
        flexed = flexed.traded(flexed.limits.upper, at("12:00") + timedelta(hours=2 * hour), BUSY, BUSY)
        flexed = flexed.at(at("12:00") + timedelta(hours=2 * hour + 1), D("0.05"))
        widths.append(flexed.limits.upper)
    assert [two - one for one, two in pairwise(widths)] == [50, 30, 30, 20]


def test_a_band_that_is_flexed_between_check_and_send_cancels_what_was_allowed() -> None:
    """Sliding bands: after a flex upwards a resting purchase near the old lower limit is outside, and is named."""
    band = DynamicBand.of_day(D(1000), D("0.05"), DAY).traded(D(1100), at("11:00"), BUSY, BUSY)
    assert check_price(D(910), band.at(at("11:14:59"), D("0.05")).limits) is None
    denial = check_price(D(910), band.at(at("11:15"), D("0.05")).limits)
    assert denial is not None
    assert (denial.code, denial.nearest) == ("PRICE_CIRCUIT", D(950))


@pytest.mark.parametrize(
    ("kind", "exchange", "side", "trigger", "passes", "refused"),
    [
        ("EQ", "NSE", "buy", "50", "51.5", "51.55"), ("EQ", "NSE", "sell", "100", "97", "96.95"),
        ("FUT", "NFO", "buy", "100", "103", "103.05"), ("CE", "NFO", "buy", "50", "60", "60.05"),
        ("CE", "NFO", "sell", "100", "80", "79.95"), ("FUT", "BFO", "buy", "10000", "10200", "10200.05"),
        ("FUT", "BFO", "sell", "80000", "78400", "78399.95"),
    ],
)  # fmt: skip
def test_the_limit_of_a_stop_is_near_its_trigger(
    kind: str, exchange: str, side: Any, trigger: str, passes: str, refused: str
) -> None:
    traded = replace(derivative(kind), exchange=exchange)
    assert check_stop_range(side, D(passes), D(trigger), traded, DAY) is None
    denial = check_stop_range(side, D(refused), D(trigger), traded, DAY)
    assert denial is not None
    assert (denial.code, denial.nearest) == ("STOP_RANGE", D(passes))


def test_no_range_is_made_up_where_none_is_known() -> None:
    assert check_stop_range("buy", D(900), D(100), replace(derivative(), exchange="MCX"), DAY) is None
    old = replace(derivative(), exchange="BFO")
    assert check_stop_range("buy", D(10_500), D(10_000), old, date(2026, 1, 18)) is None
    assert check_stop_range("buy", D(10_500), D(10_000), old, date(2026, 1, 19)) is not None


def test_an_option_s_limit_is_within_its_protection_on_the_far_side() -> None:
    call = derivative("CE", strike=800)
    assert check_limit_protection("buy", D(70), D(50), call, DAY) is None
    too_high = check_limit_protection("buy", D("140.05"), D(100), call, DAY)
    assert too_high is not None
    assert (too_high.code, too_high.nearest) == ("PRICE_PROTECTION", D(140))
    assert check_limit_protection("buy", D(1), D(100), call, DAY) is None, "a patient purchase"
    assert check_limit_protection("sell", D("59.95"), D(100), call, DAY) is not None
    assert check_limit_protection("buy", D(900), D(100), derivative(), DAY) is None, "a future"


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
    nobody = b"Securities in Ban For Trade Date 23-NOV-2026: NIL\n"
    assert BanList.from_csv(nobody, DAY).underlyings == frozenset()
    in_a_line = b"Securities in Ban For Trade Date 23-NOV-2026: 1,M&M,2,BAJAJ-AUTO,3,360ONE."
    assert BanList.from_csv(in_a_line, DAY).underlyings == {"M&M", "BAJAJ-AUTO", "360ONE"}


@pytest.mark.parametrize(
    "data",
    [
        b"", b"<html><body>Access Denied</body></html>", b"\xff\xfe\x00", b"1,SAIL\n",
        b"Securities in Ban For Trade Date 20-NOV-2026:\n1,SAIL\n", b"Securities in Ban For Trade Date 23-NOV-2026:\n",
        b"Securities in Ban For Trade Date 23-NOV-2026:\n<html>", b"Securities in Ban For Trade Date 23-NOV-2026:\n1,SAIL\n2,",
        b"Securities in Ban For Trade Date 23-NOV-2026:\n1,SAIL\n3,GNFC\n",
    ],
)  # fmt: skip
def test_what_is_no_ban_list_is_not_taken_for_an_empty_one(data: bytes) -> None:
    with pytest.raises(BadBanListError, match="fetch the exchange's file again"):
        BanList.from_csv(data, DAY)


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


def test_an_individual_s_share_of_the_market_wide_limit() -> None:
    assert check_share(derivative(), D(-100), D(1000), DAY) is None
    denial = check_share(derivative(), D("-100.1"), D(1000), DAY)
    assert denial is not None
    assert (denial.code, denial.nearest) == ("POSITION_SHARE", 100)
    assert utilisation(D(95), D(100)) == D("0.95")
    with pytest.raises(ValueError, match="positive"):
        utilisation(D(95), D(0))


def test_margins_are_never_below_the_premium_and_never_above_the_value() -> None:
    assert margin_of("delivery", "buy", D(1000), DAY).total == 1000
    assert margin_of("intraday", "buy", D(1000), DAY).total == 200
    assert margin_of("options", "buy", D(6500), DAY).total == 6500
    short = margin_of("options", "sell", D(6500), DAY, underlying_value=D(1_690_000))
    assert D(6500) < short.total < D(1_690_000)
    with pytest.raises(ValueError, match="underlying_value"):
        margin_of("options", "sell", D(6500), DAY)
    assert margin_of("intraday", "buy", D(1000), date(2020, 1, 1)).rules_backdated
    assert not short.rules_backdated
