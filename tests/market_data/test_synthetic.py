"""The generator against its own statement: prefixes, endless continuation, and the correlation that it promises."""

import itertools
import math
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading_platform.market_data import synthetic
from trading_platform.market_data.lake import BAR_SCHEMA
from trading_platform.market_data.synthetic import START, generate, information, plant_drift, stream

VALUES = ["symbol", "open_time", "open", "high", "low", "close", "volume"]


def test_a_shorter_series_is_the_beginning_of_a_longer_one():
    long = generate(bars=2500)
    for bars in (1, 1023, 1024, 1025, 2100):
        head = long.filter(pl.col("open_time") < START + timedelta(hours=bars))
        assert generate(bars=bars).select(VALUES).equals(head.select(VALUES)), bars


@given(st.integers(0, 2300))
@settings(max_examples=8, deadline=None)
def test_the_stream_goes_on_where_any_reader_left_off(index: int):
    steps = pl.concat(itertools.islice(stream(from_index=index), 40))
    span = pl.col("open_time").is_between(START + timedelta(hours=index), START + timedelta(hours=index + 39))
    expected = generate(bars=index + 40).filter(span).sort("open_time", "symbol")
    assert steps.select(VALUES).equals(expected.select(VALUES))


def test_seeds_differ_and_so_do_their_datasets():
    one, two = generate(seed=1, bars=50), generate(seed=2, bars=50)
    assert one["dataset_id"][0] != two["dataset_id"][0]
    assert one["close"].to_list() != two["close"].to_list()
    assert generate(seed=1, bars=50).equals(one)


def test_bars_are_bars():
    frame = generate(bars=5000)
    assert frame.schema == pl.Schema(BAR_SCHEMA)
    sound = (
        (pl.col("high") >= pl.max_horizontal("open", "close"))
        & (pl.col("low") <= pl.min_horizontal("open", "close"))
        & (pl.col("low") > 0)
        & (pl.col("volume") > 0)
    )
    assert frame.filter(~sound).is_empty()


def test_volatility_comes_in_regimes():
    """Squared returns of a plain walk are uncorrelated; regimes of 200 bars leave a correlation over a day."""
    closes = generate(bars=8000).filter(pl.col("symbol") == "ALPHA/USDT")["close"].to_numpy()
    squares = np.diff(np.log(closes)) ** 2
    assert np.corrcoef(squares[:-24], squares[24:])[0, 1] > 0.1


@pytest.mark.parametrize("horizon", [1, 12])
def test_the_hidden_drift_tells_as_much_as_stated_and_no_more(horizon: int, monkeypatch):
    """z is recomputed here from the generator's random numbers; its correlation with returns must match the formula.

    The tolerance is four standard errors, widened for overlapping horizons and for the wandering of z.
    """
    monkeypatch.setattr(synthetic, "REGIMES", (1.0, 1.0, 1.0))
    count = 20 * synthetic.BLOCK
    closes = generate(bars=count, symbols=("ALPHA/USDT",))["close"].to_numpy()
    hidden = np.concatenate([_hidden(block) for block in range(20)])
    z = np.zeros(count)
    for n in range(1, count):
        z[n] = synthetic.PERSISTENCE * z[n - 1] + math.sqrt(1 - synthetic.PERSISTENCE**2) * hidden[n]
    future = np.log(closes[horizon:] / closes[:-horizon])
    found = np.corrcoef(z[:-horizon], future)[0, 1]
    assert found == pytest.approx(information(horizon), abs=4 * math.sqrt((horizon + 30) / count))


def _hidden(block: int) -> np.ndarray:
    """The second of the normal draws of a block (see `synthetic._blocks`): the innovations of z."""
    draw = np.random.Generator(np.random.Philox(key=[synthetic.SEED, block]))
    draw.standard_normal((synthetic.BLOCK, 1))
    return draw.standard_normal((synthetic.BLOCK, 1))[:, 0]


def test_the_drill_leaves_the_past_alone_and_turns_momentum_round():
    frame = generate(bars=6000)
    at = START + timedelta(hours=3000)
    drilled = plant_drift(frame, at, seed=5)
    past = pl.col("open_time") < at
    assert drilled.filter(past).equals(frame.filter(past))
    assert plant_drift(frame, at, seed=5).equals(drilled)
    assert drilled.select("open_time", "symbol", "volume").equals(frame.select("open_time", "symbol", "volume"))
    sound = (pl.col("high") >= pl.max_horizontal("open", "close")) & (
        pl.col("low") <= pl.min_horizontal("open", "close")
    )
    assert drilled.filter(~sound | (pl.col("low") <= 0)).is_empty()

    def momentum_pays(part: pl.DataFrame) -> float:
        closes = np.log(part["close"].to_numpy())
        return float(np.corrcoef(closes[12:-1] - closes[:-13], np.diff(closes)[12:])[0, 1])

    for part in drilled.partition_by("symbol"):
        assert momentum_pays(part.filter(past)) > 0
        assert momentum_pays(part.filter(~past)) < -0.3
