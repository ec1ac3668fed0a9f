"""Derivatives: when to roll or leave them, and what their last day forbids.

    plan_for(contract, now, rules)                      # what to do on the last day, and by when

All is read from the day's dump: expiries, strikes and lots are never computed. Our own leaving comes before the broker's:
what the broker squares off costs a fee, and what expires in a share is delivered.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum

from trading_platform.markets.contracts import Contract, UnknownContractError
from trading_platform.markets.position_limits import INDICES
from trading_platform.markets.sessions import IST, Segment, is_trading_day, square_off_at


@dataclass(frozen=True, slots=True)
class ExpiryRules:
    """How the last days of a contract are handled; a person tunes these.

    `roll_days`: a future is left for the next one this many calendar days before it expires. `delivery_days`: contracts
    on single shares are left this many days before, since they end in delivery and their margin grows.
    `leave_before`: how long ahead of the segment's own square-off time a position that must not expire is left.
    """

    roll_days: int = 1
    delivery_days: int = 4
    leave_before: timedelta = timedelta(minutes=15)


class Action(StrEnum):
    """What the calendar asks of a position."""

    KEEP = "KEEP"
    ROLL = "ROLL"
    """Leave it and take the next expiry in the same breath."""
    LEAVE = "LEAVE"
    EXPIRED = "EXPIRED"
    """It is past its last day: what the broker's books say counts."""


@dataclass(frozen=True, slots=True)
class ExpiryPlan:
    """What to do with a position in a contract, from when on (aware UTC), and why."""

    action: Action
    due: datetime | None
    reason: str


def plan_for(contract: Contract, now: datetime, rules: ExpiryRules) -> ExpiryPlan:
    """What the calendar asks of a position in `contract`.

    Futures on an index are rolled; those on a share too, but earlier, before they end in delivery. Options are left on
    their last day; on a share, in the days before. Leaving on a last day is due ahead of the platform's own square-off
    time, which is ahead of the broker's.
    """
    if contract.expiry is None:
        return ExpiryPlan(Action.KEEP, None, "it does not expire")
    day = now.astimezone(IST).date()
    if day > contract.expiry:
        return ExpiryPlan(Action.EXPIRED, None, f"it expired on {contract.expiry}")
    in_share = contract.name not in INDICES and contract.exchange in ("NFO", "BFO")
    ahead = rules.delivery_days if in_share else (rules.roll_days if contract.is_future else 0)
    last = last_day_to_leave(contract, ahead)
    due = square_off_at(_segment(contract), last) - rules.leave_before
    why = "it ends in delivery" if in_share else f"it expires on {contract.expiry}"
    action = Action.ROLL if contract.is_future else Action.LEAVE
    return ExpiryPlan(action if day >= last else Action.KEEP, due, why)


def last_day_to_leave(contract: Contract, days_ahead: int) -> date:
    """The trading day on which to leave: `days_ahead` calendar days before expiry, or the one before that.

    Raises `UnknownContractError` for a contract without expiry.
    """
    if contract.expiry is None:
        raise UnknownContractError(f"{contract.tradingsymbol} does not expire")
    day = contract.expiry - timedelta(days=days_ahead)
    while not is_trading_day(_segment(contract), day):
        day -= timedelta(days=1)
    return day


def _segment(contract: Contract) -> Segment:
    known: Sequence[Segment] = ("NSE", "BSE", "NFO", "BFO", "CDS", "BCD", "MCX")
    for segment in known:
        if segment == contract.exchange:
            return segment
    return "MCX"  # NCO trades commodities by the same hours
