"""The detector: its guarantee, its speed against river's detectors on the same streams, its edges."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from trading_platform.learning.drift_bench import (
    OURS,
    SHIFTS,
    alarms,
    detectors,
    feature_false_alarms,
    measure,
    poisson_interval,
    share_interval,
    shift_stream,
)
from trading_platform.learning.shiryaev_roberts import FIRST_LOOK, SAMPLES_BETWEEN_FALSE_ALARMS, ShiryaevRoberts


def test_sooner_than_eighty_samples_and_no_later_than_river_at_so_few_false_alarms() -> None:
    shift = SHIFTS[0]
    delays = {}
    for name in (OURS, "ADWIN (.05)", "HDDM-A", "Page-Hinkley (.05, 20)"):
        make, _ = detectors()[name]
        first = [next((i - shift.at for i in alarms(make(seed), shift_stream(shift, seed)) if i >= shift.at), np.inf)
                 for seed in range(30)]  # fmt: skip
        delays[name] = float(np.median(first))
    assert delays[OURS] <= 80
    assert delays[OURS] == min(delays.values())


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.45])
def test_false_alarms_are_as_rare_as_the_threshold_says(rate: float) -> None:
    """At a tenth of the threshold, so that there is something to count: 3,200 samples between two at the least."""
    threshold, samples = SAMPLES_BETWEEN_FALSE_ALARMS / 10, 10_000
    streams = 16
    fired = 0
    for seed in range(streams):
        errors = (np.random.default_rng((5, seed)).random(samples) < rate).astype(np.int64)
        fired += len(alarms(ShiryaevRoberts(threshold), errors))
    expected = streams * samples / threshold
    assert fired <= stats.poisson.ppf(0.999, expected)
    assert fired > 0, "a tenth of the threshold is reached now and then"


def test_means_of_several_errors_count_as_that_many() -> None:
    """A block of eight independent errors tells as much as eight samples do; steady blocks raise no more alarms."""
    single, blocks, quiet = [], [], 0
    for seed in range(12):
        rng = np.random.default_rng((6, seed))
        before, after = rng.random(8_000) < 0.2, rng.random(8_000) < 0.4
        errors = np.concatenate([before, after]).astype(np.float64)
        single.append(next(i - 8_000 for i in alarms(ShiryaevRoberts(), errors) if i >= 8_000))
        blocks.append(
            next(i - 1_000 for i in alarms(ShiryaevRoberts(), errors.reshape(-1, 8).mean(axis=1)) if i >= 1_000)
        )
        quiet += len(alarms(ShiryaevRoberts(), rng.binomial(8, 0.2, 5_000) / 8))
    assert 8 * np.median(blocks) <= 2.0 * np.median(single)
    assert quiet <= stats.poisson.ppf(0.999, 12 * 5_000 / SAMPLES_BETWEEN_FALSE_ALARMS)


def test_errors_that_become_rarer_are_no_alarm() -> None:
    rng = np.random.default_rng(7)
    errors = np.concatenate([rng.random(2_000) < 0.4, rng.random(2_000) < 0.1]).astype(np.int64)
    assert alarms(ShiryaevRoberts(), errors) == []


@pytest.mark.parametrize("count", [FIRST_LOOK - 1, FIRST_LOOK])
def test_nothing_is_said_before_the_first_look(count: int) -> None:
    """Right samples, then only wrong ones: the statistic moves from the first look on, and not before."""
    detector = ShiryaevRoberts()
    for _ in range(count):
        detector.update(0)
    detector.update(1)
    assert (detector.statistic > 0) == (count == FIRST_LOOK)


@given(st.lists(st.floats(0, 1), max_size=300))
@settings(max_examples=60, deadline=None)
def test_any_stream_is_digested(values: list[float]) -> None:
    detector = ShiryaevRoberts()
    for value in values:
        detector.update(value)
        assert np.isfinite(detector.statistic)
        assert detector.statistic >= 0


@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan")])
def test_values_outside_the_unit_interval_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        ShiryaevRoberts().update(value)


def test_a_threshold_must_be_a_number_of_samples() -> None:
    with pytest.raises(ValueError, match="above 1"):
        ShiryaevRoberts(1.0)


def test_intervals_agree_with_published_tables() -> None:
    assert poisson_interval(0)[1] == pytest.approx(3.689, abs=1e-3)  # Garwood's table
    assert poisson_interval(10) == pytest.approx((4.795, 18.390), abs=1e-3)
    expected = stats.binomtest(50, 1_000).proportion_ci(method="exact")
    assert share_interval(50, 1_000) == pytest.approx((expected.low, expected.high))
    assert share_interval(0, 10)[0] == 0.0
    assert share_interval(10, 10)[1] == 1.0


def test_a_row_of_the_table_counts_what_the_streams_show() -> None:
    """A detector that fires once, two samples after the change at 1,000: every cell is known."""

    class Scripted:
        def __init__(self) -> None:
            self.seen, self.drift_detected = 0, False

        def update(self, value: float) -> None:
            self.drift_detected = self.seen == 1_002
            self.seen += 1

    row = measure("scripted", lambda seed: Scripted(), 3, 4, lambda what, done, total: None)
    first, second, _ = row.delays.values()
    assert (first.median, first.missed, first.early) == (2.0, 0.0, 0.0)
    assert (second.median, second.missed, second.early) == (None, 1.0, 1.0)
    assert row.false_alarms == 1.0


def test_unchanged_autocorrelated_features_alarm_at_the_nominal_level() -> None:
    row = feature_false_alarms(12, features=4)
    assert row.interval[0] <= 0.05
    assert row.textbook_share > 0.5
