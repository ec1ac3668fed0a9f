"""Longer bars and the reference: against pandas, to the last bit live as in the batch, and blind to the future."""

from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

from tests.features.bars import nifty_minutes, real_hours
from trading_platform.features.checks import check_symbols, settled_after
from trading_platform.features.context import compile_context
from trading_platform.features.definition import CONTEXT, FEATURE_SETS, FEATURES, Feature, Op, feature_hash
from trading_platform.features.lookahead import Matrix, check_lookahead
from trading_platform.features.reference import reference_symbol, with_reference
from trading_platform.features.stream import SymbolStream, compute
from trading_platform.identifiers import Venue

WIDE = FEATURE_SETS["wide"]
NAMES = [feature.name for feature in WIDE]


def hours(market_data: Path, *symbols: str, bars: int = 6_000) -> pl.DataFrame:
    return with_reference(pl.concat([real_hours(market_data, symbol).tail(bars) for symbol in symbols]))


def column(bars: pl.DataFrame, name: str) -> np.ndarray:
    return compute(bars, WIDE).matrix[:, NAMES.index(name)]


@pytest.fixture(scope="module")
def ether(market_data: Path) -> pl.DataFrame:
    """Hours of ETH beside BTC's close, the exchange's outages included."""
    return hours(market_data, "BTC/USDT", "ETH/USDT").filter(pl.col("symbol") == "ETH/USDT")


def test_beta_and_correlation_are_those_of_pandas(ether: pl.DataFrame) -> None:
    own = pd.Series(np.log(ether["close"].to_numpy())).diff()
    other = pd.Series(np.log(ether["reference_close"].to_numpy())).diff()

    def average(values: pd.Series) -> np.ndarray:
        return values[1:].ewm(span=60, adjust=False).mean().to_numpy()

    beta = average(own * other) / average(other**2)
    correlation = average(own * other) / np.sqrt(average(own**2) * average(other**2))
    settled = slice(2_000, None)
    np.testing.assert_allclose(column(ether, "beta_60")[1:][settled], beta[settled], rtol=1e-9)
    np.testing.assert_allclose(column(ether, "correlation_60")[1:][settled], correlation[settled], rtol=1e-9)
    assert 0.5 < np.nanmedian(column(ether, "correlation_60")) < 1.0


def test_the_reference_beside_itself_has_a_beta_of_one(market_data: Path) -> None:
    bars = hours(market_data, "BTC/USDT", bars=2_000)
    for name, expected in (("beta_60", 1.0), ("correlation_60", 1.0), ("relative_return_12_60", 0.0)):
        known = column(bars, name)
        assert np.isfinite(known).sum() > 1_000
        np.testing.assert_allclose(known[np.isfinite(known)], expected, atol=1e-12)


def test_longer_bars_are_those_that_pandas_makes_and_count_once_they_are_closed(ether: pl.DataFrame) -> None:
    """Half days of hours, gaps and all; each taken as known at the close of its last hour, and not one bar before."""
    frame = ether.select("open_time", "high", "low", "close").to_pandas().set_index("open_time")
    halves = frame.resample("12h", origin="epoch").agg({"high": "max", "low": "min", "close": "last"}).dropna()
    last_hour = pd.DatetimeIndex(frame.index.to_series().resample("12h", origin="epoch").last().dropna())
    closes_at = halves.index + pd.Timedelta(hours=12)
    known_at = frame.index + pd.Timedelta(hours=1)
    sigma = compute(ether, WIDE).sigma
    # A half day whose last hours are missing is known to be over with the first bar after it.
    whole = last_hour + pd.Timedelta(hours=1) == closes_at
    of_return, of_range = column(ether, "higher_return_4"), column(ether, "higher_range_position_8")
    ready = closes_at.where(whole, closes_at + pd.Timedelta(seconds=1))
    for row in range(1_000, len(frame), 7):
        closed = int((ready <= known_at[row]).sum())
        close = halves["close"].to_numpy()[:closed]
        moved = np.log(close[-1] / close[-5]) / (sigma[row] * np.sqrt(4 * 12))
        assert of_return[row] == pytest.approx(moved, rel=1e-9)
        low, high = (
            halves["low"].to_numpy()[closed - 8 : closed].min(),
            halves["high"].to_numpy()[closed - 8 : closed].max(),
        )
        assert of_range[row] == pytest.approx((frame["close"].iloc[row] - low) / (high - low), rel=1e-9)


@pytest.mark.parametrize("what", ["hours", "minutes"])
def test_the_wide_set_passes_every_check_on_real_bars(market_data: Path, what: str) -> None:
    """Look-ahead and live to the last bit, and settled after its warm-up."""
    bars = hours(market_data, "BTC/USDT", "ETH/USDT") if what == "hours" else nifty_minutes(market_data)
    for found in check_symbols(bars, features=WIDE):
        assert (found.leaking, found.differing) == ([], [])
        assert found.passed, found.history


def test_a_longer_bar_that_is_not_closed_yet_would_be_caught(ether: pl.DataFrame) -> None:
    def whole_half_day(bars: pl.DataFrame) -> Matrix:
        return bars.select(pl.col("close").last().over(pl.col("open_time").dt.truncate("12h"))).to_numpy()

    bars = ether.slice(0, 3_005)
    assert check_lookahead(bars, whole_half_day, ("peeks",)) == ["peeks"]


def test_in_pieces_and_after_a_restart_the_rows_are_those_of_one_batch(ether: pl.DataFrame) -> None:
    bars = ether.head(3_000)
    whole = compute(bars, WIDE).matrix
    stream, parts = SymbolStream(Venue("binance"), 3600, WIDE), []
    for start in range(0, 3_000, 377):
        resumed = SymbolStream(Venue("binance"), 3600, WIDE)
        resumed.restore(stream.snapshot())
        stream = resumed
        parts.append(stream.extend(bars[start : start + 377]).matrix)
    assert np.array_equal(np.concatenate(parts), whole, equal_nan=True)


def test_without_a_reference_its_features_are_absent_and_the_others_as_before(ether: pl.DataFrame) -> None:
    alone = compute(ether.drop("reference_close"), WIDE).matrix
    beside = compute(ether, WIDE).matrix
    of_reference = np.array([feature.op >= Op.REFERENCE_RETURN for feature in WIDE])
    assert np.isnan(alone[:, of_reference]).all()
    assert np.array_equal(alone[:, ~of_reference], beside[:, ~of_reference], equal_nan=True)
    assert np.array_equal(compute(ether).matrix, beside[:, : len(FEATURES)], equal_nan=True)


def test_the_reference_of_a_dataset() -> None:
    assert reference_symbol(["ETH/USDT", "BTC/USDT"]) == "BTC/USDT"
    assert reference_symbol(["INFY", "NIFTY 50"]) == "NIFTY 50"
    assert reference_symbol(["INFY"]) is None


def test_a_set_is_data_and_is_refused_where_it_cannot_be_computed() -> None:
    assert feature_hash(WIDE) != feature_hash(FEATURES)
    assert settled_after(max(feature.warm_up for feature in WIDE)) == 999
    with pytest.raises(ValueError, match="one length"):
        compile_context((*CONTEXT, Feature("other", Op.HIGHER_RETURN, 1, 4)))
    with pytest.raises(ValueError, match="higher_return_300"):
        compile_context((Feature("higher_return_300", Op.HIGHER_RETURN, 300, 12),))
    with pytest.raises(ValueError, match="come after"):
        SymbolStream(Venue("binance"), 3600, (*CONTEXT, *FEATURES))
