"""The kernel against formulas written a second time, in pandas and in extended precision."""

from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.features.bars import START, bar_frame, nifty_minutes, real_hours, rough
from trading_platform.features.definition import FEATURES, NAMES, WARM_UP, Feature, Op, feature_hash
from trading_platform.features.kernel import LONGEST
from trading_platform.features.program import compile_features
from trading_platform.features.stream import SymbolStream, compute
from trading_platform.identifiers import Venue
from trading_platform.market_data.bar import Bar


def in_pandas(bars: pl.DataFrame) -> dict[str, pd.Series]:
    """The whole feature set, by textbook definitions on whole columns."""
    o, h, low, c, v = (pd.Series(bars[name].to_numpy()) for name in ("open", "high", "low", "close", "volume"))
    r = np.log(c).diff().fillna(0.0)
    s = np.sqrt((r**2).ewm(span=100, adjust=False).mean())
    f = {f"return_{n}": np.log(c / c.shift(n)) / (s * np.sqrt(n)) for n in (1, 2, 4, 8, 16, 36, 72, 168)}
    ema = {n: c.ewm(span=n, adjust=False).mean() for n in (12, 26, 50)}
    f |= {f"ema_gap_{n}": np.log(c / ema[n]) / s for n in ema}
    macd = ema[12] - ema[26]
    f["macd_12_26"] = macd / (c * s)
    f["macd_histogram_12_26"] = (macd - macd.ewm(span=9, adjust=False).mean()) / (c * s)
    change = c.diff().fillna(0.0)
    gain = change.clip(lower=0).ewm(alpha=1 / 14, adjust=False).mean()
    loss = (-change).clip(lower=0).ewm(alpha=1 / 14, adjust=False).mean()
    f["rsi_14"] = gain / (gain + loss)
    mean, deviation = c.rolling(20).mean(), c.rolling(20).std(ddof=0)
    f["band_position_20"] = (c - mean) / (2 * deviation)
    f["band_width_20"] = np.log(4 * deviation / (mean * s))
    before = c.shift(1).fillna(c)
    true_range = pd.concat([h - low, (h - before).abs(), (low - before).abs()], axis=1).max(axis=1)
    f["atr_14"] = true_range.ewm(alpha=1 / 14, adjust=False).mean() / (c * s)
    f["mean_ratio_10_50"] = np.log(c.rolling(10).mean() / c.rolling(50).mean()) / s
    top, bottom = h.rolling(60).max(), low.rolling(60).min()
    f["range_position_60"] = (c - bottom) / (top - bottom)
    f["volume_score_60"] = (v - v.rolling(60).mean()) / v.rolling(60).std(ddof=0)
    f["volume_ratio_60"] = np.log1p(v / v.rolling(60).mean())
    f["volatility_ratio_12_120"] = np.log(r.rolling(12).std(ddof=0) / r.rolling(120).std(ddof=0))
    f["skew_60"] = r.rolling(60).apply(lambda x: ((x - x.mean()) ** 3).mean() / x.std() ** 3, raw=True)
    f["autocorrelation_60"] = (r * r.shift(1)).rolling(60).mean() / (r**2).rolling(60).mean()
    f["up_share_24"] = (r > 0).astype(float).rolling(24).mean()
    f["bar_range"], f["body"] = (h - low) / (c * s), np.log(c / o) / s
    f["upper_wick"] = ((h - np.maximum(o, c)) / (h - low)).fillna(0.0)
    f["vwap_gap_60"] = np.log(c / ((c * v).rolling(60).sum() / v.rolling(60).sum())) / s
    f["log_sigma"] = np.log(s)
    times = bars["open_time"].to_pandas()
    day = 2 * np.pi * (times.dt.hour * 3600 + times.dt.minute * 60) / 86_400
    week = (2 * np.pi * times.dt.dayofweek + day) / 7
    return f | {"day_sin": np.sin(day), "day_cos": np.cos(day), "week_sin": np.sin(week), "week_cos": np.cos(week)}


@pytest.mark.parametrize("symbol", ["BTC/USDT", "XRP/USDT"])
def test_features_are_the_textbook_formulas_on_real_bars(market_data: Path, symbol: str) -> None:
    bars = real_hours(market_data, symbol)[-12_000:]
    ours, expected = compute(bars).matrix, in_pandas(bars)
    assert set(expected) == set(NAMES)
    for column, name in enumerate(NAMES):
        theirs = expected[name].to_numpy()[WARM_UP:]
        worst = np.abs(ours[WARM_UP:, column] - theirs).max() / theirs.std()
        assert worst < 1e-7, name


def moments(values: NDArray[np.float64], n: int) -> tuple[NDArray[np.longdouble], ...]:
    """Mean, deviation and skewness of each window of n, every window summed anew in extended precision."""
    windows = np.lib.stride_tricks.sliding_window_view(values.astype(np.longdouble), n)
    mean = windows.mean(axis=1)
    gaps = windows - mean[:, None]
    deviation = np.sqrt((gaps**2).mean(axis=1))
    return mean, deviation, (gaps**3).mean(axis=1) / deviation**3


def test_running_sums_keep_their_digits_over_hundreds_of_thousands_of_rough_bars() -> None:
    bars = rough(300_000)
    history = compute(bars)
    tail = slice(-20_000, None)
    close, volume = bars["close"].to_numpy()[tail], bars["volume"].to_numpy()[tail]
    mean, deviation, _ = moments(close, 20)
    position = (close[19:] - mean) / (2 * deviation)
    ours = history.matrix[tail, NAMES.index("band_position_20")][19:]
    # The prices themselves have 1e-11 of absolute error beside moves of 1e-2; what is lost on top must be less.
    assert np.abs(ours - position).max() < 1e-6
    mean, deviation, _ = moments(volume, 60)
    score = (volume[59:] - mean) / deviation
    assert np.abs(history.matrix[tail, NAMES.index("volume_score_60")][59:] - score).max() < 1e-6
    returns = np.diff(np.log(bars["close"].to_numpy()))[tail]
    _, _, skew = moments(returns, 60)
    assert np.abs(history.matrix[tail, NAMES.index("skew_60")][59:] - skew).max() < 1e-5


def test_nothing_is_known_in_warm_up_and_everything_after_it(market_data: Path) -> None:
    history = compute(real_hours(market_data)[:2_000])
    for column, feature in enumerate(FEATURES):
        known = np.isfinite(history.matrix[:, column])
        assert not known[: feature.warm_up - 1].any()
        assert known[feature.warm_up - 1 :].all(), feature.name


@pytest.mark.parametrize("price", [1.0, 1e-6, 7e4])
def test_a_price_that_does_not_move_and_a_volume_that_is_always_zero_stay_finite(price: float) -> None:
    prices = np.tile([price, price, price, price, 0.0], (1_000, 1))
    history = compute(bar_frame([START + timedelta(hours=n) for n in range(1_000)], prices))
    settled = history.matrix[WARM_UP:]
    assert np.isfinite(settled).all()
    still = [name for name in NAMES if name.startswith(("return", "ema_gap", "macd", "volume", "vwap", "skew", "body"))]
    assert (settled[:, [NAMES.index(name) for name in still]] == 0.0).all()
    assert (history.sigma[WARM_UP:] == 0.0).all()


def test_an_index_without_volume_has_every_feature(market_data: Path) -> None:
    history = compute(nifty_minutes(market_data))
    assert np.isfinite(history.matrix[WARM_UP:]).all()
    assert (history.conditions["liquidity"] == "unknown").all()


def test_features_do_not_depend_on_the_price_scale(market_data: Path) -> None:
    bars = real_hours(market_data)[:3_000]
    scaled = bars.with_columns(pl.col("open", "high", "low", "close") * 1024.0)
    assert np.allclose(compute(bars).matrix[WARM_UP:], compute(scaled).matrix[WARM_UP:], rtol=0, atol=1e-8)


@given(st.lists(st.integers(1, 2_999), max_size=4, unique=True))
@settings(max_examples=20, deadline=None)
def test_batch_and_live_agree_to_the_last_bit_wherever_the_history_is_cut(cuts: list[int]) -> None:
    bars = rough(3_000, seed=9)
    whole = compute(bars)
    stream, parts = SymbolStream(Venue("binance"), 3600), []
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), 3_000], strict=True):
        resumed = SymbolStream(Venue("binance"), 3600)
        resumed.restore(stream.snapshot())
        stream = resumed
        parts.append(stream.extend(bars[start:end]))
    assert np.array_equal(np.concatenate([part.matrix for part in parts]), whole.matrix, equal_nan=True)
    assert np.array_equal(np.concatenate([part.sigma for part in parts]), whole.sigma, equal_nan=True)
    for name, values in whole.conditions.items():
        assert (np.concatenate([part.conditions[name] for part in parts]) == values).all()


@pytest.mark.parametrize("of", ["binance", "nifty"])
def test_pushing_bars_one_by_one_gives_the_rows_of_the_batch(market_data: Path, of: str) -> None:
    bars = real_hours(market_data)[-1_500:] if of == "binance" else nifty_minutes(market_data)[:1_500]
    whole = compute(bars)
    stream = SymbolStream(Venue(bars["venue"][0]), int(bars["interval_seconds"][0]))
    for number, values in enumerate(bars.iter_rows(named=True)):
        row = stream.push(Bar(**values))
        assert np.array_equal(row.features, whole.matrix[number], equal_nan=True)
        assert np.array_equal(row.sigma, whole.sigma[number], equal_nan=True)
        assert row.conditions == {name: values[number] for name, values in whole.conditions.items()}
        assert np.array_equal(row.barrier_volatility(12), whole.barrier_volatility(12)[number], equal_nan=True)


@pytest.mark.parametrize("offset", [timedelta(0), timedelta(seconds=7), timedelta(microseconds=1)])
def test_time_of_day_and_week_on_and_off_the_minute(offset: timedelta) -> None:
    times = pl.datetime_range(START, START + timedelta(days=8), "7m", eager=True) + offset
    bars = bar_frame(times, np.tile([2.0, 2.0, 2.0, 2.0, 1.0], (len(times), 1)), interval=420)
    ours = compute(bars).matrix[
        WARM_UP:, [NAMES.index(f"{of}_{turn}") for of in ("day", "week") for turn in ("sin", "cos")]
    ]
    moments = [moment.timetuple() for moment in times.to_list()[WARM_UP:]]
    seconds = np.array([3600 * at.tm_hour + 60 * at.tm_min + at.tm_sec for at in moments]) + offset.microseconds / 1e6
    day = seconds / 86_400
    week = (np.array([at.tm_wday for at in moments]) + day) / 7
    expected = [turn(2 * np.pi * of) for of in (day, week) for turn in (np.sin, np.cos)]
    assert np.abs(ours - np.column_stack(expected)).max() < 1e-9


def test_the_longest_window_that_is_allowed_is_right_at_the_ends_of_blocks() -> None:
    bars, n = rough(2_000, seed=3), LONGEST
    columns = (Feature("far", Op.RETURN, n), Feature("up", Op.UP_SHARE, n), Feature("width", Op.BAND_POSITION, n))
    ours = compute(bars, columns).matrix[WARM_UP:]
    close = pd.Series(bars["close"].to_numpy())
    r = np.log(close).diff().fillna(0.0)
    s = np.sqrt((r**2).ewm(span=100, adjust=False).mean())
    far = np.log(close / close.shift(n)) / (s * np.sqrt(n))
    assert np.abs(ours[:, 0] - far[WARM_UP:]).max() < 1e-6
    assert np.abs(ours[:, 1] - (r > 0).rolling(n).mean()[WARM_UP:]).max() < 1e-9
    mean, deviation, _ = moments(close.to_numpy(), n)
    assert np.abs(ours[:, 2] - ((close.to_numpy()[n - 1 :] - mean) / (2 * deviation))[-len(ours) :]).max() < 1e-6


def test_a_bar_out_of_order_or_twice_is_refused() -> None:
    bars = rough(50)
    stream = SymbolStream(Venue("binance"), 3600)
    stream.extend(bars)
    for wrong in (bars[-1:], bars[10:11], bars[20:30].reverse()):
        with pytest.raises(ValueError, match="order of their opening times"):
            stream.extend(wrong)
    with pytest.raises(ValueError, match="one symbol"):
        compute(pl.concat([bars, bars.with_columns(symbol=pl.lit("ETH/USDT"))]))


def test_equal_windows_are_kept_once_and_windows_beyond_the_ring_are_refused() -> None:
    program = compile_features(
        (Feature("a", Op.BAND_POSITION, 20), Feature("b", Op.BAND_WIDTH, 20), Feature("c", Op.MEAN_RATIO, 20, 60))
    )
    assert len(program.windows) == 2
    with pytest.raises(ValueError, match="return_300"):
        compile_features((Feature("return_300", Op.RETURN, 300),))


def test_the_hash_names_order_windows_and_operations() -> None:
    one, two = Feature("a", Op.RETURN, 3), Feature("b", Op.RETURN, 5)
    hashes = {feature_hash(fs) for fs in ((one, two), (two, one), (one,), (Feature("a", Op.RETURN, 4), two))}
    assert len(hashes) == 4
    assert feature_hash((one, two)) == feature_hash((Feature("a", Op.RETURN, 3), Feature("b", Op.RETURN, 5)))
