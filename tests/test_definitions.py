"""What Dagster shows, written down: an accidental change of an asset, job, sensor or schedule shows as a diff here."""

import subprocess
import sys

import dagster as dg
import pytest

from assets.platform import Platform
from definitions import build_defs

pytestmark = pytest.mark.xdist_group("dagster")

ASSETS = {
    "market_data": {"bars", "compacted_lake"},
    "features": {"features"},
    "models": {"baseline_model", "model_card", "retrained_model", "serving", "trained_model"},
    "evaluation": {"ab_evaluation", "drift_report", "model_performance", "promotion"},
    "execution": {
        "fills",
        "fno_ban_list",
        "kite_preflight",
        "live_execution",
        "live_session",
        "parity_report",
        "reconciliation",
        "trade_outcomes",
    },
}
JOBS = {
    "ban_list",
    "compact",
    "collect",
    "train",
    "retrain",
    "evaluate",
    "model_cards",
    "execution",
    "marts",
    "compliance",
    "morning",
}
SENSORS = {"drift_retraining", "engine_observations", "evaluation_due", "kite_watch", "new_model_versions"}
SCHEDULES = {
    "weekly_retraining", "marts_every_15_minutes", "daily_compliance",
    "ban_list_before_the_open", "daily_compaction", "kite_morning",
}  # fmt: skip
CHECKS = {
    "bars:expectations", "bars:history_is_complete", "features:forgets_and_serves_alike", "features:looks_at_no_future",
    "live_session:logged_in", "fills:orders_add_up", "reconciliation:books_match", "live_execution:engine_alive", "audit_verification:chains_are_whole", "kite_preflight:all_ready",
}  # fmt: skip


@pytest.fixture(scope="module")
def repository() -> dg.RepositoryDefinition:
    return build_defs().get_repository_def()


def by_group(repository: dg.RepositoryDefinition) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for node in repository.asset_graph.asset_nodes:
        if node.is_materializable:
            found.setdefault(node.group_name or "", set()).add(node.key.to_user_string())
    return found


def test_the_assets_are_in_their_groups(repository: dg.RepositoryDefinition) -> None:
    found = by_group(repository)
    assert {name: found[name] for name in ASSETS} == ASSETS
    assert {"analytics_export"} < found["marts"]
    assert {"audit_verification", "compliance_records"} < found["compliance"]


def test_jobs_sensors_and_schedules(repository: dg.RepositoryDefinition) -> None:
    assert {name for name in repository.job_names if not name.startswith("__")} == JOBS
    assert {sensor.name for sensor in repository.sensor_defs} == SENSORS
    assert {schedule.name for schedule in repository.schedule_defs} == SCHEDULES


def test_the_checks_of_our_own_assets(repository: dg.RepositoryDefinition) -> None:
    own = {name for names in ASSETS.values() for name in names} | {"audit_verification"}
    keys = repository.asset_graph.asset_check_keys
    assert {
        f"{key.asset_key.to_user_string()}:{key.name}" for key in keys if key.asset_key.to_user_string() in own
    } == CHECKS


def test_every_asset_is_described_and_can_be_materialized_from_the_ui(repository: dg.RepositoryDefinition) -> None:
    nodes = [node for node in repository.asset_graph.asset_nodes if node.is_materializable]
    assert [node.key for node in nodes if not node.description] == []
    assert [node.key for node in nodes if not node.is_executable] == []


def test_a_resource_can_be_swapped(tmp_path: object) -> None:
    swapped = build_defs({"platform": Platform(home_dir=str(tmp_path))})
    assert swapped.resources is not None
    assert swapped.resources["platform"].home_dir == str(tmp_path)


@pytest.mark.timeout(300)
def test_the_code_location_validates() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "dagster", "definitions", "validate", "-m", "definitions"],
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
