"""Deployments: one version a role at a time, refusals, and the answer to "what was live when"."""

import json
from pathlib import Path

import lightgbm
import numpy as np
import pytest
from typer.testing import CliRunner

from tests.learning.markets import HOUR, PLAN, START, plant, version_row, walk
from trading_platform.identifiers import DatasetId, VersionId
from trading_platform.learning import commands
from trading_platform.learning.artifact import ArtifactError, write_artifact
from trading_platform.learning.legacy import LegacyModelError, import_legacy
from trading_platform.learning.registry import (
    DeploymentRefusedError,
    UnknownVersionError,
    deploy,
    history,
    lineage,
    live_at,
    register,
    retire,
    serving,
)
from trading_platform.learning.servable import load
from trading_platform.market_data.lake import Lake
from trading_platform.storage.databases import Databases

DOCUMENT = {
    "kind": "logistic",
    "features": list(PLAN.features),
    "feature_hash": PLAN.feature_hash,
    "model": {"kind": "logistic", "mean": [0] * 5, "scale": [1] * 5, "weights": [0.1] * 5, "intercept": 0.0},
    "calibrator": {"method": "identity"},
    "venn_abers": None,
    "threshold": 0.5,
    "certified": False,
    "outliers": None,
}


@pytest.fixture
def dataset_id(platform: Databases) -> DatasetId:
    dataset = plant(platform, Lake(platform.settings.lake_dir), {"A/X": walk(100, 1)}, "d")
    path, sha256 = write_artifact(platform.settings.artifacts_dir, DOCUMENT)
    with platform.control() as session:
        for number in (1, 2, 3):
            parent = f"v_{number - 1}" if number > 1 else None
            row = version_row(dataset, f"v_{number}", artifact_path=path, artifact_sha256=sha256, parent_id=parent,
                              expires_at=START + 100 * HOUR)  # fmt: skip
            register(session, row)
    return dataset


def put(platform: Databases, dataset_id: DatasetId, role: str, version: str, hour: int, **options) -> None:
    with platform.control() as session:
        deploy(session, platform.settings, dataset_id=dataset_id, strategy_id=PLAN.strategy_id, role=role,
               version_id=VersionId(version), market_time=START + hour * HOUR, reason="test", by="test", **options)  # fmt: skip


def live(platform: Databases, dataset_id: DatasetId, hour: float) -> dict[str, str]:
    with platform.control() as session:
        found = live_at(session, dataset_id, PLAN.strategy_id, START + hour * HOUR)
    return {role: row.version_id for role, row in found.versions()}


def test_history_answers_what_was_live_when(
    platform: Databases, dataset_id: DatasetId, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(platform, dataset_id, "champion", "v_1", 1)
    put(platform, dataset_id, "challenger", "v_2", 2)
    put(platform, dataset_id, "champion", "v_1", 3)  # already there: nothing changes
    with platform.control() as session:
        assert retire(session, dataset_id=dataset_id, strategy_id=PLAN.strategy_id, role="challenger",
                      market_time=START + 5 * HOUR)  # fmt: skip
    put(platform, dataset_id, "champion", "v_2", 5)
    assert live(platform, dataset_id, 0.5) == {}
    assert live(platform, dataset_id, 1) == {"champion": "v_1"}
    assert live(platform, dataset_id, 4) == {"champion": "v_1", "challenger": "v_2"}
    assert live(platform, dataset_id, 5) == {"champion": "v_2"}
    with platform.control() as session:
        rows = history(session, dataset_id, PLAN.strategy_id)
        assert [(row.version_id, row.to_time) for row in rows] == [
            ("v_1", START + 5 * HOUR), ("v_2", START + 5 * HOUR), ("v_2", None),
        ]  # fmt: skip
        assert serving(session, dataset_id, PLAN.strategy_id).challenger is None
        assert [row.version_id for row in lineage(session, "v_3")] == ["v_3", "v_2", "v_1"]

    # and the commands say the same
    monkeypatch.setattr(commands, "settings", lambda: platform.settings)
    monkeypatch.setenv("COLUMNS", "200")
    runner = CliRunner()
    listed = runner.invoke(commands.models, ["list"])
    assert listed.exit_code == 0
    assert all(f"v_{number}" in listed.output for number in (1, 2, 3))
    assert "champion" in listed.output
    shown = runner.invoke(commands.models, ["show", "v_3"])
    assert "v_3 <- v_2 <- v_1" in shown.output
    assert "serving" in runner.invoke(commands.models, ["history", "--dataset", dataset_id]).output
    assert runner.invoke(commands.models, ["show", "v_9"]).exit_code == 1


def test_what_may_not_serve_is_refused(platform: Databases, dataset_id: DatasetId) -> None:
    plant(platform, Lake(platform.settings.lake_dir), {"A/X": walk(100, 1)}, "other")
    put(platform, dataset_id, "champion", "v_1", 1)
    with pytest.raises(DeploymentRefusedError, match="never trades another"):
        put(platform, DatasetId("other"), "champion", "v_1", 1)
    with pytest.raises(DeploymentRefusedError, match="expired"):
        put(platform, dataset_id, "champion", "v_2", 101)
    with pytest.raises(DeploymentRefusedError, match="already serves as champion"):
        put(platform, dataset_id, "challenger", "v_1", 2)
    with pytest.raises(DeploymentRefusedError, match="cannot have ended"):
        put(platform, dataset_id, "champion", "v_2", 0)
    with pytest.raises(ArtifactError, match="running feature set"):
        put(platform, dataset_id, "challenger", "v_2", 2, feature_hash="f_other")
    with pytest.raises(UnknownVersionError, match="models list"):
        put(platform, dataset_id, "challenger", "v_9", 2)
    with platform.control() as session:
        row = serving(session, dataset_id, PLAN.strategy_id).champion
        assert row is not None
    path = platform.settings.artifacts_dir / row.artifact_path
    path.write_text(path.read_text().replace("0.1", "0.2"))
    with pytest.raises(ArtifactError, match="was changed"):
        put(platform, dataset_id, "challenger", "v_2", 2)


def test_the_old_model_enters_as_champion(platform: Databases, dataset_id: DatasetId, tmp_path: Path) -> None:
    model, claims = tmp_path / "model.json", tmp_path / "figures.csv"
    model.write_text(json.dumps({"feature_names": ["volume", "momentum_1"], "weights": [2.0, 1.0], "intercept": -1.0}))
    claims.write_text("figure,value\naccuracy,0.893\n")
    arguments = {
        "dataset_id": dataset_id, "strategy_id": PLAN.strategy_id, "features": PLAN.features,
        "feature_hash": PLAN.feature_hash, "model_file": model, "figures_file": claims,
        "market_time": START, "by": "test",
    }  # fmt: skip
    row, created = import_legacy(platform, **arguments)
    assert created
    assert (row.kind, row.origin) == ("legacy", "import")
    assert row.metrics["claimed"] == {"accuracy": 0.893}
    assert "accuracy" not in row.metrics, "a claim is not a measurement"
    assert import_legacy(platform, **arguments)[1] is False
    assert live(platform, dataset_id, 1) == {"champion": row.version_id}
    servable = load(platform.settings, row)
    odds = 2.0 * 0.5 + 1.0 * 0.25 - 1.0  # by hand: volume is the third feature, momentum_1 the first
    scored = servable.score(np.array([0.25, 9.0, 0.5, 9.0, 9.0]))
    assert scored.probability == pytest.approx(1 / (1 + np.exp(-odds)))
    assert (scored.lower, scored.upper) == (0.0, 1.0)
    model.write_text(json.dumps({"feature_names": ["moon"], "weights": [1.0], "intercept": 0.0}))
    with pytest.raises(LegacyModelError, match="moon"):
        import_legacy(platform, **arguments)

    # LightGBM's own text file is the other shape
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(500, 2))
    names = ["range", "momentum_6"]
    booster = lightgbm.train(
        {"objective": "binary", "verbosity": -1},
        lightgbm.Dataset(matrix, matrix[:, 0] > matrix[:, 1], feature_name=names), 20,
    )  # fmt: skip
    booster.save_model(tmp_path / "model.txt")
    row, _ = import_legacy(
        platform, dataset_id=dataset_id, strategy_id=PLAN.strategy_id, features=PLAN.features,
        feature_hash=PLAN.feature_hash, model_file=tmp_path / "model.txt", figures_file=None, market_time=START, by="test",
    )  # fmt: skip
    rows = rng.normal(size=(50, 5))
    servable = load(platform.settings, row)
    expected = booster.predict(rows[:, [3, 1]])
    assert servable.score_many(rows).probability == pytest.approx(expected)
    assert [servable.score(r).probability for r in rows] == pytest.approx(expected)
