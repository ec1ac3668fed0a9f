"""Compiled walks along closing prices: where trades end, and how much their labels overlap."""

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True)
def first_exits(
    close: NDArray[np.float64],
    available_at: NDArray[np.int64],
    entry: NDArray[np.int64],
    barriers: tuple[NDArray[np.float64], NDArray[np.float64]],
    exit_by: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
    """(end index or -1, exit kind 1/-1/0) of long trades entered at the closes of the bars numbered `entry`.

    `barriers`: target and stop prices of each trade, `exit_by` its time barrier in microseconds. Trades whose barriers
    are not finite do not end.
    """
    targets, stops = barriers
    trades, bars = entry.shape[0], close.shape[0]
    end = np.full(trades, -1, dtype=np.int64)
    kind = np.zeros(trades, dtype=np.int8)
    for trade in range(trades):
        if not (np.isfinite(targets[trade]) and np.isfinite(stops[trade])):
            continue
        for j in range(entry[trade] + 1, bars):
            if close[j] >= targets[trade]:
                end[trade], kind[trade] = j, 1
                break
            if close[j] <= stops[trade]:
                end[trade], kind[trade] = j, -1
                break
            if available_at[j] >= exit_by[trade]:
                end[trade] = j
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
