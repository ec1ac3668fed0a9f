"""How soon detectors see that errors have become more frequent, and how often they cry wolf: measured on made-up streams.

Errors are independent and 0 or 1. `SHIFTS` are streams with one planted change; the steady ones have none. Feature
drift is measured on AR(.95) features that do not change. Every stream has its own seed, so a table can be repeated.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter
from scipy.stats import beta, chi2

from trading_platform.learning.feature_drift import feature_drift
from trading_platform.learning.shiryaev_roberts import ShiryaevRoberts

Floats = NDArray[np.float64]
Progress = Callable[[str, int, int], None]
OURS = "Shiryaev-Roberts (ours)"


@dataclass(frozen=True)
class Shift:
    """A stream whose error rate is `before` for `at` samples, then `after` for `follow` samples."""

    name: str
    before: float
    after: float
    at: int
    follow: int


SHIFTS = (
    Shift(".20 -> .40 at 1,000", 0.20, 0.40, 1_000, 1_000),
    Shift(".20 -> .40 at 2,000", 0.20, 0.40, 2_000, 2_000),
    Shift(".45 -> .55 at 2,000", 0.45, 0.55, 2_000, 2_000),
)
AIM_DELAY, AIM_FALSE_ALARMS = 80.0, 0.2
"""Median samples to the alarm after the first shift, and false alarms per 10,000: what ours is held to."""
STEADY_RATE, STEADY_SAMPLES = 0.20, 10_000
STEADY_PER_SHIFT = 5
"""Steady streams for every stream with a change: false alarms are rare, so it takes many to count them."""
SLOW_SHARE = 5
"""A detector of 200 us a sample gets a fifth of the streams."""
STEADY_SEED = 9_000


@dataclass(frozen=True)
class Delay:
    """Samples from the change to the first alarm; quantiles over the streams that were not missed, None where all were.

    `missed`: share without an alarm after the change; `early`: share with one before it.
    """

    streams: int
    p10: float | None
    median: float | None
    p90: float | None
    missed: float
    early: float


@dataclass(frozen=True)
class DetectorRow:
    """One detector. False alarms are per 10,000 samples at an error rate of .20, with an exact 95 % interval."""

    detector: str
    false_alarms: float
    false_alarms_interval: tuple[float, float]
    steady_streams: int
    microseconds_per_sample: float
    delays: dict[str, Delay]


@dataclass(frozen=True)
class FeatureRow:
    """Share of windows of unchanged AR(.95) features with at least one of them called drifted, 95 % interval."""

    windows: int
    features: int
    false_alarm_share: float
    interval: tuple[float, float]
    textbook_share: float
    """Share of single features for which the textbook Kolmogorov-Smirnov test has p < .05."""


def detectors() -> dict[str, tuple[Callable[[int], Any], bool]]:
    """{name: (from a seed to a fresh detector, whether it is slow)}: ours and river's."""
    from river import drift as river_drift
    from river.drift import binary as river_binary

    drift: Any = river_drift  # river's constructors carry no types
    binary: Any = river_binary
    return {
        OURS: (lambda seed: ShiryaevRoberts(), False),
        "ADWIN (.002)": (lambda seed: drift.ADWIN(), False),
        "ADWIN (.05)": (lambda seed: drift.ADWIN(delta=0.05), False),
        "HDDM-A": (lambda seed: binary.HDDMA(), False),
        "HDDM-W": (lambda seed: binary.HDDMW(), False),
        "Page-Hinkley (.05, 20)": (lambda seed: drift.PageHinkley(delta=0.05, threshold=20, mode="up"), False),
        "DDM": (lambda seed: binary.DDM(), False),
        "KSWIN (.005)": (lambda seed: drift.KSWIN(seed=seed), True),
    }


def compare(streams: int, progress: Progress = lambda what, done, total: None) -> Iterator[DetectorRow]:
    """One row a detector, each over the same `streams` streams a shift."""
    for name, (make, slow) in detectors().items():
        share = max(1, streams // SLOW_SHARE) if slow else streams
        yield measure(name, make, share, share if slow else share * STEADY_PER_SHIFT, progress)


def measure(name: str, make: Callable[[int], Any], streams: int, steady: int, progress: Progress) -> DetectorRow:
    """Run one detector over `streams` streams of every shift and `steady` streams without any."""
    total = streams * len(SHIFTS) + steady
    done = 0
    delays: dict[str, Delay] = {}
    for shift in SHIFTS:
        fired = []
        for seed in range(streams):
            fired.append(alarms(make(seed), shift_stream(shift, seed)))
            done += 1
            progress(name, done, total)
        delays[shift.name] = _delay(fired, shift.at)
    count, seconds = 0, 0.0
    for seed in range(steady):
        errors = np.random.default_rng(STEADY_SEED + seed).random(STEADY_SAMPLES) < STEADY_RATE
        detector, values = make(seed), errors.astype(int).tolist()
        began = time.perf_counter()
        count += len(_feed(detector, values))
        seconds += time.perf_counter() - began
        done += 1
        progress(name, done, total)
    per = STEADY_SAMPLES * steady / 10_000
    lower, upper = poisson_interval(count)
    return DetectorRow(
        detector=name,
        false_alarms=count / per,
        false_alarms_interval=(lower / per, upper / per),
        steady_streams=steady,
        microseconds_per_sample=seconds / (STEADY_SAMPLES * steady) * 1e6,
        delays=delays,
    )


def met_aim(row: DetectorRow) -> dict[str, float | bool | None]:
    """What was found of a detector beside the aim, and whether it is met."""
    delay = row.delays[SHIFTS[0].name]
    seen = delay.median is not None and delay.median <= AIM_DELAY
    return {
        "delay": delay.median, "aim_delay": AIM_DELAY, "false_alarms": row.false_alarms,
        "aim_false_alarms": AIM_FALSE_ALARMS, "met": seen and row.false_alarms <= AIM_FALSE_ALARMS,
    }  # fmt: skip


def shift_stream(shift: Shift, seed: int) -> NDArray[np.int64]:
    """Errors (at + follow,) of 0 and 1."""
    rng = np.random.default_rng(seed)
    errors = np.concatenate([rng.random(shift.at) < shift.before, rng.random(shift.follow) < shift.after])
    return errors.astype(np.int64)


def alarms(detector: Any, errors: NDArray[np.int64]) -> list[int]:
    """Samples at which the detector fired; it goes on after each as it does by itself."""
    return _feed(detector, errors.tolist())


def autoregressive(rng: np.random.Generator, rows: int, columns: int, rho: float) -> Floats:
    """Stationary AR(1) columns (rows, columns) with unit innovations."""
    noise = rng.normal(size=(rows, columns))
    noise[0] /= np.sqrt(1.0 - rho**2)
    return np.asarray(lfilter([1.0], [1.0, -rho], noise, axis=0), dtype=np.float64)


def feature_false_alarms(
    windows: int,
    progress: Progress = lambda what, done, total: None,
    *,
    features: int = 8,
    reference: int = 20_000,
    window: int = 1_000,
) -> FeatureRow:
    """How often unchanged AR(.95) features are called drifted, each window with a reference of its own."""
    from scipy.stats import ks_2samp

    fired, textbook = 0, 0
    names = tuple(f"f{index}" for index in range(features))
    for seed in range(windows):
        matrix = autoregressive(np.random.default_rng(seed), reference + window, features, 0.95)
        moments = np.arange(len(matrix))
        old, new = (matrix[:reference], moments[:reference]), (matrix[reference:], moments[reference:])
        fired += any(found.drifted for found in feature_drift(names, old, new, seed=seed).values())
        textbook += sum(bool(ks_2samp(old[0][:, index], new[0][:, index]).pvalue < 0.05) for index in range(features))
        progress("features without drift", seed + 1, windows)
    return FeatureRow(windows, features, fired / windows, share_interval(fired, windows), textbook / windows / features)


def poisson_interval(count: int, level: float = 0.95) -> tuple[float, float]:
    """Exact interval for the mean of a Poisson count (Garwood, 1936)."""
    tail = (1.0 - level) / 2.0
    lower = 0.0 if count == 0 else float(chi2.ppf(tail, 2 * count)) / 2.0
    return lower, float(chi2.ppf(1.0 - tail, 2 * count + 2)) / 2.0


def share_interval(count: int, total: int, level: float = 0.95) -> tuple[float, float]:
    """Exact interval for a share (Clopper & Pearson, 1934)."""
    tail = (1.0 - level) / 2.0
    lower = 0.0 if count == 0 else float(beta.ppf(tail, count, total - count + 1))
    upper = 1.0 if count == total else float(beta.ppf(1.0 - tail, count + 1, total - count))
    return lower, upper


def _feed(detector: Any, values: list[int]) -> list[int]:
    fired = []
    for index, value in enumerate(values):
        detector.update(value)
        if detector.drift_detected:
            fired.append(index)
    return fired


def _delay(fired: list[list[int]], at: int) -> Delay:
    first = [next((index - at for index in stream if index >= at), None) for stream in fired]
    seen = [delay for delay in first if delay is not None]
    p10, median, p90 = (float(value) for value in np.percentile(seen, [10, 50, 90])) if seen else (None, None, None)
    early = sum(any(index < at for index in stream) for stream in fired)
    return Delay(len(fired), p10, median, p90, 1.0 - len(seen) / len(fired), early / len(fired))
