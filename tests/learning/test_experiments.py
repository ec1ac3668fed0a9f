"""Experiments: false promotions by simulation, decisions on planted differences, the split, the promotion's gate."""

from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.learning.markets import BARRIERS, HOUR, PLAN, START, informed, plant, publish, version_row, walk
from trading_platform.identifiers import VersionId
from trading_platform.learning.arms import arm_of
from trading_platform.learning.artifact import write_artifact
from trading_platform.learning.confidence_sequence import block_means, confidence_sequence
from trading_platform.learning.decision_page import SAID, write_decision
from trading_platform.learning.evidence import ExperimentPolicy
from trading_platform.learning.experiments import (
    conclude,
    evaluate,
    promote,
    start_experiment,
)
from trading_platform.learning.registry import DeploymentRefusedError, deploy, register, serving
from trading_platform.learning.resolved import resolve, signals
from trading_platform.learning.samples import label_symbol
from trading_platform.market_data.lake import Lake
from trading_platform.storage.databases import Databases

BARS = 1_800


@pytest.mark.parametrize(("overlap", "block"), [(1, 10), (5, 10), (12, 24)])
def test_an_identical_challenger_is_hardly_ever_promoted(overlap: int, block: int) -> None:
    """A/A, 3,000 heavy-tailed differences, looked at after every block. Peeking naively promotes 29 % to 74 %."""
    runs, promoted, naive = 200, 0, 0
    rng = np.random.default_rng(overlap)
    for _ in range(runs):
        noise = rng.standard_t(4, 3_000 + overlap - 1)
        differences = np.convolve(noise, np.ones(overlap) / overlap, "valid")
        blocks, _ = block_means(differences, np.arange(3_000), block)
        promoted += bool((confidence_sequence(blocks, 0.05).lower > 0).any())
        count = np.arange(1, 3_001)
        mean = np.cumsum(differences) / count
        deviation = np.sqrt(np.maximum(np.cumsum(differences**2) / count - mean**2, 1e-12))
        naive += bool((mean * np.sqrt(count) > 1.96 * deviation)[50:].any())
    assert promoted / runs <= 0.10  # 5 % aimed at; 200 runs at .06 exceed 20 with a chance of 1 in 100
    assert naive / runs > 2 * promoted / runs, "the simulation does what the docstring says"


def test_a_difference_is_found_in_reasonable_time() -> None:
    """.1 standard deviations a trade: the median experiment ends by about 700 trades."""
    rng = np.random.default_rng(1)
    needed = []
    for _ in range(60):
        blocks = (rng.standard_t(4, 3_000) / np.sqrt(2) + 0.1).reshape(-1, 10).mean(axis=1)
        cleared = np.flatnonzero(confidence_sequence(blocks, 0.05).lower > 0)
        needed.append(10 * cleared[0] if len(cleared) else np.inf)
    assert np.median(needed) < 900


def test_all_symbols_of_a_moment_share_a_block() -> None:
    moments = np.repeat(np.arange(0, 40, 2), 3)
    means, begins = block_means(np.arange(60.0), moments, 10)
    assert list(begins) == [0, 10, 20, 30]
    assert means == pytest.approx([7.0, 22.0, 37.0, 52.0])


def test_the_split_is_sticky_and_as_large_as_asked() -> None:
    arms = [arm_of("x_1", f"user {i}", 2_500) for i in range(8_000)]
    assert arms == [arm_of("x_1", f"user {i}", 2_500) for i in range(8_000)]
    assert arms.count("challenger") / 8_000 == pytest.approx(0.25, abs=0.02)
    assert arms != [arm_of("x_2", f"user {i}", 2_500) for i in range(8_000)]
    assert {arm_of("x", "u", 0), arm_of("x", "u", 10_000)} == {"champion", "challenger"}


def test_signals_resolve_to_the_labels_of_training(platform: Databases) -> None:
    lake = Lake(platform.settings.lake_dir)
    dataset_id = plant(platform, lake, {"A/X": walk(300, 1)}, "d")
    bars = lake.bars(dataset_id)
    with platform.control() as session:
        register(session, version_row(dataset_id, "v_1"))
    publish(platform, dataset_id, bars, {"v_1": ("champion", np.full(300, 0.5))})
    resolved = resolve(signals(platform, dataset_id, ["v_1"]), bars, BARRIERS)
    labels = label_symbol(bars, PLAN.compute(bars).barrier_volatility, PLAN)
    by_time = dict(zip(resolved["bar_open_time"], resolved["net_return"], strict=True))
    opened = bars["open_time"].to_list()
    known = [i for i in range(60, 300) if labels.resolved[i]]
    assert [by_time[opened[i]] for i in known] == pytest.approx(labels.net_return[known])
    assert not [i for i in range(60, 300) if not labels.resolved[i] and opened[i] in by_time], (
        "no outcome before its time"
    )
    cut = START + 200 * HOUR
    early = resolve(
        signals(platform, dataset_id, ["v_1"], as_of=cut), bars.filter(pl.col("available_at") <= cut), BARRIERS
    )
    assert early["label_end"].max() <= cut
    shuffled = resolve(
        signals(platform, dataset_id, ["v_1"]).sample(fraction=1.0, shuffle=True, seed=1), bars, BARRIERS
    )
    assert shuffled.equals(resolved), "joined on timestamps, not on position"


def test_experiments_decide_and_promote(platform: Databases, tmp_path: Path) -> None:
    """The better challenger is promoted, the worse rejected, the equal one left running; only evidence promotes."""
    lake = Lake(platform.settings.lake_dir)
    from tests.learning.test_registry import DOCUMENT

    path, sha256 = write_artifact(platform.settings.artifacts_dir, DOCUMENT)
    decisions = {}
    for name in ("better", "worse", "equal"):
        market = walk(BARS, 5, 2.0)
        dataset_id = plant(platform, lake, {"A/X": market}, name)
        bars = lake.bars(dataset_id)
        knows, guesses = informed(bars, BARS), np.full(BARS, 0.52)
        noise = np.random.default_rng(1).normal(0, 0.01, BARS)
        champion, challenger = {
            "better": (guesses, knows),
            "worse": (knows, guesses),
            "equal": (guesses, guesses + noise),
        }[name]
        champion_id, challenger_id = VersionId(f"v_{name}_1"), VersionId(f"v_{name}_2")
        with platform.control() as session:
            for role, version_id in (("champion", champion_id), ("challenger", challenger_id)):
                register(session, version_row(dataset_id, version_id, artifact_path=path, artifact_sha256=sha256))
                deploy(session, platform.settings, dataset_id=dataset_id, strategy_id=PLAN.strategy_id, role=role,
                       version_id=version_id, market_time=START, reason="test", by="test")  # fmt: skip
            arguments = {"dataset_id": dataset_id, "strategy_id": PLAN.strategy_id, "market_time": START}
            experiment = start_experiment(session, **arguments)
            assert experiment is not None
            assert start_experiment(session, **arguments).experiment_id == experiment.experiment_id
        publish(platform, dataset_id, bars,
                {champion_id: ("champion", champion), challenger_id: ("challenger", challenger)}, threshold=0.5)  # fmt: skip
        early = evaluate(platform, lake, BARRIERS, experiment.experiment_id, as_of=START + 100 * HOUR)
        assert early.decision == "continue", "too few blocks, days and conditions"
        with platform.control() as session, pytest.raises(DeploymentRefusedError, match="only evidence promotes"):
            promote(session, platform.settings, early, market_time=START + 100 * HOUR, by="test")
        end = START + BARS * HOUR
        policy = ExperimentPolicy(maximum_days=400.0)
        result = evaluate(platform, lake, BARRIERS, experiment.experiment_id, as_of=end, policy=policy)
        decisions[name] = result.decision
        assert result.lower < result.upper
        assert result.samples == pytest.approx(BARS / 12, abs=3)
        assert result.evidence["series"]["lower"][-1] <= result.evidence["series"]["upper"][-1]
        assert (result.evidence["wanting"] == []) == (name == "better")
        for condition in ("volatility", "session"):
            parts = [part for key, part in result.evidence["by_condition"].items() if key.startswith(condition)]
            assert sum(part["rows"] for part in parts) == result.evidence["rows"]
            for arm in ("champion", "challenger"):
                total = sum(part["rows"] * part[arm] for part in parts)
                assert total / result.evidence["rows"] == pytest.approx(result.evidence["log_loss"][arm])
        page = write_decision(tmp_path, result).read_text()
        assert page.count("data:image/png;base64,iVBOR") == 3
        assert SAID[result.decision] in page
        assert ("stands in the way" in page) == (name != "better")
        with platform.control() as session:
            merged = session.merge(result)
            assert conclude(session, platform.settings, merged, market_time=end, by="test") == (name != "equal")
            now = serving(session, dataset_id, PLAN.strategy_id)
            assert now.champion.version_id == (challenger_id if name == "better" else champion_id)
            assert (now.challenger is None) == (name != "equal")
            assert (merged.ended_at is None) == (name == "equal")
    assert decisions["better"] == "promote"
    assert decisions["worse"] in {"keep", "rollback"}
    assert decisions["equal"] == "continue"


def test_unripe_blocks_do_not_count() -> None:
    from trading_platform.learning.evidence import weigh
    from trading_platform.learning.resolved import SCHEMA

    moments = [START + i * HOUR for i in range(48)]
    constants = {name: [None] * 48 for name in SCHEMA} | {"available_at": moments, "volatility": ["low"] * 48}
    pairs = pl.DataFrame(constants, schema=SCHEMA).with_columns(
        confidence=pl.lit(0.5), confidence_challenger=pl.lit(0.6), state=pl.lit("ok"), state_challenger=pl.lit("ok"),
        net_return=pl.lit(0.1), label=pl.lit(1),
    )  # fmt: skip
    evidence = weigh(pairs, width=timedelta(hours=12), known_until=START + 30 * HOUR, alpha=0.05, harm_alpha=0.05)
    assert len(evidence.loss.mean) == 2
    assert evidence.loss.mean[-1] == pytest.approx(np.log(0.6 / 0.5))
