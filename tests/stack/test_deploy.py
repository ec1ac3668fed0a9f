"""What is in deploy/ is read by the programs it is for, and speaks of things that exist."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import SecretStr
from sqlalchemy import make_url

from trading_platform.cli import COMMANDS
from trading_platform.settings import Settings
from trading_platform.stack.services import Plan
from trading_platform.storage.databases import ensure_databases

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
YAML_FILES = sorted([*DEPLOY.rglob("*.yaml"), *DEPLOY.rglob("*.yml")])


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: path.name)
def test_yaml_is_yaml(path: Path) -> None:
    assert all(document for document in yaml.safe_load_all(path.read_text()))


@pytest.mark.parametrize("path", [path for path in DEPLOY.rglob("*") if path.is_file()], ids=lambda path: path.name)
def test_every_variable_is_one_of_the_settings(path: Path) -> None:
    known = {f"TP_{name.upper()}" for name in Settings.model_fields}
    known |= {"TP_DAGSTER_POSTGRES_URL", "TP_DATASET"}
    known |= {"TP_SITE", "TP_BIND", "TP_API_UPSTREAMS", "TP_DASHBOARD_UPSTREAMS", "TP_DAGSTER_UPSTREAM"}
    known |= {"TP_STICKY_SECRET", "TP_CADDY_DIR", "TP_ACCESS_LOG"}
    assert set(re.findall(r"\bTP_[A-Z_]*[A-Z]\b", path.read_text())) <= known


def test_alert_rules_ask_for_metrics_that_exist() -> None:
    from prometheus_client import REGISTRY

    import trading_platform.observability.metrics  # noqa: F401 (declares them)

    exist = {
        sample
        for metric in REGISTRY.collect()
        for sample in (metric.name, f"{metric.name}_total", f"{metric.name}_bucket")
    }
    rules = [
        rule
        for group in yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())["groups"]
        for rule in group["rules"]
    ]
    for rule in rules:
        assert set(re.findall(r"\btp_\w+", rule["expr"])) <= exist, rule["alert"]
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert {"summary", "description"} <= set(rule["annotations"])
    assert {"EngineDown", "LeaseStale", "ScorerLag", "OrderUnknown", "ApiErrors", "DriftDetected"} <= {
        rule["alert"] for rule in rules
    }


def test_containers_call_commands_that_exist() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    assert set(compose["platform"]["depends_on"]) <= set(compose)
    entry = json.loads(re.search(r"ENTRYPOINT (.*)", (DEPLOY / "Dockerfile").read_text())[1])
    assert entry[1] in COMMANDS
    assert compose["platform"]["healthcheck"]["test"][2] in COMMANDS


def test_kubernetes_manifests_name_each_other() -> None:
    documents = [d for path in (DEPLOY / "kubernetes").glob("*.yaml") for d in yaml.safe_load_all(path.read_text())]
    by_kind = {document["kind"]: document for document in documents}
    pod = by_kind["StatefulSet"]["spec"]["template"]
    assert by_kind["Service"]["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert by_kind["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    backend = by_kind["Ingress"]["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
    assert backend["name"] == by_kind["Service"]["metadata"]["name"] == by_kind["StatefulSet"]["spec"]["serviceName"]
    (container,) = pod["spec"]["containers"]
    claims = {claim["metadata"]["name"] for claim in by_kind["StatefulSet"]["spec"]["volumeClaimTemplates"]}
    assert {mount["name"] for mount in container["volumeMounts"]} <= claims
    assert pod["spec"]["terminationGracePeriodSeconds"] > 10


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    for unit in (DEPLOY / "systemd").glob("*.service"):
        text = unit.read_text().replace("/opt/trading-platform/.venv/bin/trading-platform", "/bin/true")
        (tmp_path / unit.name).write_text(text)
        command = re.search(r"ExecStart=\S+ (\S+)", unit.read_text())
        assert command
        assert command[1] in COMMANDS
    units = [str(path) for path in tmp_path.glob("*.service")]
    result = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True)
    complaints = [line for line in result.stderr.splitlines() if str(tmp_path) in line]
    assert complaints == []


def test_dagster_takes_its_configuration_and_stores_in_postgresql(postgres_url: str, tmp_path: Path) -> None:
    """Also that the address passes through as it is: psycopg 3 breaks Dagster's LISTEN."""
    url = make_url(postgres_url).set(database=f"stack_{os.getpid()}").render_as_string(hide_password=False)
    settings = Settings(home_dir=tmp_path, database_url=SecretStr(url))
    ensure_databases(settings)
    plan = Plan(settings)
    plan.write_files()
    program = """
import dagster as dg
from dagster._core.workspace.load import location_origins_from_yaml_paths
with dg.DagsterInstance.get() as instance:
    assert instance.run_monitoring_enabled
    assert type(instance.run_coordinator).__name__ == "QueuedRunCoordinator"
    assert instance.get_concurrency_config().run_queue_config.max_concurrent_runs == 2
    assert not instance.telemetry_enabled
    assert instance.event_log_storage.postgres_url.startswith("postgresql+psycopg2://")
    instance.add_dynamic_partitions("group", ["g1"])
    assert instance.get_dynamic_partitions("group") == ["g1"]
    (origin,) = location_origins_from_yaml_paths([f"{instance.root_directory}/workspace.yaml"])
    print(origin.port)
"""
    result = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | plan.environment(), capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert int(result.stdout) == plan.code_port
