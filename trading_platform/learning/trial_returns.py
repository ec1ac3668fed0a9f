"""What trading on scores would have earned, period by period: one trade a symbol at a time, an equal stake a symbol."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trading_platform.learning.certification import non_overlapping
from trading_platform.learning.samples import Samples
from trading_platform.learning.validation import Fold

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class Trades(Protocol):
    """Rows that could be traded, in order of `start`; arrays (n,)."""

    @property
    def net_return(self) -> Floats: ...
    @property
    def start(self) -> Integers: ...
    @property
    def end(self) -> Integers: ...
    @property
    def symbol(self) -> NDArray[np.str_]: ...


def periods_of(rows: Trades, chosen: Integers, length: int, stretch: tuple[int, int]) -> tuple[Floats, int]:
    """(net return of each period, number of trades) of the rows chosen for entry.

    A symbol's trade blocks its next until it has ended, and counts in the period it was entered in; the money is
    divided equally among all symbols, traded or not. `stretch` and `length` in microseconds.
    """
    begin, end = stretch
    total = np.zeros((end - begin) // length + 1)
    symbols, trades = np.unique(rows.symbol), 0
    for symbol in symbols:
        mine = chosen[rows.symbol[chosen] == symbol]
        taken = mine[non_overlapping(rows.start[mine], rows.end[mine])]
        total += np.bincount((rows.start[taken] - begin) // length, rows.net_return[taken], len(total))
        trades += len(taken)
    return total / len(symbols), trades


def returns_of(
    samples: Samples, folds: Sequence[Fold], scores: Sequence[Floats], coverage: float, length: int
) -> Floats:
    """Net return of each period of the folds after the first, entering the rows of highest score.

    A fold's threshold is the score that `coverage` of the rows of the fold before exceeded: known when the fold begins.
    """
    chosen = [
        fold.test[mine > np.quantile(before, 1.0 - coverage)]
        for fold, before, mine in zip(folds[1:], scores[:-1], scores[1:], strict=True)
    ]
    return periods_of(samples, np.concatenate(chosen), length, (folds[1].test_from, folds[-1].test_to))[0]


def equity(rows: Trades, published: Integers, length: int, stretch: tuple[int, int]) -> dict[str, Any]:
    """Summed net return over time of the rows numbered `published`, and of entering every bar: for plots."""
    money, trades = periods_of(rows, published, length, stretch)
    every, _ = periods_of(rows, np.arange(len(rows.start)), length, stretch)
    step = max(1, len(money) // 400)
    moments = [
        datetime.fromtimestamp((stretch[0] + (number + 1) * length) / 1e6, UTC).isoformat()
        for number in range(0, len(money), step)
    ]
    return {
        "time": moments,
        "published": np.cumsum(money)[::step].tolist(),
        "every_bar": np.cumsum(every)[::step].tolist(),
        "trades": trades,
    }
