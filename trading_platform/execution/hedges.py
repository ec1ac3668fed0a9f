"""Hedged entries: before an index is entered by its future, a put is bought that bounds the loss; both leave together.

A user asks for it with `hedge_away` of a subscription: how far below the market the put's strike is. The protective leg
goes out first; the future follows as far as the put is filled, in whole lots, and not at all where it cannot be had. From
then on the put is kept as long as its position is: what of it stands alone, because the future was refused, stopped or
left, is sold. A put and its position are known by their signal, so that the books alone say what belongs together, and an
engine that takes over goes on where the last one was cut off. At no moment is a position open that should be hedged and
is not; what a failure can leave behind is a put, which can lose no more than was paid for it.

Both legs are intents like any other: through the same risk check, in the outbox before they are sent, asked for when no
answer comes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

import structlog

from trading_platform.execution.at_once import by_account
from trading_platform.execution.decisions import Decision, Situation, enter
from trading_platform.execution.denial_codes import Denial
from trading_platform.execution.exposures import Exposures
from trading_platform.execution.leg_orders import LegOrders, about, denied, enters, stake_of
from trading_platform.execution.legs import Leg, check_legs, plan
from trading_platform.execution.portfolio import HEDGE, Holding, Portfolio
from trading_platform.identifiers import StrategyId, Symbol
from trading_platform.storage.control import Signal

ZERO = Decimal(0)
log = structlog.get_logger(__name__)


@dataclass
class HedgeKeeper:
    """Keeps the hedges of a group's positions, for the engine that holds the lease."""

    orders: LegOrders

    async def lead(
        self, decisions: Sequence[Decision], situation: Situation, counts: Exposures, market_time: datetime,
        now: datetime, clock_seconds: float,
    ) -> list[Decision]:  # fmt: skip
        """The decisions, of which hedged entries are cut down to what is protected now. Buys the protection."""

        async def led(after: list[Decision], place: int) -> Decision:
            decision = after[place]
            own = (each for each in after if each.portfolio is decision.portfolio and enters(each))
            spent = sum((each.quantity * each.signal.price for each in own), ZERO)
            return await self._led(decision, situation, counts, market_time, now, spent, clock_seconds)

        return await by_account(decisions, lambda each: enters(each) and _away(each) is not None, led)

    async def follow(
        self, portfolios: Sequence[Portfolio], situation: Situation, market_time: datetime, clock_seconds: float
    ) -> None:
        """Sell what of the hedges stands without its position, and value those that stay."""
        for portfolio in portfolios:
            hedges = [held for held in portfolio.holdings.values() if held.hedges]
            if not hedges or portfolio.unsettled:  # what is asked for may be the position that a hedge belongs to
                continue
            quotes = await self.orders.quotes(portfolio, [held.contract for held in hedges])
            for held in hedges:
                quote = quotes.get(held.contract)
                if quote is None or quote.bid <= ZERO:
                    continue
                portfolio.prices[held.symbol] = quote.bid
                if excess := _excess(portfolio, held):
                    await self.orders.take_back(
                        portfolio, held, excess, quote.bid, situation, market_time, clock_seconds
                    )

    # --- steps -------------------------------------------------------------------------------------------------------

    async def _led(
        self, decision: Decision, situation: Situation, counts: Exposures, market_time: datetime, now: datetime,
        spent: Decimal, clock_seconds: float,
    ) -> Decision:  # fmt: skip
        """One entry after its protection was bought: what is protected of it, or its denial."""
        portfolio, signal = decision.portfolio, decision.signal
        level = signal.price * (1 - (_away(decision) or ZERO))
        name = portfolio.venue.hedge_for(Symbol(signal.symbol), market_time, level)
        put, future = portfolio.venue.listed(name) if name else None, portfolio.venue.listed(decision.contract)
        if name is None or put is None or future is None:
            return denied(decision, Denial.LEG_UNAVAILABLE, leg=f"put at {level:.2f}", why="none is listed")
        legs = (Leg(put, "buy", decision.quantity), Leg(future, "buy", decision.quantity))
        if (denial := check_legs(legs)) is not None:
            return replace(decision, denial=denial)
        step = plan(legs, {name: _protection(portfolio, signal, name)}, "opening")
        if step is not None and step.leg.symbol == name:
            quote = (await self.orders.quotes(portfolio, [name])).get(name)
            if quote is None or quote.ask <= ZERO:
                return denied(decision, Denial.LEG_UNAVAILABLE, leg=name, why="it is not offered")
            bought = about(
                signal, role=HEDGE, symbol=name, price=quote.ask, state="ok", target_price=None, stop_price=None
            )
            stake = portfolio.stakes[StrategyId(signal.strategy_id)]
            leg = enter(portfolio, bought, stake, name, step.quantity, situation, now, None, counts, spent)
            await self.orders.carry_out(leg, situation, market_time, clock_seconds)
            if leg.denial is None:
                cost = leg.quantity * quote.ask
                counts.add(portfolio, stake.strategy_id, name, name, "buy", leg.decision_key, cost)
            else:
                return denied(decision, Denial.LEG_UNAVAILABLE, leg=name, why=leg.denial.partition(":")[0])
        protected = situation.instruments[decision.contract].round_quantity(_protection(portfolio, signal, name))
        if protected < decision.quantity:
            log.warning("entry_not_all_protected", account=portfolio.account_id, leg=name, protected=str(protected))
        if protected <= ZERO:
            return denied(decision, Denial.LEG_UNPROTECTED, leg=decision.contract, uncovered=decision.quantity)
        return replace(decision, quantity=min(decision.quantity, protected))


def _away(decision: Decision) -> Decimal | None:
    stake = stake_of(decision.portfolio, decision.signal)
    return stake.hedge_away if stake else None


def _protection(portfolio: Portfolio, signal: Signal, name: Symbol) -> Decimal:
    """What of a put is held for a signal; another signal's protects another position."""
    held = portfolio.holdings.get((StrategyId(signal.strategy_id), name))
    return held.quantity if held is not None and held.signal_id == signal.signal_id else ZERO


def _excess(portfolio: Portfolio, hedge: Holding) -> Decimal:
    """What of a hedge its position does not need."""
    protected = next(
        (
            each
            for each in portfolio.holdings.values()
            if not each.hedges and (each.strategy_id, each.signal_id) == (hedge.strategy_id, hedge.signal_id)
        ),
        None,
    )
    put = portfolio.venue.listed(hedge.contract)
    future = portfolio.venue.listed(protected.contract) if protected else None
    if put is None or protected is None or future is None:
        return hedge.quantity
    legs = (Leg(put, "buy", hedge.quantity), Leg(future, "buy", hedge.quantity))
    step = plan(legs, {hedge.contract: hedge.quantity, protected.contract: protected.quantity}, "unwinding")
    return step.quantity if step is not None and step.leg.symbol == hedge.contract else ZERO
