"""Breakers at their edges: what opens them, what they let through, and what arms them again."""

import math
import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading_platform.execution.breakers import (
    BookPolicy,
    BookWatch,
    Breaker,
    BreakerState,
    MarketPolicy,
    SymbolWatch,
    VenueBreaker,
    VenuePolicy,
    book_collapse,
)
from trading_platform.venues.port import TopOfBook

D = Decimal
T0 = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
OPEN, CLOSED, HALF = BreakerState.OPEN, BreakerState.CLOSED, BreakerState.HALF_OPEN


def minutes(number: float) -> datetime:
    return T0 + timedelta(minutes=number)


def watch(**policy: object) -> SymbolWatch:
    return SymbolWatch(Breaker("market:X"), MarketPolicy(**policy))  # type: ignore[arg-type]


@pytest.mark.parametrize(("price", "state"), [("109.99", CLOSED), ("110", OPEN), ("90.91", CLOSED), ("90.9", OPEN)])
def test_a_move_of_a_tenth_within_the_window_opens_either_way(price: str, state: BreakerState) -> None:
    it = watch()
    it.on_price(D(100), minutes(0))
    assert it.on_price(D(price), minutes(60)).state is state


def test_what_is_older_than_the_window_does_not_count() -> None:
    it = watch()
    it.on_price(D(100), minutes(0))
    assert it.on_price(D(110), T0 + timedelta(hours=1, microseconds=1)).state is CLOSED


def test_it_arms_when_its_time_is_over_and_the_market_calm() -> None:
    it = watch()
    it.on_price(D(100), minutes(0))
    assert it.on_price(D(112), minutes(10)).arms_at == minutes(40)
    assert it.on_price(D(112), minutes(41)).state is OPEN  # 100 is still within the hour: it is not calm
    assert it.breaker.opened_at == minutes(10)
    assert it.on_price(D(112), minutes(70)).state is OPEN  # until 71 by the trip of minute 41
    assert it.on_price(D(112), minutes(72)).state is CLOSED


def test_a_jump_in_volatility_opens_by_an_independent_ewm() -> None:
    """The same figures from numpy's convolution over the whole history, rather than recursively."""
    prices = [100.0]
    generator = random.Random(5)
    for number in range(400):
        prices.append(prices[-1] * math.exp(generator.gauss(0, 0.001 if number < 330 else 0.008)))
    it = watch(max_move=D(9))
    opened = None
    for number, price in enumerate(prices):
        state = it.on_price(D(repr(price)), T0 + timedelta(hours=number)).state
        if state is OPEN and opened is None:
            opened = number
    squares = np.array([math.log(b / a) ** 2 for a, b in pairwise(prices)])

    def ewm(span: int, count: int) -> float:
        weight = 2 / (span + 1)
        weights = weight * (1 - weight) ** np.arange(count)[::-1]
        return float(np.sqrt((weights * squares[:count]).sum()))

    expected = next(n for n in range(241, 401) if ewm(8, n) >= 3.0 * ewm(240, n - 1))
    assert opened == expected
    assert 330 < opened < 340


@given(st.lists(st.decimals("99.9", "100.1", places=2), min_size=1, max_size=150))
def test_small_noise_never_moves_far_enough(prices: list[Decimal]) -> None:
    it = watch(jump=math.inf)
    assert all(it.on_price(price, minutes(n)).state is CLOSED for n, price in enumerate(prices))


BOOK = TopOfBook(D("99.95"), D("100.05"), D(10), D(10))


@pytest.mark.parametrize(
    ("book", "fine"),
    [
        (BOOK, True),
        (TopOfBook(D("99.76"), D("100.24"), D(10), D(10)), True),
        (TopOfBook(D("99.75"), D("100.25"), D(10), D(10)), False),
        (TopOfBook(D("99.95"), D("100.05"), D("2.01"), D(10)), True),
        (TopOfBook(D("99.95"), D("100.05"), D(2), D(10)), False),
        (TopOfBook(D("99.95"), D("100.05"), D(0), D(10)), False),
        (TopOfBook(D("100.06"), D("100.05"), D(10), D(10)), False),
    ],
)
def test_a_book_far_worse_than_usual_is_not_entered_on(book: TopOfBook, fine: bool) -> None:
    """Usual: a spread of 0.1 at 100 and 999.5 at the thinner side; five times the one, a fifth of the other."""
    assert (book_collapse([BOOK] * 50, book, BookPolicy()) is None) is fine


def test_an_empty_book_is_refused_however_little_is_known() -> None:
    wide = TopOfBook(D(90), D(110), D(1), D(1))
    assert book_collapse([BOOK] * 49, wide, BookPolicy()) is None
    assert book_collapse([], TopOfBook(D(0), D(110), D(0), D(1)), BookPolicy()) is not None


def test_a_collapsed_book_stops_entries_until_its_pause_is_over_and_it_is_fine() -> None:
    it, thin = BookWatch(Breaker("book:X")), TopOfBook(D("99.95"), D("100.05"), D(2), D(10))

    def seen(book: TopOfBook, number: int) -> BreakerState:
        return it.on_book(book, T0 + timedelta(seconds=number)).state

    assert {seen(BOOK, -60 + number) for number in range(50)} == {CLOSED}
    assert [seen(thin, 0), seen(BOOK, 59), seen(BOOK, 60)] == [OPEN, OPEN, CLOSED]
    assert [seen(thin, 70), seen(thin, 129), seen(BOOK, 130), seen(BOOK, 189)] == [OPEN, OPEN, OPEN, CLOSED]


def test_what_stays_thin_becomes_usual() -> None:
    it, thin = BookWatch(Breaker("book:X")), TopOfBook(D("99.95"), D("100.05"), D(2), D(10))
    states = [it.on_book(book, minutes(number)).state for number, book in enumerate([BOOK] * 50 + [thin] * 30)]
    assert states.index(OPEN) == 50
    assert (states[74], states[-1]) == (OPEN, CLOSED)


# --- venues ----------------------------------------------------------------------------------------------------------


def seconds(number: float) -> datetime:
    return T0 + timedelta(seconds=number)


def calls(it: VenueBreaker, *outcomes: bool, at: float = 0, taking: float = 0.1, is_order: bool = True) -> BreakerState:
    for answered in outcomes:
        it.on_call(answered=answered, seconds=taking, is_order=is_order, now=seconds(at))
    return it.breaker.state


def venue() -> VenueBreaker:
    return VenueBreaker(Breaker("venue:a"), VenuePolicy())


def test_half_of_ten_calls_without_answer_open_and_fewer_calls_say_nothing() -> None:
    assert calls(venue(), *[False] * 9) is CLOSED
    assert calls(venue(), *[True] * 6, *[False] * 4) is CLOSED
    assert calls(venue(), *[True] * 5, *[False] * 5) is OPEN
    old = venue()
    calls(old, *[False] * 9, at=0)
    assert calls(old, False, at=60) is CLOSED  # those of a minute ago are forgotten


def test_slow_answers_open() -> None:
    assert calls(venue(), *[True] * 20, taking=2.999) is CLOSED
    assert calls(venue(), *[True] * 20, taking=3.0) is OPEN
    mixed = venue()
    calls(mixed, *[True] * 19)
    assert calls(mixed, True, taking=9.0) is CLOSED  # one of twenty is beyond the 95th percentile


def test_half_open_lets_three_probes_through_and_their_success_closes() -> None:
    it = venue()
    calls(it, *[False] * 10)
    assert not it.allows_entry(seconds(14.999))
    assert [it.allows_entry(seconds(15)) for _ in range(4)] == [True, True, True, False]
    assert it.breaker.state is HALF
    assert calls(it, *[True] * 9, at=16, is_order=False) is HALF  # balances prove nothing of orders
    assert calls(it, True, True, at=16) is HALF
    assert calls(it, True, at=16) is CLOSED
    assert it.breaker == Breaker("venue:a")


def test_a_failed_probe_doubles_the_pause_up_to_ten_minutes() -> None:
    it = venue()
    calls(it, *[False] * 10)
    at, pauses = 0.0, []
    for _ in range(8):
        assert it.breaker.arms_at is not None
        pauses.append((it.breaker.arms_at - seconds(at)).total_seconds())
        at += pauses[-1]
        assert it.allows_entry(seconds(at))
        assert calls(it, False, at=at) is OPEN
    assert pauses == [15, 30, 60, 120, 240, 480, 600, 600]
