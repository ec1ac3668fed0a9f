"""Two mechanical checks on any feature function: it looks at no future, and it forgets a distant past.

Both take `compute`, a function from one symbol's bars to a matrix (rows, columns), and say which columns fail.
"""

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from trading_platform.features.definition import NAMES, Feature
from trading_platform.features.stream import compute as compute_history

Matrix = NDArray[np.float64]
Compute = Callable[[pl.DataFrame], Matrix]
WARM_UPS = (199, 399, 499, 999, 1999)


def platform_features(bars: pl.DataFrame) -> Matrix:
    """The platform's own feature set."""
    return compute_history(bars).matrix


def set_features(features: tuple[Feature, ...]) -> Compute:
    """A feature set of the platform's; the reference's close is already beside the bars."""
    return lambda bars: compute_history(bars, features).matrix


def check_lookahead(
    bars: pl.DataFrame, compute: Compute = platform_features, names: Sequence[str] = NAMES, cuts: int = 12
) -> list[str]:
    """Columns whose row at t changes when the bars after t are cut off. Exact: not one bit may differ."""
    whole = compute(bars)
    at = np.unique(np.linspace(len(bars) // 2, len(bars) - 1, cuts, dtype=int))
    leaking: set[int] = set()
    for row in at:
        cut = compute(bars[: int(row) + 1])[-1]
        leaking |= set(np.flatnonzero(~((cut == whole[row]) | (np.isnan(cut) & np.isnan(whole[row])))))
    return [names[column] for column in sorted(leaking)]


def check_recursive(
    bars: pl.DataFrame,
    compute: Compute = platform_features,
    names: Sequence[str] = NAMES,
    warm_ups: Sequence[int] = WARM_UPS,
    tolerance: float = 0.02,
) -> dict[str, int]:
    """{column: bars of history it needs} for columns that depend on more history than the shortest warm-up.

    A column settles at the first warm-up whose last row differs from the full history's by at most `tolerance` of the
    column's own deviation; one that never does is reported with -1.
    """
    whole = compute(bars)
    scale = np.nanstd(whole, axis=0) + 1e-12
    needed: dict[str, int] = {}
    for column, name in enumerate(names):
        settled = [
            length
            for length in warm_ups
            if length < len(bars)
            and _agrees(compute(bars[-length:])[-1, column], whole[-1, column], tolerance * scale[column])
        ]
        first = settled[0] if settled else -1
        if first != warm_ups[0]:
            needed[name] = first
    return needed


def _agrees(short: float, full: float, allowed: float) -> bool:
    return bool(abs(short - full) <= allowed)
