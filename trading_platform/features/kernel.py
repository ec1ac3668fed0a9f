"""One bar in, one row out: the compiled loop that history and live bars share.

What is kept of a symbol is one flat vector (`Program.empty_state`): the last bars in a ring, running sums of windows,
exponential averages, extremes. A bar costs the same however long the windows are.

Running sums lose digits: of each value that enters and leaves, a rounding error stays. So values are measured from an
anchor near their mean, and the sums are made anew from the ring every `RENEW_EVERY` bars, and at once where the spread
has fallen so far below what has passed through that the error could be seen. Both depend on the state alone, so batch
and live stay equal to the last bit.
"""

import math
from enum import IntEnum

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trading_platform.features.definition import Op

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

RING = 256
"""Bars that the kernel keeps: a power of two above the longest window."""


class Column(IntEnum):
    """What the kernel derives from each bar and keeps for the last `RING` bars."""

    CLOSE = 0
    HIGH = 1
    LOW = 2
    VOLUME = 3
    LOG_CLOSE = 4
    RETURN = 5
    LAGGED = 6
    """r * r[-1]"""
    TURNOVER = 7
    """c * v"""
    RISING = 8
    """1 where r > 0"""
    SQUARE = 9
    """r squared"""
    GAIN = 10
    LOSS = 11
    TRUE_RANGE = 12


COLUMNS = len(Column)
SIGNAL = -1
"""In place of a column: the average of the difference of two earlier averages (MACD's signal line)."""
MOMENTS = 5
"""Cells a window: the anchor that values are measured from, three sums of powers, the largest second sum since the
sums were last made anew."""
EXTREME = 4
"""Cells an extreme: highest high, its bar's number, lowest low with its sign turned, its bar's number."""

MASK = RING - 1
RENEW_EVERY = 128
RENEW_BELOW = 1e-6
DAY, WEEK = 86_400.0, 604_800.0
MONDAY = 345_600.0
"""Seconds from the epoch, a Thursday, to the first Monday."""
TINY = 1e-12
LEAST_UNIT = 1e-9
"""s of a price that does not move."""
SECONDS, OPEN, HIGH, LOW, CLOSE, VOLUME = range(6)
"""Columns of the bars given to `run`; the first is the opening time in seconds since the epoch."""
LAST_OF_AVERAGES, LAST_OF_PRICES, LAST_OF_VOLUMES = int(Op.ATR), int(Op.UP_SHARE), int(Op.VWAP_GAP)
"""Operations are numbered by what they read: averages, windows of prices, windows of volumes, then the bar itself."""


@njit(cache=True, error_model="numpy")
def _take(ring: Floats, at: int, count: int, bars: Floats, row: int) -> None:
    """Derive the columns of a bar and put them into the ring."""
    before = (at - 1) & MASK
    close, high, low, volume = bars[row, CLOSE], bars[row, HIGH], bars[row, LOW], bars[row, VOLUME]
    log_close = math.log(close)
    last = close if count == 0 else ring[before, Column.CLOSE]
    r = 0.0 if count == 0 else log_close - ring[before, Column.LOG_CLOSE]
    ring[at, Column.LAGGED] = r * ring[before, Column.RETURN]
    ring[at, Column.CLOSE], ring[at, Column.HIGH], ring[at, Column.LOW] = close, high, low
    ring[at, Column.VOLUME], ring[at, Column.TURNOVER] = volume, volume * close
    ring[at, Column.LOG_CLOSE], ring[at, Column.RETURN] = log_close, r
    ring[at, Column.RISING], ring[at, Column.SQUARE] = 1.0 if r > 0.0 else 0.0, r * r
    ring[at, Column.GAIN], ring[at, Column.LOSS] = max(close - last, 0.0), max(last - close, 0.0)
    ring[at, Column.TRUE_RANGE] = max(high, last) - min(low, last)


@njit(cache=True, error_model="numpy")
def _renew(ring: Floats, column: int, at: int, n: int, sums: Floats, w: int) -> None:
    """Sums of window w made anew, measured from its mean."""
    total = 0.0
    for back in range(n):
        total += ring[(at - back) & MASK, column]
    anchor = total / n
    first, second, third = 0.0, 0.0, 0.0
    for back in range(n):
        gap = ring[(at - back) & MASK, column] - anchor
        first += gap
        second += gap * gap
        third += gap * gap * gap
    sums[w, 0], sums[w, 1], sums[w, 2], sums[w, 3], sums[w, 4] = anchor, first, second, third, second


@njit(cache=True, error_model="numpy")
def _roll(ring: Floats, column: int, at: int, n: int, sums: Floats, w: int, due: bool) -> None:
    """Move window w on by the value at `at`."""
    new, old = ring[at, column] - sums[w, 0], ring[(at - n) & MASK, column] - sums[w, 0]
    sums[w, 1] += new - old
    sums[w, 2] += new * new - old * old
    sums[w, 3] += new * new * new - old * old * old
    sums[w, 4] = max(sums[w, 4], sums[w, 2])
    if due or sums[w, 2] - sums[w, 1] * sums[w, 1] / n < RENEW_BELOW * sums[w, 4]:
        _renew(ring, column, at, n, sums, w)


@njit(cache=True, error_model="numpy")
def _highest(ring: Floats, column: int, sign: float, at: int, count: int, n: int, cells: Floats, e: int) -> None:
    """Largest `sign` * value of n bars in cells[e, 0:2], with its bar; searched only when the old one leaves."""
    value = sign * ring[at, column]
    if count == 0 or value >= cells[e, 0]:
        cells[e, 0], cells[e, 1] = value, count
    elif count - cells[e, 1] >= n:
        cells[e, 0], cells[e, 1] = value, count
        for back in range(1, n):
            value = sign * ring[(at - back) & MASK, column]
            if value > cells[e, 0]:
                cells[e, 0], cells[e, 1] = value, count - back


@njit(cache=True, error_model="numpy")
def _mean(sums: Floats, w: int, n: int) -> float:
    return sums[w, 0] + sums[w, 1] / n


@njit(cache=True, error_model="numpy")
def _deviation(sums: Floats, w: int, n: int) -> float:
    offset = sums[w, 1] / n
    return math.sqrt(max(sums[w, 2] / n - offset * offset, 0.0))


@njit(cache=True, error_model="numpy")
def _skew(sums: Floats, w: int, n: int) -> float:
    offset, spread = sums[w, 1] / n, _deviation(sums, w, n)
    if spread < TINY:
        return 0.0
    third = sums[w, 3] / n - 3.0 * offset * sums[w, 2] / n + 2.0 * offset * offset * offset
    return third / (spread * spread * spread)


@njit(cache=True, error_model="numpy")
def _of_bands(op: int, sums: Floats, w: int, n: int, close: float, s: float) -> float:
    mean, deviation = _mean(sums, w, n), _deviation(sums, w, n)
    if op == Op.BAND_WIDTH:
        return math.log(max(4.0 * deviation / (mean * s), 1e-6))
    return 0.0 if deviation < TINY * mean else (close - mean) / (2.0 * deviation)  # Op.BAND_POSITION


@njit(cache=True, error_model="numpy")
def _of_prices(op: int, sums: Floats, a: int, n: int, b: int, m: int, close: float, s: float) -> float:
    """Features of closes and returns in window a over n bars and b over m."""
    if op == Op.SKEW:
        return _skew(sums, a, n)
    if op == Op.MEAN_RATIO:
        return math.log(_mean(sums, a, n) / _mean(sums, b, m)) / s
    if op == Op.VOLATILITY_RATIO:
        return math.log(max(_deviation(sums, a, n), 0.01 * s) / max(_deviation(sums, b, m), 0.01 * s))
    if op == Op.AUTOCORRELATION:
        level, deviation = _mean(sums, b, m), _deviation(sums, b, m)
        square = deviation * deviation + level * level
        return 0.0 if square < TINY * TINY else _mean(sums, a, n) / square
    if op in (Op.BAND_POSITION, Op.BAND_WIDTH):
        return _of_bands(op, sums, a, n, close, s)
    return _mean(sums, a, n)  # Op.UP_SHARE


@njit(cache=True, error_model="numpy")
def _of_volumes(op: int, sums: Floats, a: int, n: int, b: int, m: int, close: float, volume: float, s: float) -> float:
    """Features of volume in window a over n bars, and of turnover and volume in a and b."""
    mean = _mean(sums, a, n)
    if mean <= 0.0:
        return 0.0
    if op == Op.VOLUME_RATIO:
        return math.log1p(volume / mean)
    if op == Op.VWAP_GAP:
        return math.log(close * _mean(sums, b, m) / mean) / s
    deviation = _deviation(sums, a, n)  # Op.VOLUME_SCORE
    return 0.0 if deviation <= TINY * mean else (volume - mean) / deviation


@njit(cache=True, error_model="numpy")
def _of_averages(op: int, first: int, second: int, averages: Integers, levels: Floats, close: float, s: float) -> float:
    if op == Op.EMA_GAP:
        return math.log(close / levels[first]) / s
    if op == Op.MACD:
        return (levels[first] - levels[second]) / (close * s)
    if op == Op.MACD_HISTOGRAM:
        return (levels[averages[first, 1]] - levels[averages[first, 2]] - levels[first]) / (close * s)
    if op == Op.RSI:
        both = levels[first] + levels[second]
        return 0.5 if both < TINY * close else levels[first] / both
    return levels[first] / (close * s)  # Op.ATR


@njit(cache=True, error_model="numpy")
def _of_bar(op: int, bars: Floats, row: int, s: float) -> float:
    """Features of the bar itself and of its time."""
    height, close = bars[row, HIGH] - bars[row, LOW], bars[row, CLOSE]
    if op == Op.BAR_RANGE:
        return height / (close * s)
    if op == Op.BODY:
        return math.log(close / bars[row, OPEN]) / s
    if op == Op.UPPER_WICK:
        return 0.0 if height < TINY * close else (bars[row, HIGH] - max(bars[row, OPEN], close)) / height
    if op == Op.SIGMA:
        return math.log(s)
    seconds = bars[row, SECONDS]
    daily = op in (Op.DAY_SIN, Op.DAY_COS)
    angle = 2.0 * math.pi * ((seconds % DAY) / DAY if daily else ((seconds - MONDAY) % WEEK) / WEEK)
    return math.sin(angle) if op in (Op.DAY_SIN, Op.WEEK_SIN) else math.cos(angle)


@njit(cache=True, error_model="numpy")
def _update(
    windows: Integers, averages: Integers, alphas: Floats, extremes: Integers,
    ring: Floats, sums: Floats, levels: Floats, cells: Floats, at: int, count: int,
) -> None:  # fmt: skip
    """Move windows, averages and extremes on by the bar at `at`."""
    for w in range(len(windows)):
        _roll(ring, windows[w, 0], at, windows[w, 1], sums, w, count % RENEW_EVERY == 0)
    for index in range(len(averages)):
        column, first, second = averages[index, 0], averages[index, 1], averages[index, 2]
        value = levels[first] - levels[second] if column == SIGNAL else ring[at, column]
        levels[index] = value if count == 0 else levels[index] + alphas[index] * (value - levels[index])
    for e in range(len(extremes)):
        _highest(ring, Column.HIGH, 1.0, at, count, extremes[e], cells, 2 * e)
        _highest(ring, Column.LOW, -1.0, at, count, extremes[e], cells, 2 * e + 1)


@njit(cache=True, error_model="numpy", nogil=True)
def run(
    windows: Integers, averages: Integers, alphas: Floats, extremes: Integers, outputs: Integers,
    state: Floats, bars: Floats, out: Floats, sigma: Floats,
) -> None:  # fmt: skip
    """Take bars (rows, 6) of one symbol into `state` and fill `out` (rows, k) and `sigma` (rows,); NaN in warm-up."""
    ring_end = 1 + COLUMNS * RING
    sums_end = ring_end + MOMENTS * len(windows)
    levels_end = sums_end + len(averages)
    ring = state[1:ring_end].reshape(RING, COLUMNS)
    sums = state[ring_end:sums_end].reshape(len(windows), MOMENTS)
    levels = state[sums_end:levels_end]
    cells = state[levels_end:].reshape(2 * len(extremes), 2)
    least_warm_up = outputs[:, 5].min()
    for row in range(len(bars)):
        count = int(state[0])
        at = count & MASK
        _take(ring, at, count, bars, row)
        _update(windows, averages, alphas, extremes, ring, sums, levels, cells, at, count)
        state[0] = count + 1
        close = bars[row, CLOSE]
        s = max(math.sqrt(levels[0]), LEAST_UNIT)
        sigma[row] = math.sqrt(levels[0]) if count + 1 >= least_warm_up else math.nan
        for index in range(len(outputs)):
            op, first, second = outputs[index, 0], outputs[index, 1], outputs[index, 2]
            n, m, warm_up = outputs[index, 3], outputs[index, 4], outputs[index, 5]
            if count + 1 < warm_up:
                value = math.nan
            elif op == Op.RETURN:
                past = ring[(at - n) & MASK, Column.LOG_CLOSE]
                value = (ring[at, Column.LOG_CLOSE] - past) / (s * math.sqrt(n))
            elif op <= LAST_OF_AVERAGES:
                value = _of_averages(op, first, second, averages, levels, close, s)
            elif op <= LAST_OF_PRICES:
                value = _of_prices(op, sums, first, n, second, m, close, s)
            elif op <= LAST_OF_VOLUMES:
                value = _of_volumes(op, sums, first, n, second, m, close, bars[row, VOLUME], s)
            elif op == Op.RANGE_POSITION:
                height = cells[2 * first, 0] + cells[2 * first + 1, 0]
                value = 0.5 if height < TINY * close else (close + cells[2 * first + 1, 0]) / height
            else:
                value = _of_bar(op, bars, row, s)
            out[row, index] = value
