"""Purging and embargo as properties of any set of folds."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading_platform.learning.validation import TooFewRowsError, combinatorial, paths, walk_forward


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    moments=st.integers(80, 300),
    symbols=st.integers(1, 4),
    folds=st.integers(1, 8),
    embargo=st.integers(0, 10),
    horizon=st.integers(1, 8),
)
def test_no_training_label_sees_into_its_test_window(
    seed: int, moments: int, symbols: int, folds: int, embargo: int, horizon: int
) -> None:
    rng = np.random.default_rng(seed)
    start = np.repeat(np.arange(moments), symbols)
    end = start + rng.integers(1, horizon + 1, len(start))
    found = walk_forward(start, end, folds=folds, embargo=embargo, first_test=0.4)
    assert len(found) == folds
    tested = np.concatenate([fold.test for fold in found])
    assert len(np.unique(tested)) == len(tested), "no row is tested twice"
    assert tested.max() == len(start) - 1, "the newest rows are tested"
    assert not np.diff(np.sort(tested)).max() > 1, "no row between windows is left out"
    for fold in found:
        assert np.all(end[fold.train] + embargo <= start[fold.test].min())
        assert np.all((start[fold.test] >= fold.test_from) & (start[fold.test] < fold.test_to))
        purged = np.setdiff1d(np.flatnonzero(start < fold.test_from), fold.train)
        assert np.all(end[purged] + embargo > fold.test_from), "nothing is purged without need"
    for earlier, later in pairwise(found):
        assert not set(start[earlier.test]) & set(start[later.test]), "a moment's symbols stay together"


def test_rows_after_the_last_window_are_never_touched() -> None:
    start = np.arange(1000)
    folds = walk_forward(start, start + 5, folds=5, embargo=5, first_test=0.25, last_test=0.65)
    assert max(fold.test.max() for fold in folds) < 650
    assert max(fold.train.max() for fold in folds) < 650


def test_too_few_rows_say_so() -> None:
    start = np.arange(10)
    with pytest.raises(TooFewRowsError, match="bring more bars"):
        walk_forward(start, start + 50, folds=5, embargo=5)


def test_unsorted_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="sorted"):
        walk_forward(np.array([3, 1, 2]), np.array([4, 2, 3]), folds=1, embargo=0)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    moments=st.integers(60, 200),
    symbols=st.integers(1, 3),
    groups=st.integers(3, 7),
    embargo=st.integers(0, 4),
    horizon=st.integers(1, 4),
)
def test_combinatorial_training_labels_share_no_moment_with_tested_ones(
    seed: int, moments: int, symbols: int, groups: int, embargo: int, horizon: int
) -> None:
    rng = np.random.default_rng(seed)
    start = np.repeat(np.arange(moments), symbols)
    end = start + rng.integers(1, horizon + 1, len(start))
    splits = combinatorial(start, end, groups=groups, test_groups=2, embargo=embargo)
    assert len(splits) == groups * (groups - 1) // 2
    for split in splits:
        assert len(split.test) == 2
        for rows in split.test.values():
            before = start[split.train] < start[rows[0]]
            assert (end[split.train][before] + embargo <= start[rows[0]]).all()
            assert (start[split.train][~before] >= end[rows].max() + embargo).all()
    tested = np.concatenate([rows for split in splits for rows in split.test.values()])
    assert (np.bincount(tested) == groups - 1).all()  # every row by k / N of the splits
    found = paths(splits)
    assert len(found) == groups - 1  # k / N * C(N, k), section 12.3
    for path in found:
        assert set(path) == set(range(groups))
        assert all(group in splits[number].test for group, number in path.items())


def test_groups_that_cannot_be_are_refused() -> None:
    start = np.arange(100)
    with pytest.raises(ValueError, match="test_groups"):
        combinatorial(start, start + 1, groups=4, test_groups=4, embargo=0)
    with pytest.raises(TooFewRowsError):
        combinatorial(start, start + 90, groups=4, test_groups=2, embargo=0)
