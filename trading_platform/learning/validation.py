"""Walk-forward and combinatorial validation that never let a label see into its test window.

Purging and embargo after Lopez de Prado (2018), chapter 7, on label end times: a training row's label has ended,
plus the embargo, by the time the test window begins. Rows of all symbols are pooled and cut by time, so that two
correlated symbols can never stand on both sides of a cut.
"""

from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Fold:
    """Row numbers to train on and to test on; `test_from` (inclusive) and `test_to` (exclusive) in microseconds."""

    train: Integers
    test: Integers
    test_from: int
    test_to: int


class TooFewRowsError(ValueError):
    """The data do not hold as many folds as asked for."""


def walk_forward(
    start: Integers, end: Integers, *, folds: int, embargo: int, first_test: float = 0.3, last_test: float = 1.0
) -> list[Fold]:
    """Consecutive test windows of about equal row counts, each with all earlier rows that are purged for it.

    `start` (n,) ascending: when a row is known; `end` (n,): when its label is; both in microseconds. The windows
    cover the rows between the fractions `first_test` and `last_test`; rows after them are never touched. Raises
    `TooFewRowsError` where a window or its training rows would be empty.
    """
    if np.any(np.diff(start) < 0):
        raise ValueError("rows must be sorted by the time they are known; sort the pooled symbols by time first")
    if not 0.0 < first_test < last_test <= 1.0:
        raise ValueError(f"0 < first_test < last_test <= 1 is expected, not {first_test} and {last_test}")
    rows = len(start)
    cuts = np.linspace(first_test, last_test, folds + 1) * rows
    positions = np.minimum(np.round(cuts).astype(np.int64), rows)
    found = []
    for left, right in pairwise(positions):
        if left >= rows or right <= left:
            raise TooFewRowsError(f"{rows:,} rows do not make {folds} test windows; bring more bars or fewer folds")
        # A cut falls between two moments, never between two symbols of one moment.
        test_from = int(start[left])
        test_to = int(start[right]) if right < rows else int(start[-1]) + 1
        train = np.flatnonzero(end + embargo <= test_from)
        test = np.flatnonzero((start >= test_from) & (start < test_to))
        if not len(train) or not len(test):
            raise TooFewRowsError(
                f"a test window of {len(test):,} rows has {len(train):,} purged training rows; bring more bars, fewer "
                "folds or a shorter horizon"
            )
        found.append(Fold(train, test, test_from, test_to))
    return found


def purged_before(end: Integers, moment: int, embargo: int) -> Integers:
    """Row numbers whose labels, plus the embargo, have ended by `moment` (microseconds)."""
    return np.flatnonzero(end + embargo <= moment)


@dataclass(frozen=True)
class CombinatorialSplit:
    """Rows to train on, and by test group the rows to test on."""

    train: Integers
    test: dict[int, Integers]


def combinatorial(
    start: Integers, end: Integers, *, groups: int, test_groups: int, embargo: int
) -> list[CombinatorialSplit]:
    """Every choice of `test_groups` among `groups` stretches of time of about equal row counts, with what may be learnt.

    Combinatorial purged cross-validation, Lopez de Prado (2018), section 12.3. `start` (n,) ascending and `end` (n,) in
    microseconds, as in `walk_forward`. A training row's label shares no moment with that of any test row, and none
    starts within the embargo after a test group's last label. Training rows may be later than test rows: the splits
    show how much a figure depends on the stretch it was measured on, not what trading would have earned.
    """
    if np.any(np.diff(start) < 0):
        raise ValueError("rows must be sorted by the time they are known; sort the pooled symbols by time first")
    if not 1 <= test_groups < groups:
        raise ValueError(f"1 <= test_groups < groups is expected, not {test_groups} of {groups}")
    # A cut falls between two moments, never between two symbols of one moment.
    cuts = np.searchsorted(start, start[np.linspace(0, len(start), groups + 1)[1:-1].astype(np.int64)])
    members = np.split(np.arange(len(start)), cuts)
    if any(not len(rows) for rows in members):
        raise TooFewRowsError(f"{len(start):,} rows do not make {groups} groups; bring more bars or fewer groups")
    near = [(end + embargo > start[rows[0]]) & (start < end[rows].max() + embargo) for rows in members]
    splits = []
    for chosen in combinations(range(groups), test_groups):
        train = np.flatnonzero(~np.any([near[group] for group in chosen], axis=0))
        if not len(train):
            raise TooFewRowsError("purging leaves no training rows; bring more bars, fewer groups or a shorter horizon")
        splits.append(CombinatorialSplit(train, {group: members[group] for group in chosen}))
    return splits


def paths(splits: list[CombinatorialSplit]) -> list[dict[int, int]]:
    """The backtest paths of combinatorial splits: each maps every group to the number of the split that predicts it.

    A group is tested by k / N of the splits; the j-th path takes the j-th of them for each group.
    """
    testers: dict[int, list[int]] = {}
    for number, split in enumerate(splits):
        for group in split.test:
            testers.setdefault(group, []).append(number)
    return [dict(zip(testers, chosen, strict=True)) for chosen in zip(*testers.values(), strict=True)]
