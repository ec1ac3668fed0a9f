"""Intents of several legs in futures and options: the protective legs first, and nothing left half done.

A spread sells what another leg protects. The protective legs (those that are bought) go out first; the sold ones follow
only as far as their protection is filled, in whole sets; and when a leg fails, what stands without its set is unwound,
sold legs before bought ones. So at no moment is more sold than is protected, whatever fails and when.

`plan` says what to do next from what is filled, so a set that was cut off is continued from the books (`hedges.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from trading_platform.execution.denial_codes import Denial, said
from trading_platform.identifiers import Symbol
from trading_platform.markets.contracts import Contract
from trading_platform.venues.port import Side

Filled = Mapping[Symbol, Decimal]
"""What of each leg's contract is open now, as a positive number on the leg's own side."""


@dataclass(frozen=True)
class Leg:
    """One contract of a set. `quantity` in units for the whole intent, a multiple of the contract's lot."""

    contract: Contract
    side: Side
    quantity: Decimal

    @property
    def symbol(self) -> Symbol:
        return Symbol(self.contract.tradingsymbol)


@dataclass(frozen=True)
class Step:
    """Send this now. `unwinding`: it takes back what stands without its set, so limits of entries do not hold for it."""

    leg: Leg
    side: Side
    quantity: Decimal
    unwinding: bool


Phase = Literal["opening", "unwinding"]


def check_legs(legs: Sequence[Leg]) -> str | None:
    """Why a set may not be sent: None where every sold unit has a bought one that bounds its loss.

    A sold call is protected by a bought call or future of the same underlying, a sold put by a bought put, and a sold
    future by a bought call; one bought unit protects one sold unit. A protection that expires earlier protects nothing.
    """
    if len({leg.symbol for leg in legs}) != len(legs) or len(legs) < 2:
        return said(Denial.LEGS_INVALID, why="a set has at least two legs, each of another contract")
    for leg in legs:
        if leg.quantity <= 0 or leg.quantity % leg.contract.lot_size:
            return said(Denial.LEGS_INVALID, leg=leg.symbol, quantity=leg.quantity, lot=leg.contract.lot_size)
    room = {leg.symbol: leg.quantity for leg in legs if leg.side == "buy"}
    for sold in (leg for leg in legs if leg.side == "sell"):
        needed = sold.quantity
        for bought in (leg for leg in legs if leg.side == "buy" and _protects(leg.contract, sold.contract)):
            used = min(room[bought.symbol], needed)
            room[bought.symbol] -= used
            needed -= used
        if needed > 0:
            return said(Denial.LEG_UNPROTECTED, leg=sold.symbol, uncovered=needed)
    return None


def plan(legs: Sequence[Leg], filled: Filled, phase: Phase) -> Step | None:
    """The next order of a set, or None where the phase is done.

    Opening: bought legs in full, then sold legs up to the share of the set that every bought leg has reached. Unwinding:
    down to the whole sets that are filled in all legs, sold legs first.
    """
    if phase == "opening":
        bought = [leg for leg in legs if leg.side == "buy"]
        protected = min((_share(leg, filled) for leg in bought), default=Decimal(0))
        for leg in (*bought, *(leg for leg in legs if leg.side == "sell")):
            share = Decimal(1) if leg.side == "buy" else protected
            missing = _of_share(leg, share) - filled.get(leg.symbol, Decimal(0))
            if missing > 0:
                return Step(leg, leg.side, missing, unwinding=False)
        return None
    whole = min(_share(leg, filled) for leg in legs)
    for leg in sorted(legs, key=lambda leg: leg.side == "buy"):
        excess = filled.get(leg.symbol, Decimal(0)) - _of_share(leg, whole)
        if excess > 0:
            return Step(leg, "sell" if leg.side == "buy" else "buy", excess, unwinding=True)
    return None


def _protects(bought: Contract, sold: Contract) -> bool:
    if bought.name != sold.name or bought.expiry is None or sold.expiry is None or bought.expiry < sold.expiry:
        return False
    kinds: Mapping[str, tuple[str, ...]] = {"CE": ("CE", "FUT"), "PE": ("PE",), "FUT": ("CE", "FUT")}
    return bought.instrument_type in kinds.get(sold.instrument_type, ())


def _share(leg: Leg, filled: Filled) -> Decimal:
    """Which part of a leg is filled, 0 to 1."""
    return min(filled.get(leg.symbol, Decimal(0)) / leg.quantity, Decimal(1))


def _of_share(leg: Leg, share: Decimal) -> Decimal:
    """That part of a leg in whole lots, rounded down."""
    lots = (leg.quantity * share / leg.contract.lot_size).to_integral_value(rounding="ROUND_DOWN")
    return lots * leg.contract.lot_size
