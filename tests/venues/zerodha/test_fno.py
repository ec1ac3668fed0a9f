"""Contracts chosen from a dump of November 2026, whose monthly expiry falls on a Monday (24 November is a holiday)."""

from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.venues.zerodha.test_orders import IST, ist
from trading_platform.markets.contracts import Contract, ContractBook, UnknownContractError
from trading_platform.markets.position_limits import BanList
from trading_platform.markets.quantities import FreezeTable
from trading_platform.venues.zerodha.books import BookPosition
from trading_platform.venues.zerodha.fno import (
    Action,
    ExpiryRules,
    OptionWish,
    check_derivative,
    expiry_exits,
    future_for,
    intraday_exits,
    last_day_to_leave,
    lots_for,
    next_of,
    option_for,
    plan_for,
)

D = Decimal
WEEKLY, MONTHLY, DECEMBER = date(2026, 11, 17), date(2026, 11, 23), date(2026, 12, 29)
RULES = ExpiryRules()


def contract(name: str, kind: str, expiry: date, strike: int = 0, lot: int = 65) -> Contract:
    symbol = f"{name}{expiry:%y%m%d}{strike or ''}{kind}"
    return Contract(
        abs(hash(symbol)) % 10**7, 1, symbol, name, D(0), expiry, D(strike), D("0.05"), lot, kind,  # type: ignore[arg-type]
        "NFO-FUT" if kind == "FUT" else "NFO-OPT", "NFO",
    )  # fmt: skip


FUTURE, LATER = contract("NIFTY", "FUT", MONTHLY), contract("NIFTY", "FUT", DECEMBER)
SHARE = contract("INFY", "FUT", MONTHLY, lot=400)
OPTIONS = [
    contract("NIFTY", kind, expiry, strike)
    for expiry in (WEEKLY, MONTHLY, DECEMBER)
    for kind in ("CE", "PE")
    for strike in range(25_800, 26_201, 50)
]
BOOK = ContractBook([FUTURE, LATER, SHARE, contract("INFY", "FUT", DECEMBER, lot=400), *OPTIONS], date(2026, 11, 16))


@pytest.mark.parametrize(
    ("kind", "steps", "days_left", "strike", "expiry"),
    [
        ("CE", 0, 0, 26_000, WEEKLY), ("CE", 2, 0, 26_100, WEEKLY), ("PE", 2, 0, 25_900, WEEKLY),
        ("CE", -1, 0, 25_950, WEEKLY), ("PE", -1, 2, 26_050, MONTHLY), ("CE", 0, 1, 26_000, WEEKLY),
        ("CE", 0, 8, 26_000, DECEMBER), ("CE", 4, 0, 26_200, WEEKLY),
    ],
)  # fmt: skip
def test_an_option_by_its_place(kind: str, steps: int, days_left: int, strike: int, expiry: date) -> None:
    wish = OptionWish("NIFTY", kind, steps, days_left)  # type: ignore[arg-type]
    found = option_for(BOOK, wish, D("26024.95"), date(2026, 11, 16))
    assert (found.strike, found.expiry, found.instrument_type) == (strike, expiry, kind)


def test_a_place_beyond_what_is_listed_is_named() -> None:
    with pytest.raises(UnknownContractError, match="beyond the listed strikes"):
        option_for(BOOK, OptionWish("NIFTY", "CE", 5), D(26_000), date(2026, 11, 16))
    with pytest.raises(UnknownContractError):
        option_for(BOOK, OptionWish("BANKNIFTY", "CE"), D(26_000), date(2026, 11, 16))


def test_the_future_is_rolled_the_day_before_it_ends() -> None:
    assert future_for(BOOK, "NIFTY", date(2026, 11, 22)) is FUTURE
    assert future_for(BOOK, "NIFTY", date(2026, 11, 23)) is LATER
    assert next_of(BOOK, FUTURE) is LATER
    assert next_of(BOOK, OPTIONS[0]).expiry == MONTHLY
    with pytest.raises(UnknownContractError):
        next_of(BOOK, LATER)


@pytest.mark.parametrize(
    ("rupees", "price", "units"),
    [("1690000", "26000", 65), ("1689999.99", "26000", 0), ("3380000", "26000", 130), ("0", "26000", 0), ("1", "0", 0)],
)
def test_whole_lots_that_the_money_pays(rupees: str, price: str, units: int) -> None:
    assert lots_for(FUTURE, D(rupees), D(price)) == units


@settings(max_examples=100)
@given(st.decimals(0, 10**9, places=2), st.decimals("0.05", 10**5, places=2))
def test_lots_never_cost_more_than_there_is(rupees: Decimal, price: Decimal) -> None:
    units = lots_for(FUTURE, rupees, price)
    assert units % 65 == 0
    assert units * price <= rupees < (units + 65) * price


def test_leaving_ahead_of_the_end() -> None:
    # A day before Monday is Sunday: the last trading day before it is Friday.
    assert last_day_to_leave(FUTURE, 1) == date(2026, 11, 20)
    assert last_day_to_leave(FUTURE, 0) == MONTHLY
    friday = ist(date(2026, 11, 20), time(10))
    plan = plan_for(FUTURE, friday, RULES)
    assert (plan.action, plan.due) == (Action.ROLL, ist(date(2026, 11, 20), time(15, 10)))
    assert plan_for(FUTURE, ist(date(2026, 11, 19), time(15, 39)), RULES).action is Action.KEEP
    assert plan_for(FUTURE, ist(date(2026, 11, 24), time(9)), RULES).action is Action.EXPIRED
    assert plan_for(SHARE, ist(date(2026, 11, 19), time(10)), RULES).action is Action.ROLL
    assert plan_for(SHARE, ist(date(2026, 11, 18), time(10)), RULES).action is Action.KEEP


def test_options_on_their_last_day() -> None:
    option = next(each for each in OPTIONS if each.expiry == WEEKLY)
    tuesday = ist(WEEKLY, time(9, 30))
    assert plan_for(option, tuesday, RULES).action is Action.LEAVE
    assert plan_for(option, tuesday - timedelta(days=1), RULES).action is Action.KEEP
    assert plan_for(option, tuesday, replace(RULES, hold_options_to_expiry=True)).action is Action.KEEP


@pytest.mark.parametrize(
    ("quantity", "day", "clock", "before", "after", "bans", "code"),
    [
        (65, date(2026, 11, 16), time(10), 0, 65, None, None),
        (66, date(2026, 11, 16), time(10), 0, 66, None, "QUANTITY_LOT"),
        (1820, date(2026, 11, 16), time(10), 0, 1820, None, "QUANTITY_FREEZE"),
        (65, date(2026, 11, 20), time(15, 9, 59), 0, 65, None, None),
        (65, date(2026, 11, 20), time(15, 10), 0, 65, None, "EXPIRY_NEAR"),
        (65, date(2026, 11, 20), time(15, 10), 65, 0, None, None),
    ],
)
def test_what_a_derivative_may_not(
    quantity: int, day: date, clock: time, before: int, after: int, bans: BanList | None, code: str | None
) -> None:
    denial = check_derivative(
        FUTURE, quantity, FreezeTable(), bans, ist(day, clock), exposure_before=D(before), exposure_after=D(after),
        rules=RULES,
    )  # fmt: skip
    assert (denial.code if denial else None) == code


def test_a_ban_lets_out_and_not_in_and_a_missing_list_is_no_empty_list() -> None:
    day = date(2026, 11, 16)

    def told(bans: BanList | None, before: int, after: int) -> str | None:
        denial = check_derivative(
            SHARE, 400, FreezeTable(), bans, ist(day, time(10)), exposure_before=D(before), exposure_after=D(after),
            rules=RULES,
        )  # fmt: skip
        return denial.code if denial else None

    banned, free = BanList(day, frozenset({"INFY"})), BanList(day, frozenset())
    assert told(free, 0, 400) is None
    assert told(None, 0, 400) == "BAN_LIST_MISSING"
    assert told(banned, 0, 400) == "BAN_PERIOD"
    assert told(banned, 400, -400) == "BAN_PERIOD"
    assert told(banned, 400, 0) is None
    assert told(None, 800, 400) is None


def position(symbol: str, quantity: int, product: str = "MIS", exchange: str = "NSE") -> BookPosition:
    return BookPosition(exchange, symbol, product, quantity, 0, 1, D(1), D(1), D(0))


def test_intraday_positions_are_left_in_time() -> None:
    """15:05 for shares with derivatives (they stop trading at 15:15), 15:15 for others (the broker: 15:20), 15:25 for
    derivatives, which trade to 15:40: the specification's own times until the broker's table of today is known."""
    held = [
        position("INFY", 10), position("SMALLCAP", -5), position("NIFTY26NOVFUT", 65, exchange="NFO"),
        position("SBIN", 7, product="CNC"), position("TCS", 0),
    ]  # fmt: skip

    def due_at(clock: time) -> list[tuple[str, str, int]]:
        found = intraday_exits(held, ist(date(2026, 11, 20), clock), frozenset({"INFY"}))
        return [(each.position.tradingsymbol, each.side, each.quantity) for each in found]

    infy, small, future = ("INFY", "SELL", 10), ("SMALLCAP", "BUY", 5), ("NIFTY26NOVFUT", "SELL", 65)
    assert due_at(time(15, 4, 59)) == []
    assert due_at(time(15, 5)) == [infy]
    assert due_at(time(15, 15)) == [infy, small]
    assert due_at(time(15, 25)) == [infy, small, future]


def test_expiring_positions_are_left_and_futures_rolled() -> None:
    option = next(each for each in OPTIONS if each.expiry == MONTHLY)
    held = [
        position(FUTURE.tradingsymbol, -65, "NRML", "NFO"), position(option.tradingsymbol, 65, "NRML", "NFO"),
        position("GONE", 65, "NRML", "NFO"), position(LATER.tradingsymbol, 65, "NRML", "NFO"),
    ]  # fmt: skip
    friday = expiry_exits(held, BOOK, ist(date(2026, 11, 20), time(15, 10)), RULES)
    assert [(each.side, each.quantity, instead) for each, instead in friday] == [("BUY", 65, LATER)]
    monday = expiry_exits(held[1:], BOOK, ist(MONTHLY, time(15, 10)), RULES)
    assert [(each.position.tradingsymbol, each.side, instead) for each, instead in monday] == [
        (option.tradingsymbol, "SELL", None)
    ]
    assert friday[0][0].due.astimezone(UTC) < datetime.combine(date(2026, 11, 20), time(15, 25), IST)
