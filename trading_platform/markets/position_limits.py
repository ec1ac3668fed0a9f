"""How much may be held: futures-equivalent exposure, SEBI's limits with lower house limits, and the F&O ban.

Exposure is delta-based (`FutEq`): a future counts 1, an option its Black-Scholes delta, N(d1) for a call and N(d1) - 1 for
a put (NSE/SURV/71090). In a ban only what brings the exposure in that underlying nearer to zero may be sent. A ban list
that was not loaded is no empty ban list: nothing new goes out in single-stock derivatives until it is there.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from math import erf, exp, log, sqrt
from typing import Literal

from trading_platform.markets.contracts import Contract
from trading_platform.markets.denials import Denial
from trading_platform.markets.effective import DATA, Effective, RuleTable, load

DAYS_A_YEAR = 365.0
ZERO = Decimal(0)
BAN_HEADING = re.compile(r"securities in ban for trade date\s+(\d{2}-[a-z]{3}-\d{4})\s*:?", re.IGNORECASE)
SYMBOL = re.compile(r"[A-Z0-9&-]*[A-Z][A-Z0-9&-]*")
INDICES = frozenset({"NIFTY", "BANKNIFTY", "FINNIFTY", "MIDCPNIFTY", "NIFTYNXT50", "SENSEX", "BANKEX", "SENSEX50"})


class BadBanListError(ValueError):
    """What was read is not the exchange's ban list of that day. It must not be taken for an empty one."""


class LimitRow(Effective):
    what: str
    rupees: Decimal | None = None
    of_mwpl: Decimal | None = None


def option_delta(
    kind: Literal["CE", "PE"], spot: float, strike: float, years: float, volatility: float, rate: float = 0.0
) -> float:
    """Black-Scholes delta. At expiry (years <= 0) an option counts 1 (call) or -1 (put) in the money, else 0.

    `volatility` and `rate` are annual, 0.2 for 20 %. Raises ValueError for prices or volatility that are not positive.
    """
    if spot <= 0 or strike <= 0:
        raise ValueError(f"spot and strike must be positive, got {spot} and {strike}")
    if years <= 0:
        inside = spot > strike if kind == "CE" else spot < strike
        return float(inside) if kind == "CE" else -float(inside)
    if volatility <= 0:
        raise ValueError(f"volatility must be positive, got {volatility}")
    d1 = (log(spot / strike) + (rate + volatility**2 / 2) * years) / (volatility * sqrt(years))
    call = 0.5 * (1 + erf(d1 / sqrt(2)))
    return call if kind == "CE" else call - 1


def option_price(
    kind: Literal["CE", "PE"], spot: float, strike: float, years: float, volatility: float, rate: float = 0.0
) -> float:
    """Black-Scholes price; the intrinsic value at expiry. Same arguments and errors as `option_delta`."""
    if years <= 0:
        return max(spot - strike if kind == "CE" else strike - spot, 0.0)
    if spot <= 0 or strike <= 0 or volatility <= 0:
        raise ValueError(f"spot, strike and volatility must be positive, got {spot}, {strike}, {volatility}")
    d1 = (log(spot / strike) + (rate + volatility**2 / 2) * years) / (volatility * sqrt(years))
    d2 = d1 - volatility * sqrt(years)

    def normal(x: float) -> float:
        return 0.5 * (1 + erf(x / sqrt(2)))

    discounted = strike * exp(-rate * years)
    if kind == "CE":
        return spot * normal(d1) - discounted * normal(d2)
    return discounted * normal(-d2) - spot * normal(-d1)


def future_equivalent(contract: Contract, quantity: int, spot: Decimal, at: datetime, volatility: float) -> Decimal:
    """Units of the underlying that a position in a derivative moves like; negative for short exposure."""
    if contract.is_future:
        return Decimal(quantity)
    if not contract.is_option or contract.expiry is None:
        return ZERO
    years = max((contract.expiry - at.date()).days + 1, 0) / DAYS_A_YEAR
    kind: Literal["CE", "PE"] = "CE" if contract.instrument_type == "CE" else "PE"
    delta = option_delta(kind, float(spot), float(contract.strike), years, volatility)
    return quantity * Decimal(repr(delta))


@dataclass(frozen=True, slots=True)
class Exposure:
    """Exposure in one underlying, in units of it: long and short sums of futures equivalents."""

    long: Decimal
    short: Decimal

    @property
    def net(self) -> Decimal:
        return self.long - self.short

    @classmethod
    def of(cls, equivalents: Iterable[Decimal]) -> "Exposure":
        values = list(equivalents)
        return cls(
            sum((value for value in values if value > 0), ZERO), -sum((value for value in values if value < 0), ZERO)
        )


@dataclass(frozen=True)
class BanList:
    """Underlyings in the F&O ban on one trading day."""

    day: date
    underlyings: frozenset[str]

    @classmethod
    def from_csv(cls, data: bytes, day: date) -> "BanList":
        """The exchange's daily file (fo_secban.csv): a heading with the trade date, then numbered symbols, or NIL.

        Raises `BadBanListError` for anything else: another day's file, a page of errors, a file cut off after its heading.
        """
        text = data.decode("utf-8-sig", errors="replace").strip()
        heading = BAN_HEADING.match(text)
        if heading is None:
            raise BadBanListError(
                f"this is no F&O ban list, it begins with {text[:60]!r}; fetch the exchange's file again"
            )
        listed_for = datetime.strptime(heading[1], "%d-%b-%Y").date()  # noqa: DTZ007 - a date without a time
        if listed_for != day:
            raise BadBanListError(f"the F&O ban list is of {listed_for}, not of {day}; fetch the exchange's file again")
        entries = [each.strip(" .") for each in re.split(r"[,\s]+", text[heading.end() :])]
        names = [each for each in entries if each and not each.isdigit()]
        numbers = [int(each) for each in entries if each.isdigit()]
        strange = [each for each in names if not SYMBOL.fullmatch(each)]
        if strange or not names or (numbers and numbers != list(range(1, len(names) + 1))):
            what = f"{strange[0]!r} in it" if strange else "neither symbols nor NIL in it"
            what = what if strange or not names else f"{len(names)} symbols numbered {numbers}: it was cut off"
            raise BadBanListError(f"the F&O ban list of {day} has {what}; fetch the exchange's file again")
        return cls(day, frozenset(names) - {"NIL"})


def check_ban(contract: Contract, bans: BanList | None, day: date, *, before: Decimal, after: Decimal) -> Denial | None:
    """Whether an order may go out, by the futures-equivalent exposure of its underlying before and after it.

    None or another day's list blocks what is new in single-stock derivatives; leaving a position always passes.
    """
    if not contract.is_derivative or contract.name in INDICES or abs(after) < abs(before):
        return None
    if bans is None or bans.day != day:
        return Denial(
            "BAN_LIST_MISSING",
            f"the F&O ban list of {day} is not loaded, so nothing new is opened in {contract.name}; load it and retry",
        )
    if contract.name in bans.underlyings:
        return Denial(
            "BAN_PERIOD",
            f"{contract.name} is in the F&O ban on {day}: only orders that reduce the exposure pass "
            f"(futures-equivalent {before:.0f} would become {after:.0f})",
        )
    return None


def check_exposure(
    after: Exposure, price: Decimal, day: date, *, intraday: bool, house_limit: Decimal | None = None
) -> Denial | None:
    """SEBI's limits on index options by value, and a lower one of our own."""
    when = "intraday" if intraday else "end_of_day"
    net, gross = abs(after.net) * price, max(after.long, after.short) * price
    checks = [
        ("POSITION_NET", net, _limit(f"index_options_{when}_net", day)),
        ("POSITION_GROSS", gross, _limit(f"index_options_{when}_gross", day)),
        ("POSITION_HOUSE", net, house_limit),
    ]
    for code, value, limit in checks:
        if limit is not None and value > limit:
            return Denial(code, f"futures-equivalent {value:,.0f} rupees is above the limit of {limit:,.0f}", limit)
    return None


def check_share(contract: Contract, after: Decimal, mwpl: Decimal, day: date) -> Denial | None:
    """Whether an individual's futures-equivalent in one share is within his part of its market-wide limit (units)."""
    found = _limits().at("single_stock_individual", day).row.of_mwpl
    allowed = mwpl * (found or ZERO)
    if contract.name in INDICES or abs(after) <= allowed:
        return None
    return Denial(
        "POSITION_SHARE",
        f"futures-equivalent {after:,.0f} of {contract.name} is above {found:%} of its market-wide limit of {mwpl:,.0f}",
        allowed,
    )


def utilisation(open_interest: Decimal, mwpl: Decimal) -> Decimal:
    """Share of the market-wide position limit in use. Raises ValueError for a limit that is not positive."""
    if mwpl <= 0:
        raise ValueError(f"a market-wide position limit is positive, not {mwpl}")
    return open_interest / mwpl


def ban_after_day(was_banned: bool, share: Decimal, day: date) -> bool:
    """Whether an underlying is in the ban on the next day, by its share of the market-wide limit at this day's end."""
    enters, leaves = (_limits().at(name, day).row.of_mwpl or ZERO for name in ("ban_enters_above", "ban_leaves_at"))
    return share > leaves if was_banned else share > enters


def known_limits(day: date) -> Mapping[str, Decimal]:
    """{name: rupees or share} in force on a day, for reports."""
    rows = (_limits().at(key, day).row for key in _limits().keys())  # noqa: SIM118 - not a mapping
    return {row.what: row.rupees if row.rupees is not None else row.of_mwpl or ZERO for row in rows}


def _limit(what: str, day: date) -> Decimal | None:
    return _limits().at(what, day).row.rupees


@cache
def _limits() -> RuleTable[LimitRow]:
    return load(DATA / "position_limits.toml", "limit", LimitRow, lambda row: row.what)
