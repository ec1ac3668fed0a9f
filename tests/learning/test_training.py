"""Training end to end on planted and empty markets."""

from dataclasses import replace
from datetime import datetime

import numpy as np
import polars as pl
import pytest

from tests.learning.markets import HOUR, PLAN, START, frame, plant, walk
from trading_platform.identifiers import DatasetId
from trading_platform.learning.plan import SymbolFeatures
from trading_platform.learning.samples import build_samples
from trading_platform.learning.servable import load
from trading_platform.learning.training import TrainedVersion, train_version
from trading_platform.market_data.lake import Lake
from trading_platform.storage.databases import Databases

BARS = 2_400
EMBARGO_US = PLAN.barriers.horizon_bars * 3_600_000_000


@pytest.fixture
def lake(platform: Databases) -> Lake:
    return Lake(platform.settings.lake_dir)


def train(platform: Databases, lake: Lake, dataset_id: str, bars: int = BARS, **options) -> TrainedVersion:
    arguments = {"kind": "logistic", "origin": "initial", "trials": 2} | options
    return train_version(platform, lake, PLAN, dataset_id=dataset_id, as_of=START + bars * HOUR, **arguments)


def test_a_planted_signal_is_learnt(platform: Databases, lake: Lake) -> None:
    dataset_id = plant(platform, lake, {"A/X": walk(BARS, 1, 2.0), "B/X": walk(BARS, 2, 2.0)}, "planted")
    for kind in ("lightgbm", "logistic"):
        trained = train(platform, lake, dataset_id, kind=kind)
        figures = trained.row.metrics
        assert trained.created
        assert figures["log_loss"] < figures["log_loss_base_rate"] - 0.05
        assert figures["accuracy"] > figures["base_rate"] + 0.1
        assert figures["precision"] > figures["driftless_base_rate"] + 0.2
        assert figures["expected_value"] > max(0.0, figures["expected_value_all"])
        assert figures["ece"] < 0.08
        assert figures["search"]["folds"] == 5
        assert set(figures["by_condition"]["volatility"]) == {"high", "low"}
        # what serves is what was measured: the artifact scores today's rows, in order, under the registered hash
        servable = load(platform.settings, trained.row, feature_hash=PLAN.feature_hash)
        assert servable.threshold == figures["threshold"]
        bars = lake.bars(dataset_id, ["A/X"], as_of=START + BARS * HOUR)
        scored = servable.score_many(PLAN.compute(bars).matrix[100:])
        hint = np.log(bars["volume"].to_numpy()[100:])
        assert np.corrcoef(scored.confidence, hint)[0, 1] > 0.5
        assert scored.outlier.mean() < 0.02


def test_random_walks_certify_nothing_and_a_leak_gives_itself_away(platform: Databases, lake: Lake) -> None:
    for seed, kind in ((1, "logistic"), (2, "lightgbm"), (3, "logistic")):
        markets = {"A/X": walk(BARS, seed), "B/X": walk(BARS, seed + 50)}
        trained = train(platform, lake, plant(platform, lake, markets, f"walk {seed}"), kind=kind)
        figures = trained.row.metrics
        assert not trained.row.certified
        assert not figures["certified_80"]
        assert figures["log_loss"] > figures["log_loss_base_rate"] - 0.01, "nobody beats the base rate on noise"
        assert figures["accuracy"] < 0.56
        assert figures["precision_at_80"] is None, "a figure without rows to measure it on is absent"
        assert trained.row.rows > 4_500

    def leaking(bars: pl.DataFrame) -> SymbolFeatures:
        honest = PLAN.compute(bars)
        ahead = bars["close"].shift(-6).fill_null(strategy="forward").log() - bars["close"].log()
        return SymbolFeatures(
            np.column_stack([honest.matrix[:, :-1], ahead.to_numpy()]), honest.barrier_volatility, honest.conditions
        )

    leaked = train_version(
        platform, lake, replace(PLAN, compute=leaking, feature_hash="f_leak"), dataset_id=DatasetId("walk 1"),
        as_of=START + BARS * HOUR, kind="logistic", origin="initial", trials=1,
    )  # fmt: skip
    assert leaked.row.metrics["accuracy"] > 0.8, "the same walk, so the bounds above do catch a leak"


def test_training_again_is_no_work_and_never_another_version(
    platform: Databases, lake: Lake, tmp_path_factory: pytest.TempPathFactory
) -> None:
    markets = {"A/X": walk(BARS, 1, 1.0), "B/X": walk(BARS, 2, 1.0)}
    dataset_id = plant(platform, lake, markets, "twice")
    first = train(platform, lake, dataset_id, bars=1_500, kind="lightgbm")
    again = train(platform, lake, dataset_id, bars=1_500, kind="lightgbm")
    assert (again.created, again.version_id) == (False, first.version_id)
    assert set(again.seconds) == {"look-up"}
    # From nothing but the same bars up to as_of (the later ones differ), on the resumed study: the same file.
    with platform.control() as session:
        session.delete(first.row)
    other = Lake(tmp_path_factory.mktemp("lake"))
    cut = {symbol: {name: values[:1_500] for name, values in prices.items()} for symbol, prices in markets.items()}
    for symbol, prices in cut.items():
        other.write_bars(frame(dataset_id, symbol, **prices))
    rebuilt = train(platform, other, dataset_id, bars=1_500, kind="lightgbm")
    assert rebuilt.created
    assert rebuilt.version_id == first.version_id
    assert rebuilt.row.artifact_sha256 == first.row.artifact_sha256
    assert train(platform, lake, dataset_id, bars=1_500, kind="lightgbm", seed=8).version_id != first.version_id


def test_an_interrupted_search_goes_on_where_it_stopped(platform: Databases, lake: Lake) -> None:
    class Interrupted(Exception):
        pass

    def stop_after_two(what: str, done: int, total: int) -> None:
        if what == "searching hyperparameters" and done == 2:
            raise Interrupted

    seen: list[int] = []

    def watch(what: str, done: int, total: int) -> None:
        if what == "searching hyperparameters":
            seen.append(done)

    dataset_id = plant(platform, lake, {"A/X": walk(2_000, 1, 1.0)}, "resumed")
    with pytest.raises(Interrupted):
        train(platform, lake, dataset_id, trials=4, bars=2_000, progress=stop_after_two)
    resumed = train(platform, lake, dataset_id, trials=4, bars=2_000, progress=watch)
    assert seen == [2, 3, 4]
    other = plant(platform, lake, {"A/X": walk(2_000, 1, 1.0)}, "in one go")
    whole = train(platform, lake, other, trials=4, bars=2_000)
    assert resumed.row.params["hyperparameters"] == whole.row.params["hyperparameters"]
    assert resumed.row.artifact_sha256 == whole.row.artifact_sha256


def test_no_row_is_learnt_whose_label_ends_too_late() -> None:
    bars = pl.concat([frame("cut", symbol, **walk(1_000, seed)) for symbol, seed in (("A/X", 1), ("B/X", 2))])
    cutoff = START + 700 * HOUR
    samples = build_samples(bars.filter(pl.col("available_at") <= cutoff), PLAN, cutoff, EMBARGO_US)
    assert np.all(samples.end + EMBARGO_US < cutoff.timestamp() * 1e6)
    assert np.all(np.diff(samples.start) >= 0)
    # What is learnt at the cut is what is learnt later of the same bars: nothing later reaches back.
    full = build_samples(bars, PLAN, START + 1_000 * HOUR, EMBARGO_US)
    assert np.array_equal(samples.label, full.label[: len(samples)])
    assert np.array_equal(samples.net_return, full.net_return[: len(samples)])
    assert np.array_equal(samples.matrix, full.matrix[: len(samples)], equal_nan=True)
    assert len(samples) > 2 * (700 - 50 - 15)


def test_an_update_follows_a_drift_and_too_little_data_says_so(platform: Databases, lake: Lake) -> None:
    """The meaning of the signal turns round after training: the update must leave the old data behind."""
    sign = np.where(np.arange(4_000) < 2_500, 1.0, -1.0)
    markets = {"A/X": walk(4_000, 1, 2.0, sign), "B/X": walk(4_000, 2, 2.0, sign)}
    dataset_id = plant(platform, lake, markets, "drifting")
    for kind in ("lightgbm", "logistic"):
        parent = train(platform, lake, dataset_id, bars=2_500, kind=kind)
        child = train(platform, lake, dataset_id, bars=4_000, kind=kind, origin="drift", parent_id=parent.version_id)
        figures = child.row.metrics
        losses = figures["update"]["log_loss"]
        assert child.row.parent_id == parent.version_id
        assert child.row.params["hyperparameters"] == parent.row.params["hyperparameters"]
        assert losses[child.row.params["arm"]] == min(losses.values()) < losses["no change"] - 0.1
        assert figures["log_loss"] < figures["log_loss_base_rate"]
        assert figures["recertification"] == 2
        assert datetime.fromisoformat(figures["evaluated_from"]) > START + 2_500 * HOUR, "measured on newer bars"

    plant(platform, lake, {"A/X": walk(60, 1)}, "short")
    with pytest.raises(ValueError, match="bring more bars"):
        train(platform, lake, "short", bars=60)
    with pytest.raises(ValueError, match="ingest it first"):
        train(platform, lake, "short", bars=-5)
