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

RANKED, EVERY = 250, 4
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
TURNOVERS_FROM = SIGMAS_FROM + 2 * RANKED
CELLS = TURNOVERS_FROM + 2 * RANKED
"""Of both, the values kept in the order in which they came, each in the place of the one that it replaced; then sorted."""
CLOSE, VOLUME = 4, 5
"""Columns of the bars, as `kernel.run` takes them."""


def empty_state() -> Floats:
    """What is remembered of a symbol, before its first bar."""
    return np.zeros(CELLS)


@njit(cache=True, error_model="numpy")
def _third(ordered: Floats, seen: int, value: float) -> int:
    """1, 2 or 3: which third of `seen` sorted values this one falls into; of equal ones half count as smaller."""
    lower, upper = (seen + 2) // 3, 2 * seen // 3 + 1
    low, high = ordered[lower - 1], ordered[upper - 1]
    if value < low:
        return 1
    if value > high:
        return 3
    if low < value < high:
        return 2
    smaller, equal = 0, 0
    for index in range(seen):
        smaller += ordered[index] < value
        equal += ordered[index] == value
    share = (smaller + 0.5 * equal) / seen
    return 1 if share < 1.0 / 3.0 else (2 if share <= 2.0 / 3.0 else 3)


@njit(cache=True, error_model="numpy")
def _keep(kept: Floats, ordered: Floats, number: int, value: float) -> None:
    """Put value number `number` in the place of the oldest, and into the order."""
    if number < RANKED:
        place = number
    else:
        place = int(np.searchsorted(ordered, kept[number % RANKED]))
        while place + 1 < RANKED and ordered[place + 1] < value:
            ordered[place] = ordered[place + 1]
            place += 1
    while place > 0 and ordered[place - 1] > value:
        ordered[place] = ordered[place - 1]
        place -= 1
    ordered[place] = kept[number % RANKED] = value


@njit(cache=True, error_model="numpy")
def _rank(kept: Floats, ordered: Floats, count: int, value: float) -> int:
    """1, 2 or 3: the third of the kept history that `value` falls into; 0 while there is too little of it.

    `count` values came before. Every `EVERY`th one is kept, the oldest making room, after it was ranked itself.
    """
    seen = min((count + EVERY - 1) // EVERY, RANKED)
    third = _third(ordered, seen, value) if seen >= FEWEST_RANKED else 0
    if count % EVERY == 0:
        _keep(kept, ordered, count // EVERY, value)
    return third


@njit(cache=True, error_model="numpy", nogil=True)
def run(state: Floats, bars: Floats, sigma: Floats, codes: Floats) -> None:
    """Take bars (rows, 6) of one symbol with their deviations (rows,) and fill `codes` (rows, 3)."""
    sigmas, sigmas_sorted = state[SIGMAS_FROM : SIGMAS_FROM + RANKED], state[SIGMAS_FROM + RANKED : TURNOVERS_FROM]
    turnovers, turnovers_sorted = state[TURNOVERS_FROM : TURNOVERS_FROM + RANKED], state[TURNOVERS_FROM + RANKED :]
    count, known = int(state[COUNT]), int(state[KNOWN_SIGMAS])
    fast, slow, turnover = state[FAST_AVERAGE], state[SLOW_AVERAGE], state[TURNOVER]
    for row in range(len(bars)):
        close, s, first = bars[row, CLOSE], sigma[row], count == 0
        fast = _moved(fast, close, FAST, first)
        slow = _moved(slow, close, SLOW, first)
        turnover = _moved(turnover, close * bars[row, VOLUME], TURNOVER_SPAN, first)
        codes[row, 0], codes[row, 1] = 0.0, 0.0
        if math.isfinite(s):
            codes[row, 0] = _rank(sigmas, sigmas_sorted, known, s)
            known += 1
            gap = math.log(fast / slow)
            codes[row, 1] = 3.0 if gap > TREND_GAP * s else (1.0 if gap < -TREND_GAP * s else 2.0)
        third = _rank(turnovers, turnovers_sorted, count, turnover)
        codes[row, 2] = third if turnover > 0.0 else 0.0
        count += 1
    state[COUNT], state[KNOWN_SIGMAS] = count, known
    state[FAST_AVERAGE], state[SLOW_AVERAGE], state[TURNOVER] = fast, slow, turnover


@njit(cache=True, error_model="numpy")
def _moved(average: float, value: float, span: float, first: bool) -> float:
    """An exponential average after one more value."""
    return value if first else average + 2.0 / (span + 1.0) * (value - average)
