"""Market conditions of a bar: volatility, trend and liquidity, known when the bar is (the session: `sessions.py`).

Volatility and liquidity are ranks within the last `RANKED` * `EVERY` bars of the same symbol, of which every `EVERY`th is
kept (both are slow averages), so that "high" means high for this market at this time. The trend is the gap between a fast and a slow average of the
price, in units of volatility. Like the features, one compiled loop for history and for live bars.
"""

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Codes = NDArray[np.int8]

RANKED, EVERY = 250, 4
PLACES = 256
"""Room for those: a power of two."""
FEWEST_RANKED = 25
FAST, SLOW = 20, 100
TREND_GAP = 1.57
"""Gap in units of the one-bar deviation. On a driftless walk the gap of these two averages has a deviation of
sqrt(sum over k of (b**k - a**k)**2) = 3.65 with a = 1 - 2/21, b = 1 - 2/101; 0.43 of it leaves a third on each side."""
TURNOVER_SPAN = 24

VOLATILITY = ("unknown", "low", "normal", "high")
TREND = ("unknown", "down", "sideways", "up")
LIQUIDITY = ("unknown", "thin", "normal", "deep")
NAMES = {"volatility": VOLATILITY, "trend": TREND, "liquidity": LIQUIDITY}
"""Codes are positions in these."""

COUNT, FAST_AVERAGE, SLOW_AVERAGE, TURNOVER, KNOWN_SIGMAS = range(5)
SIGMAS_FROM = 5
TURNOVERS_FROM = SIGMAS_FROM + RANKED + PLACES
CELLS = TURNOVERS_FROM + RANKED + PLACES
"""Of both, the values kept in the order in which they came, each in the place of the one that it replaced; then sorted, and
infinities after them."""
CLOSE, VOLUME = 4, 5
"""Columns of the bars, as `kernel.run` takes them."""


def empty_state() -> Floats:
    """What is remembered of a symbol, before its first bar."""
    state = np.zeros(CELLS)
    state[SIGMAS_FROM + RANKED : TURNOVERS_FROM] = state[TURNOVERS_FROM + RANKED :] = np.inf
    return state


@njit(cache=True, error_model="numpy")
def _third(state: Floats, ordered: int, seen: int, value: float) -> int:
    """1, 2 or 3: which third of `seen` sorted values this one falls into; of equal ones half count as smaller."""
    low, high = state[ordered + (seen + 2) // 3 - 1], state[ordered + 2 * seen // 3]
    if value != low and value != high:  # noqa: PLR1714 - a tuple is slower here
        return 1 + int(value > low) + int(value > high)
    smaller, equal = 0, 0
    for index in range(ordered, ordered + seen):
        smaller += state[index] < value
        equal += state[index] == value
    share = (smaller + 0.5 * equal) / seen
    return 1 if share < 1.0 / 3.0 else (2 if share <= 2.0 / 3.0 else 3)


@njit(cache=True, error_model="numpy")
def _place(state: Floats, ordered: int, value: float) -> int:
    """Where the first sorted value is that is not smaller. Always eight steps, so the processor need not guess."""
    place, step = ordered, PLACES // 2
    while step > 0:
        place += step if state[place + step - 1] < value else 0
        step //= 2
    return place


@njit(cache=True, error_model="numpy")
def _keep(state: Floats, kept: int, ordered: int, number: int, value: float) -> None:
    """Put value number `number` in the place of the oldest, and into the order."""
    oldest = kept + number % RANKED
    left = ordered + number if number < RANKED else _place(state, ordered, state[oldest])
    place = _place(state, ordered, value)
    if place > left:
        place -= 1
        between = state[left:]
        for index in range(place - left):
            between[index] = between[index + 1]
    else:
        between = state[place:]
        for index in range(left - place, 0, -1):
            between[index] = between[index - 1]
    state[place] = state[oldest] = value


@njit(cache=True, error_model="numpy")
def _rank(state: Floats, kept: int, count: int, value: float) -> int:
    """1, 2 or 3: the third of the history kept from cell `kept` on that `value` falls into; 0 while there is too little.

    `count` values came before. Every `EVERY`th one is kept, the oldest making room, after it was ranked itself.
    """
    ordered, seen = kept + RANKED, min((count + EVERY - 1) // EVERY, RANKED)
    third = _third(state, ordered, seen, value) if seen >= FEWEST_RANKED else 0
    if count % EVERY == 0:
        _keep(state, kept, ordered, count // EVERY, value)
    return third


@njit(cache=True, error_model="numpy", nogil=True)
def run(state: Floats, bars: Floats, sigma: Floats, codes: Codes) -> None:
    """Take bars (rows, 6) of one symbol with their deviations (rows,) and fill `codes` (3, rows)."""
    count, known = int(state[COUNT]), int(state[KNOWN_SIGMAS])
    fast, slow, turnover = state[FAST_AVERAGE], state[SLOW_AVERAGE], state[TURNOVER]
    for row in range(len(bars)):
        close, s, first = bars[row, CLOSE], sigma[row], count == 0
        fast = _moved(fast, close, FAST, first)
        slow = _moved(slow, close, SLOW, first)
        turnover = _moved(turnover, close * bars[row, VOLUME], TURNOVER_SPAN, first)
        codes[0, row], codes[1, row] = 0, 0
        if math.isfinite(s):
            codes[0, row] = _rank(state, SIGMAS_FROM, known, s)
            known += 1
            gap = math.log(fast / slow)
            codes[1, row] = 3 if gap > TREND_GAP * s else (1 if gap < -TREND_GAP * s else 2)
        third = _rank(state, TURNOVERS_FROM, count, turnover)
        codes[2, row] = third if turnover > 0.0 else 0
        count += 1
    state[COUNT], state[KNOWN_SIGMAS] = count, known
    state[FAST_AVERAGE], state[SLOW_AVERAGE], state[TURNOVER] = fast, slow, turnover


@njit(cache=True, error_model="numpy")
def _moved(average: float, value: float, span: float, first: bool) -> float:
    """An exponential average after one more value."""
    return value if first else average + 2.0 / (span + 1.0) * (value - average)
