"""What others write and an engine obeys: halts, the group's desired state, limits, experiments, the list of accounts, the
exchange's ban list."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from trading_platform.execution.accounts import terms, tradable_accounts
from trading_platform.execution.breaker_board import BreakerBoard
from trading_platform.execution.clock import MarketClock
from trading_platform.execution.decisions import Situation
from trading_platform.execution.kill_switch import Latches
from trading_platform.execution.portfolio import Portfolio
from trading_platform.identifiers import DatasetId, GroupId, Symbol
from trading_platform.learning.arms import arm_of
from trading_platform.markets.instruments import Instrument
from trading_platform.markets.sessions import IST
from trading_platform.storage.control import Experiment, Group, Halt, Signal
from trading_platform.storage.databases import Databases
from trading_platform.venues.zerodha.bans import lists_from

READ_AGAIN_SECONDS = 1.0
"""How old a directive may be."""
CHAMPION = "champion"


class AccountsChanged(Exception):
    """An account was opened, closed, armed or disarmed: portfolios must be built anew."""


@dataclass
class Directives:
    """Those for one group on one dataset, as of the last `read`."""

    databases: Databases
    group_id: GroupId
    dataset_id: DatasetId
    live_venue: str | None
    clock: MarketClock
    breakers: BreakerBoard
    latches: Latches = field(default_factory=lambda: Latches({}))
    bans: dict[str, Any] | None = None
    """The day's ban list as it is shown; None where no account is at a broker."""
    _situation: Situation | None = None
    _experiments: list[Experiment] = field(default_factory=list)
    _arms: dict[tuple[str, str], str] = field(default_factory=dict)
    _read_at: float = 0.0

    @property
    def stale(self) -> bool:
        return time.monotonic() - self._read_at > READ_AGAIN_SECONDS

    @property
    def situation(self) -> Situation:
        """What decisions are made in. There is one from the first `read` on."""
        assert self._situation is not None
        return self._situation

    @property
    def flattening(self) -> bool:
        return self._situation is not None and self._situation.flattening

    async def read(self, portfolios: Sequence[Portfolio], instruments: Mapping[Symbol, Instrument]) -> None:
        """Read them anew and put limits and stakes into force. Raises `AccountsChanged`."""
        self._read_at = time.monotonic()
        async with self.databases.control_async() as session:
            group = await session.get_one(Group, self.group_id)
            halts = (await session.scalars(select(Halt).where(Halt.cleared_at.is_(None)))).all()
            running = await session.scalars(
                select(Experiment)
                .where(Experiment.dataset_id == self.dataset_id, Experiment.ended_at.is_(None))
                .order_by(Experiment.started_at.desc())
            )
            self._experiments = list(running.all())
            await self._read_bans(session, portfolios)
        async with self.databases.group_async(self.group_id) as session:
            accounts = await tradable_accounts(session, self.dataset_id, self.live_venue)
            in_force = await terms(session)
        if accounts != [(each.user_id, each.account_id, each.keys_changed_at) for each in portfolios]:
            raise AccountsChanged
        for portfolio in portfolios:
            in_force.apply(portfolio)
        self._arms.clear()
        latches = self.latches = Latches.of(halts)
        asked = "group" if group.desired_state == "HALT" else None
        self._situation = Situation(
            instruments,
            group.desired_state == "FLATTEN",
            self.clock.seconds,
            lambda portfolio: latches.scope_of(portfolio, self.group_id) or asked,
            self.group_id,
            in_force.limits,
            breaker=lambda portfolio, symbol: self.breakers.blocks(
                portfolio.account_id, portfolio.venue.route.exchange, symbol, datetime.now(UTC)
            ),
            leaving=lambda portfolio: latches.asks(portfolio, self.group_id, "flatten"),
        )

    async def _read_bans(self, session: AsyncSession, portfolios: Sequence[Portfolio]) -> None:
        """Today's list is in force with the next order. A replay reads all there are: its days pass in moments."""
        brokers = [portfolio.broker for portfolio in portfolios if portfolio.broker is not None]
        if not brokers:
            self.bans = None
            return
        day = brokers[0].now().astimezone(IST).date()
        lists = await lists_from(session, date.min if self.clock.waits else day)
        for broker in brokers:
            broker.bans = lists
        today = lists.get(day)
        self.bans = {"day": day.isoformat(), "underlyings": sorted(today.underlyings) if today else None}

    def arm(self, portfolio: Portfolio, signal: Signal, signals: Sequence[Signal]) -> str:
        """Whose signal this user's money follows; the champion's where no challenger scored the bar."""
        key = (portfolio.user_id, signal.strategy_id)
        if key not in self._arms:
            experiment = next((each for each in self._experiments if each.strategy_id == signal.strategy_id), None)
            self._arms[key] = (
                arm_of(experiment.experiment_id, portfolio.user_id, experiment.split_basis_points)
                if experiment is not None
                else CHAMPION
            )
        arm = self._arms[key]
        scored = {each.role for each in signals if each.strategy_id == signal.strategy_id}
        return arm if arm in scored else CHAMPION
