"""The checks themselves: they pass what is honest and catch what is not."""

from pathlib import Path

import numpy as np
import polars as pl

from tests.features.bars import real_hours
from trading_platform.features.definition import WARM_UP
from trading_platform.features.lookahead import Matrix, check_lookahead, check_recursive


def leaking(bars: pl.DataFrame) -> Matrix:
    """Three columns; the second is scaled by the deviation of the whole series, later bars included."""
    change = np.diff(np.log(bars["close"].to_numpy()), prepend=np.nan)
    return np.column_stack([change, change / np.nanstd(change), np.roll(change, 5)])


def never_forgetting(bars: pl.DataFrame) -> Matrix:
    """Return of the last bar, and the sum of all volume since the beginning."""
    change = np.diff(np.log(bars["close"].to_numpy()), prepend=0.0)
    return np.column_stack([change, np.cumsum(bars["volume"].to_numpy())])


def test_the_platform_s_features_look_at_no_future(market_data: Path) -> None:
    assert check_lookahead(real_hours(market_data)[-3_000:]) == []


def test_a_feature_that_knows_the_future_is_caught(market_data: Path) -> None:
    assert check_lookahead(real_hours(market_data)[-3_000:], leaking, ("honest", "leaks", "shifted")) == ["leaks"]


def test_a_feature_that_peeks_a_few_bars_ahead_is_caught(market_data: Path) -> None:
    def peeking(bars: pl.DataFrame) -> Matrix:
        return np.column_stack([bars["close"].shift(-3).fill_null(strategy="forward").to_numpy()])

    assert check_lookahead(real_hours(market_data)[-3_000:], peeking, ("peeks",)) == ["peeks"]


def test_every_feature_has_settled_after_its_warm_up(market_data: Path) -> None:
    needed = check_recursive(real_hours(market_data)[-10_000:])
    assert set(needed.values()) <= {499}
    assert WARM_UP <= 499


def test_a_feature_that_never_forgets_is_reported(market_data: Path) -> None:
    assert check_recursive(real_hours(market_data)[-10_000:], never_forgetting, ("return", "all_volume")) == {
        "all_volume": -1
    }
