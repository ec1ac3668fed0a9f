"""Compiled walks along closing prices: where trades end, and how much their labels overlap."""

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True)
def first_exits(
    close: NDArray[np.float64],
    volatility: NDArray[np.float64],
    available_at: NDArray[np.int64],
    horizon: np.int64,
    multiples: tuple[float, float],
) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
    """(end index or -1, exit kind) of a long trade entered at each close.

    `multiples`: (profit, stop) distances in units of volatility; times in microseconds.
    """
    profit_multiple, stop_multiple = multiples
    n = close.shape[0]
    end = np.full(n, -1, dtype=np.int64)
    kind = np.zeros(n, dtype=np.int8)
    for i in range(n):
        if not (np.isfinite(volatility[i]) and volatility[i] > 0.0):
            continue
        target = close[i] * (1.0 + profit_multiple * volatility[i])
        stop = close[i] * (1.0 - stop_multiple * volatility[i])
        last = available_at[i] + horizon
        for j in range(i + 1, n):
            if close[j] >= target:
                end[i], kind[i] = j, 1
                break
            if close[j] <= stop:
                end[i], kind[i] = j, -1
                break
            if available_at[j] >= last:
                end[i] = j
                break
    return end, kind


@njit(cache=True)
def uniqueness(end_index: NDArray[np.int64], resolved: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Average uniqueness of labels that cover the bars (i, end_index[i]]."""
    n = end_index.shape[0]
    change = np.zeros(n + 2, dtype=np.int64)
    for i in range(n):
        if resolved[i]:
            change[i + 1] += 1
            change[end_index[i] + 1] -= 1
    cumulative = np.zeros(n + 1, dtype=np.float64)
    concurrent = np.int64(0)
    for t in range(n):
        concurrent += change[t]
        cumulative[t + 1] = cumulative[t] + (1.0 / concurrent if concurrent > 0 else 0.0)
    weight = np.zeros(n, dtype=np.float64)
    for i in range(n):
        if resolved[i] and end_index[i] > i:
            weight[i] = (cumulative[end_index[i] + 1] - cumulative[i + 1]) / (end_index[i] - i)
    return weight
