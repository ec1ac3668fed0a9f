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

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import structlog

from trading_platform.execution.decisions import Decision, Situation, enter, flatten
from trading_platform.execution.denial_codes import Denial, said
from trading_platform.execution.exposures import Exposures
from trading_platform.execution.intents import StepWriter
from trading_platform.execution.legs import Leg, check_legs, plan
from trading_platform.execution.portfolio import HEDGE, Holding, Portfolio
from trading_platform.execution.sender import Sender
from trading_platform.execution.withdrawal import at_most_held
from trading_platform.identifiers import DatasetId, StrategyId, Symbol
from trading_platform.storage.control import Signal
from trading_platform.venues.port import QueryFailedError, TopOfBook

ZERO = Decimal(0)
log = structlog.get_logger(__name__)


@dataclass
class HedgeKeeper:
    """Keeps the hedges of a group's positions, for the engine that holds the lease."""

    sender: Sender
    writer: StepWriter
    dataset_id: DatasetId

    async def lead(
        self, decisions: Sequence[Decision], situation: Situation, counts: Exposures, market_time: datetime,
        now: datetime, clock_seconds: float,
    ) -> list[Decision]:  # fmt: skip
        """The decisions, of which hedged entries are cut down to what is protected now. Buys the protection."""
        after = list(decisions)

        async def one(places: list[int]) -> None:
            for place in places:
                portfolio = after[place].portfolio
                spent = sum(
                    (
                        each.quantity * each.signal.price
                        for each in after
                        if each.portfolio is portfolio and _enters(each)
                    ),
                    ZERO,
                )
                after[place] = await self._led(after[place], situation, counts, market_time, now, spent, clock_seconds)

        by_account: dict[str, list[int]] = {}
        for place, decision in enumerate(after):
            if _enters(decision) and _away(decision) is not None:
                by_account.setdefault(decision.portfolio.account_id, []).append(place)
        for trouble in await asyncio.gather(*map(one, by_account.values()), return_exceptions=True):
            if trouble is not None:  # only now: no order may be on its way when a session ends
                raise trouble
        return after

    async def follow(
        self, portfolios: Sequence[Portfolio], situation: Situation, market_time: datetime, clock_seconds: float
    ) -> None:
        """Sell what of the hedges stands without its position, and value those that stay."""
        for portfolio in portfolios:
            hedges = [held for held in portfolio.holdings.values() if held.hedges]
            if not hedges or portfolio.unsettled:  # what is asked for may be the position that a hedge belongs to
                continue
            quotes = await self._quotes(portfolio, [held.contract for held in hedges])
            for held in hedges:
                quote = quotes.get(held.contract)
                if quote is None or quote.bid <= ZERO:
                    continue
                portfolio.prices[held.symbol] = quote.bid
                if excess := _excess(portfolio, held):
                    await self._sell(portfolio, held, excess, quote.bid, situation, market_time, clock_seconds)

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
            return _denied(decision, Denial.LEG_UNAVAILABLE, leg=f"put at {level:.2f}", why="none is listed")
        legs = (Leg(put, "buy", decision.quantity), Leg(future, "buy", decision.quantity))
        if (denial := check_legs(legs)) is not None:
            return replace(decision, denial=denial)
        step = plan(legs, {name: _protection(portfolio, signal, name)}, "opening")
        if step is not None and step.leg.symbol == name:
            quote = (await self._quotes(portfolio, [name])).get(name)
            if quote is None or quote.ask <= ZERO:
                return _denied(decision, Denial.LEG_UNAVAILABLE, leg=name, why="it is not offered")
            bought = _about(signal, name, quote.ask, market_time)
            stake = portfolio.stakes[StrategyId(signal.strategy_id)]
            leg = enter(portfolio, bought, stake, name, step.quantity, situation, now, None, counts, spent)
            await self._carry_out(leg, situation, market_time, clock_seconds)
            if leg.denial is None:
                cost = leg.quantity * quote.ask
                counts.add(portfolio, stake.strategy_id, name, name, "buy", leg.decision_key, cost)
            else:
                return _denied(decision, Denial.LEG_UNAVAILABLE, leg=name, why=leg.denial.partition(":")[0])
        protected = situation.instruments[decision.contract].round_quantity(_protection(portfolio, signal, name))
        if protected < decision.quantity:
            log.warning("entry_not_all_protected", account=portfolio.account_id, leg=name, protected=str(protected))
        if protected <= ZERO:
            return _denied(decision, Denial.LEG_UNPROTECTED, leg=decision.contract, uncovered=decision.quantity)
        return replace(decision, quantity=min(decision.quantity, protected))

    async def _sell(
        self, portfolio: Portfolio, held: Holding, excess: Decimal, bid: Decimal, situation: Situation,
        market_time: datetime, clock_seconds: float,
    ) -> None:  # fmt: skip
        signal = _about(held, held.symbol, bid, market_time, dataset_id=self.dataset_id)
        exits = flatten(portfolio, {held.symbol: signal}, market_time, situation, {held.key})
        exits = [replace(each, quantity=min(each.quantity, excess)) for each in exits]
        for each in at_most_held(exits, await portfolio.venue.balances(), situation.instruments):
            await self._carry_out(each, situation, market_time, clock_seconds)

    async def _carry_out(
        self, decision: Decision, situation: Situation, market_time: datetime, clock_seconds: float
    ) -> None:
        """Write a leg, then send it; one that a life of this engine that has ended wrote is being asked for."""
        issued_at = datetime.now(UTC)
        written = await self.writer.write([decision], market_time, issued_at, self.sender.market_now())
        for intent in written.values():
            instrument = situation.instruments[decision.contract]
            await self.sender.send(decision.portfolio, intent, instrument, issued_at, clock_seconds)

    async def _quotes(self, portfolio: Portfolio, contracts: Sequence[Symbol]) -> Mapping[Symbol, TopOfBook]:
        try:
            return await portfolio.venue.books(contracts)
        except QueryFailedError as error:
            log.warning("hedges_not_quoted", account=portfolio.account_id, error=str(error)[:300])
            return {}


def _enters(decision: Decision) -> bool:
    return decision.purpose == "entry" and decision.denial is None


def _away(decision: Decision) -> Decimal | None:
    stake = decision.portfolio.stakes.get(StrategyId(decision.signal.strategy_id))
    return stake.hedge_away if stake else None


def _denied(decision: Decision, denial: Denial, **values: object) -> Decision:
    return replace(decision, denial=said(denial, **values))


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


def _about(
    origin: Signal | Holding, name: Symbol, price: Decimal, market_time: datetime, dataset_id: DatasetId | None = None
) -> Signal:
    """What a signal, or the position that came of one, means for a leg. It is of the moment, and never stored."""
    of = origin if isinstance(origin, Signal) else None
    return Signal(
        dataset_id=of.dataset_id if of else dataset_id, seq=0, signal_id=origin.signal_id,
        strategy_id=origin.strategy_id, version_id=origin.version_id, role=HEDGE, symbol=name,
        bar_open_time=of.bar_open_time if of else market_time, available_at=market_time, price=price, state="ok",
        direction="long", confidence=of.confidence if of else None, threshold=of.threshold if of else 0.0,
        certified=of.certified if of else False, target_price=None, stop_price=None, exit_by=origin.exit_by,
        expires_at=of.expires_at if of else market_time + timedelta(seconds=1),
        volatility=of.volatility if of else "unknown", trend=of.trend if of else "unknown",
        liquidity=of.liquidity if of else "unknown", session=of.session if of else "unknown",
        trace_id=of.trace_id if of else None,
    )  # fmt: skip
