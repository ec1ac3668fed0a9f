"""A venue whose calls are counted: the same door, and a breaker that knows how it answers."""

import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import TypeVar

from trading_platform.execution.breakers import VenueBreaker
from trading_platform.identifiers import ClientOrderId, Symbol
from trading_platform.markets.contracts import Contract
from trading_platform.markets.denials import Denial
from trading_platform.markets.instruments import Instrument
from trading_platform.venues.port import (
    Accepted,
    Ambiguous,
    OptionVenue,
    OrderVenue,
    QueryFailedError,
    Result,
    Sending,
    Side,
    Throttled,
    TopOfBook,
)
from trading_platform.venues.route import Route

Answer = TypeVar("Answer")


@dataclass
class WatchedVenue:
    """Passes everything on to `venue`. A refusal is an answer; silence and "wait" are not."""

    venue: OrderVenue
    watch: VenueBreaker
    wall_time: Callable[[], datetime] = lambda: datetime.now(UTC)

    @property
    def route(self) -> Route:
        return self.venue.route

    @route.setter
    def route(self, route: Route) -> None:
        self.venue.route = route

    @property
    def needs_login(self) -> bool:
        return self.venue.needs_login

    @needs_login.setter
    def needs_login(self, needs: bool) -> None:
        self.venue.needs_login = needs

    def proves_absence(self, contract: Symbol, issued_at: datetime, market_sent_at: datetime) -> bool:
        return self.venue.proves_absence(contract, issued_at, market_sent_at)

    def takes_stops(self, contract: Symbol) -> bool:
        return self.venue.takes_stops(contract)

    def contract_for(self, symbol: Symbol, at: datetime) -> Symbol:
        return self.venue.contract_for(symbol, at)

    def hedge_for(self, symbol: Symbol, at: datetime, level: Decimal) -> Symbol | None:
        return self.venue.hedge_for(symbol, at, level)

    def spread_for(self, symbol: Symbol, at: datetime, price: Decimal, level: Decimal) -> tuple[Symbol, Symbol] | None:
        return self.venue.spread_for(symbol, at, price, level) if isinstance(self.venue, OptionVenue) else None

    def listed(self, contract: Symbol) -> Contract | None:
        return self.venue.listed(contract)

    def forbids(self, contract: Symbol, side: Side, quantity: Decimal, *, reducing: bool) -> Denial | None:
        return self.venue.forbids(contract, side, quantity, reducing=reducing)

    async def measure_route(self) -> None:
        await self._asked(self.venue.measure_route())

    async def instruments(self) -> Mapping[Symbol, Instrument]:
        return await self.venue.instruments()  # a download of minutes says nothing of orders

    def place_market(
        self, client_order_id: ClientOrderId, contract: Symbol, side: Side, quantity: Decimal, issued_at: datetime, *,
        reducing: bool = False,
    ) -> Sending:  # fmt: skip
        made_out = self.venue.place_market(client_order_id, contract, side, quantity, issued_at, reducing=reducing)
        return Sending(partial(self._sent, made_out))

    def place_stop(
        self, client_order_id: ClientOrderId, contract: Symbol, side: Side, quantity: Decimal, trigger: Decimal,
        limit: Decimal, issued_at: datetime,
    ) -> Sending:  # fmt: skip
        made_out = self.venue.place_stop(client_order_id, contract, side, quantity, trigger, limit, issued_at)
        return Sending(partial(self._sent, made_out))

    async def cancel(self, client_order_id: ClientOrderId, contract: Symbol) -> Result:
        return await self._sent(self.venue.cancel(client_order_id, contract))

    async def find_order(self, client_order_id: ClientOrderId, contract: Symbol) -> Accepted | None:
        return await self._asked(self.venue.find_order(client_order_id, contract))

    async def balances(self) -> Mapping[str, Decimal]:
        return await self._asked(self.venue.balances())

    async def books(self, contracts: Collection[Symbol]) -> Mapping[Symbol, TopOfBook]:
        return await self._asked(self.venue.books(contracts))

    async def open_client_order_ids(self, contracts: Collection[Symbol] | None = None) -> set[str]:
        return await self._asked(self.venue.open_client_order_ids(contracts))

    async def close(self) -> None:
        await self.venue.close()

    async def _sent(self, call: Awaitable[Result]) -> Result:
        started = time.perf_counter()
        result = await call
        self._count(not isinstance(result, (Ambiguous, Throttled)), started, is_order=True)
        return result

    async def _asked(self, call: Awaitable[Answer]) -> Answer:
        started = time.perf_counter()
        try:
            answer = await call
        except QueryFailedError:
            self._count(False, started, is_order=False)
            raise
        self._count(True, started, is_order=False)
        return answer

    def _count(self, answered: bool, started: float, *, is_order: bool) -> None:
        seconds = time.perf_counter() - started
        self.watch.on_call(answered=answered, seconds=seconds, is_order=is_order, now=self.wall_time())
