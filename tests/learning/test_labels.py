"""Labels against a plain re-implementation, base rates against the gambler's ruin and simulation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading_platform.learning.base_rate import driftless_walk, step_in_barrier_units
from trading_platform.learning.labels import UNRESOLVED, BarrierSpec, average_uniqueness, triple_barrier

HOUR_US = 3_600_000_000


def plain(close, volatility, moments, interval, spec):
    """The definition, word for word."""
    found = []
    for i, (entry, sigma) in enumerate(zip(close, volatility, strict=True)):
        found.append(None)
        if not np.isfinite(sigma) or sigma <= 0:
            continue
        for j in range(i + 1, len(close)):
            late = moments[j] - moments[i] >= spec.horizon_bars * interval * 1_000_000
            if (
                close[j] >= entry * (1 + spec.profit_multiple * sigma)
                or close[j] <= spec.stop_price(entry, sigma)
                or late
            ):
                found[-1] = (j, spec.net_return(entry, close[j]))
                break
    return found


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    bars=st.integers(2, 80),
    spec=st.builds(
        BarrierSpec,
        st.floats(0.2, 4),
        st.floats(0.2, 4),
        st.integers(1, 20),
        st.sampled_from([0.0, 0.001, 0.01]),
    ),
)
def test_labels_are_what_the_definition_says(seed: int, bars: int, spec: BarrierSpec) -> None:
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, bars)))
    volatility = np.where(rng.random(bars) < 0.1, np.nan, rng.uniform(0.002, 0.03, bars))
    moments = np.cumsum(rng.choice([1, 1, 1, 5], bars)) * HOUR_US  # with gaps
    labels = triple_barrier(close, volatility, moments, 3600, spec)
    for i, expected in enumerate(plain(close, volatility, moments, 3600, spec)):
        if expected is None:
            assert labels.label[i] == UNRESOLVED
            assert np.isnan(labels.net_return[i])
            continue
        end, net_return = expected
        assert labels.end_index[i] == end
        assert labels.net_return[i] == pytest.approx(net_return, abs=1e-12)
        assert labels.label[i] == (net_return > 0)


def test_a_gap_does_not_lengthen_a_trade() -> None:
    close = np.array([100.0, 100.1, 100.2, 100.3])
    moments = np.array([0, 1, 9, 10]) * HOUR_US
    labels = triple_barrier(close, np.full(4, 0.5), moments, 3600, BarrierSpec(1, 1, 3, 0.0))
    assert labels.end_index[0] == 2, "the first close at or after the time barrier, not three bars later"


@pytest.mark.parametrize("broken", ["unsorted", "negative price", "lengths"])
def test_broken_input_is_refused(broken: str) -> None:
    close, moments = np.array([1.0, 2.0, 3.0]), np.array([1, 2, 3])
    if broken == "unsorted":
        moments = moments[::-1].copy()
    elif broken == "negative price":
        close[1] = -1.0
    else:
        close = close[:2]
    with pytest.raises(ValueError, match=r"order|positive|one value"):
        triple_barrier(close, np.full(3, 0.1), moments, 3600, BarrierSpec(1, 1, 3, 0.0))


def test_gamblers_ruin() -> None:
    """A driftless walk hits a profit barrier at a quarter of the stop's distance 80 % of the time."""
    walk = driftless_walk(BarrierSpec(0.25, 1.0, 2_000, 0.0), step=0.04)
    # watched at closes only, the walk overshoots each barrier by .583 steps (Siegmund, 1985): .789 instead of .8
    overshoot = 0.583 * 0.04
    expected = (1.0 + overshoot) / (1.25 + 2 * overshoot)
    assert expected == pytest.approx(0.8, abs=0.012)
    assert walk.success_rate(np.array([0.01]))[0] == pytest.approx(expected, abs=0.003)


@pytest.mark.parametrize("cost", [0.0, 0.001])
def test_base_rate_agrees_with_simulation(cost: float) -> None:
    rng = np.random.default_rng(3)
    bars, sigma = 200_000, 0.004
    close = 100 * np.exp(np.cumsum(rng.normal(0, sigma, bars)))
    volatility = np.full(bars, sigma * np.sqrt(12))
    spec = BarrierSpec(1.0, 1.0, 12, cost)
    labels = triple_barrier(close, volatility, np.arange(bars) * HOUR_US, 3600, spec)
    simulated = labels.label[labels.resolved].mean()
    expected = driftless_walk(spec, step_in_barrier_units(close, volatility)).success_rate(volatility[:1])[0]
    # 200,000 labels overlapping 8 bars: one standard error is about .003
    assert expected == pytest.approx(simulated, abs=0.012)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), bars=st.integers(1, 60))
def test_uniqueness_shares_every_bar_among_the_labels_on_it(seed: int, bars: int) -> None:
    rng = np.random.default_rng(seed)
    end = np.minimum(np.arange(bars) + rng.integers(1, 9, bars), bars - 1)
    resolved = (end > np.arange(bars)) & (rng.random(bars) < 0.7)
    weight = average_uniqueness(end, resolved)
    covered = {bar for i in range(bars) if resolved[i] for bar in range(i + 1, end[i] + 1)}
    assert np.sum(weight * (end - np.arange(bars))) == pytest.approx(len(covered))
    assert np.all(weight[~resolved] == 0)
    assert np.all((weight[resolved] > 0) & (weight[resolved] <= 1 + 1e-12))


def test_trades_one_after_the_other_are_all_unique() -> None:
    end = np.array([2, 0, 4, 0, 6, 0, 6])
    resolved = np.array([True, False, True, False, True, False, False])
    assert average_uniqueness(end, resolved)[resolved] == pytest.approx(1.0)
