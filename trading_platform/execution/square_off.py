"""Contracts that end: what is held in one is left on its last day, ahead of the broker and of the exchange's settlement."""

from collections.abc import Iterable
from datetime import datetime

from trading_platform.execution.portfolio import Portfolio, PositionKey
from trading_platform.identifiers import Symbol
from trading_platform.venues.zerodha.fno import Action, ExpiryRules, plan_for

LAST_DAY = ExpiryRules(roll_days=0)
"""New positions are taken in the next contract from the last day on (`OrderVenue.contract_for`); older ones end with it."""


def ending(portfolios: Iterable[Portfolio], now: datetime) -> list[tuple[Portfolio, PositionKey]]:
    """Positions that are due to be left by the calendar. `now`: the market's clock.

    Shares and coins do not end. A leg that is there for another position is left with that (`hedges.py`, `spreads.py`).
    """
    return [
        (portfolio, key)
        for portfolio in portfolios
        for key, held in portfolio.holdings.items()
        if held.symbol not in portfolio.unsettled and not held.attends and _is_due(portfolio, held.contract, now)
    ]


def _is_due(portfolio: Portfolio, name: Symbol, now: datetime) -> bool:
    contract = portfolio.venue.listed(name)
    if contract is None or contract.expiry is None:
        return False
    plan = plan_for(contract, now, LAST_DAY)
    return plan.action is not Action.KEEP and plan.due is not None and now >= plan.due
