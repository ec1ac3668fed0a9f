"""What each order costs, twice: as lines for the compiled loop, and by head, exact, for the order list.

A schedule says what an order of some value costs on some day. Crypto venues' come from `markets/charges.py`, Indian ones
from `markets/contract_note.py`; both are schedules of a rate, flat parts and a cap on the broker's share, so a charge is
the lower of two straight lines in the value. The lines are found by asking the schedule itself at four values, and a test
holds them against it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from trading_platform.backtest.kernel import Floats, Integers
from trading_platform.markets.charges import Liquidity, Side, charges
from trading_platform.markets.contract_note import ChargeSegment, Leg, charges_of

Days = NDArray[np.datetime64]
"""Session dates, of unit D."""
ONE = Decimal(1)
LARGE = Decimal(10) ** 12
"""Beyond every cap."""
KINDS: tuple[tuple[Side, Liquidity], ...] = (("buy", "taker"), ("sell", "taker"), ("buy", "maker"), ("sell", "maker"))
"""Rows of charge terms, in the kernel's order."""
NOTE_HEADS = ("brokerage", "transaction_tax", "exchange", "sebi", "gst", "stamp", "depository")


class Schedule(Protocol):
    """Charges of one order by head, in quote currency, unrounded."""

    def heads(self, side: Side, value: Decimal, day: date, liquidity: Liquidity = "taker") -> Mapping[str, Decimal]: ...

    def __hash__(self) -> int: ...


@dataclass(frozen=True)
class SpotSchedule:
    """A crypto venue's fees. Raises `NoChargeRuleError` for a day without a rule."""

    venue: str

    def heads(self, side: Side, value: Decimal, day: date, liquidity: Liquidity = "taker") -> Mapping[str, Decimal]:
        return charges(self.venue, "spot", value, side=side, day=day, liquidity=liquidity)


@dataclass(frozen=True)
class IndianSchedule:
    """A broker's contract note; each order is a leg of its own, and a delivery sale takes one scrip out of the depository."""

    segment: ChargeSegment
    exchange: str = "NSE"

    def heads(self, side: Side, value: Decimal, day: date, liquidity: Liquidity = "taker") -> Mapping[str, Decimal]:
        note = charges_of(self.exchange, self.segment, [Leg(side, 1, value)], day)
        return {head: amount for head in NOTE_HEADS if (amount := getattr(note, head))}


@dataclass(frozen=True)
class FlatSchedule:
    """One rate on every order, as a fraction of its value."""

    rate: Decimal

    def heads(self, side: Side, value: Decimal, day: date, liquidity: Liquidity = "taker") -> Mapping[str, Decimal]:
        return {"commission": value * self.rate} if self.rate else {}


def total(schedule: Schedule, side: Side, value: Decimal, day: date, liquidity: Liquidity = "taker") -> Decimal:
    return sum(schedule.heads(side, value, day, liquidity).values(), Decimal(0))


def charge_terms(schedule: Schedule, days: Days) -> tuple[Integers, Floats]:
    """(eras, terms) for the kernel: `terms` (k, 4, 4) hold from bar number `eras[k]` on. `days` (n,): the day of each bar."""
    eras, terms = [0], [_lines(schedule, days[0].astype(object))]
    numbers = days.view(np.int64)  # several times quicker to compare
    for number in np.flatnonzero(numbers[1:] != numbers[:-1]) + 1:
        lines = _lines(schedule, days[number].astype(object))
        if lines != terms[-1]:
            eras.append(int(number))
            terms.append(lines)
    return np.array(eras, dtype=np.int64), np.array(terms, dtype=np.float64)


def charges_of_orders(
    schedule: Schedule, days: Days, eras: Integers, bar: Integers, kind: Integers, value: Floats
) -> dict[str, Floats]:
    """{head: (orders,)}: what each order costs by head, in floats as the kernel has it; together they are its charge.

    `days` (n,): the day of each bar; `eras`: as `charge_terms` found them; `bar`, `kind` and `value` (orders,): the bar, the
    row of `KINDS`, quantity times price.
    """
    era = np.searchsorted(eras, bar, side="right") - 1
    terms = [_head_lines(schedule, days[number].astype(object)) for number in eras]
    heads = sorted({head for lines in terms for head in lines}, key=_by_note)
    nothing = ((0.0,) * 4,) * len(KINDS)
    charges = {}
    for head in heads:
        lines = np.array([of_era.get(head, nothing) for of_era in terms])[era, kind]
        charges[head] = np.minimum(lines[:, 0] + lines[:, 1] * value, lines[:, 2] + lines[:, 3] * value)
    return charges


def _by_note(head: str) -> tuple[int, str]:
    """In the order of a contract note."""
    return (NOTE_HEADS.index(head) if head in NOTE_HEADS else len(NOTE_HEADS), head)


@cache
def _lines(schedule: Schedule, day: date) -> tuple[tuple[float, ...], ...]:
    return tuple(
        _two_lines(lambda value: total(schedule, side, value, day, liquidity))  # noqa: B023 - called at once
        for side, liquidity in KINDS
    )


@cache
def _head_lines(schedule: Schedule, day: date) -> dict[str, tuple[tuple[float, ...], ...]]:
    """{head: lines of each kind}."""
    heads = {head for side, liquidity in KINDS for head in schedule.heads(side, LARGE, day, liquidity)}
    return {
        head: tuple(
            _two_lines(lambda value: schedule.heads(side, value, day, liquidity).get(head, Decimal(0)))  # noqa: B023
            for side, liquidity in KINDS
        )
        for head in heads
    }


def _two_lines(charge: Callable[[Decimal], Decimal]) -> tuple[float, ...]:
    """A charge by an order's value as the lower of two lines: (intercept, slope, intercept, slope)."""
    nothing, one, large, larger = (charge(value) for value in (Decimal(0), ONE, LARGE, 2 * LARGE))
    slope = (larger - large) / LARGE
    return float(nothing), float(one - nothing), float(large - slope * LARGE), float(slope)
