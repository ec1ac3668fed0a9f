"""Bars in, rows out: the compiled loop that history and live bars share.

What is kept of a symbol is one flat vector (`Program.empty_state`): the last bars in a ring, running sums of windows,
exponential averages, extremes. A bar costs the same however long the windows are.

Bars are worked on in blocks, each step over the whole block before the next step begins: a window's sums then stay in the
processor's registers instead of going through memory at every bar. A live bar is a block of one. Nothing that is computed
of a bar depends on where a block begins, so both give the same bits.

Running sums lose digits: of each value that enters and leaves, a rounding error stays. So values are measured from an
anchor near their mean, and the sums are made anew from the ring every `RENEW_EVERY` bars, and at once where the spread
has fallen so far below what has passed through that the error could be seen. Both depend on the state alone.

All of it is one file: numba notices that the file of a cached function has changed, but not that of one it calls.
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
"""Bars that are kept: a power of two."""
MASK = RING - 1
BLOCK = 64
"""Bars in a block, at most."""
LONGEST = RING - BLOCK
"""Bars that a window may look back: a block is written over the oldest bars before windows move on."""
SECONDS, OPEN, HIGH, LOW, CLOSE, VOLUME = range(6)
"""Columns of the bars given to `run`; the first is the opening time in seconds since the epoch."""


class Column(IntEnum):
    """What is derived from each bar and kept: rows of the ring (COLUMNS, RING)."""

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
ANCHOR, FIRST, SECOND, THIRD, LARGEST = range(5)
MOMENTS = 5
"""Cells a window: the anchor that values are measured from, three sums of powers, the largest second sum since the
sums were last made anew."""
EXTREME = 4
"""Cells an extreme: highest high, its bar's number, lowest low with its sign turned, its bar's number."""
RENEW_EVERY = 128
RENEW_BELOW = 1e-6
MINUTE, DAY, WEEK = 60.0, 86_400.0, 604_800.0
MONDAY = 345_600.0
"""Seconds from the epoch, a Thursday, to the first Monday."""
CLOCK = np.array(
    [
        turn
        for since in np.arange(0.0, WEEK, MINUTE).tolist()
        for angle in (2.0 * math.pi * (since % DAY / DAY), 2.0 * math.pi * (since / WEEK))
        for turn in (math.sin(angle), math.cos(angle))
    ]
).reshape(-1, 4)
"""Op.DAY_SIN to Op.WEEK_COS at each minute of the week."""
TINY = 1e-12
LEAST_UNIT = 1e-9
"""s of a price that does not move."""
LAST_OF_AVERAGES, LAST_OF_PRICES, LAST_OF_VOLUMES = int(Op.ATR), int(Op.UP_SHARE), int(Op.VWAP_GAP)
"""Operations are numbered by what they read: averages, windows of prices, windows of volumes, then the bar itself."""


@njit(cache=True, error_model="numpy")
def _take(ring: Floats, at: int, count: int, k: int, bars: Floats, begin: int) -> None:
    """Put k bars, of which the first is number `count` of the symbol, into the ring."""
    before = (at - 1) & MASK
    last, last_log, last_r = ring[Column.CLOSE, before], ring[Column.LOG_CLOSE, before], ring[Column.RETURN, before]
    if count == 0:
        last, last_log, last_r = bars[0, CLOSE], math.log(bars[0, CLOSE]), 0.0
    for j in range(k):
        i, row = at + j, begin + j
        close, high, low, volume = bars[row, CLOSE], bars[row, HIGH], bars[row, LOW], bars[row, VOLUME]
        log_close = math.log(close)
        r = log_close - last_log
        ring[Column.CLOSE, i], ring[Column.HIGH, i], ring[Column.LOW, i] = close, high, low
        ring[Column.VOLUME, i], ring[Column.TURNOVER, i] = volume, volume * close
        ring[Column.LOG_CLOSE, i], ring[Column.RETURN, i], ring[Column.LAGGED, i] = log_close, r, r * last_r
        ring[Column.RISING, i], ring[Column.SQUARE, i] = 1.0 if r > 0.0 else 0.0, r * r
        ring[Column.GAIN, i], ring[Column.LOSS, i] = max(close - last, 0.0), max(last - close, 0.0)
        ring[Column.TRUE_RANGE, i] = max(high, last) - min(low, last)
        last, last_log, last_r = close, log_close, r


@njit(cache=True, error_model="numpy")
def _renewed(ring: Floats, column: int, at: int, n: int) -> tuple[float, float, float, float]:
    """Anchor and sums of a window's n values up to `at`, measured from their mean."""
    total = 0.0
    for back in range(n):
        total += ring[column, (at - back) & MASK]
    anchor = total / n
    first, second, third = 0.0, 0.0, 0.0
    for back in range(n):
        gap = ring[column, (at - back) & MASK] - anchor
        first += gap
        second += gap * gap
        third += gap * gap * gap
    return anchor, first, second, third


@njit(cache=True, error_model="numpy")
def _roll(
    ring: Floats, column: int, at: int, count: int, k: int, n: int, sums: Floats, w: int, moments: Floats
) -> None:
    """Move window w on over k bars; `moments` (w, 4, k): what its sums are at each."""
    anchor, first, second, third = sums[w, ANCHOR], sums[w, FIRST], sums[w, SECOND], sums[w, THIRD]
    largest = sums[w, LARGEST]
    for j in range(k):
        new, old = ring[column, at + j] - anchor, ring[column, (at + j - n) & MASK] - anchor
        first += new - old
        second += new * new - old * old
        third += new * new * new - old * old * old
        largest = max(largest, second)
        if (count + j) % RENEW_EVERY == 0 or second - first * first / n < RENEW_BELOW * largest:
            anchor, first, second, third = _renewed(ring, column, at + j, n)
            largest = second
        moments[w, ANCHOR, j], moments[w, FIRST, j], moments[w, SECOND, j] = anchor, first, second
        moments[w, THIRD, j] = third
    sums[w, ANCHOR], sums[w, FIRST], sums[w, SECOND], sums[w, THIRD] = anchor, first, second, third
    sums[w, LARGEST] = largest


@njit(cache=True, error_model="numpy")
def _average(
    ring: Floats, averages: Integers, at: int, count: int, k: int, kept: Floats, a: int, levels: Floats
) -> None:
    """Move average a on over k bars; `levels` (a, k): what it is at each."""
    column, first, second, alpha = averages[a, 0], averages[a, 1], averages[a, 2], averages[a, 3] / averages[a, 4]
    level = kept[a]
    for j in range(k):
        value = levels[first, j] - levels[second, j] if column == SIGNAL else ring[column, at + j]
        level = value if count + j == 0 else level + alpha * (value - level)
        levels[a, j] = level
    kept[a] = level


@njit(cache=True, error_model="numpy")
def _highest(
    ring: Floats, column: int, sign: float, at: int, count: int, k: int, n: int, cells: Floats, e: int, tops: Floats
) -> None:
    """Largest `sign` * value of n bars at each of k bars in tops[e]; searched only when the old one leaves."""
    highest, seen_at = cells[e, 0], int(cells[e, 1])
    for j in range(k):
        value, number = sign * ring[column, at + j], count + j
        if number == 0 or value >= highest:
            highest, seen_at = value, number
        elif number - seen_at >= n:
            highest, seen_at = value, number
            for back in range(1, n):
                value = sign * ring[column, (at + j - back) & MASK]
                if value > highest:
                    highest, seen_at = value, number - back
        tops[e, j] = highest
    cells[e, 0], cells[e, 1] = highest, seen_at


@njit(cache=True, error_model="numpy")
def _mean(moments: Floats, w: int, j: int, n: int) -> float:
    return moments[w, ANCHOR, j] + moments[w, FIRST, j] / n


@njit(cache=True, error_model="numpy")
def _deviation(moments: Floats, w: int, j: int, n: int) -> float:
    offset = moments[w, FIRST, j] / n
    return math.sqrt(max(moments[w, SECOND, j] / n - offset * offset, 0.0))


@njit(cache=True, error_model="numpy")
def _skew(moments: Floats, w: int, j: int, n: int) -> float:
    offset, spread = moments[w, FIRST, j] / n, _deviation(moments, w, j, n)
    if spread < TINY:
        return 0.0
    third = moments[w, THIRD, j] / n - 3.0 * offset * moments[w, SECOND, j] / n + 2.0 * offset * offset * offset
    return third / (spread * spread * spread)


@njit(cache=True, error_model="numpy", inline="always")
def _of_averages(
    op: int, first: int, second: int, averages: Integers, levels: Floats, ring: Floats, at: int, s: Floats, k: int,
    out: Floats, begin: int, index: int,
) -> None:  # fmt: skip
    if op == Op.EMA_GAP:
        for j in range(k):
            out[begin + j, index] = math.log(ring[Column.CLOSE, at + j] / levels[first, j]) / s[j]
    elif op == Op.MACD:
        for j in range(k):
            out[begin + j, index] = (levels[first, j] - levels[second, j]) / (ring[Column.CLOSE, at + j] * s[j])
    elif op == Op.MACD_HISTOGRAM:
        fast, slow = averages[first, 1], averages[first, 2]
        for j in range(k):
            gap = levels[fast, j] - levels[slow, j] - levels[first, j]
            out[begin + j, index] = gap / (ring[Column.CLOSE, at + j] * s[j])
    elif op == Op.RSI:
        for j in range(k):
            both = levels[first, j] + levels[second, j]
            out[begin + j, index] = 0.5 if both < TINY * ring[Column.CLOSE, at + j] else levels[first, j] / both
    else:  # Op.ATR
        for j in range(k):
            out[begin + j, index] = levels[first, j] / (ring[Column.CLOSE, at + j] * s[j])


@njit(cache=True, error_model="numpy", inline="always")
def _of_bands(
    op: int,
    w: int,
    n: int,
    moments: Floats,
    ring: Floats,
    at: int,
    s: Floats,
    k: int,
    out: Floats,
    begin: int,
    index: int,
) -> None:
    """Of the band of two deviations around the mean of window w."""
    for j in range(k):
        mean, deviation = _mean(moments, w, j, n), _deviation(moments, w, j, n)
        if op == Op.BAND_WIDTH:
            value = math.log(max(4.0 * deviation / (mean * s[j]), 1e-6))
        else:  # Op.BAND_POSITION
            gap = ring[Column.CLOSE, at + j] - mean
            value = 0.0 if deviation < TINY * mean else gap / (2.0 * deviation)
        out[begin + j, index] = value


@njit(cache=True, error_model="numpy", inline="always")
def _of_prices(
    op: int, a: int, n: int, b: int, m: int, moments: Floats, ring: Floats, at: int, s: Floats, k: int,
    out: Floats, begin: int, index: int,
) -> None:  # fmt: skip
    """Of closes and returns in window a over n bars and b over m."""
    if op in (Op.BAND_POSITION, Op.BAND_WIDTH):
        _of_bands(op, a, n, moments, ring, at, s, k, out, begin, index)
    elif op == Op.MEAN_RATIO:
        for j in range(k):
            out[begin + j, index] = math.log(_mean(moments, a, j, n) / _mean(moments, b, j, m)) / s[j]
    elif op == Op.VOLATILITY_RATIO:
        for j in range(k):
            least = 0.01 * s[j]
            short, long = max(_deviation(moments, a, j, n), least), max(_deviation(moments, b, j, m), least)
            out[begin + j, index] = math.log(short / long)
    elif op == Op.SKEW:
        for j in range(k):
            out[begin + j, index] = _skew(moments, a, j, n)
    elif op == Op.AUTOCORRELATION:
        for j in range(k):
            level, deviation = _mean(moments, b, j, m), _deviation(moments, b, j, m)
            square = deviation * deviation + level * level
            out[begin + j, index] = 0.0 if square < TINY * TINY else _mean(moments, a, j, n) / square
    else:  # Op.UP_SHARE
        for j in range(k):
            out[begin + j, index] = _mean(moments, a, j, n)


@njit(cache=True, error_model="numpy", inline="always")
def _of_volumes(
    op: int, a: int, n: int, b: int, m: int, moments: Floats, ring: Floats, at: int, s: Floats, k: int,
    out: Floats, begin: int, index: int,
) -> None:  # fmt: skip
    """Of volume in window a over n bars, and of turnover and volume in a and b."""
    for j in range(k):
        close, volume, mean = ring[Column.CLOSE, at + j], ring[Column.VOLUME, at + j], _mean(moments, a, j, n)
        if mean <= 0.0:
            value = 0.0
        elif op == Op.VOLUME_RATIO:
            value = math.log1p(volume / mean)
        elif op == Op.VWAP_GAP:
            value = math.log(close * _mean(moments, b, j, m) / mean) / s[j]
        else:  # Op.VOLUME_SCORE
            deviation = _deviation(moments, a, j, n)
            value = 0.0 if deviation <= TINY * mean else (volume - mean) / deviation
        out[begin + j, index] = value


@njit(cache=True, error_model="numpy", inline="always")
def _of_bar(op: int, bars: Floats, s: Floats, k: int, out: Floats, begin: int, index: int) -> None:
    for j in range(k):
        row = begin + j
        high, close, height = bars[row, HIGH], bars[row, CLOSE], bars[row, HIGH] - bars[row, LOW]
        if op == Op.BAR_RANGE:
            value = height / (close * s[j])
        elif op == Op.BODY:
            value = math.log(close / bars[row, OPEN]) / s[j]
        elif op == Op.UPPER_WICK:
            value = 0.0 if height < TINY * close else (high - max(bars[row, OPEN], close)) / height
        else:  # Op.SIGMA
            value = math.log(s[j])
        out[row, index] = value


@njit(cache=True, error_model="numpy", inline="always")
def _of_time(op: int, bars: Floats, k: int, out: Floats, begin: int, index: int) -> None:
    """Read off `CLOCK` where the bar opens on the minute, as nearly all do: the sines would take a fifth of all the time."""
    daily, sine = op in (Op.DAY_SIN, Op.DAY_COS), op in (Op.DAY_SIN, Op.WEEK_SIN)
    for j in range(k):
        since = bars[begin + j, SECONDS] - MONDAY
        since -= math.floor(since / WEEK) * WEEK
        minute = int(since / MINUTE)
        if minute * MINUTE == since:
            out[begin + j, index] = CLOCK[minute, op - Op.DAY_SIN]
        else:
            angle = 2.0 * math.pi * ((since - math.floor(since / DAY) * DAY) / DAY if daily else since / WEEK)
            out[begin + j, index] = math.sin(angle) if sine else math.cos(angle)


@njit(cache=True, error_model="numpy", inline="always")
def _of_range(e: int, ring: Floats, at: int, tops: Floats, k: int, out: Floats, begin: int, index: int) -> None:
    """Where the close lies between the lowest low and the highest high of extreme e."""
    for j in range(k):
        close, lowest = ring[Column.CLOSE, at + j], tops[2 * e + 1, j]
        height = tops[2 * e, j] + lowest
        out[begin + j, index] = 0.5 if height < TINY * close else (close + lowest) / height


@njit(cache=True, error_model="numpy", inline="always")
def _of_returns(n: int, ring: Floats, at: int, s: Floats, k: int, out: Floats, begin: int, index: int) -> None:
    unit = math.sqrt(n)
    for j in range(k):
        moved = ring[Column.LOG_CLOSE, at + j] - ring[Column.LOG_CLOSE, (at + j - n) & MASK]
        out[begin + j, index] = moved / (s[j] * unit)


@njit(cache=True, error_model="numpy", inline="always")
def _move_on(
    windows: Integers, averages: Integers, extremes: Integers, ring: Floats, at: int, count: int, k: int,
    sums: Floats, kept: Floats, cells: Floats, moments: Floats, levels: Floats, tops: Floats,
) -> None:  # fmt: skip
    """Move windows, averages and extremes on by the k bars at `at`."""
    for w in range(len(windows)):
        _roll(ring, windows[w, 0], at, count, k, windows[w, 1], sums, w, moments)
    for a in range(len(averages)):
        _average(ring, averages, at, count, k, kept, a, levels)
    for e in range(len(extremes)):
        _highest(ring, Column.HIGH, 1.0, at, count, k, extremes[e], cells, 2 * e, tops)
        _highest(ring, Column.LOW, -1.0, at, count, k, extremes[e], cells, 2 * e + 1, tops)


@njit(cache=True, error_model="numpy", inline="always")
def _fill(
    outputs: Integers, averages: Integers, ring: Floats, at: int, moments: Floats, levels: Floats, tops: Floats,
    s: Floats, bars: Floats, k: int, out: Floats, begin: int,
) -> None:  # fmt: skip
    """Every feature of k bars, from where windows, averages and extremes are at each of them."""
    for index in range(len(outputs)):
        op, a, b = outputs[index, 0], outputs[index, 1], outputs[index, 2]
        n, m = outputs[index, 3], outputs[index, 4]
        if op == Op.RETURN:
            _of_returns(n, ring, at, s, k, out, begin, index)
        elif op <= LAST_OF_AVERAGES:
            _of_averages(op, a, b, averages, levels, ring, at, s, k, out, begin, index)
        elif op <= LAST_OF_PRICES:
            _of_prices(op, a, n, b, m, moments, ring, at, s, k, out, begin, index)
        elif op <= LAST_OF_VOLUMES:
            _of_volumes(op, a, n, b, m, moments, ring, at, s, k, out, begin, index)
        elif op == Op.RANGE_POSITION:
            _of_range(a, ring, at, tops, k, out, begin, index)
        elif op >= Op.DAY_SIN:
            _of_time(op, bars, k, out, begin, index)
        else:
            _of_bar(op, bars, s, k, out, begin, index)


# No array is made or dropped in here, so references need not be counted: at a live bar that took longer than the features.
@njit(cache=True, error_model="numpy", nogil=True, _nrt=False)  # type: ignore[call-overload,untyped-decorator]
def _block(
    windows: Integers, averages: Integers, extremes: Integers, outputs: Integers, state: Floats, ring: Floats,
    sums: Floats, kept: Floats, cells: Floats, moments: Floats, levels: Floats, tops: Floats, s: Floats, bars: Floats,
    begin: int, size: int, out: Floats, sigma: Floats,
) -> int:  # fmt: skip
    """Take a block of bars from number `begin` on, fill their rows, and return how many they were."""
    least_warm_up = outputs[0, 5]
    for index in range(1, len(outputs)):
        least_warm_up = min(least_warm_up, outputs[index, 5])
    count = int(state[0])
    at = count & MASK
    k = min(size, len(bars) - begin, RING - at)
    _take(ring, at, count, k, bars, begin)
    _move_on(windows, averages, extremes, ring, at, count, k, sums, kept, cells, moments, levels, tops)
    for j in range(k):
        root = math.sqrt(levels[0, j])
        s[j] = max(root, LEAST_UNIT)
        sigma[begin + j] = root if count + j + 1 >= least_warm_up else math.nan
    _fill(outputs, averages, ring, at, moments, levels, tops, s, bars, k, out, begin)
    for index in range(len(outputs)):
        for j in range(min(k, outputs[index, 5] - count - 1)):
            out[begin + j, index] = math.nan
    state[0] = count + k
    return k


@njit(cache=True, error_model="numpy", nogil=True)
def run(
    windows: Integers, averages: Integers, extremes: Integers, outputs: Integers,
    state: Floats, bars: Floats, out: Floats, sigma: Floats,
) -> None:  # fmt: skip
    """Take bars (rows, 6) of one symbol into `state` and fill `out` (rows, k) and `sigma` (rows,); NaN in warm-up."""
    size = min(len(bars), BLOCK)
    ring_end = 1 + COLUMNS * RING
    sums_end = ring_end + MOMENTS * len(windows)
    levels_end = sums_end + len(averages)
    ring = state[1:ring_end].reshape(COLUMNS, RING)
    sums = state[ring_end:sums_end].reshape(len(windows), MOMENTS)
    kept = state[sums_end:levels_end]
    cells = state[levels_end:].reshape(2 * len(extremes), 2)
    moments_end = 4 * len(windows)
    tops_from = moments_end + len(averages)
    scratch = np.empty((tops_from + 2 * len(extremes) + 1, size))
    moments, levels = scratch[:moments_end].reshape(len(windows), 4, size), scratch[moments_end:tops_from]
    tops, s = scratch[tops_from:-1], scratch[-1]
    begin = 0
    while begin < len(bars):
        begin += _block(
            windows, averages, extremes, outputs, state, ring, sums, kept, cells, moments, levels, tops, s, bars, begin,
            size, out, sigma,
        )  # fmt: skip
