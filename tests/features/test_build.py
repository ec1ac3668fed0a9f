"""Features in the lake: what a reader at a market time sees does not change when time goes on."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.features.bars import real_hours
from trading_platform.features.build import build_features
from trading_platform.features.definition import NAMES, feature_hash
from trading_platform.features.stream import CONDITIONS
from trading_platform.market_data.lake import Lake


def test_features_are_written_once_and_an_earlier_reader_saw_the_same(market_data: Path, tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    for symbol in ("BTC/USDT", "ETH/USDT"):
        lake.write_bars(real_hours(market_data, symbol)[-2_500:])
    told: list[tuple[str, int, int]] = []
    whole = build_features(lake, "files_test", progress=lambda *step: told.append(step))
    assert told[-1][1:] == (3, 3)
    assert [done for _, done, _ in told] == [1, 2, 3]

    stored = lake.features("files_test", feature_hash())
    assert len(stored) == len(whole) == 5_000
    assert set(stored.columns) >= {"sigma", *NAMES, *CONDITIONS}
    assert stored.select(whole.columns).equals(whole.sort("symbol", "open_time"), null_equal=True)

    cut = whole["available_at"].sort()[3_000]
    earlier = build_features(lake, "files_test", as_of=cut)
    known = whole.filter(pl.col("available_at") <= cut)
    assert np.array_equal(earlier.select(NAMES).to_numpy(), known.select(NAMES).to_numpy(), equal_nan=True)
    assert len(lake.features("files_test", feature_hash())) == 5_000


def test_a_dataset_without_bars_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ingest it first"):
        build_features(Lake(tmp_path), "nothing")
