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
TURNOVERS_FROM = SIGMAS_FROM + RANKED
CELLS = TURNOVERS_FROM + RANKED
CLOSE, VOLUME = 4, 5
"""Columns of the bars, as `kernel.run` takes them."""


def empty_state() -> Floats:
    """What is remembered of a symbol, before its first bar."""
    return np.zeros(CELLS)


@njit(cache=True, error_model="numpy")
def _third(state: Floats, start: int, seen: int, value: float) -> int:
    smaller, equal = 0, 0
    for index in range(start, start + seen):
        smaller += state[index] < value
        equal += state[index] == value
    share = (smaller + 0.5 * equal) / seen
    return 1 if share < 1.0 / 3.0 else (2 if share <= 2.0 / 3.0 else 3)


@njit(cache=True, error_model="numpy")
def _rank(state: Floats, start: int, count: int, value: float) -> int:
    """1, 2 or 3: the third of the kept history that `value` falls into; 0 while there is too little of it.

    `count` values came before. Every `EVERY`th one is kept, the oldest making room, after it was ranked itself.
    """
    seen = min((count + EVERY - 1) // EVERY, RANKED)
    third = _third(state, start, seen, value) if seen >= FEWEST_RANKED else 0
    if count % EVERY == 0:
        state[start + (count // EVERY) % RANKED] = value
    return third


@njit(cache=True, error_model="numpy")
def _average(state: Floats, cell: int, value: float, span: float, first: bool) -> float:
    state[cell] = value if first else state[cell] + 2.0 / (span + 1.0) * (value - state[cell])
    return state[cell]


@njit(cache=True, error_model="numpy", nogil=True)
def run(state: Floats, bars: Floats, sigma: Floats, codes: Floats) -> None:
    """Take bars (rows, 6) of one symbol with their deviations (rows,) and fill `codes` (rows, 3)."""
    for row in range(len(bars)):
        count, first = int(state[COUNT]), state[COUNT] == 0.0
        close, s = bars[row, CLOSE], sigma[row]
        fast = _average(state, FAST_AVERAGE, close, FAST, first)
        slow = _average(state, SLOW_AVERAGE, close, SLOW, first)
        turnover = _average(state, TURNOVER, close * bars[row, VOLUME], TURNOVER_SPAN, first)
        codes[row, 0], codes[row, 1] = 0.0, 0.0
        if math.isfinite(s):
            known = int(state[KNOWN_SIGMAS])
            codes[row, 0] = _rank(state, SIGMAS_FROM, known, s)
            state[KNOWN_SIGMAS] = known + 1
            gap = math.log(fast / slow)
            codes[row, 1] = 3.0 if gap > TREND_GAP * s else (1.0 if gap < -TREND_GAP * s else 2.0)
        third = _rank(state, TURNOVERS_FROM, count, turnover)
        codes[row, 2] = third if turnover > 0.0 else 0.0
        state[COUNT] = count + 1
