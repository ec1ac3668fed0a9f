"""Market conditions of a bar: volatility, trend, liquidity and session, known when the bar is.

Volatility and liquidity are ranks within the last `RANKED` bars of the same symbol, so that "high" means high for this
market at this time; the trend is the gap between a fast and a slow average in units of volatility; the session is the
part of the trading day.
"""

import math
from datetime import datetime

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trading_platform.markets.calendars import Calendar

Floats = NDArray[np.float64]

RANKED = 1_000
FEWEST_RANKED = 100
FAST, SLOW = 20, 100
TREND_UNITS = 1.5
LIQUIDITY_SPAN = 24

VOLATILITY = ("unknown", "low", "normal", "high")
TREND = ("unknown", "down", "sideways", "up")
LIQUIDITY = ("unknown", "thin", "normal", "deep")
SIGMAS, TURNOVERS = 0, 1
FAST_CELL, SLOW_CELL, TURNOVER_CELL, COUNT_CELL = range(4)
NEAR_EDGE_SECONDS = 3_600


def empty_conditions() -> tuple[Floats, Floats]:
    """(history (2, RANKED), memory (4,)) before the first bar."""
    return np.zeros((2, RANKED)), np.zeros(4)


@njit(cache=True)
def _third(history: Floats, value: float, seen: int) -> int:
    """1, 2 or 3: the third of the ranked history that `value` falls into; 0 while there is too little of it."""
    if seen < FEWEST_RANKED or not math.isfinite(value):
        return 0
    smaller = 0
    for index in range(seen):
        smaller += history[index] < value
    share = smaller / seen
    return 1 if share < 1.0 / 3.0 else (2 if share < 2.0 / 3.0 else 3)


@njit(cache=True)
def step_conditions(history: Floats, memory: Floats, c: float, v: float, s: float, out: Floats) -> None:
    """Take a bar; `out` (3,) gets the codes of volatility, trend and liquidity. `s` is the kernel's deviation, or NaN."""
    count = int(memory[COUNT_CELL])
    first = count == 0
    memory[FAST_CELL] = c if first else memory[FAST_CELL] + 2.0 / (FAST + 1.0) * (c - memory[FAST_CELL])
    memory[SLOW_CELL] = c if first else memory[SLOW_CELL] + 2.0 / (SLOW + 1.0) * (c - memory[SLOW_CELL])
    turnover = c * v
    memory[TURNOVER_CELL] = (
        turnover if first else memory[TURNOVER_CELL] + 2.0 / (LIQUIDITY_SPAN + 1.0) * (turnover - memory[TURNOVER_CELL])
    )
    seen = min(count, RANKED)
    known = math.isfinite(s)
    out[0] = _third(history[SIGMAS], s, seen) if known else 0
    if known and s > 0.0:
        gap = math.log(memory[FAST_CELL] / memory[SLOW_CELL]) / (s * math.sqrt(float(FAST)))
        out[1] = 3 if gap > TREND_UNITS / 4.0 else (1 if gap < -TREND_UNITS / 4.0 else 2)
    else:
        out[1] = 0
    out[2] = _third(history[TURNOVERS], memory[TURNOVER_CELL], seen) if memory[TURNOVER_CELL] > 0.0 else 0
    history[SIGMAS, count % RANKED] = s if known else 0.0
    history[TURNOVERS, count % RANKED] = memory[TURNOVER_CELL]
    memory[COUNT_CELL] = count + 1


@njit(cache=True)
def run_conditions(history: Floats, memory: Floats, c: Floats, v: Floats, s: Floats, out: Floats) -> None:
    """`step_conditions` over many bars of one symbol; `out` is (rows, 3)."""
    for row in range(len(c)):
        step_conditions(history, memory, c[row], v[row], s[row], out[row])


def session_of(open_time: datetime, opens_at: datetime | None, closes_at: datetime | None, never_closes: bool) -> str:
    """The part of the trading day. Around the clock: asia (0-8 UTC), europe (8-14), us (14-24) or weekend; elsewhere the
    first and last hour of the session are open and close, the rest is mid, and what lies outside any session is off."""
    if never_closes:
        if open_time.weekday() >= 5:
            return "weekend"
        return "asia" if open_time.hour < 8 else ("europe" if open_time.hour < 14 else "us")
    if opens_at is None or closes_at is None:
        return "off"
    if (open_time - opens_at).total_seconds() < NEAR_EDGE_SECONDS:
        return "open"
    return "close" if (closes_at - open_time).total_seconds() <= NEAR_EDGE_SECONDS else "mid"


def live_session(open_time: datetime, calendar: Calendar) -> str:
    """`session_of` for one bar of a venue."""
    session = None if calendar.never_closes else calendar.session_at(open_time)
    return session_of(
        open_time,
        session.opens_at if session else None,
        session.closes_at if session else None,
        calendar.never_closes,
    )
