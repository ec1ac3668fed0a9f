"""Isotonic values of a test object put into each bin in turn: the heart of a Venn-Abers predictor."""

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True)
def with_test_object(mass: NDArray[np.float64], successes: NDArray[np.float64], label: float) -> NDArray[np.float64]:
    """For every bin: add one object of weight 1 and this label, fit isotonic regression, read the bin's value.

    The value is max over a <= bin of min over b >= bin of the mean of bins a..b (the max-min formula of isotonic
    regression, Barlow et al. 1972), computed by pooling adjacent violators: O(bins^2) in all, 5 ms for 1,000 bins.
    """
    bins = mass.shape[0]
    values = np.empty(bins)
    block_mass = np.empty(bins)
    block_success = np.empty(bins)
    block_end = np.empty(bins, dtype=np.int64)
    for test in range(bins):
        blocks = 0
        for i in range(bins):
            weight, success = mass[i], successes[i]
            if i == test:
                weight, success = weight + 1.0, success + label
            if weight <= 0.0:
                continue
            block_mass[blocks], block_success[blocks], block_end[blocks] = weight, success, i
            blocks += 1
            while (
                blocks > 1
                and block_success[blocks - 2] * block_mass[blocks - 1]
                >= block_success[blocks - 1] * block_mass[blocks - 2]
            ):
                block_mass[blocks - 2] += block_mass[blocks - 1]
                block_success[blocks - 2] += block_success[blocks - 1]
                block_end[blocks - 2] = block_end[blocks - 1]
                blocks -= 1
        for block in range(blocks):
            if block_end[block] >= test:
                values[test] = block_success[block] / block_mass[block]
                break
    return values
