"""`trading-platform import-legacy` on the command line: people, keys, sessions and the model of the samples."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from sqlalchemy import select
from typer.testing import CliRunner

from trading_platform.api.legacy import import_legacy
from trading_platform.storage.control import Dataset, Deployment, ModelVersion, User
from trading_platform.storage.databases import Databases

SAMPLES = Path(__file__).resolve().parents[2] / "docs" / "samples" / "legacy"


def test_samples_and_model_come_in_and_no_secret_is_shown(platform: Databases) -> None:
    with platform.control() as session:
        session.add(
            Dataset(dataset_id="d1", kind="venue", venue="binance", source="x", interval_seconds=3600, symbols={})
        )
    assert platform.settings.database_url is not None
    environment = os.environ | {
        "TP_HOME_DIR": str(platform.settings.home),
        "TP_DATABASE_URL": platform.settings.database_url.get_secret_value(),
        "COLUMNS": "200",
    }
    model = ["--model", str(SAMPLES / "model.json"), "--figures", str(SAMPLES / "figures.csv"), "--dataset", "d1"]
    people = [str(SAMPLES / "dump.sql"), "--timezone", "Asia/Kolkata"]
    command = [sys.executable, "-m", "trading_platform.cli", "import-legacy", *people, *model]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Delete the plain text now" in done.stdout
    assert "sample-secret" not in done.stdout + done.stderr
    with platform.control() as session:
        assert session.scalar(select(User.display_name).where(User.email == "olga@example.com")) == "Olga O'Neill"
        version = session.scalars(select(ModelVersion)).one()
        assert (version.kind, version.metrics["claimed"]) == ("legacy", {"accuracy": 0.893})
        serving = session.scalars(select(Deployment).where(Deployment.to_time.is_(None))).one()
        assert (serving.version_id, serving.role) == (version.version_id, "champion")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to import"),
        (["x", "--timezone", "Mars/Base"], "not known; expected a name"),
        (["none"], "not exist"),
    ],
)
def test_what_cannot_be_done_is_said_without_a_traceback(tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "x").touch()
    app = typer.Typer()
    app.command()(import_legacy)
    done = CliRunner().invoke(app, [str(tmp_path / arguments[0]), *arguments[1:]] if arguments else [])
    assert done.exit_code == 2
    assert message in done.output
    assert isinstance(done.exception, SystemExit)
