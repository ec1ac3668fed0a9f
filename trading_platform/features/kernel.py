"""One bar in, one row out: the compiled step that batch and live share.

State is two arrays: `ring` holds the last bars' columns, `memory` the recursive averages, a row a feature. Windows are
summed anew for every bar: a running sum would save time, but carries its rounding error along for ever, and batch and
live would agree only if both had started at the same bar.
"""

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trading_platform.features.definition import FEATURES, LONGEST_WINDOW, SIGMA_SPAN, WARM_UP_SIGMA, Feature

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

WINDOW = 256
"""Bars in the ring: a power of two above the longest window."""
CLOSE, HIGH, LOW, VOLUME, RETURN, TURNOVER = range(6)
COLUMNS = 6
SIGMA_ROW = 0
"""Memory row of the shared deviation; features follow from row 1."""
MEMORY = 4
DAY, WEEK = 86_400.0, 604_800.0
MONDAY = 345_600.0
"""Seconds from the epoch, a Thursday, to the first Monday."""
TINY = 1e-12


def program(features: tuple[Feature, ...] = FEATURES) -> Integers:
    """The table as the kernel reads it: (k, 4) of operation, n, m, warm-up. Raises ValueError on a window too long."""
    too_long = [feature.name for feature in features if max(feature.n, feature.m) > LONGEST_WINDOW]
    if too_long:
        raise ValueError(f"features {too_long} look further back than {LONGEST_WINDOW} bars; raise LONGEST_WINDOW")
    return np.array([(int(f.op), f.n, f.m, f.warm_up) for f in features], dtype=np.int64)


def empty_state(features: int) -> tuple[Floats, Floats]:
    """(ring, memory) before the first bar. memory[0, 3] counts the bars seen."""
    return np.zeros((COLUMNS, WINDOW)), np.zeros((features + 1, MEMORY))


@njit(cache=True, fastmath=False)
def _mean(row: Floats, at: int, n: int) -> float:
    total = 0.0
    for back in range(n):
        total += row[(at - back) & (WINDOW - 1)]
    return total / n


@njit(cache=True)
def _deviation(row: Floats, at: int, n: int, mean: float) -> float:
    total = 0.0
    for back in range(n):
        gap = row[(at - back) & (WINDOW - 1)] - mean
        total += gap * gap
    return math.sqrt(total / n)


@njit(cache=True)
def _average(memory: Floats, slot: int, value: float, alpha: float, first: bool) -> float:
    """Exponential average kept in one memory cell."""
    memory[slot] = value if first else memory[slot] + alpha * (value - memory[slot])
    return memory[slot]


@njit(cache=True)
def push_bar(ring: Floats, memory: Floats, o: float, h: float, low: float, c: float, v: float) -> float:
    """Take a bar into the state; returns s, the exponentially weighted deviation of one-bar log returns."""
    count = int(memory[SIGMA_ROW, 3])
    at = count & (WINDOW - 1)
    r = math.log(c / ring[CLOSE, (at - 1) & (WINDOW - 1)]) if count else 0.0
    ring[CLOSE, at], ring[HIGH, at], ring[LOW, at], ring[VOLUME, at] = c, h, low, v
    ring[RETURN, at], ring[TURNOVER, at] = r, c * v
    if count:
        _average(memory[SIGMA_ROW], 0, r * r, 2.0 / (SIGMA_SPAN + 1.0), count == 1)
    memory[SIGMA_ROW, 3] = count + 1
    return math.sqrt(memory[SIGMA_ROW, 0])


@njit(cache=True)
def _rsi(ring: Floats, cell: Floats, at: int, n: int, count: int) -> float:
    change = ring[CLOSE, at] - ring[CLOSE, (at - 1) & (WINDOW - 1)] if count > 1 else 0.0
    up = _average(cell, 0, max(change, 0.0), 1.0 / n, count <= 2)
    down = _average(cell, 1, max(-change, 0.0), 1.0 / n, count <= 2)
    return 0.5 if up + down < TINY else up / (up + down)


@njit(cache=True)
def _true_range(ring: Floats, at: int, count: int) -> float:
    high, low = ring[HIGH, at], ring[LOW, at]
    if count < 2:
        return high - low
    before = ring[CLOSE, (at - 1) & (WINDOW - 1)]
    return max(high - low, abs(high - before), abs(low - before))


@njit(cache=True)
def _range_position(ring: Floats, at: int, n: int) -> float:
    top, bottom = ring[HIGH, at], ring[LOW, at]
    for back in range(1, n):
        index = (at - back) & (WINDOW - 1)
        top, bottom = max(top, ring[HIGH, index]), min(bottom, ring[LOW, index])
    return 0.5 if top - bottom < TINY * ring[CLOSE, at] else (ring[CLOSE, at] - bottom) / (top - bottom)


@njit(cache=True)
def _skew(row: Floats, at: int, n: int) -> float:
    mean = _mean(row, at, n)
    second, third = 0.0, 0.0
    for back in range(n):
        gap = row[(at - back) & (WINDOW - 1)] - mean
        second += gap * gap
        third += gap * gap * gap
    spread = math.sqrt(second / n)
    return 0.0 if spread < TINY else (third / n) / spread**3


@njit(cache=True)
def _autocorrelation(row: Floats, at: int, n: int) -> float:
    mean = _mean(row, at, n)
    product, square = 0.0, 0.0
    for back in range(n):
        gap = row[(at - back) & (WINDOW - 1)] - mean
        square += gap * gap
        if back + 1 < n:
            product += gap * (row[(at - back - 1) & (WINDOW - 1)] - mean)
    return 0.0 if square < TINY * TINY else product / square


@njit(cache=True)
def _price_feature(ring: Floats, op: int, n: int, m: int, at: int, s: float) -> float:
    """Features over the window's prices."""
    c = ring[CLOSE, at]
    mean = _mean(ring[CLOSE], at, n) if n else c
    value = 0.0
    if op == 0:
        value = math.log(c / ring[CLOSE, (at - n) & (WINDOW - 1)]) / (s * math.sqrt(n))
    elif op == 5:
        deviation = _deviation(ring[CLOSE], at, n, mean)
        value = 0.0 if deviation < TINY * c else (c - mean) / (2.0 * deviation)
    elif op == 6:
        value = math.log(max(4.0 * _deviation(ring[CLOSE], at, n, mean) / (mean * s), 1e-6))
    elif op == 8:
        value = math.log(mean / _mean(ring[CLOSE], at, m)) / s
    else:
        value = _range_position(ring, at, n)
    return value


@njit(cache=True)
def _volume_feature(ring: Floats, op: int, n: int, at: int, s: float) -> float:
    """Features over the window's volumes; an index has none, and then they say nothing."""
    mean = _mean(ring[VOLUME], at, n)
    if op == 17:
        fair = _mean(ring[TURNOVER], at, n) / mean if mean > 0.0 else _mean(ring[CLOSE], at, n)
        return math.log(ring[CLOSE, at] / fair) / s
    if op == 11:
        return 0.0 if mean <= 0.0 else math.log1p(ring[VOLUME, at] / mean)
    deviation = _deviation(ring[VOLUME], at, n, mean)
    return 0.0 if deviation <= TINY * (mean + TINY) else (ring[VOLUME, at] - mean) / deviation


@njit(cache=True)
def _return_feature(ring: Floats, op: int, n: int, m: int, at: int, s: float) -> float:
    """Features over the window's one-bar returns."""
    value = 0.0
    if op == 12:
        short = _deviation(ring[RETURN], at, n, _mean(ring[RETURN], at, n))
        long = _deviation(ring[RETURN], at, m, _mean(ring[RETURN], at, m))
        value = math.log(max(short, 0.01 * s) / max(long, 0.01 * s))
    elif op == 13:
        value = _skew(ring[RETURN], at, n)
    elif op == 18:
        value = _autocorrelation(ring[RETURN], at, n)
    else:
        for back in range(n):
            value += ring[RETURN, (at - back) & (WINDOW - 1)] > 0.0
        value /= n
    return value


@njit(cache=True)
def _recursive_feature(ring: Floats, cell: Floats, op: int, n: int, m: int, at: int, s: float, count: int) -> float:
    """Features that carry averages of their own in `cell`; called for every bar, warm-up included."""
    c = ring[CLOSE, at]
    first = count == 1
    if op == 1:
        return math.log(c / _average(cell, 0, c, 2.0 / (n + 1.0), first)) / s
    if op in (2, 3):
        fast = _average(cell, 0, c, 2.0 / (n + 1.0), first)
        slow = _average(cell, 1, c, 2.0 / (m + 1.0), first)
        if op == 2:
            return (fast - slow) / (c * s)
        return (fast - slow - _average(cell, 2, fast - slow, 0.2, first)) / (c * s)
    if op == 4:
        return _rsi(ring, cell, at, n, count)
    return _average(cell, 0, _true_range(ring, at, count), 1.0 / n, first) / (c * s)


@njit(cache=True)
def _bar_feature(op: int, o: float, h: float, low: float, c: float, s: float, seconds: float) -> float:
    """Features of the bar itself and of its time."""
    if op == 14:
        return (h - low) / (c * s)
    if op == 15:
        return math.log(c / o) / s
    if op == 16:
        return 0.0 if h - low < TINY * c else (h - max(o, c)) / (h - low)
    if op == 20:
        return math.log(s)
    period = DAY if op < 23 else WEEK
    angle = 2.0 * math.pi * ((seconds - (0.0 if op < 23 else MONDAY)) % period) / period
    return math.sin(angle) if op in (21, 23) else math.cos(angle)


@njit(cache=True)
def step(
    table: Integers, ring: Floats, memory: Floats, seconds: float,
    o: float, h: float, low: float, c: float, v: float, out: Floats,
) -> float:  # fmt: skip
    """Take one bar (open time in seconds since the epoch), fill `out` (k,) and return s; NaN during warm-up."""
    s = push_bar(ring, memory, o, h, low, c, v)
    count = int(memory[SIGMA_ROW, 3])
    at = (count - 1) & (WINDOW - 1)
    unit = max(s, 1e-9)
    for index in range(len(table)):
        op, n, m, warm_up = table[index, 0], table[index, 1], table[index, 2], table[index, 3]
        if op in (1, 2, 3, 4, 7):
            value = _recursive_feature(ring, memory[index + 1], op, n, m, at, unit, count)
        elif count < warm_up:
            value = math.nan
        elif op in (14, 15, 16) or op >= 20:
            value = _bar_feature(op, o, h, low, c, unit, seconds)
        elif op in (10, 11, 17):
            value = _volume_feature(ring, op, n, at, unit)
        elif op in (12, 13, 18, 19):
            value = _return_feature(ring, op, n, m, at, unit)
        else:
            value = _price_feature(ring, op, n, m, at, unit)
        out[index] = value if count >= warm_up else math.nan
    return s if count >= WARM_UP_SIGMA else math.nan


@njit(cache=True)
def run(
    table: Integers, ring: Floats, memory: Floats, seconds: Floats,
    o: Floats, h: Floats, low: Floats, c: Floats, v: Floats, out: Floats, sigma: Floats,
) -> None:  # fmt: skip
    """`step` over many bars of one symbol: `out` (rows, k) and `sigma` (rows,) are filled."""
    for row in range(len(c)):
        sigma[row] = step(table, ring, memory, seconds[row], o[row], h[row], low[row], c[row], v[row], out[row])
