"""Contracts chosen from a dump of November 2026, whose monthly expiry falls on a Monday (24 November is a holiday)."""

from datetime import date, time, timedelta
from decimal import Decimal

import pytest

from tests.venues.zerodha.test_orders import ist
from trading_platform.markets.contracts import Contract, ContractBook, UnknownContractError
from trading_platform.venues.zerodha.fno import Action, ExpiryRules, last_day_to_leave, plan_for

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
    nearest = BOOK.next_expiry("NIFTY", date(2026, 11, 16), days_left)
    found = BOOK.chain("NIFTY", nearest).by_moneyness(D("26024.95"), steps, kind)  # type: ignore[arg-type]
    assert (found.strike, found.expiry, found.instrument_type) == (strike, expiry, kind)


def test_a_place_beyond_what_is_listed_is_named() -> None:
    with pytest.raises(UnknownContractError, match="beyond the listed strikes"):
        BOOK.chain("NIFTY", WEEKLY).by_moneyness(D(26_000), 5, "CE")
    with pytest.raises(UnknownContractError):
        BOOK.next_expiry("BANKNIFTY", date(2026, 11, 16))


def test_the_future_is_rolled_the_day_before_it_ends() -> None:
    assert BOOK.future("NIFTY", date(2026, 11, 22), 1) is FUTURE
    assert BOOK.future("NIFTY", date(2026, 11, 23), 1) is LATER


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
