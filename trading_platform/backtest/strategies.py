"""Strategies as arrays: what is wanted at each close, with the stop and target of a position entered there."""

import numpy as np
from numba import njit

from trading_platform.backtest.kernel import LONG, Codes, Floats, Wishes

EQUAL = 1e-6
"""Averages closer than this, in price, are the same: sums of floats differ in their last digits."""


def sma_cross(close: Floats, fast: int, slow: int, stop: Floats, target: Floats) -> Wishes:
    """Long while the fast simple moving average of the close lies above the slow one, flat while not.

    `stop`, `target`: prices by bar, or (0,) for none. Raises ValueError unless 0 < fast < slow.
    """
    if not 0 < fast < slow:
        raise ValueError(
            f"the fast average is of fewer bars than the slow one and of at least 1; got {fast} and {slow}"
        )
    return Wishes(_above(close, fast, slow), stop, target)


@njit(cache=True, error_model="numpy", nogil=True)
def _above(close: Floats, fast: int, slow: int) -> Codes:
    wanted = np.zeros(len(close), dtype=np.int8)
    fast_sum, slow_sum = 0.0, 0.0
    for i in range(len(close)):
        fast_sum += close[i]
        slow_sum += close[i]
        if i >= fast:
            fast_sum -= close[i - fast]
        if i >= slow:
            slow_sum -= close[i - slow]
        if i >= slow - 1 and fast_sum / fast - slow_sum / slow > EQUAL:
            wanted[i] = LONG
    return wanted
