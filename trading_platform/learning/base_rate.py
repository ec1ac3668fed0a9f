"""What a coin would score: the chance that a driftless walk ends a trade in net profit.

A driftless walk hits a profit barrier at a quarter of the stop's distance 80 % of the time, so a precision means
nothing without the base rate of its own barriers. Here the walk is in log prices with normal steps, watched at closes
only, as the labels are; its exit distribution is computed by propagating the density of the walk on a grid.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from trading_platform.learning.labels import BarrierSpec

Floats = NDArray[np.float64]
CELLS = 401


@dataclass(frozen=True)
class DriftlessWalk:
    """Exit distribution of a driftless walk between the barriers, in units of the barrier volatility.

    `levels` (m,) ascending exit log-returns, `cumulative` (m,) probability of an exit at or below each.
    """

    spec: BarrierSpec
    levels: Floats
    cumulative: Floats

    def success_rate(self, volatility: Floats) -> Floats:
        """P(net return > 0) of trades whose barrier volatility (fraction of price) is given; NaN stays NaN."""
        breakeven = self.spec.breakeven_log_return / np.asarray(volatility, dtype=np.float64)
        rate = 1.0 - np.interp(breakeven, self.levels, self.cumulative)
        return np.where(np.isfinite(breakeven), rate, np.nan)


def driftless_walk(spec: BarrierSpec, step: float) -> DriftlessWalk:
    """The walk whose one-bar log return has standard deviation `step`, in units of the barrier volatility.

    The density inside the barriers is carried from close to close; what leaves is tallied where it lands. Exact up
    to the grid (401 cells between the barriers), which tests compare with simulation and with the gambler's ruin.
    """
    upper, lower = spec.profit_multiple, -spec.stop_multiple
    edges = np.linspace(lower, upper, CELLS + 1)
    centres = (edges[1:] + edges[:-1]) / 2
    reach = 6.0 * step
    outside_up = np.linspace(upper, upper + reach, 200)
    outside_down = np.linspace(lower - reach, lower, 200)
    inside_kernel = np.diff(ndtr((edges[None, :] - centres[:, None]) / step), axis=1)
    up_kernel = np.diff(ndtr((outside_up[None, :] - centres[:, None]) / step), axis=1)
    down_kernel = np.diff(ndtr((outside_down[None, :] - centres[:, None]) / step), axis=1)
    density = np.diff(ndtr(edges / step))
    up = np.diff(ndtr(outside_up / step))
    down = np.diff(ndtr(outside_down / step))
    for _ in range(spec.horizon_bars - 1):
        up += density @ up_kernel
        down += density @ down_kernel
        density = density @ inside_kernel
    levels = np.concatenate([outside_down, edges[1:], outside_up[1:]])
    cumulative = np.concatenate([[0.0], np.cumsum(np.concatenate([down, density, up]))])
    return DriftlessWalk(spec, levels, np.minimum(cumulative / cumulative[-1], 1.0))


def step_in_barrier_units(close: Floats, volatility: Floats) -> float:
    """Standard deviation of the next bar's log return in units of this bar's barrier volatility, at most 5-sigma tails.

    NaN where there are not 30 usable bars.
    """
    ratio = np.diff(np.log(close)) / volatility[:-1]
    ratio = ratio[np.isfinite(ratio)]
    if len(ratio) < 30:
        return float("nan")
    spread = 5.0 * float(np.median(np.abs(ratio))) / 0.6745
    return float(np.std(np.clip(ratio, -spread, spread))) if spread > 0 else float("nan")
