"""`models list`, `show`, `diff`, `history`, `promote`, `rollback`: what a person may do to versions, and what not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.learning.markets import HOUR, PLAN, START
from tests.learning.test_registry import dataset_id, live, put  # noqa: F401  # the fixture with three versions
from trading_platform.identifiers import DatasetId
from trading_platform.learning import commands
from trading_platform.learning.experiments import start_experiment
from trading_platform.learning.registry import history
from trading_platform.storage.control import Experiment, MarketProgress
from trading_platform.storage.databases import Databases


@pytest.fixture
def run(platform: Databases, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(commands, "settings", lambda: platform.settings)

    def invoke(*arguments: str):
        return CliRunner().invoke(commands.models, list(arguments), env={"COLUMNS": "240"})

    return invoke


def last(result) -> dict:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.splitlines()[-1])


def whose(dataset: DatasetId) -> list[str]:
    return ["--dataset", dataset, "--strategy", PLAN.strategy_id]


def market_is_at(platform: Databases, dataset: DatasetId, hour: int) -> None:
    with platform.control() as session:
        session.merge(MarketProgress(dataset_id=dataset, scored_through=START + hour * HOUR, last_seq=0))


def test_a_rollback_puts_the_champion_before_back_and_says_who_and_why(
    platform: Databases,
    dataset_id: DatasetId,  # noqa: F811
    run,
) -> None:
    why = ["--reason", "it loses", "--by", "asha"]
    market_is_at(platform, dataset_id, 30)
    assert run("rollback", *whose(dataset_id), *why).exit_code == 1
    put(platform, dataset_id, "champion", "v_1", 1)
    refused = run("rollback", *whose(dataset_id), *why)
    assert refused.exit_code == 1
    assert "only champion" in refused.output
    put(platform, dataset_id, "champion", "v_2", 10)
    put(platform, dataset_id, "challenger", "v_1", 11)
    done = last(run("rollback", *whose(dataset_id), *why))
    assert (done["champion"], done["before"], done["market_time"]) == ("v_1", "v_2", (START + 30 * HOUR).isoformat())
    assert live(platform, dataset_id, 29) == {"champion": "v_2", "challenger": "v_1"}
    assert live(platform, dataset_id, 30) == {"champion": "v_1"}
    with platform.control() as session:
        newest = history(session, dataset_id, PLAN.strategy_id)[-1]
        assert (newest.version_id, newest.reason, newest.decided_by) == ("v_1", "it loses", "asha")


def test_only_evidence_promotes(platform: Databases, dataset_id: DatasetId, run) -> None:  # noqa: F811
    arguments = ["promote", *whose(dataset_id), "--by", "asha"]
    market_is_at(platform, dataset_id, 30)
    assert "no experiment runs" in run(*arguments).output
    put(platform, dataset_id, "champion", "v_1", 1)
    put(platform, dataset_id, "challenger", "v_2", 1)
    with platform.control() as session:
        experiment = start_experiment(
            session, dataset_id=dataset_id, strategy_id=PLAN.strategy_id, market_time=START + HOUR
        )
        assert experiment is not None
        experiment_id = experiment.experiment_id
    refused = run(*arguments)
    assert refused.exit_code == 1
    assert "only evidence" in " ".join(refused.output.split())
    assert live(platform, dataset_id, 31) == {"champion": "v_1", "challenger": "v_2"}
    with platform.control() as session:
        decided = session.get_one(Experiment, experiment_id)
        decided.decision, decided.lower, decided.samples = "promote", 0.01, 50
    done = last(run(*arguments))
    assert (done["champion"], done["before"], done["experiment"]) == ("v_2", "v_1", experiment_id)
    assert live(platform, dataset_id, 31) == {"champion": "v_2"}
    served = [(row["version"], row["role"], row["to"]) for row in last(run("history"))["deployments"]]
    until = (START + 30 * HOUR).isoformat()
    assert served == [("v_1", "champion", until), ("v_2", "challenger", until), ("v_2", "champion", None)]
    roles = {row["version"]: row["role"] for row in last(run("list", "--dataset", dataset_id))["versions"]}
    assert roles == {"v_1": None, "v_2": "champion", "v_3": None}


def test_a_diff_shows_what_differs_and_nothing_else(dataset_id: DatasetId, run) -> None:  # noqa: F811
    shown = last(run("diff", "v_1", "v_2"))
    assert set(shown["differ"]) == {"version", "parent"}
    assert shown["differ"]["parent"] == [None, "v_1"]
    assert "data_version" in shown["same"]
    assert last(run("show", "v_3"))["lineage"] == ["v_3", "v_2", "v_1"]
    unknown = run("diff", "v_1", "v_9")
    assert unknown.exit_code == 1
    assert "no model version 'v_9'" in " ".join(unknown.stderr.split())
    assert run("show", "v_9").exit_code == 1
    nowhere = run("rollback", "--dataset", "d_9", "--strategy", "s", "--reason", "r", "--by", "asha")
    assert (nowhere.exit_code, nowhere.stdout) == (1, "")
    assert "no dataset 'd_9'" in " ".join(nowhere.stderr.split())


def test_without_a_database_a_command_says_what_to_do(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trading_platform.cli", "models", "list"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TP_")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment | {"TP_HOME_DIR": str(tmp_path)})
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "Start the platform" in " ".join(done.stderr.split())
