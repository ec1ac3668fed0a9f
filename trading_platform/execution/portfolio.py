"""What an account holds, in memory: cash, positions with the barriers they will be left at, and today's figures.

Built from the books when an engine starts and changed only by fills that were applied to the books, so it is a cache and
never the truth.
"""

from bisect import bisect_right, insort
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal

from trading_platform.execution.limits import Limits
from trading_platform.identifiers import AccountId, ClientOrderId, StrategyId, Symbol, UserId
from trading_platform.venues.port import Broker, OrderVenue, Side

ZERO = Decimal(0)
LONGEST_RATE_SECONDS = 60.0
"""Over which orders are counted for a limit; those of the day are a count."""
PositionKey = tuple[StrategyId, Symbol]
HEDGE = "hedge"
"""The arm of a leg that protects another position."""
BOUGHT, SOLD = "spread", "sold"
"""The arms of a spread's legs: the bought one stands for the position in the index, the sold one goes with it."""
LEGS = (HEDGE, BOUGHT, SOLD)
"""Arms of what is traded for a position or in its place; other arms are those of models, whose results are compared."""
BEYOND = Decimal("0.5")
"""How far below the strategy's stop that at the venue is, as a part of the way from the price paid to the former."""


@dataclass
class Holding:
    """An open position of one strategy in one symbol; `quantity` is negative where it was sold short. Spot: never short."""

    symbol: Symbol
    contract: Symbol
    """What was traded for it: the symbol itself, or the future or option of an index."""
    strategy_id: StrategyId
    quantity: Decimal
    average_price: Decimal
    entry_intent_id: str
    version_id: str
    arm: str
    signal_id: str
    target: Decimal
    stop: Decimal
    exit_by: datetime

    @property
    def key(self) -> PositionKey:
        return self.strategy_id, self.symbol

    @property
    def hedges(self) -> bool:
        """Whether it protects another position of the same signal, and goes with it."""
        return self.arm == HEDGE

    @property
    def attends(self) -> bool:
        """Whether it is there for another position of the same signal: it is never left on its own account."""
        return self.arm in (HEDGE, SOLD)

    @property
    def leaving_side(self) -> Side:
        return "sell" if self.quantity > ZERO else "buy"

    @property
    def priced_by(self) -> Symbol:
        """Whose price values it: an option has its own, not the index's."""
        return self.contract if self.arm == BOUGHT else self.symbol

    def reduce(self, units: Decimal, price: Decimal) -> tuple[Decimal, Decimal]:
        """Take a trade of the other side; returns what it realised, and the units beyond what was there: they are left out,
        for a position never turns into its opposite."""
        taken = (
            min(abs(units), abs(self.quantity)) * (1 if units > ZERO else -1) if units * self.quantity < ZERO else ZERO
        )
        realised = -taken * (price - self.average_price)
        self.quantity += taken
        return realised, units - taken

    def exit_reason(self, price: Decimal, market_time: datetime) -> str | None:
        """Which barrier a close has reached, by the rule of the labels; None while none has."""
        if price >= self.target:
            return "target"
        if price <= self.stop:
            return "stop"
        return "time" if market_time >= self.exit_by else None


@dataclass(frozen=True)
class RestingStop:
    """A stop that waits at the venue for a position; `quantity`: what it would still sell."""

    intent_id: str
    client_order_id: ClientOrderId
    contract: Symbol
    quantity: Decimal


@dataclass
class Stake:
    """A user's consent that a strategy trades an account."""

    strategy_id: StrategyId
    capital_fraction: Decimal
    allow_uncertified: bool
    enabled: bool
    hedge_away: Decimal | None = None
    """How far below the market the put is that an entry into an index is hedged with; None: it is not."""
    spread_away: Decimal | None = None
    """How far above the market the call is that is sold where an index is entered by a spread; None: by its future."""
    overnight: bool = True
    """False: what it takes is left ahead of the session's end, and nothing is entered from then on."""


@dataclass
class Portfolio:
    """One account as its engine sees it."""

    user_id: UserId
    account_id: AccountId
    kind: str
    armed: bool
    currency: str
    venue: OrderVenue
    limits: Limits | None
    """The user's, in the account's currency; None: nobody has set any, and nothing may be entered."""
    stakes: dict[StrategyId, Stake] = field(default_factory=dict)
    cash: Decimal = ZERO
    holdings: dict[PositionKey, Holding] = field(default_factory=dict)
    stops: dict[PositionKey, RestingStop] = field(default_factory=dict)
    """By the position that they protect; one whose outcome is unknown is not among them."""
    prices: dict[Symbol, Decimal] = field(default_factory=dict)
    unknown: set[Symbol] = field(default_factory=set)
    """Symbols with an order whose outcome is unknown."""
    working: set[Symbol] = field(default_factory=set)
    """Symbols with an order that the venue has, but has not finished: one that waits for the next session."""
    set_aside: str | None = None
    """Why nothing is decided for the account (`reconciliation.py`); None where books and venue match."""
    trading_day: date | None = None
    orders_today: int = 0
    net_today: Decimal = ZERO
    net_by_strategy: dict[StrategyId, Decimal] = field(default_factory=dict)
    """The day's net result, by strategy."""
    peak_equity: Decimal = ZERO
    """The highest equity on record."""
    session_ends_at: datetime | None = None
    """When the broker's session ends, where it has any; live accounts alone."""
    registered_address: str | None = None
    """The address that the broker takes orders from; None where it takes them from everywhere."""
    sent_at: list[float] = field(default_factory=list)
    """When the last minute's orders were sent, in order, in seconds of the clock that rates are counted by."""
    keys_changed_at: datetime | None = None
    """Of the keys that `venue` uses."""
    broker: Broker | None = None
    """What `venue` is beside an order door; None at an exchange that never closes."""

    @property
    def unsettled(self) -> set[Symbol]:
        """Symbols in which nothing new is sent."""
        return self.unknown | self.working

    @property
    def holdings_value(self) -> Decimal:
        """What leaving everything would bring: what is short takes away from it."""
        return sum((self.value_of(held) for held in self.holdings.values()), ZERO)

    @property
    def equity(self) -> Decimal:
        return self.cash + self.holdings_value

    def value_of(self, held: Holding) -> Decimal:
        """At the last price seen, or at what was paid where none was; negative for what is short."""
        return held.quantity * self.prices.get(held.priced_by, held.average_price)

    def count_order(self, seconds: float) -> None:
        """An order goes out now, by the clock that rates are counted by."""
        insort(self.sent_at, seconds)
        del self.sent_at[: bisect_right(self.sent_at, seconds - LONGEST_RATE_SECONDS)]
        self.orders_today += 1

    def orders_since(self, moment: float) -> int:
        """How many were sent after it; at most a minute back."""
        return len(self.sent_at) - bisect_right(self.sent_at, moment)

    def turn_day(self, market_time: datetime) -> None:
        """Start the day's counts anew when market time enters another UTC day."""
        today = market_time.astimezone(UTC).date()
        if today != self.trading_day:
            self.trading_day, self.orders_today, self.net_today = today, 0, ZERO
            self.net_by_strategy.clear()

    def book_result(self, strategy_id: StrategyId, net: Decimal) -> None:
        """A trade of today ended with this, after costs."""
        self.net_today += net
        self.net_by_strategy[strategy_id] = self.net_by_strategy.get(strategy_id, ZERO) + net
