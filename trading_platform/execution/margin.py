"""Margin before an entry in a derivative: what the broker would block by its own reckoning, held against what is available.

Risk judges entries as if they were paid in full, from a cash figure that adds blocked margins back; neither is what the
broker goes by. So before a future (and the put that it is hedged with) or a spread goes out, the broker is asked what the
orders would block and what is free, once an account and step, all accounts at the same time. What is not covered with
`HEADROOM` on top is denied, and so is what the broker does not answer for. Exits are never asked about, nor are steps in
which no derivative would be entered: nothing of this is in the way of an order in coins or shares alone.

What exits of the same step will set free is not counted: they may not fill.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal

import structlog

from trading_platform.execution.at_once import at_once
from trading_platform.execution.decisions import Decision, spread_of
from trading_platform.execution.denial_codes import Denial
from trading_platform.execution.leg_orders import denied, enters, stake_of
from trading_platform.identifiers import Symbol
from trading_platform.venues.port import Broker, QueryFailedError, Wanted

HEADROOM = Decimal("0.02")
"""On top of what the broker says, for prices that move until the order is there, its protection, and charges."""
ANSWER_WITHIN_SECONDS = 5.0
ZERO = Decimal(0)
log = structlog.get_logger(__name__)


async def covered(
    decisions: Sequence[Decision], market_time: datetime, kept_back: Callable[[str], None] = lambda account_id: None
) -> list[Decision]:
    """The decisions of a step, of which entries in derivatives that the broker would not cover are denied.

    `kept_back` is told of the account of each: its venue's breaker may have let it through as one of a few.
    """
    after, by_account = list(decisions), dict[str, list[int]]()
    for place, decision in enumerate(after):
        if decision.portfolio.broker is not None and enters(decision):
            by_account.setdefault(decision.portfolio.account_id, []).append(place)
    asked = [places for places in by_account.values() if any(_in_derivative(after[place]) for place in places)]
    answers = await at_once(_of_account([after[place] for place in places], market_time) for places in asked)
    for places, entries in zip(asked, answers, strict=True):
        for place, entry in zip(places, entries, strict=True):
            if entry.denial is not None:
                kept_back(entry.portfolio.account_id)
            after[place] = entry
    return after


async def _of_account(entries: Sequence[Decision], market_time: datetime) -> list[Decision]:
    """One account's entries in their order; those in shares, which are paid in full, take their part of the money."""
    broker = entries[0].portfolio.broker
    assert broker is not None
    sets = [_orders_of(entry, market_time) for entry in entries]
    try:
        return await _judged(broker, entries, sets)
    except (QueryFailedError, TimeoutError) as error:
        log.warning("margin_not_told", account=entries[0].portfolio.account_id, error=repr(error)[:300])
        why = str(error)[:200] or f"no answer within {ANSWER_WITHIN_SECONDS:.0f} s"
        return [denied(entry, Denial.MARGIN_UNKNOWN, why=why) if _in_derivative(entry) else entry for entry in entries]


async def _judged(broker: Broker, entries: Sequence[Decision], sets: Sequence[Sequence[Wanted]]) -> list[Decision]:
    """Where not all is covered, each entry is taken at what its legs would block alone: the benefit of a set within a
    larger basket is not told."""
    async with asyncio.timeout(ANSWER_WITHIN_SECONDS):
        told = await broker.margin([each for legs in sets for each in legs], sets=any(len(legs) > 1 for legs in sets))
    if _with_room(told.needed) <= told.available:
        return list(entries)
    judged, left, alone = list[Decision](), told.available, iter(told.alone)
    for entry, legs in zip(entries, sets, strict=True):
        needed = _with_room(min(sum((next(alone) for _ in legs), ZERO), told.needed))
        if _in_derivative(entry) and needed > left:
            judged.append(
                denied(entry, Denial.MARGIN_SHORT, needed=f"{needed:.2f}", available=f"{max(left, ZERO):.2f}")
            )
        else:
            judged.append(entry)
            left -= needed
    return judged


def _orders_of(entry: Decision, market_time: datetime) -> list[Wanted]:
    """What goes out for an entry: its own order, after the put that it is hedged with, before the call that is sold."""
    portfolio, signal = entry.portfolio, entry.signal
    wanted = [Wanted(entry.contract, entry.side, entry.quantity)]
    stake = stake_of(portfolio, signal)
    if stake is not None and stake.hedge_away is not None:
        level = signal.price * (1 - stake.hedge_away)
        put = portfolio.venue.hedge_for(Symbol(signal.symbol), market_time, level)
        if put is not None:
            wanted.insert(0, Wanted(put, "buy", entry.quantity))
    spread = spread_of(stake, portfolio, signal, market_time) if stake is not None else None
    if spread is not None:
        wanted.append(Wanted(spread[1], "sell", entry.quantity))
    return wanted


def _in_derivative(entry: Decision) -> bool:
    contract = entry.portfolio.venue.listed(entry.contract)
    return contract is not None and contract.is_derivative


def _with_room(needed: Decimal) -> Decimal:
    return needed * (1 + HEADROOM)
