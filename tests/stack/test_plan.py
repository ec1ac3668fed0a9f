"""The list of services, the addresses they are told, the ports they get, and what `status` and `down` say of them."""

import json
import os
import shutil
import socket
import stat
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from trading_platform.cli import COMMANDS, app
from trading_platform.settings import ENDPOINTS_FILE, Settings
from trading_platform.stack.logfiles import open_log, rotate, tail
from trading_platform.stack.ports import Ports, PortTakenError, require_public_port
from trading_platform.stack.services import DatasetRequest, Plan
from trading_platform.stack.supervisor import Service
from trading_platform.stack.up import Order, fresh_settings

REQUEST = DatasetRequest("ds_1", ("g1", "g2"), venue="binance")


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    for name in ("TP_DATABASE_URL", "TP_REDIS_URL", "TP_HOME_DIR"):
        monkeypatch.delenv(name, raising=False)
    return Plan(Settings(home_dir=tmp_path / "home", port=8444), scale=2)


def _all(plan: Plan) -> list[Service]:
    return [*plan.servers(), *plan.platform(), *plan.dataset(REQUEST)]


def test_every_process_of_the_platform_is_there(plan: Plan) -> None:
    assert {service.name for service in _all(plan)} == {
        "postgres", "valkey", "caddy", "api-1", "api-2", "dashboard-1", "dashboard-2", "dagster-code",
        "dagster-webserver", "dagster-readonly", "dagster-daemon", "sandbox", "collector", "scorer", "engine-g1",
        "engine-g2",
    }  # fmt: skip


def test_dependencies_are_started_before_those_who_need_them(plan: Plan) -> None:
    started: set[str] = set()
    for service in _all(plan):
        assert set(service.depends_on) <= started
        started.add(service.name)


def test_own_services_are_commands_of_the_platform(plan: Plan) -> None:
    own = [service.command for service in _all(plan) if service.command[0].endswith("/trading-platform")]
    assert len(own) == 7
    assert {command[1] for command in own} <= set(COMMANDS)
    assert all(shutil.which(service.command[0]) for service in _all(plan))


def test_stopping_fits_into_ten_seconds(plan: Plan) -> None:
    services = {service.name: service for service in _all(plan)}

    def seconds(service: Service) -> float:
        dependents = [other for other in services.values() if service.name in other.depends_on]
        return service.stop_timeout + max((seconds(other) for other in dependents), default=0.0)

    assert max(seconds(service) for service in services.values()) < 10.0


def test_no_secret_is_on_a_command_line(plan: Plan) -> None:
    endpoints = plan.endpoints()
    assert plan.postgres is not None
    assert plan.valkey is not None
    secrets = [plan.postgres.password, plan.valkey.password, str(endpoints["sandbox_admin_token"])]
    caddy = next(service for service in plan.platform() if service.name == "caddy")
    secrets.append(caddy.env["TP_STICKY_SECRET"])
    lines = " ".join(part for service in _all(plan) for part in service.command)
    assert not any(secret in lines for secret in secrets)


def test_every_other_process_reads_the_same_addresses(plan: Plan) -> None:
    plan.write_files()
    path = plan.settings.home / ENDPOINTS_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    seen = Settings(home_dir=plan.settings.home)
    assert plan.postgres is not None
    assert seen.database_url == SecretStr(plan.postgres.url)
    assert seen.api_url == plan.url == "http://127.0.0.1:8444"
    assert seen.port == 8444
    assert seen.sandbox_url == f"http://127.0.0.1:{plan.sandbox_port}"
    assert seen.dagster_url == f"http://127.0.0.1:{plan.webserver_port}"
    unknown = set(json.loads(path.read_text())) - set(Settings.model_fields)
    assert unknown == set()


def test_given_addresses_are_used_instead_of_embedded_servers(tmp_path: Path) -> None:
    given = Settings(
        home_dir=tmp_path,
        database_url=SecretStr("postgresql://someone:pw@db.example:5432/desk"),
        redis_url=SecretStr("redis://cache.example:6379/0"),
    )
    plan = Plan(given)
    assert plan.servers() == []
    assert {name for service in plan.platform() for name in service.depends_on} == {"dagster-code"}
    assert plan.endpoints()["database_url"] == "postgresql://someone:pw@db.example:5432/desk"
    dagster = plan.environment()["TP_DAGSTER_POSTGRES_URL"]
    assert dagster == "postgresql+psycopg2://someone:pw@db.example:5432/desk_dagster"


def test_addresses_of_a_killed_run_are_forgotten(plan: Plan) -> None:
    plan.write_files()
    settings = fresh_settings(Order(plan.settings.home, "run", port=8555))
    assert settings.database_url is None
    assert settings.port == 8555


def test_ports_stay_the_same_unless_they_are_taken(tmp_path: Path) -> None:
    first = Ports(tmp_path)
    given = {name: first.port(name) for name in ("api-1", "api-2", "dagster-code")}
    first.save()
    assert len(set(given.values())) == 3
    with socket.socket() as other:
        other.bind(("127.0.0.1", given["api-2"]))
        other.listen()
        again = Ports(tmp_path)
        assert again.port("api-1") == given["api-1"]
        assert again.port("dagster-code") == given["dagster-code"]
        assert again.port("api-2") not in given.values()


def test_taken_public_port_is_an_error_that_says_by_whom_and_what_to_do() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PortTakenError) as error:
            require_public_port("127.0.0.1", port)
    assert f"port {port} on 127.0.0.1 is not free" in str(error.value)
    assert f"(pid {os.getpid()}) listens there" in str(error.value)
    assert f"make run PORT={port + 1}" in str(error.value)
    require_public_port("127.0.0.1", port)


@pytest.mark.parametrize(
    "text", ["", "{", '{"dataset_id": "d"', '{"dataset_id": "d"}', "[]", "null", '{"groups": 3, "dataset_id": "d"}']
)
def test_half_a_request_is_no_request_yet(tmp_path: Path, text: str) -> None:
    path = tmp_path / "dataset.json"
    assert DatasetRequest.read(path) is None
    path.write_text(text)
    assert DatasetRequest.read(path) is None


def test_request_of_the_pass(plan: Plan, tmp_path: Path) -> None:
    path = tmp_path / "dataset.json"
    path.write_text('{"dataset_id": "ds_1", "groups": ["g1", "g2"], "venue": "binance"}')
    assert DatasetRequest.read(path) == REQUEST
    no_venue = plan.dataset(DatasetRequest("nifty", (), venue=None))
    assert [service.name for service in no_venue] == ["scorer"]
    assert no_venue[0].depends_on == ("postgres", "valkey")


def test_log_is_cut_in_place_while_a_child_writes_to_it(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "service.log"
    with open_log(path) as child:
        for number in range(30):
            child.write(b"%02d\n" % number)
            rotate(path, limit=24, keep=3)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    kept = [path.with_name(f"service.log.{age}").read_text() for age in (3, 2, 1)]
    assert "".join([*kept, path.read_text()]).split() == [f"{number:02}" for number in range(30)]
    assert not path.with_name("service.log.4").exists()
    assert tail(path, lines=2) == "28\n29"


def test_status_and_down_without_a_platform(tmp_path: Path) -> None:
    status = CliRunner().invoke(app, ["status", "--home", str(tmp_path)])
    assert status.exit_code == 3
    assert "Start one with" in " ".join(status.output.split())  # wrapped where the path is long
    down = CliRunner().invoke(app, ["down", "--home", str(tmp_path)])
    assert down.exit_code == 0


def test_python_of_the_children_is_ours(plan: Plan) -> None:
    assert next(s for s in plan.platform() if s.name == "dashboard-1").command[0] == sys.executable
    assert plan.one_pass("--data", "synthetic").command[:4] == [sys.executable, "-P", "-m", "jobs.one_pass"]
