"""Drift: fires on planted change, stays quiet on autocorrelated noise, asks once a cool-down."""

import numpy as np
import pytest
from scipy import stats
from sqlalchemy import select

from tests.learning.markets import HOUR, PLAN, START, informed, plant, publish, version_row, walk
from trading_platform.learning.artifact import write_artifact
from trading_platform.learning.drift import DriftPolicy, NoChampionError, check_drift
from trading_platform.learning.error_drift import broken_promise, detect, error_streams, expected_accuracy
from trading_platform.learning.feature_drift import (
    benjamini_hochberg,
    feature_drift,
    integrated_autocorrelation_time,
)
from trading_platform.learning.performance import by_condition, net_pnl, over_time, reliability_frame, resolved
from trading_platform.learning.registry import deploy, register
from trading_platform.learning.servable import load
from trading_platform.market_data.lake import Lake
from trading_platform.storage.control import Alert, DriftReport, ModelVersion
from trading_platform.storage.databases import Databases

REFERENCE, WINDOW = 12_000, 600


def autoregressive(rng: np.random.Generator, rows: int, columns: int, rho: float = 0.95) -> np.ndarray:
    from scipy.signal import lfilter

    noise = rng.normal(size=(rows, columns))
    noise[0] /= np.sqrt(1 - rho**2)
    return lfilter([1.0], [1.0, -rho], noise, axis=0)


def compare(matrix: np.ndarray, seed: int):
    moments = np.arange(len(matrix))
    names = tuple(f"f{i}" for i in range(matrix.shape[1]))
    old, new = slice(0, REFERENCE), slice(REFERENCE, None)
    return feature_drift(names, (matrix[old], moments[old]), (matrix[new], moments[new]), seed=seed)


def test_autocorrelation_is_not_taken_for_drift() -> None:
    """AR(.95) features without drift: the textbook test fires on most of them, ours on about one window in twenty."""
    rng = np.random.default_rng(2)
    runs, alarms, textbook = 16, 0, []
    for seed in range(runs):
        matrix = autoregressive(rng, REFERENCE + WINDOW, 8)
        found = compare(matrix, seed)
        alarms += any(feature.drifted for feature in found.values())
        textbook += [stats.ks_2samp(matrix[:REFERENCE, i], matrix[REFERENCE:, i]).pvalue < 0.05 for i in range(8)]
    assert np.mean(textbook) > 0.5
    assert alarms <= 5  # 5 to 10 % of windows; more than 5 of 16 at .10 has a chance below 1 in 300


def test_a_shifted_feature_is_named() -> None:
    rng = np.random.default_rng(3)
    named = 0
    for seed in range(10):
        matrix = autoregressive(rng, REFERENCE + WINDOW, 8)
        matrix[REFERENCE:, 5] += 1.5 / np.sqrt(1 - 0.95**2)
        found = compare(matrix, seed)
        named += found["f5"].drifted
        assert found["f5"].statistic > found["f5"].threshold or not found["f5"].drifted
    assert named >= 9


def test_autocorrelation_time_of_an_ar1() -> None:
    series = autoregressive(np.random.default_rng(1), 200_000, 1, 0.9)[:, 0]
    assert integrated_autocorrelation_time(series) == pytest.approx(1.9 / 0.1, rel=0.2)


def test_benjamini_hochberg_agrees_with_scipy() -> None:
    rng = np.random.default_rng(4)
    for _ in range(50):
        p_values = rng.random(31) ** rng.integers(1, 6)
        assert np.array_equal(benjamini_hochberg(p_values, 0.05)[0], stats.false_discovery_control(p_values) <= 0.05)


def stream(seed: int, rows: int, worse_from: int | None):
    """Calibrated confidences, whose meaning turns round at `worse_from`; labels independent."""
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.1, 0.9, rows)
    truth = confidence.copy()
    if worse_from is not None:
        truth[worse_from:] = 1 - truth[worse_from:]
    return confidence, (rng.random(rows) < truth).astype(np.int8), np.arange(rows)


def test_errors_that_grow_are_detected_and_steady_ones_are_not() -> None:
    retrain = {"quiet": 0, "worse": 0}
    for seed in range(20):
        for name, worse_from in (("quiet", None), ("worse", 2_400)):
            found = detect(error_streams(*stream(seed, 4_000, worse_from), width=8))
            fired = [entry for entry in found.values() if entry.state == "retrain"]
            retrain[name] += bool(fired)
            if name == "worse":
                assert all(entry.since is None or entry.since > 2_000 for entry in fired) or seed
    assert retrain["worse"] == 20
    assert retrain["quiet"] <= 3


def test_a_model_that_keeps_its_promises_is_believed() -> None:
    confidence, label, moments = stream(1, 4_000, None)
    lower, upper = broken_promise(confidence, label, moments, 16)
    assert lower is not None
    assert lower < 0.01
    assert upper is not None
    assert upper > 0
    assert expected_accuracy(confidence) == pytest.approx(np.mean((confidence >= 0.5) == label), abs=0.02)
    broken, _ = broken_promise(*stream(1, 4_000, 0), 16)
    assert broken is not None
    assert broken > 0.3


def test_the_check_asks_for_retraining_once_a_cool_down(platform: Databases) -> None:
    from tests.learning.test_registry import DOCUMENT

    lake = Lake(platform.settings.lake_dir)
    learnt, bars_in_all = 3_000, 4_500
    sign = np.where(np.arange(bars_in_all) < 3_600, 1.0, -1.0)
    market = walk(bars_in_all, 5, 2.0, sign)
    dataset_id = plant(platform, lake, {"A/X": market}, "drifting")
    policy = DriftPolicy(cool_down_bars=300)
    with pytest.raises(NoChampionError):
        check_drift(platform, lake, PLAN, dataset_id, START + 3_100 * HOUR, policy)
    path, sha256 = write_artifact(platform.settings.artifacts_dir, DOCUMENT)
    until = (START + learnt * HOUR).isoformat()
    with platform.control() as session:
        register(session, version_row(dataset_id, "v_1", artifact_path=path, artifact_sha256=sha256,
                                      metrics={"learnt_until": until}))  # fmt: skip
        deploy(session, platform.settings, dataset_id=dataset_id, strategy_id=PLAN.strategy_id, role="champion",
               version_id="v_1", market_time=START, reason="test", by="test")  # fmt: skip
    bars = lake.bars(dataset_id)
    confidence = informed(bars, learnt)
    publish(platform, dataset_id, bars[learnt:], {"v_1": ("champion", confidence[learnt:])})

    before = check_drift(platform, lake, PLAN, dataset_id, START + 3_590 * HOUR, policy)
    assert before.decision == "none", (before.features, before.error)
    assert set(before.features) == set(PLAN.features)
    assert 0.6 < before.error["expected accuracy of pending"]["statistic"] < 0.9
    after = check_drift(platform, lake, PLAN, dataset_id, START + 4_100 * HOUR, policy)
    assert after.decision == "retrain"
    assert after.run_key != before.run_key
    drifted = {name: found for name, found in after.conditions.items() if found["drifted"]}
    assert "concept trend=flat" in drifted, "the one condition that all bars share"
    assert all(found["said"] for found in drifted.values())
    assert not any(found["drifted"] for found in before.conditions.values())
    assert check_drift(platform, lake, PLAN, dataset_id, START + 4_100 * HOUR, policy).report_id == after.report_id
    cooling = check_drift(platform, lake, PLAN, dataset_id, START + 4_200 * HOUR, policy)
    assert cooling.decision == "warning"
    assert cooling.error["cool_down"]["since"] == after.window_to.isoformat()
    again = check_drift(platform, lake, PLAN, dataset_id, START + 4_401 * HOUR, policy)
    assert again.decision == "retrain"
    assert len({report.run_key for report in (before, after, cooling, again)}) == 4

    # the same stream, as reports show it: good before the change, bad after
    rows = resolved(platform, lake, PLAN.barriers, dataset_id, as_of=START + bars_in_all * HOUR)
    months = over_time(rows, every="10d")
    assert months["rows"].sum() == len(rows)
    assert months["accuracy"][1] > 0.6
    assert months["accuracy"][-2] < 0.5
    conditions = by_condition(rows)
    assert set(conditions["condition"]) == {"volatility", "trend", "liquidity", "session"}
    assert conditions.filter(condition="session")["rows"].sum() == len(rows)
    assert reliability_frame(rows)["rows"].sum() == len(rows)


def test_what_was_learnt_right_after_a_change_is_followed_up_once(platform: Databases) -> None:
    from tests.learning.test_registry import DOCUMENT

    lake, learnt = Lake(platform.settings.lake_dir), 3_000
    dataset_id = plant(platform, lake, {"A/X": walk(3_500, 5, 2.0)}, "changed")
    policy = DriftPolicy(cool_down_bars=50, follow_up_bars=300, minimum_bars=1_000)
    path, sha256 = write_artifact(platform.settings.artifacts_dir, DOCUMENT)
    until = START + learnt * HOUR
    with platform.control() as session:
        register(session, version_row(dataset_id, "v_1", artifact_path=path, artifact_sha256=sha256, origin="drift",
                                      metrics={"learnt_until": until.isoformat()}))  # fmt: skip
        deploy(session, platform.settings, dataset_id=dataset_id, strategy_id=PLAN.strategy_id, role="champion",
               version_id="v_1", market_time=START, reason="test", by="test")  # fmt: skip
    looks = [
        check_drift(platform, lake, PLAN, dataset_id, until + bars * HOUR, policy) for bars in (299, 300, 349, 351)
    ]
    assert [report.decision for report in looks] == ["none", "retrain", "none", "none"]
    assert looks[1].error["follow-up"]["state"] == "retrain"


def test_a_certificate_whose_promise_is_broken_is_withdrawn(platform: Databases) -> None:
    """Certified signals on every bar of a market in which a trade succeeds about half the time."""
    from tests.learning.test_registry import DOCUMENT

    lake, learnt = Lake(platform.settings.lake_dir), 3_000
    dataset_id = plant(platform, lake, {"A/X": walk(3_600, 5)}, "promised")
    path, sha256 = write_artifact(platform.settings.artifacts_dir, DOCUMENT | {"certified": True})
    with platform.control() as session:
        register(session, version_row(dataset_id, "v_1", artifact_path=path, artifact_sha256=sha256, certified=True,
                                      metrics={"learnt_until": (START + learnt * HOUR).isoformat()}))  # fmt: skip
        register(session, version_row(dataset_id, "v_2", artifact_path=path, artifact_sha256=sha256, certified=True,
                                      metrics={"learnt_until": (START + learnt * HOUR).isoformat()}))  # fmt: skip
        for role, version_id in (("champion", "v_1"), ("challenger", "v_2")):
            deploy(session, platform.settings, dataset_id=dataset_id, strategy_id=PLAN.strategy_id, role=role,
                   version_id=version_id, market_time=START, reason="test", by="test")  # fmt: skip
    bars = lake.bars(dataset_id)[learnt:]
    both = {name: (role, np.full(len(bars), 0.85)) for name, role in (("v_1", "champion"), ("v_2", "challenger"))}
    publish(platform, dataset_id, bars, both, 0.8, certified=True)

    def look(hours: int) -> tuple[DriftReport, ModelVersion]:
        report = check_drift(platform, lake, PLAN, dataset_id, START + (learnt + hours) * HOUR)
        with platform.control() as session:
            return report, session.get_one(ModelVersion, "v_1")

    report, version = look(20)
    seen = report.error["precision of published"]
    assert (seen["state"], version.certified) == ("none", True)
    assert load(platform.settings, version).certified
    assert 0 < seen["certified_trades"] == seen["trades"] < 20
    report, version = look(599)
    seen = report.error["precision of published"]
    assert report.decision == seen["state"] == "retrain"
    assert seen["lower"] < seen["precision"] < seen["upper"] < 0.8 < seen["promised"]
    assert not version.certified
    assert version.metrics["certificate_withdrawn"]["certified_trades"] == seen["certified_trades"]
    assert not load(platform.settings, version).certified, "the artifact still says so, the registry no longer does"
    with platform.control() as session:
        alerts = session.scalars(select(Alert).order_by(Alert.alert_id)).all()
        assert not session.get_one(ModelVersion, "v_2").certified, "a challenger trades on the same promise"
    assert [(alert.severity, alert.title) for alert in alerts] == [("critical", "A certificate was withdrawn")] * 2
    assert [alert.labels["version"] for alert in alerts] == ["v_1", "v_2"]


def test_net_profit_never_adds_currencies() -> None:
    import polars as pl

    outcomes = pl.DataFrame(
        {
            "exit_time": [START, START + HOUR, START + 30 * HOUR, START],
            "strategy_id": ["s"] * 4,
            "currency": ["USDT", "USDT", "USDT", "INR"],
            "success": [True, False, True, True],
            "net_pnl": [1.0, -0.4, 2.0, 100.0],
            "costs": [0.1] * 4,
        }
    )
    frame = net_pnl(outcomes, ["strategy_id"])
    usdt = frame.filter(currency="USDT")
    assert usdt["cumulative_net_pnl"].to_list() == pytest.approx([0.6, 2.6])
    assert usdt["trades"].to_list() == [2, 1]
    assert frame.filter(currency="INR")["cumulative_net_pnl"].to_list() == [100.0]
