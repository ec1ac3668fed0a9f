"""Versions built again from their registry rows: the same bytes, or the name of what changed."""

from dataclasses import replace

import pytest

from tests.learning.markets import HOUR, PLAN, START, plant, walk
from trading_platform.identifiers import DatasetId
from trading_platform.learning.plan import TrainingPlan
from trading_platform.learning.rebuilding import Rebuilt, rebuild
from trading_platform.learning.training import TrainedVersion, train_version
from trading_platform.market_data.lake import Lake
from trading_platform.storage.control import ModelVersion
from trading_platform.storage.databases import Databases

BARS = 2_400


@pytest.fixture
def lake(platform: Databases) -> Lake:
    return Lake(platform.settings.lake_dir)


def train(platform: Databases, lake: Lake, dataset_id: str, bars: int = BARS, **options) -> TrainedVersion:
    arguments = {"kind": "lightgbm", "origin": "initial", "trials": 2} | options
    return train_version(platform, lake, PLAN, dataset_id=DatasetId(dataset_id), as_of=START + bars * HOUR, **arguments)


def again(platform: Databases, lake: Lake, trained: TrainedVersion, plan: TrainingPlan = PLAN) -> Rebuilt:
    return rebuild(platform, lake, lambda row: plan, trained.version_id)


def test_a_version_and_its_update_are_built_again_bit_for_bit(platform: Databases, lake: Lake) -> None:
    dataset_id = plant(platform, lake, {"A/X": walk(BARS + 1_200, 1, 2.0), "B/X": walk(BARS + 1_200, 2, 2.0)}, "market")
    first = train(platform, lake, dataset_id)
    update = train(platform, lake, dataset_id, BARS + 1_200, origin="weekly", parent_id=first.version_id)
    assert update.row.params["arm"] != "first"
    for trained in (first, update):
        found = again(platform, lake, trained)
        assert found.same, found.differences
        assert found.differences == {}
        assert found.rebuilt == trained.row.artifact_sha256


def test_what_changed_is_named(platform: Databases, lake: Lake) -> None:
    dataset_id = plant(platform, lake, {"A/X": walk(BARS, 1, 2.0)}, "market")
    trained = train(platform, lake, dataset_id, kind="logistic")
    other = again(platform, lake, trained, replace(PLAN, target_coverage=PLAN.target_coverage / 2))
    assert set(other.differences) == {"plan"}
    assert not other.same, "the threshold is another one"

    with platform.control() as session:
        session.get_one(ModelVersion, trained.version_id).seed += 1
    assert set(again(platform, lake, trained).differences) == {"seed or row"}

    with platform.control() as session:
        row = session.get_one(ModelVersion, trained.version_id)
        row.seed -= 1
        row.code_version = "code_of_last_year"
    found = again(platform, lake, trained)
    assert set(found.differences) == {"code"}
    assert found.same, "a change of code that changes no number is named, and the file is the same"

    with platform.control() as session:
        row = session.get_one(ModelVersion, trained.version_id)
        row.params = row.params | {"hyperparameters": row.params["hyperparameters"] | {"C": 1e-6}}
    assert not again(platform, lake, trained).same

    bars = lake.bars(dataset_id)
    changed = bars.with_columns(close=bars["close"] * 1.01, high=bars["high"] * 1.01)[:50]
    lake.write_bars(changed)
    assert "data" in again(platform, lake, trained).differences
