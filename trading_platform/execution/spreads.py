"""Bull call spreads: an index is entered by a call that is bought and a higher one that is sold, instead of its future.

A user asks for it with `spread_away` of a subscription: how far above the market the sold call's strike is. The bought call,
the nearest to the market, stands for the position: it has the index's symbol, and is left at the index's barriers. It goes
out like any other entry, judged by the limits with what the index is worth. The sold call follows once the bought one has
ended, as far as that is filled, in whole lots; and what of the bought one stands without it, because the sold one was denied,
refused or is not to be had, is sold again. On leaving, the sold call is bought back first, and the bought one is sold only as
far as that is back. So at no moment is more sold than is bought, and a spread loses no more than was paid for it: it needs
no stop at the venue, and has none, for a stop that sold the bought call would leave the sold one bare (`stops.py`).

Both legs are known by their signal and arm, so an engine that takes over goes on from the books alone: the sold call of a
signal is one decision, made once, whoever asks; once its signal has run out, or it has been tried, what is missing of it is
never sold again but the bought one unwound. What is bought back is no more than what the venue says is short.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

import structlog
from sqlalchemy import select

from trading_platform.execution.at_once import by_account
from trading_platform.execution.decisions import Decision, Situation, enter, spread_of
from trading_platform.execution.denial_codes import Denial
from trading_platform.execution.exposures import Exposures
from trading_platform.execution.leg_orders import LegOrders, about, denied, enters, stake_of
from trading_platform.execution.legs import Leg, check_legs, plan
from trading_platform.execution.portfolio import BOUGHT, SOLD, Holding, Portfolio, Stake
from trading_platform.execution.withdrawal import held_at_venue
from trading_platform.identifiers import StrategyId, Symbol
from trading_platform.storage.control import Signal
from trading_platform.venues.port import TopOfBook

ZERO = Decimal(0)
SpreadId = tuple[StrategyId, str]
"""Strategy and signal."""
log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Spread:
    """What is held of a spread."""

    bought: Holding | None
    sold: Holding | None

    @property
    def legs(self) -> list[Holding]:
        return [leg for leg in (self.bought, self.sold) if leg is not None]


@dataclass
class SpreadKeeper:
    """Keeps the spreads of a group's accounts, for the engine that holds the lease."""

    orders: LegOrders

    async def make_way(
        self, decisions: Sequence[Decision], situation: Situation, market_time: datetime, clock_seconds: float
    ) -> list[Decision]:
        """The decisions, of which exits from spreads are cut down to what no sold call stands on. Buys those back."""

        async def freed(after: list[Decision], place: int) -> Decision | None:
            return await self._freed(after[place], situation, market_time, clock_seconds)

        return await by_account(decisions, _leaves_spread, freed)

    async def lead(
        self, decisions: Sequence[Decision], situation: Situation, counts: Exposures, market_time: datetime, now: datetime
    ) -> list[Decision]:  # fmt: skip
        """The decisions, of which entries by a spread are judged by both its calls."""

        async def judged(after: list[Decision], place: int) -> Decision:
            return await self._judged(after[place], situation, counts, market_time, now)

        return await by_account(decisions, _enters_spread, judged)

    async def follow(
        self, portfolios: Sequence[Portfolio], situation: Situation, market_time: datetime, now: datetime,
        clock_seconds: float,
    ) -> None:  # fmt: skip
        """Sell what is missing of a spread, once; take back what of it stands alone; value what stays."""
        for portfolio in portfolios:
            spreads = _spreads(portfolio)
            if not spreads:
                continue
            quotes = await self._quoted(portfolio, spreads)
            for spread_id, spread in spreads.items():
                if spread.bought is not None and spread.sold is None and not _is_asked_for(portfolio, spread.bought):
                    counts = situation.exposures(portfolios, market_time)
                    await self._sell(portfolio, spread.bought, situation, counts, market_time, now, clock_seconds)
                while (excess := _excess(portfolio, spread_id)) is not None and not _is_asked_for(portfolio, excess[0]):
                    if not await self._unwind(portfolio, *excess, quotes, situation, market_time, clock_seconds):
                        break

    # --- steps -------------------------------------------------------------------------------------------------------

    async def _judged(
        self, decision: Decision, situation: Situation, counts: Exposures, market_time: datetime, now: datetime
    ) -> Decision:
        """An entry as that of the bought leg, or its denial where one of the two calls is not to be had.

        What would deny the sold one is asked here already: a bought one that must be unwound costs its spread.
        """
        portfolio, signal = decision.portfolio, decision.signal
        stake = stake_of(portfolio, signal)
        names = spread_of(stake, portfolio, signal, market_time) if stake else None
        legs = _legs(portfolio, names, decision.quantity) if names else None
        if stake is None or names is None or legs is None:
            return denied(decision, Denial.LEG_UNAVAILABLE, leg="spread", why="no two calls are listed for it")
        if (denial := check_legs(legs)) is not None:
            return replace(decision, denial=denial)
        quotes = await self.orders.quotes(portfolio, names)
        missing = _missing(portfolio, names, quotes)
        if missing is None:
            asked = replace(situation, breaker=lambda *_: None)  # which counts what it lets through as sent
            bid = quotes[names[1]].bid
            sale = _sale(portfolio, signal, stake, names[1], decision.quantity, bid, asked, counts, now)
            missing = (names[1], sale.denial.partition(":")[0]) if sale.denial is not None else None
        if missing is not None:
            return denied(decision, Denial.LEG_UNAVAILABLE, leg=missing[0], why=missing[1])
        return replace(decision, signal=about(signal, role=BOUGHT))

    async def _freed(
        self, decision: Decision, situation: Situation, market_time: datetime, clock_seconds: float
    ) -> Decision | None:
        """An exit after its sold leg was bought back: what of the bought one may go. None where that is nothing yet."""
        portfolio, bought = decision.portfolio, decision.holding
        assert bought is not None
        sold = _spreads(portfolio)[_id(bought)].sold
        if sold is not None and sold.symbol not in portfolio.unsettled:
            quote = (await self.orders.quotes(portfolio, [sold.contract])).get(sold.contract)
            price = quote.ask if quote is not None and quote.ask > ZERO else sold.average_price
            await self.orders.take_back(
                portfolio, sold, -sold.quantity, price, situation, market_time, clock_seconds
            )  # fmt: skip
        free = await self._free(portfolio, bought)
        if free <= ZERO:
            log.info("exit_waits_for_sold_leg", account=portfolio.account_id, contract=bought.contract)
            return None
        return replace(decision, quantity=min(decision.quantity, free))

    async def _free(self, portfolio: Portfolio, bought: Holding) -> Decimal:
        """What of a bought leg no sold one stands on. A sold leg that is asked for may be there in full; what somebody has
        bought back by hand is not."""
        if _is_asked_for(portfolio, bought):
            return ZERO
        sold = _spreads(portfolio)[_id(bought)].sold
        if sold is None:
            return bought.quantity
        there = await held_at_venue(portfolio)
        short = -sold.quantity if there is None else -there.get(sold.contract, ZERO)
        return bought.quantity - min(-sold.quantity, max(short, ZERO))

    async def _sell(
        self, portfolio: Portfolio, bought: Holding, situation: Situation, counts: Exposures, market_time: datetime,
        now: datetime, clock_seconds: float,
    ) -> None:  # fmt: skip
        """Sell the sold leg against what is held of the bought one, where the stake still asks for it."""
        stake, signal = stake_of(portfolio, bought), await self._signal(bought)
        if stake is None or not stake.enabled or signal is None:
            return
        names = spread_of(stake, portfolio, signal, signal.available_at)
        legs = _legs(portfolio, names, bought.quantity) if names else None
        if names is None or legs is None or names[0] != bought.contract:
            return
        step = plan(legs, {names[0]: bought.quantity}, "opening")
        quote = (await self.orders.quotes(portfolio, names)).get(names[1])
        if step is None or quote is None or quote.bid <= ZERO or _is_taken(portfolio, names):
            log.warning("sold_leg_not_to_be_had", account=portfolio.account_id, leg=names[1])
            return
        leg = _sale(portfolio, signal, stake, names[1], step.quantity, quote.bid, situation, counts, now)
        await self.orders.carry_out(leg, situation, market_time, clock_seconds)

    async def _unwind(
        self, portfolio: Portfolio, leg: Holding, quantity: Decimal, quotes: Mapping[Symbol, TopOfBook],
        situation: Situation, market_time: datetime, clock_seconds: float,
    ) -> bool:  # fmt: skip
        """Take back what stands without its set; whether something came of it."""
        quote, before = quotes.get(leg.contract), leg.quantity
        if quote is None or (quote.bid if leg.arm == BOUGHT else quote.ask) <= ZERO:
            return False
        price = await self._level(portfolio, leg) if leg.arm == BOUGHT else quote.ask
        await self.orders.take_back(portfolio, leg, quantity, price, situation, market_time, clock_seconds)
        return leg.quantity != before

    async def _level(self, portfolio: Portfolio, bought: Holding) -> Decimal:
        """Of the index, by whose barriers the reason for an exit is told."""
        if bought.symbol in portfolio.prices:
            return portfolio.prices[bought.symbol]
        signal = await self._signal(bought)
        return signal.price if signal is not None else bought.average_price

    async def _quoted(self, portfolio: Portfolio, spreads: Mapping[SpreadId, Spread]) -> Mapping[Symbol, TopOfBook]:
        """Quotes of all legs, by which they are valued as if they were left now."""
        legs = [leg for spread in spreads.values() for leg in spread.legs]
        quotes = await self.orders.quotes(portfolio, [leg.contract for leg in legs])
        for leg in legs:
            if (quote := quotes.get(leg.contract)) is not None:
                price = quote.bid if leg.arm == BOUGHT else quote.ask
                if price > ZERO:
                    portfolio.prices[leg.contract] = price
        return quotes

    async def _signal(self, bought: Holding) -> Signal | None:
        async with self.orders.sender.databases.control_async() as session:
            return await session.scalar(select(Signal).where(Signal.signal_id == bought.signal_id))


def _enters_spread(decision: Decision) -> bool:
    stake = stake_of(decision.portfolio, decision.signal)
    return enters(decision) and stake is not None and stake.spread_away is not None


def _leaves_spread(decision: Decision) -> bool:
    return decision.denial is None and decision.holding is not None and decision.holding.arm == BOUGHT


def _sale(
    portfolio: Portfolio, signal: Signal, stake: Stake, name: Symbol, quantity: Decimal, bid: Decimal,
    situation: Situation, counts: Exposures, now: datetime,
) -> Decision:  # fmt: skip
    """The sold leg as an entry like any other, of the signal that led to the bought one."""
    terms = about(signal, role=SOLD, symbol=name, price=bid, target_price=None, stop_price=None)
    return enter(portfolio, terms, stake, name, quantity, situation, now, None, counts, ZERO, side="sell")


def _id(leg: Holding) -> SpreadId:
    return leg.strategy_id, leg.signal_id


def _spreads(portfolio: Portfolio) -> dict[SpreadId, Spread]:
    found: dict[SpreadId, dict[str, Holding]] = {}
    for held in portfolio.holdings.values():
        if held.arm in (BOUGHT, SOLD):
            found.setdefault(_id(held), {})[held.arm] = held
    return {spread_id: Spread(legs.get(BOUGHT), legs.get(SOLD)) for spread_id, legs in found.items()}


def _legs(portfolio: Portfolio, names: tuple[Symbol, Symbol], quantity: Decimal) -> tuple[Leg, Leg] | None:
    bought, sold = (portfolio.venue.listed(name) for name in names)
    return None if bought is None or sold is None else (Leg(bought, "buy", quantity), Leg(sold, "sell", quantity))


def _excess(portfolio: Portfolio, spread_id: SpreadId) -> tuple[Holding, Decimal] | None:
    """The next leg of a spread that stands without its set, and how much of it; sold before bought."""
    spread = _spreads(portfolio).get(spread_id)
    if spread is None:
        return None
    if spread.bought is None or spread.sold is None:
        (alone,) = spread.legs
        return alone, abs(alone.quantity)
    most = max(abs(leg.quantity) for leg in spread.legs)
    legs = _legs(portfolio, (spread.bought.contract, spread.sold.contract), most)
    if legs is None:  # it has expired, and the venue says what became of it
        return None
    step = plan(legs, {leg.contract: abs(leg.quantity) for leg in spread.legs}, "unwinding")
    if step is None:
        return None
    return (spread.bought if step.leg.side == "buy" else spread.sold), step.quantity


def _missing(
    portfolio: Portfolio, names: tuple[Symbol, Symbol], quotes: Mapping[Symbol, TopOfBook]
) -> tuple[Symbol, str] | None:
    """The call that is not to be had now, and why."""
    bought, sold = names
    if _is_taken(portfolio, names):
        return sold, "the account holds one of the calls already"
    if bought not in quotes or quotes[bought].ask <= ZERO:
        return bought, "it is not offered"
    if sold not in quotes or quotes[sold].bid <= ZERO:
        return sold, "nobody bids for it"
    return None


def _is_taken(portfolio: Portfolio, names: tuple[Symbol, Symbol]) -> bool:
    """Whether the account holds one of the calls on the other side, where both would cancel out at the venue, or a sold leg
    of the same name is still to be bought back."""
    bought, sold = names
    short = any(held.contract == bought and held.quantity < ZERO for held in portfolio.holdings.values())
    return short or any(held.contract == sold for held in portfolio.holdings.values())


def _is_asked_for(portfolio: Portfolio, leg: Holding) -> bool:
    """Whether a leg of the spread may be on its way: its own order, or one in another call of the index, which may be the
    sold leg that the books do not hold yet."""
    own = portfolio.venue.listed(leg.contract)
    for symbol in portfolio.unsettled:
        listed = portfolio.venue.listed(symbol)
        is_call = listed is not None and own is not None and (listed.name, listed.instrument_type) == (own.name, "CE")
        if is_call or symbol == leg.symbol:
            return True
    return False
