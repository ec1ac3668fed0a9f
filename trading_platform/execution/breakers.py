"""Circuit breakers as values: what opens one, what it waits for, and what arms it again. Pure; time is an argument.

A market breaker watches the prices of one symbol (`SymbolWatch`) and stops entries in it: after a move too large for its
window, and when realised volatility is suddenly a multiple of what is usual. A book breaker (`BookWatch`) does the same
where a side of the book is empty, the spread is wide or the depth gone. They arm again when their time is over and the
market is calm. The market-wide halt of the exchange (`markets/market_halts.py`) stops all entries of the venue and
is armed again by a person: what re-opens is the market, not our entries.

A venue breaker (`VenueBreaker`) watches the calls of one account: too many without an answer, or answers too slow, open
it; after a pause, doubled with every failure, a few orders go through as probes, and only their success closes it.
Nothing here ever stops an exit.
"""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from trading_platform.venues.port import TopOfBook


class BreakerState(StrEnum):
    CLOSED = "CLOSED"
    """Entries pass."""
    OPEN = "OPEN"
    HALF_OPEN = "HALF_OPEN"
    """A few entries pass, to see."""


@dataclass(frozen=True)
class Breaker:
    """One breaker as it is shown and kept. `arms_at`: when it may arm by itself; None: a person arms it."""

    name: str
    """`market:BTC/USDT`, `market:*`, `book:BTC/USDT`, `venue:acc_1`."""
    state: BreakerState = BreakerState.CLOSED
    reason: str = ""
    opened_at: datetime | None = None
    arms_at: datetime | None = None
    trips: int = 0
    """How often it opened since it was last closed for good."""

    def open(self, reason: str, at: datetime, pause: timedelta | None) -> "Breaker":
        arms_at = None if pause is None else at + pause
        if self.state is BreakerState.OPEN:
            return replace(self, reason=reason, arms_at=arms_at)
        return Breaker(self.name, BreakerState.OPEN, reason, at, arms_at, self.trips + 1)

    def close(self) -> "Breaker":
        return Breaker(self.name)

    @property
    def waits_for_a_person(self) -> bool:
        return self.state is BreakerState.OPEN and self.arms_at is None


# --- markets ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MarketPolicy:
    """What is too much for entries. Volatility is the root of an exponentially weighted mean of squared log returns."""

    window: timedelta = timedelta(hours=1)
    max_move: Decimal = Decimal("0.10")
    """Between the lowest and the highest price of the window, as a fraction of the lowest."""
    short_bars: int = 8
    long_bars: int = 240
    jump: float = 3.0
    """Short volatility as a multiple of the long one."""
    pause: timedelta = timedelta(minutes=30)


@dataclass
class SymbolWatch:
    """The prices of one symbol as they are known, and the breaker they open."""

    breaker: Breaker
    policy: MarketPolicy = field(default_factory=MarketPolicy)
    _prices: deque[tuple[datetime, Decimal]] = field(default_factory=deque)
    _short: float = 0.0
    _long: float = 0.0
    _returns: int = 0

    def on_price(self, price: Decimal, at: datetime) -> Breaker:
        """A new price at market time `at` (aware); one that is not newer than the last is ignored."""
        if price <= 0 or (self._prices and at <= self._prices[-1][0]):
            return self.breaker
        jumped = self._jump(price)
        self._prices.append((at, price))
        while self._prices[0][0] < at - self.policy.window:
            self._prices.popleft()
        why = self._moved() or jumped
        if why is not None:
            self.breaker = self.breaker.open(why, at, self.policy.pause)
        elif self.breaker.arms_at is not None and at >= self.breaker.arms_at:
            self.breaker = self.breaker.close()
        return self.breaker

    def _moved(self) -> str | None:
        low, high = min(price for _, price in self._prices), max(price for _, price in self._prices)
        move = high / low - 1
        minutes = self.policy.window.total_seconds() / 60
        return f"moved {move:.2%} within {minutes:.0f} minutes" if move >= self.policy.max_move else None

    def _jump(self, price: Decimal) -> str | None:
        """Compare with what was usual before this return, then learn from it."""
        if not self._prices:
            return None
        square = math.log(price / self._prices[-1][1]) ** 2
        short, usual = _ewm(self._short, square, self.policy.short_bars), math.sqrt(self._long)
        self._short, self._long = short, _ewm(self._long, square, self.policy.long_bars)
        self._returns += 1
        if self._returns <= self.policy.long_bars or usual == 0.0 or math.sqrt(short) < self.policy.jump * usual:
            return None
        return f"volatility is {math.sqrt(short) / usual:.1f} times the usual"


def _ewm(mean: float, value: float, span: int) -> float:
    """Exponentially weighted mean with weight 2 / (span + 1) for the newest value."""
    weight = 2.0 / (span + 1)
    return mean + weight * (value - mean)


# --- order books -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BookPolicy:
    """How much worse than usual a book may be before nothing is entered on it."""

    spread_times: Decimal = Decimal(5)
    depth_fraction: Decimal = Decimal("0.2")
    usual_of: int = 50
    """Books, of which the median is what is usual."""
    pause: timedelta = timedelta(minutes=1)


@dataclass
class BookWatch:
    """The books of one symbol as they are looked at, and the breaker they open. Times are wall times.

    A book that is worse than usual counts as one of those seen, so what stays becomes usual.
    """

    breaker: Breaker
    policy: BookPolicy = field(default_factory=BookPolicy)
    _seen: deque[TopOfBook] = field(default_factory=deque)

    def on_book(self, book: TopOfBook, at: datetime) -> Breaker:
        why = book_collapse(self._seen, book, self.policy)
        if why is not None:
            self.breaker = self.breaker.open(why, at, self.policy.pause)
        elif self.breaker.arms_at is not None and at >= self.breaker.arms_at:
            self.breaker = self.breaker.close()
        if 0 < book.bid <= book.ask:
            self._seen.append(book)
            if len(self._seen) > self.policy.usual_of:
                self._seen.popleft()
        return self.breaker


def book_collapse(seen: Iterable[TopOfBook], now: TopOfBook, policy: BookPolicy) -> str | None:
    """Why a book is not one to enter on: no side, a spread or a depth far from the median of those seen. None where fine.

    Fewer than `usual_of` books before say nothing of what is usual: then only an empty or crossed book is refused.
    """
    if now.bid <= 0 or now.ask <= 0 or now.bid_quantity <= 0 or now.ask_quantity <= 0:
        return "one side of the book is empty"
    if now.ask < now.bid:
        return f"the book is crossed: bid {now.bid}, ask {now.ask}"
    before = list(seen)[-policy.usual_of :]
    if len(before) < policy.usual_of:
        return None
    usual_spread, usual_depth = _median(map(_spread, before)), _median(map(_depth, before))
    if _spread(now) >= policy.spread_times * usual_spread > 0:
        return f"the spread is {_spread(now):.4%}, usual is {usual_spread:.4%}"
    if _depth(now) <= policy.depth_fraction * usual_depth:
        return f"the depth is {_depth(now):.6g}, usual is {usual_depth:.6g}"
    return None


def _spread(book: TopOfBook) -> Decimal:
    return (book.ask - book.bid) / ((book.ask + book.bid) / 2)


def _depth(book: TopOfBook) -> Decimal:
    """Notional at the thinner side."""
    return min(book.bid * book.bid_quantity, book.ask * book.ask_quantity)


def _median(values: Iterable[Decimal]) -> Decimal:
    ordered = sorted(values)
    return ordered[len(ordered) // 2]


# --- venues ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class VenuePolicy:
    """When a venue is not to be given entries. A call fails when it has no answer or is told to wait."""

    window: timedelta = timedelta(seconds=60)
    least_calls: int = 10
    """Fewer in the window say nothing."""
    max_failed: float = 0.5
    max_p95_seconds: float = 3.0
    pause: timedelta = timedelta(seconds=15)
    longest_pause: timedelta = timedelta(minutes=10)
    probes: int = 3
    """Orders that go through half-open, and that must succeed to close it."""


@dataclass
class VenueBreaker:
    """The calls of one account, and the breaker they open. Times are wall times."""

    breaker: Breaker
    policy: VenuePolicy = field(default_factory=VenuePolicy)
    _calls: deque[tuple[datetime, bool, float]] = field(default_factory=deque)
    _let_through: int = 0
    _succeeded: int = 0

    def allows_entry(self, now: datetime) -> bool:
        """Whether an entry may go out; in half-open state it counts as a probe, so ask once an order."""
        self._wake(now)
        if self.breaker.state is BreakerState.HALF_OPEN and self._let_through < self.policy.probes:
            self._let_through += 1
            return True
        return self.breaker.state is BreakerState.CLOSED

    def kept_back(self) -> None:
        """An entry that was let through did not go out after all: it proves nothing, and another may take its turn."""
        self._let_through = max(self._let_through - 1, 0)

    def on_call(self, *, answered: bool, seconds: float, is_order: bool, now: datetime) -> Breaker:
        """A call ended. Only orders close a half-open breaker: that a venue tells its balances proves nothing of orders."""
        self._wake(now)
        self._calls.append((now, answered, seconds))
        while self._calls[0][0] <= now - self.policy.window:
            self._calls.popleft()
        if self.breaker.state is BreakerState.HALF_OPEN:
            if is_order:
                self._probed(answered and seconds < self.policy.max_p95_seconds, now)
        elif self.breaker.state is BreakerState.CLOSED and (why := self._unwell()) is not None:
            self._open(why, now)
        return self.breaker

    def _wake(self, now: datetime) -> None:
        arms_at = self.breaker.arms_at
        if self.breaker.state is BreakerState.OPEN and arms_at is not None and now >= arms_at:
            self.breaker = replace(self.breaker, state=BreakerState.HALF_OPEN)
            self._let_through = self._succeeded = 0

    def _probed(self, well: bool, now: datetime) -> None:
        if not well:
            self._open("a probe failed", now)
            return
        self._succeeded += 1
        if self._succeeded >= self.policy.probes:
            self.breaker = self.breaker.close()
            self._calls.clear()

    def _open(self, why: str, now: datetime) -> None:
        pause = min(self.policy.pause * 2**self.breaker.trips, self.policy.longest_pause)
        self.breaker = self.breaker.open(why, now, pause)
        self._calls.clear()

    def _unwell(self) -> str | None:
        calls = len(self._calls)
        if calls < self.policy.least_calls:
            return None
        failed = sum(not answered for _, answered, _ in self._calls)
        if failed >= self.policy.max_failed * calls:
            return f"{failed} of {calls} calls had no answer"
        times = sorted(seconds for _, _, seconds in self._calls)
        p95 = times[math.ceil(0.95 * calls) - 1]
        return f"95 % of answers took up to {p95:.1f} s" if p95 >= self.policy.max_p95_seconds else None
