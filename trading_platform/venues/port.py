"""The order door: what an engine may ask of a venue, and every answer it may get, as types.

An answer that does not come is an answer: `Ambiguous`. The order may be at the venue or not, and only asking for it by
its client order id settles that. Nothing but `Throttled` may be sent again by itself. A query that fails raises
`QueryFailedError`; it never means "no position" or "no such order".
"""

from collections.abc import Awaitable, Callable, Collection, Coroutine, Generator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal, Protocol, runtime_checkable

from trading_platform.identifiers import AccountId, ClientOrderId, Symbol, TradeId, VenueOrderId
from trading_platform.markets.contracts import Contract
from trading_platform.markets.denials import Denial
from trading_platform.markets.instruments import Instrument
from trading_platform.markets.position_limits import BanList
from trading_platform.venues.route import Route

Side = Literal["buy", "sell"]
OrderState = Literal["WORKING", "PARTIALLY_FILLED", "FILLED", "CANCELLED", "REJECTED", "EXPIRED"]
FINAL_STATES = frozenset({"FILLED", "CANCELLED", "REJECTED", "EXPIRED"})


@dataclass(frozen=True, slots=True)
class VenueFill:
    """One trade of an order; `time` is market time."""

    trade_id: TradeId
    price: Decimal
    quantity: Decimal
    fee: Decimal
    fee_currency: str
    time: datetime


@dataclass(frozen=True, slots=True)
class Accepted:
    """The venue has the order. `fills` are those it told with the answer; all of them where `complete`."""

    venue_order_id: VenueOrderId
    state: OrderState
    filled: Decimal
    fills: Sequence[VenueFill]
    complete: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """The venue will not have it, and never had. `code` is the venue's own."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Throttled:
    """Not executed; may be sent again after `retry_after`, if it is still wanted."""

    retry_after: timedelta


@dataclass(frozen=True, slots=True)
class AuthLost:
    """Key or session is not accepted: nothing more can be sent for this account."""

    text: str


@dataclass(frozen=True, slots=True)
class IpNotAllowed:
    """The venue refuses this machine's address."""

    text: str


@dataclass(frozen=True, slots=True)
class Ambiguous:
    """Whether the venue has the order is unknown."""

    cause: str


Result = Accepted | Refused | Throttled | AuthLost | IpNotAllowed | Ambiguous


@dataclass(frozen=True, slots=True)
class TopOfBook:
    """The best prices and what stands there; zeros where nobody bids, or nobody offers."""

    bid: Decimal
    ask: Decimal
    bid_quantity: Decimal
    ask_quantity: Decimal


@dataclass(frozen=True, slots=True)
class Wanted:
    """A market order that is thought of, to be asked about."""

    contract: Symbol
    side: Side
    quantity: Decimal


@dataclass(frozen=True, slots=True)
class MarginTold:
    """What orders would block by the broker's own reckoning, and what is free for it."""

    needed: Decimal
    """By all of them together; where they were asked about as sets, with the benefit that legs are to each other."""
    alone: tuple[Decimal, ...]
    """By each for itself, in the order of the question."""
    available: Decimal


class Sending:
    """An order that is made out: awaiting it sends it, and that can be done once."""

    __slots__ = ("_send",)

    def __init__(self, send: Callable[[], Coroutine[Any, Any, Result]]) -> None:
        self._send: Callable[[], Coroutine[Any, Any, Result]] | None = send

    def __await__(self) -> Generator[Any, None, Result]:
        send, self._send = self._send, None
        if send is None:
            raise RuntimeError("this order was sent already; ask for it by its client order id")
        return send().__await__()


class QueryFailedError(RuntimeError):
    """A question to the venue got no answer; the caller knows as much as before."""


class AuthLostError(QueryFailedError):
    """The venue does not know the account's session any more: its owner must log in again."""

    def __init__(self, account_id: AccountId, text: str) -> None:
        super().__init__(f"{account_id}: {text}")
        self.account_id = account_id


class Broker(Protocol):
    """What an account at a broker has beside the order door, and one at an exchange that never closes has not."""

    bans: Mapping[date, BanList]
    """The F&O ban lists that are loaded, by day; today's counts."""

    @property
    def now(self) -> Callable[[], datetime]:
        """The market's clock."""
        ...

    def square_off(self, contract: Symbol, at: datetime) -> datetime | None:
        """When positions that are not held overnight are left on the day of `at`; None on a day without trading."""
        ...

    def largest_order(self, contract: Symbol) -> Decimal | None:
        """The exchange's freeze quantity now, as a multiple of the lot; None where none is known."""
        ...

    async def margin(self, orders: Sequence[Wanted], *, sets: bool) -> MarginTold:
        """What the broker would block for these orders, and has to block. Raises `QueryFailedError`.

        `sets`: some of them are legs of one position, so that together they may need less than each alone.
        """
        ...


@runtime_checkable
class OptionVenue(Protocol):
    """A venue at which spreads of options can be traded."""

    def spread_for(self, symbol: Symbol, at: datetime, price: Decimal, level: Decimal) -> tuple[Symbol, Symbol] | None:
        """The calls nearest to `price` and to the higher `level`, to the day of what `contract_for` names; None where they
        are not two."""
        ...


class OrderVenue(Protocol):
    """One account at one venue."""

    needs_login: bool
    """Whether a person logs in day by day: a session that ends is then nothing to stop the account for good."""

    route: Route

    def contract_for(self, symbol: Symbol, at: datetime) -> Symbol:
        """What a new position in `symbol` is taken in at that market time: for an index its future, else the symbol."""
        ...

    def hedge_for(self, symbol: Symbol, at: datetime, level: Decimal) -> Symbol | None:
        """The put that pays below `level` for what `contract_for` names, to the same day; None where none is listed."""
        ...

    def listed(self, contract: Symbol) -> Contract | None:
        """What the venue lists under that name; None where it lists no contracts, or not this one today."""
        ...

    def forbids(self, contract: Symbol, side: Side, quantity: Decimal, *, reducing: bool) -> Denial | None:
        """The rule of the venue that a market order would break now, by what is known here; nothing is asked.

        `reducing`: it only leaves a position, so rules about new exposure (a ban) do not hold for it.
        """
        ...

    async def measure_route(self) -> None:
        """Bring `route` up to date. Raises `QueryFailedError`."""
        ...

    async def instruments(self) -> Mapping[Symbol, Instrument]:
        """What can be traded. Raises `QueryFailedError`, as all queries do."""
        ...

    def place_market(
        self,
        client_order_id: ClientOrderId,
        contract: Symbol,
        side: Side,
        quantity: Decimal,
        issued_at: datetime,
        *,
        reducing: bool = False,
    ) -> Awaitable[Result]:
        """A market order, made out by the call and sent when it is awaited (`Sending`): what can be done before an order is
        in the books need not be waited for afterwards. Never raises for what the venue or the network does.

        `reducing`: it leaves a position, so it may use the part of a rate limit that is kept for that.
        `issued_at` (wall time) is signed with the order, and a venue that can will not execute it long after: so a
        sender that was asleep cannot send what its successor has meanwhile shown to be absent.
        """
        ...

    def place_stop(
        self, client_order_id: ClientOrderId, contract: Symbol, side: Side, quantity: Decimal, trigger: Decimal,
        limit: Decimal, issued_at: datetime,
    ) -> Awaitable[Result]:  # fmt: skip
        """A stop that leaves a position, sent when it is awaited: a limit order at `limit` once the price has reached
        `trigger`.

        `Accepted` with WORKING says that the venue holds it armed. Never raises, like `place_market`.
        """
        ...

    def takes_stops(self, contract: Symbol) -> bool:
        """Whether a stop sent now would be taken, as far as the clock goes: nothing is asked."""
        ...

    async def cancel(self, client_order_id: ClientOrderId, contract: Symbol) -> Result:
        """Cancel an order by its client order id. Whatever it says, ask for the order to learn its end.

        `Accepted` with the order as it stands, `Refused` where there is nothing to cancel. Never raises.
        """
        ...

    async def find_order(self, client_order_id: ClientOrderId, contract: Symbol) -> Accepted | None:
        """The order of that client id with all its fills; None where the venue says that there is none."""
        ...

    def proves_absence(self, contract: Symbol, issued_at: datetime, market_sent_at: datetime) -> bool:
        """Whether "no such order", said now, proves that an order in `contract` never arrived and never will.

        `issued_at` is wall time, `market_sent_at` the market's clock at the same moment.
        """
        ...

    async def balances(self) -> Mapping[str, Decimal]:
        """Free plus locked amount of every asset held."""
        ...

    async def books(self, contracts: Collection[Symbol]) -> Mapping[Symbol, TopOfBook]:
        """The best prices now of contracts that trade continuously now; others are not in it."""
        ...

    async def open_client_order_ids(self, contracts: Collection[Symbol] | None = None) -> set[str]:
        """Client order ids of all working orders, also of those that others placed.

        `contracts`: it is enough to tell of orders in these, where that is the cheaper question.
        """
        ...

    async def close(self) -> None: ...
