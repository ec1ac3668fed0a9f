"""How legs of a position are traded, whatever set they are of: quoted, written, sent, and taken back.

What the sets are, and what they need next, is in `hedges.py` and `spreads.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import structlog
from sqlalchemy import inspect

from trading_platform.execution.decisions import Decision, Situation, decision_key, flatten
from trading_platform.execution.denial_codes import Denial, said
from trading_platform.execution.intents import StepWriter
from trading_platform.execution.portfolio import Holding, Portfolio, Stake
from trading_platform.execution.sender import Sender
from trading_platform.execution.withdrawal import at_most_held, held_at_venue
from trading_platform.identifiers import DatasetId, StrategyId, Symbol
from trading_platform.storage.control import Signal
from trading_platform.venues.port import QueryFailedError, TopOfBook

UNWIND = "unwind"
"""In the decision key of what is taken back, so that it is not taken for the exit that a bar asks for."""
log = structlog.get_logger(__name__)


@dataclass
class LegOrders:
    """Trades the legs of a group's positions, for the engine that holds the lease."""

    sender: Sender
    writer: StepWriter
    dataset_id: DatasetId

    async def carry_out(
        self, decision: Decision, situation: Situation, market_time: datetime, clock_seconds: float
    ) -> None:
        """Write a leg, then send it; one that a life of this engine that has ended wrote is being asked for."""
        issued_at = datetime.now(UTC)
        sent_at = self.sender.market_now()
        for order in await self.writer.write([decision], situation.instruments, market_time, issued_at, sent_at):
            await self.sender.send(order, clock_seconds)

    async def take_back(
        self, portfolio: Portfolio, held: Holding, quantity: Decimal, price: Decimal, situation: Situation,
        market_time: datetime, clock_seconds: float,
    ) -> None:  # fmt: skip
        """Leave so much of a leg, and no more than the venue says is there: sell what was bought, buy back what was sold."""
        signal = _of_moment(held, price, market_time, self.dataset_id)
        exits = [
            replace(
                each, quantity=min(each.quantity, quantity), decision_key=decision_key(portfolio, signal, UNWIND)
            )
            for each in flatten(portfolio, {held.symbol: signal}, market_time, situation, {held.key})
        ]  # fmt: skip
        there = await held_at_venue(portfolio) if exits else None
        if there is not None:
            for each in at_most_held(exits, there, situation.instruments):
                await self.carry_out(each, situation, market_time, clock_seconds)

    async def quotes(self, portfolio: Portfolio, contracts: Sequence[Symbol]) -> Mapping[Symbol, TopOfBook]:
        """Of those that trade now; of none where the venue does not answer."""
        try:
            return await portfolio.venue.books(contracts)
        except QueryFailedError as error:
            log.warning("legs_not_quoted", account=portfolio.account_id, error=str(error)[:300])
            return {}


def enters(decision: Decision) -> bool:
    return decision.purpose == "entry" and decision.denial is None


def stake_of(portfolio: Portfolio, origin: Signal | Holding) -> Stake | None:
    return portfolio.stakes.get(StrategyId(origin.strategy_id))


def denied(decision: Decision, denial: Denial, **values: object) -> Decision:
    return replace(decision, denial=said(denial, **values))


def about(signal: Signal, **changes: Any) -> Signal:
    """What a signal means for a leg: it is of the moment, and never stored."""
    return Signal(**{each.key: getattr(signal, each.key) for each in inspect(Signal).column_attrs} | changes)


def _of_moment(held: Holding, price: Decimal, market_time: datetime, dataset_id: DatasetId) -> Signal:
    """A signal to leave what came of another one."""
    return Signal(
        dataset_id=dataset_id, seq=0, signal_id=held.signal_id, strategy_id=held.strategy_id, version_id=held.version_id,
        role=held.arm, symbol=held.symbol, bar_open_time=market_time, available_at=market_time, price=price, state="ok",
        direction="long", confidence=None, threshold=0.0, certified=False, target_price=None, stop_price=None,
        exit_by=held.exit_by, expires_at=market_time + timedelta(seconds=1), volatility="unknown", trend="unknown",
        liquidity="unknown", session="unknown", trace_id=None,
    )  # fmt: skip
