"""What the calendar asks to leave: contracts that end, and positions that are not held overnight.

What is held in a contract is left on its last day, ahead of the broker and of the exchange's settlement. A subscription
with `overnight` false has all that it took left ahead of the session's end (`markets/data/sessions.toml`: ahead of the
closing auction for shares that have one, and of the end of a shortened session), and enters nothing from then on.
"""

from collections.abc import Iterable
from datetime import datetime

from trading_platform.execution.portfolio import Holding, Portfolio, PositionKey
from trading_platform.identifiers import Symbol
from trading_platform.venues.zerodha.fno import Action, ExpiryRules, plan_for

LAST_DAY = ExpiryRules(roll_days=0)
"""New positions are taken in the next contract from the last day on (`OrderVenue.contract_for`); older ones end with it."""
VENUES_THAT_CLOSE = frozenset({"zerodha"})


def ending(portfolios: Iterable[Portfolio], now: datetime) -> list[tuple[Portfolio, PositionKey]]:
    """Positions that are due to be left by the calendar. `now`: the market's clock.

    Coins do not end. A leg that is there for another position is left with that (`hedges.py`, `spreads.py`).
    """
    return [
        (portfolio, key)
        for portfolio in portfolios
        if portfolio.broker is not None
        for key, held in portfolio.holdings.items()
        if held.symbol not in portfolio.unsettled
        and not held.attends
        and (_contract_ends(portfolio, held.contract, now) or _session_ends(portfolio, held, now))
    ]


def entered_late(portfolio: Portfolio, now: datetime) -> set[Symbol]:
    """Symbols in which orders still work that may take nothing overnight, and may not enter any more."""
    if not portfolio.working or all(stake.overnight for stake in portfolio.stakes.values()):
        return set()
    return {
        symbol
        for symbol in portfolio.working
        if _is_over(portfolio, portfolio.venue.contract_for(symbol, now), now)
    }  # fmt: skip


def _contract_ends(portfolio: Portfolio, name: Symbol, now: datetime) -> bool:
    contract = portfolio.venue.listed(name)
    if contract is None or contract.expiry is None:
        return False
    plan = plan_for(contract, now, LAST_DAY)
    return plan.action is not Action.KEEP and plan.due is not None and now >= plan.due


def _session_ends(portfolio: Portfolio, held: Holding, now: datetime) -> bool:
    stake = portfolio.stakes.get(held.strategy_id)
    return stake is not None and not stake.overnight and _is_over(portfolio, held.contract, now)


def _is_over(portfolio: Portfolio, contract: Symbol, now: datetime) -> bool:
    due = portfolio.broker.square_off(contract, now) if portfolio.broker is not None else None
    return due is not None and now >= due
