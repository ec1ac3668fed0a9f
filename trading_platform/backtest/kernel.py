"""The compiled loop: one instrument, bar by bar, every fill at the price that the bar allows.

Within a bar, events happen in this order. (1) At the open: what was decided at the last close and waits for it. (2) A
stop or target that the open is already beyond: both fill at the open, a stop for worse and a target for better. (3) A
stop or target that the bar's range reaches: at its own price; where both are reached the stop counts, unless finer bars
say which came first; where closes decide on barriers, it may still reach the order that stands at the venue for what
happens between closes. (4) At the close: decisions, from what is known then. An intention's stop and target are those of
the bar that it was formed on, as the engine keeps them with a position.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Codes = NDArray[np.int8]

SHORT, FLAT, LONG, HOLD = -1, 0, 1, 2
"""What a strategy wants at a close; HOLD: keep what there is, and enter nothing."""
ENTRY, TARGET, STOP, TIME, SIGNAL = range(5)
REASONS = ("entry", "target", "stop", "time", "signal")
"""Why an order was sent, by code."""
BUY_TAKER, SELL_TAKER, BUY_MAKER, SELL_MAKER = range(4)
"""Rows of charge terms: a target rests in the book and makes; everything else takes."""
BAR, DECIDED_AT, SIDE, QUANTITY, PRICE, CHARGE, REASON = range(7)
COLUMNS = 7
"""Of the order list."""
MOST_A_BAR = 5
"""Orders: two at the open, one inside, two at the close."""
ALMOST = 1e-9
"""Of a step: a quotient this close below a whole number is that number."""
BOTH, NOTHING = -1, -2
"""In place of a reason: the bar reaches stop and target; nothing is to be done."""
(
    CASH, HELD, STOP_AT, TARGET_AT, EXIT_BY, BACKSTOP_AT, SINCE, LEAVING, ENTERING, DECIDED, BLOCKED, PEAK, DEEPEST,
    COUNT, REFUSED, CELLS,
) = range(16)  # fmt: skip
"""What is remembered from bar to bar: money, signed quantity, barriers, the bar of the entry; the orders that wait for the
next open (why to leave, signed quantity to enter) and the bar they were decided on; the intention that is not entered
again."""


class Market(NamedTuple):
    """Bars of one instrument in order of time, each (n,); `available_at`: microseconds since the epoch."""

    open: Floats
    high: Floats
    low: Floats
    close: Floats
    available_at: Integers


class Wishes(NamedTuple):
    """`wanted` (n,) codes; `stop`, `target` (n,) prices of a position entered on the bar, NaN or (0,): none."""

    wanted: Codes
    stop: Floats
    target: Floats


class Finer(NamedTuple):
    """Bars inside the bars: those of bar i are numbers `first[i]` to `first[i + 1]`; all (0,): there are none."""

    open: Floats
    high: Floats
    low: Floats
    first: Integers


class Rules(NamedTuple):
    """How orders meet the market.

    `next_open`: orders decided at a close fill at the next open, else at that close; `intrabar`: stops and targets are
    orders at the venue and fill inside a bar, else they are looked at on closes; `reenter`: a trade that a barrier ended
    may be entered again on the same intention, else only after it changed; `partial_last`: the last bar is not over, so
    nothing is decided on its close; `horizon`: microseconds of market time after which a trade ends, 0: never;
    `slippage`: a fraction of the price, against every market and stop order; `backstop`: where closes decide, a stop
    order at the venue all the same, from the bar after the entry's on: that far beyond the strategy's stop, as a part of
    the way from the price paid to it (below 0: none).
    """

    next_open: bool
    intrabar: bool
    reenter: bool
    partial_last: bool
    horizon: int
    slippage: float
    backstop: float = -1.0


class Funds(NamedTuple):
    """`cash` at the start; `quantity` of each entry, or 0: `fraction` of equity, rounded down to `step`, at least
    `minimum_notional`. `fee_in_base`: the charge of a buy is taken from what is bought, as spot venues do; what is then
    less than a step cannot be sold and is written off, as in the engine's books."""

    cash: float
    quantity: float
    fraction: float
    step: float
    minimum_notional: float
    fee_in_base: bool


@njit(cache=True, error_model="numpy", nogil=True)
def simulate(
    market: Market, wishes: Wishes, finer: Finer, rules: Rules, funds: Funds, eras: Integers, terms: Floats,
    equity: Floats,
) -> tuple[Floats, int, float]:  # fmt: skip
    """Play the bars and fill `equity` (n,), the account's worth at each close.

    Returns the order list (orders, COLUMNS), how many entries were refused, and the deepest drawdown (at most 0).

    `eras` (k,): numbers of the bars from which the k sets of charge `terms` (k, 4, 4) hold, see `charge_of`. An entry is
    refused where the account cannot pay for it at the price it fills at.
    """
    opens, highs, lows, closes, moments = market
    wanted, stops, targets = wishes
    lowest, highest = (lows, highs) if rules.intrabar or rules.backstop >= 0.0 else (closes, closes)
    orders, state = np.empty((1024, COLUMNS)), np.zeros(CELLS)
    state[CASH], state[PEAK] = funds.cash, funds.cash
    i = 0
    for era in range(len(eras)):
        until = eras[era + 1] if era + 1 < len(eras) else len(closes)
        while i < until:
            if state[COUNT] + MOST_A_BAR > len(orders):
                orders = _with_room(orders)
            i = _play(
                state, orders, i, until, opens, highs, lows, closes, moments, lowest, highest, wanted, stops, targets,
                finer, rules, funds, terms[era], equity,
            )  # fmt: skip
    return orders[: int(state[COUNT])].copy(), int(state[REFUSED]), state[DEEPEST]


@njit(cache=True, error_model="numpy", nogil=True, _nrt=False)  # type: ignore[call-overload,untyped-decorator]
def _play(
    state: Floats, orders: Floats, i: int, until: int, opens: Floats, highs: Floats, lows: Floats, closes: Floats,
    moments: Integers, lowest: Floats, highest: Floats, wanted: Codes, stops: Floats, targets: Floats, finer: Finer,
    rules: Rules, funds: Funds, terms: Floats, equity: Floats,
) -> int:  # fmt: skip
    """Play from bar i on, until bar `until` or until the order list is full, and return the bar that comes next.

    No array is made or dropped in here, so references need not be counted (`_nrt`): to count them took as long as all the
    orders. What is called in here is part of it (`inline`), for the same reason.
    """
    decisions = len(closes) - 1 if rules.partial_last else len(closes)
    while i < until and state[COUNT] + MOST_A_BAR <= len(orders):
        if state[LEAVING] == 0.0 and state[ENTERING] == 0.0:
            i = _quiet(state, i, until, decisions, lowest, highest, closes, moments, wanted, rules, equity)
            if i == until:
                break
        _at_open(state, orders, i, opens[i], rules, funds, terms)
        if state[HELD] != 0.0:
            reason, price = _reached(state, i, opens[i], highs[i], lows[i], finer, rules)
            if reason != ENTRY:
                _inside(state, orders, i, reason, price, rules, funds, terms)
        if i < decisions:
            why = _why_act(state, closes[i], moments[i], wanted[i], rules)
            if why != NOTHING:
                stop = stops[i] if len(stops) > 0 else np.nan
                target = targets[i] if len(targets) > 0 else np.nan
                _act(state, orders, i, why, closes[i], moments[i], wanted[i], stop, target, rules, funds, terms)
        equity[i] = state[CASH] + state[HELD] * closes[i]
        state[PEAK] = max(state[PEAK], equity[i])
        state[DEEPEST] = min(state[DEEPEST], equity[i] / state[PEAK] - 1.0)
        i += 1
    return i


@njit(cache=True, error_model="numpy", nogil=True)
def first_broken(market: Market) -> int:
    """Number of the first bar whose prices contradict each other or that is not later than the one before; -1: none."""
    opens, highs, lows, closes, moments = market
    for i in range(len(closes)):
        inner, outer = min(opens[i], closes[i]), max(opens[i], closes[i])
        if not (0.0 < lows[i] <= inner and outer <= highs[i] < np.inf) or (i > 0 and moments[i] <= moments[i - 1]):
            return i
    return -1


@njit(cache=True, error_model="numpy", inline="always")
def _quiet(
    state: Floats, start: int, until: int, decisions: int, lowest: Floats, highest: Floats, close: Floats,
    available_at: Integers, wanted: Codes, rules: Rules, equity: Floats,
) -> int:  # fmt: skip
    """Mark bars to market until one where something may happen, and return its number; `until` if none before.

    Nearly all bars are quiet: these are the loops that must be fast, so each does one thing. `lowest` and `highest`: the
    prices of each bar that count for barriers, its close in both where nothing but closes is looked at.
    """
    start = max(start, 0)  # the compiler then knows that no index counts from the end
    end = _next_event(state, start, until, decisions, lowest, highest, available_at, wanted, rules)
    cash, held = state[CASH], state[HELD]
    for i in range(start, end):
        equity[i] = cash + held * close[i]
    peak, trough, deepest = state[PEAK], state[PEAK], state[DEEPEST]
    for i in range(start, end):  # below one peak the lowest point is the deepest: a division a peak, not a bar
        worth = equity[i]
        if worth > peak:
            deepest = min(deepest, trough / peak - 1.0)
            peak, trough = worth, worth
        trough = worth if worth < trough else trough
    state[PEAK], state[DEEPEST] = peak, min(deepest, trough / peak - 1.0)
    return end


@njit(cache=True, error_model="numpy", inline="always")
def _next_event(
    state: Floats, start: int, until: int, decisions: int, lowest: Floats, highest: Floats, available_at: Integers,
    wanted: Codes, rules: Rules,
) -> int:  # fmt: skip
    """The first bar from `start` on, before `until`, that reaches a barrier or the end of the trade, or wants something else."""
    held = state[HELD]
    if held == 0.0:
        settled = int(state[BLOCKED])
        for i in range(start, min(until, decisions)):
            if wanted[i] != HOLD and wanted[i] != settled:
                return i
        return until
    settled = LONG if held > 0.0 else SHORT
    floor, ceiling = (state[STOP_AT], state[TARGET_AT]) if held > 0.0 else (state[TARGET_AT], state[STOP_AT])
    exit_by = state[EXIT_BY] if rules.horizon > 0 else np.inf
    for i in range(start, until):
        if lowest[i] <= floor or highest[i] >= ceiling or available_at[i] >= exit_by:
            return i
        if wanted[i] != settled and wanted[i] != HOLD and i < decisions:
            return i
    return until


@njit(cache=True, error_model="numpy", nogil=True)
def _with_room(orders: Floats) -> Floats:
    larger = np.empty((2 * len(orders), COLUMNS))
    larger[: len(orders)] = orders
    return larger


@njit(cache=True, error_model="numpy", inline="always")
def _at_open(state: Floats, orders: Floats, i: int, price: float, rules: Rules, funds: Funds, terms: Floats) -> None:
    """Fill what was decided at the last close and waits."""
    decided = int(state[DECIDED])
    if state[LEAVING] != 0.0:
        got = _slipped(price, -state[HELD], rules.slippage)
        _leave(state, orders, i, decided, got, int(state[LEAVING]), rules, funds, terms)
        state[LEAVING] = 0.0
    if state[ENTERING] != 0.0:
        paid = _slipped(price, state[ENTERING], rules.slippage)
        _enter(state, orders, i, decided, paid, state[ENTERING], rules, funds, terms)
        state[ENTERING] = 0.0


@njit(cache=True, error_model="numpy", inline="always")
def _reached(
    state: Floats, i: int, opened: float, high: float, low: float, finer: Finer, rules: Rules
) -> tuple[int, float]:
    """(reason, price) of the order at the venue that the bar comes to; ENTRY: to none."""
    if rules.intrabar:
        reason, price = _touched(opened, high, low, state[HELD], state[STOP_AT], state[TARGET_AT])
        return _by_finer(finer, i, state[HELD], state[STOP_AT], state[TARGET_AT]) if reason == BOTH else (reason, price)
    if rules.backstop >= 0.0 and state[SINCE] < i:
        never = np.inf if state[HELD] > 0.0 else -np.inf
        return _touched(opened, high, low, state[HELD], state[BACKSTOP_AT], never)
    return ENTRY, 0.0


@njit(cache=True, error_model="numpy", inline="always")
def _inside(
    state: Floats, orders: Floats, i: int, reason: int, price: float, rules: Rules, funds: Funds, terms: Floats
) -> None:
    """Leave at a barrier that the bar has reached."""
    if reason == STOP:
        price = _slipped(price, -state[HELD], rules.slippage)
    _block(state, rules)
    _leave(state, orders, i, i, price, reason, rules, funds, terms)


@njit(cache=True, error_model="numpy", inline="always")
def _why_act(state: Floats, close: float, now: int, wanted: int, rules: Rules) -> int:
    """What a close calls for: a reason to leave (in the engine's order: target, stop, time; or the signal), ENTRY to
    enter, or NOTHING."""
    if wanted != HOLD and wanted != state[BLOCKED]:
        state[BLOCKED] = FLAT
    if state[HELD] == 0.0:
        return ENTRY if wanted in (LONG, SHORT) and wanted != state[BLOCKED] else NOTHING
    side = LONG if state[HELD] > 0.0 else SHORT
    if not rules.intrabar and side * close >= side * state[TARGET_AT]:
        return TARGET
    if not rules.intrabar and side * close <= side * state[STOP_AT]:
        return STOP
    if rules.horizon > 0 and now >= state[EXIT_BY]:
        return TIME
    return SIGNAL if wanted not in (HOLD, side) else NOTHING


@njit(cache=True, error_model="numpy", inline="always")
def _act(
    state: Floats, orders: Floats, i: int, why: int, close: float, now: int, wanted: int, stop: float, target: float,
    rules: Rules, funds: Funds, terms: Floats,
) -> None:  # fmt: skip
    """Act on the close: leave, or enter, or turn round where the signal says the opposite; a barrier ends the bar's part."""
    if why in (TARGET, STOP, TIME):
        _block(state, rules)
    enters = why == ENTRY or (why == SIGNAL and wanted != FLAT)
    quantity = wanted * _size(state[CASH] + state[HELD] * close, close, wanted, funds, terms) if enters else 0.0
    if rules.next_open:
        state[LEAVING], state[ENTERING], state[DECIDED] = why, quantity, i
    elif why != ENTRY:
        _leave(state, orders, i, i, _slipped(close, -state[HELD], rules.slippage), why, rules, funds, terms)
    if quantity != 0.0:
        state[STOP_AT], state[TARGET_AT], state[EXIT_BY] = stop, target, now + rules.horizon
        if not rules.next_open:
            _enter(state, orders, i, i, _slipped(close, quantity, rules.slippage), quantity, rules, funds, terms)


@njit(cache=True, error_model="numpy", inline="always")
def _block(state: Floats, rules: Rules) -> None:
    if not rules.reenter:
        state[BLOCKED] = LONG if state[HELD] > 0.0 else SHORT


@njit(cache=True, error_model="numpy", inline="always")
def _touched(opened: float, high: float, low: float, held: float, stop: float, target: float) -> tuple[int, float]:
    """(reason or BOTH or ENTRY for none, price) of a position that is held from the bar's open on."""
    side = 1.0 if held > 0.0 else -1.0
    worst, best = (low, high) if held > 0.0 else (high, low)
    if side * opened <= side * stop:
        return STOP, opened
    if side * opened >= side * target:
        return TARGET, opened
    stopped, reached = side * worst <= side * stop, side * best >= side * target
    if stopped and reached:
        return BOTH, stop
    if stopped:
        return STOP, stop
    return (TARGET, target) if reached else (ENTRY, 0.0)


@njit(cache=True, error_model="numpy", nogil=True)
def _by_finer(finer: Finer, i: int, held: float, stop: float, target: float) -> tuple[int, float]:
    """Which barrier came first by the bars inside bar `i`; the stop where they do not tell."""
    if len(finer.first) > 0:
        for j in range(finer.first[i], finer.first[i + 1]):
            reason, price = _touched(finer.open[j], finer.high[j], finer.low[j], held, stop, target)
            if reason == BOTH:
                break
            if reason != ENTRY:
                return reason, price
    return STOP, stop


@njit(cache=True, error_model="numpy", inline="always")
def _size(equity: float, price: float, side: int, funds: Funds, terms: Floats) -> float:
    """Quantity of an entry: the fixed one, or what a fraction of equity buys, charges included; 0: too small."""
    if funds.quantity > 0.0:
        return funds.quantity
    budget = equity * funds.fraction
    if not funds.fee_in_base:
        budget -= max(0.0, budget + charge_of(terms, BUY_TAKER if side > 0 else SELL_TAKER, budget) - equity)
    quantity = budget / price
    if funds.step > 0.0:
        quantity = math.floor(quantity / funds.step + ALMOST) * funds.step
    return quantity if quantity > 0.0 and quantity * price >= funds.minimum_notional else 0.0


@njit(cache=True, error_model="numpy", inline="always")
def _slipped(price: float, quantity: float, slippage: float) -> float:
    """What a market order really gets: a buy pays more, a sale gets less."""
    return price * (1.0 + slippage) if quantity > 0.0 else price * (1.0 - slippage)


@njit(cache=True, error_model="numpy", inline="always")
def charge_of(terms: Floats, row: int, value: float) -> float:
    """Charge of one order worth `value`: the lower of two lines (intercept, slope, intercept, slope).

    Every fee schedule in use is one: a rate and flat parts, of which the broker's share is capped.
    """
    return min(terms[row, 0] + terms[row, 1] * value, terms[row, 2] + terms[row, 3] * value)


@njit(cache=True, error_model="numpy", inline="always")
def _enter(
    state: Floats, orders: Floats, i: int, decided: int, price: float, quantity: float, rules: Rules, funds: Funds,
    terms: Floats,
) -> None:  # fmt: skip
    value = abs(quantity) * price
    charge = charge_of(terms, BUY_TAKER if quantity > 0.0 else SELL_TAKER, value)
    in_base = funds.fee_in_base and quantity > 0.0
    if value + (0.0 if in_base else charge) > state[CASH] * (1.0 + ALMOST):
        state[REFUSED] += 1
        return
    _write(state, orders, i, decided, quantity, price, charge, ENTRY)
    state[CASH] -= quantity * price + (0.0 if in_base else charge)
    state[HELD] = quantity - (charge / price if in_base else 0.0)
    way = state[STOP_AT] - price  # against the position, or nothing where the fill is beyond the stop already
    state[BACKSTOP_AT] = state[STOP_AT] + rules.backstop * (min(way, 0.0) if quantity > 0.0 else max(way, 0.0))
    state[SINCE] = i


@njit(cache=True, error_model="numpy", inline="always")
def _leave(
    state: Floats, orders: Floats, i: int, decided: int, price: float, reason: int, rules: Rules, funds: Funds,
    terms: Floats,
) -> None:  # fmt: skip
    quantity = -state[HELD]
    if funds.fee_in_base and funds.step > 0.0 and quantity < 0.0:
        quantity = -math.floor(-quantity / funds.step + ALMOST) * funds.step
    row = SELL_TAKER if quantity < 0.0 else BUY_TAKER
    if reason == TARGET and rules.intrabar:
        row += BUY_MAKER - BUY_TAKER
    charge = charge_of(terms, row, abs(quantity) * price)
    _write(state, orders, i, decided, quantity, price, charge, reason)
    state[CASH] -= quantity * price + charge
    state[HELD] = 0.0


@njit(cache=True, error_model="numpy", inline="always")
def _write(
    state: Floats, orders: Floats, i: int, decided: int, quantity: float, price: float, charge: float, reason: int
) -> None:
    row = orders[int(state[COUNT])]
    row[BAR], row[DECIDED_AT], row[SIDE] = i, decided, 1.0 if quantity > 0.0 else -1.0
    row[QUANTITY], row[PRICE], row[CHARGE], row[REASON] = abs(quantity), price, charge, reason
    state[COUNT] += 1
