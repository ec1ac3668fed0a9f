"""Features of what is around a symbol: the longer bars that its bars are part of, and the market's reference symbol.

The second compiled loop beside `kernel.run`: it takes the same bars, with the reference's close and the kernel's
deviation beside each, and keeps a state of its own, so that feature sets without context cost nothing more.

Point in time: a longer bar counts from the close of its last bar on, or, where that one is missing, from the first bar
after it. Longer bars lie on a grid fixed at the epoch. Of the reference the newest close known with the bar counts.
"""

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trading_platform.features.definition import SIGMA_SPAN, Feature, Op

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

RING = 256
"""Closes kept of the symbol and of the reference, and longer bars kept: a power of two above the longest window."""
MASK = RING - 1
COUNT, BUCKET, HIGH, LOW, CLOSE, CLOSED, REFERENCES, RING_FROM = range(8)
"""Cells of the state: bars seen; the longer bar in the making (its number, -1 for none; prices); longer bars closed; bars
seen with a reference; then the rings."""
COLUMNS = 5
OWN, REFERENCE, LONG_CLOSE, LONG_HIGH, LONG_LOW = range(COLUMNS)
"""Columns of the ring: log closes of symbol and reference by bar; log closes, highs and lows of longer bars by number."""
MOMENTS = 3
"""Cells an output: averages of the product of the returns and of their squares; or one average of longer bars."""
BAR_SECONDS, BAR_HIGH, BAR_LOW, BAR_CLOSE = 0, 2, 3, 4
LEAST_UNIT, TINY = 1e-9, 1e-12


def compile_context(features: tuple[Feature, ...]) -> Integers:
    """Rows (op, n, m, warm-up). Raises ValueError on a window beyond the ring, or on two lengths of longer bars."""
    longer = {feature.m for feature in features if feature.op <= Op.HIGHER_RANGE}
    if len(longer) > 1:
        raise ValueError(f"longer bars of one length a feature set, found {sorted(longer)} bars")
    if too_long := [feature.name for feature in features if feature.n >= RING]:
        raise ValueError(f"features {too_long} look back {RING} bars or more; raise RING")
    return np.array([(f.op, f.n, f.m, f.warm_up) for f in features], dtype=np.int64).reshape(-1, 4)


def empty_state(outputs: Integers) -> Floats:
    """All that is remembered of a symbol, before its first bar."""
    state = np.zeros(RING_FROM + COLUMNS * RING + MOMENTS * len(outputs))
    state[BUCKET] = -1.0
    return state


@njit(cache=True, error_model="numpy")
def _average(cells: Floats, k: int, cell: int, value: float, alpha: float, first: bool) -> None:
    cells[k, cell] = value if first else cells[k, cell] + alpha * (value - cells[k, cell])


@njit(cache=True, error_model="numpy")
def _close_longer(outputs: Integers, state: Floats, ring: Floats, cells: Floats) -> None:
    """The longer bar in the making is whole: from now on it counts."""
    number = int(state[CLOSED])
    at, first = number & MASK, number == 0
    last = state[CLOSE] if first else math.exp(ring[(at - 1) & MASK, LONG_CLOSE])
    ring[at, LONG_CLOSE] = math.log(state[CLOSE])
    ring[at, LONG_HIGH], ring[at, LONG_LOW] = state[HIGH], state[LOW]
    true_range = max(state[HIGH], last) - min(state[LOW], last)
    for k in range(len(outputs)):
        if outputs[k, 0] == Op.HIGHER_EMA_GAP:
            _average(cells, k, 0, state[CLOSE], 2.0 / (outputs[k, 1] + 1.0), first)
        elif outputs[k, 0] == Op.HIGHER_RANGE:
            _average(cells, k, 0, true_range, 1.0 / outputs[k, 1], first)
    state[CLOSED], state[BUCKET] = number + 1, -1.0


@njit(cache=True, error_model="numpy")
def _fold(
    outputs: Integers, state: Floats, ring: Floats, cells: Floats, bars: Floats, row: int, interval: float, length: int
) -> None:
    """Put a bar into its longer bar of `length` bars."""
    width = interval * length
    bucket = math.floor(bars[row, BAR_SECONDS] / width)
    if state[BUCKET] >= 0.0 and state[BUCKET] != bucket:
        _close_longer(outputs, state, ring, cells)
    if state[BUCKET] < 0.0:
        state[BUCKET], state[HIGH], state[LOW] = bucket, bars[row, BAR_HIGH], bars[row, BAR_LOW]
    state[HIGH], state[LOW] = max(state[HIGH], bars[row, BAR_HIGH]), min(state[LOW], bars[row, BAR_LOW])
    state[CLOSE] = bars[row, BAR_CLOSE]
    if bars[row, BAR_SECONDS] + interval >= (bucket + 1.0) * width:
        _close_longer(outputs, state, ring, cells)


@njit(cache=True, error_model="numpy")
def _pair(outputs: Integers, ring: Floats, cells: Floats, at: int, known: int) -> None:
    """Move the averages of the returns of symbol and reference on, once both are known for two bars."""
    if known < 2:
        return
    own = ring[at, OWN] - ring[(at - 1) & MASK, OWN]
    other = ring[at, REFERENCE] - ring[(at - 1) & MASK, REFERENCE]
    for k in range(len(outputs)):
        op = outputs[k, 0]
        if op < Op.REFERENCE_RETURN:
            continue
        span = outputs[k, 1]
        if op == Op.REFERENCE_RETURN:
            span = SIGMA_SPAN
        elif op == Op.RELATIVE_RETURN:
            span = outputs[k, 2]
        alpha = 2.0 / (span + 1.0)
        _average(cells, k, 0, own * other, alpha, known == 2)
        _average(cells, k, 1, own * own, alpha, known == 2)
        _average(cells, k, 2, other * other, alpha, known == 2)


@njit(cache=True, error_model="numpy")
def _of_longer(op: int, n: int, m: int, ring: Floats, average: float, closed: int, close: float, s: float) -> float:
    """Features of the longer bars that are closed, and of where the close lies against them."""
    if closed <= n:
        return math.nan
    at, unit = (closed - 1) & MASK, s * math.sqrt(m)
    if op == Op.HIGHER_RETURN:
        moved: float = ring[at, LONG_CLOSE] - ring[(at - n) & MASK, LONG_CLOSE]
        return moved / (unit * math.sqrt(n))
    if op == Op.HIGHER_EMA_GAP:
        return math.log(close / average) / unit
    if op == Op.HIGHER_RANGE:
        return average / (close * unit)
    high, low = ring[at, LONG_HIGH], ring[at, LONG_LOW]
    for back in range(1, n):
        high, low = max(high, ring[(at - back) & MASK, LONG_HIGH]), min(low, ring[(at - back) & MASK, LONG_LOW])
    return 0.5 if high - low < TINY * close else (close - low) / (high - low)  # Op.HIGHER_RANGE_POSITION


@njit(cache=True, error_model="numpy")
def _of_reference(op: int, n: int, ring: Floats, cells: Floats, k: int, at: int, s: float) -> float:
    """Features of the reference, and of the symbol beside it."""
    product, own, other = cells[k, 0], cells[k, 1], cells[k, 2]
    if op == Op.CORRELATION:
        return 0.0 if own * other < TINY * TINY * TINY else product / math.sqrt(own * other)
    beta: float = 0.0 if other < LEAST_UNIT * LEAST_UNIT else product / other
    if op == Op.BETA:
        return beta
    moved: float = ring[at, REFERENCE] - ring[(at - n) & MASK, REFERENCE]
    if op == Op.REFERENCE_RETURN:
        return moved / (max(math.sqrt(other), LEAST_UNIT) * math.sqrt(n))
    apart: float = ring[at, OWN] - ring[(at - n) & MASK, OWN] - beta * moved
    return apart / (s * math.sqrt(n))  # Op.RELATIVE_RETURN


@njit(cache=True, error_model="numpy", nogil=True)
def run(
    outputs: Integers, state: Floats, bars: Floats, reference: Floats, sigma: Floats, interval: float, out: Floats,
    first: int,
) -> None:  # fmt: skip
    """Take bars (rows, 6) with the reference's closes (rows,; NaN: none) and deviations (rows,); fill the columns of `out`
    (rows, k) from number `first` on.

    NaN in warm-up, and in features of the reference while there is none.
    """
    ring_end = RING_FROM + COLUMNS * RING
    ring = state[RING_FROM:ring_end].reshape(RING, COLUMNS)
    cells = state[ring_end:].reshape(len(outputs), MOMENTS)
    length = 0
    for k in range(len(outputs)):
        if outputs[k, 0] <= Op.HIGHER_RANGE:
            length = outputs[k, 2]
    for row in range(len(bars)):
        if length > 0:
            _fold(outputs, state, ring, cells, bars, row, interval, length)
        close, s = bars[row, BAR_CLOSE], max(sigma[row], LEAST_UNIT)
        there = math.isfinite(reference[row])
        at = int(state[REFERENCES]) & MASK
        if there:
            ring[at, OWN], ring[at, REFERENCE] = math.log(close), math.log(reference[row])
            state[REFERENCES] += 1.0
            _pair(outputs, ring, cells, at, int(state[REFERENCES]))
        state[COUNT] += 1.0
        for k in range(len(outputs)):
            op, n, m, warm_up = outputs[k, 0], outputs[k, 1], outputs[k, 2], outputs[k, 3]
            value = math.nan
            if not math.isfinite(sigma[row]):
                value = math.nan
            elif op <= Op.HIGHER_RANGE:
                if state[COUNT] >= warm_up:
                    value = _of_longer(op, n, m, ring, cells[k, 0], int(state[CLOSED]), close, s)
            elif there and state[REFERENCES] >= warm_up:
                value = _of_reference(op, n, ring, cells, k, at, s)
            out[row, first + k] = value
