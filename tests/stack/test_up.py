"""`trading-platform up`, `status` and `down` with real servers; the pass and the platform's processes are small ones."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from trading_platform.settings import Settings
from trading_platform.stack.servers import free_port
from trading_platform.storage.databases import Databases
from trading_platform.storage.migrate import require_current

PROGRAM = """
import sys
from trading_platform.cli import app
from trading_platform.stack import services
from trading_platform.stack.supervisor import Service

def platform(plan):
    return [Service("api-1", ["sleep", "600"], env=plan.environment(), depends_on=("postgres", "valkey"))]

def dataset(plan, request):
    return [Service(f"engine-{group}", ["sleep", "600"]) for group in request.groups]

services.Plan.platform, services.Plan.dataset = platform, dataset
app(sys.argv[1:])
"""

ONE_PASS = """
import json, os, sys, time
from pathlib import Path

run_dir = Path(os.environ["TP_HOME_DIR"]) / "run"
print("ARGUMENTS", sys.argv[1:], flush=True)

def ask(dataset, groups):
    draft = run_dir / "dataset.tmp"
    draft.write_text(json.dumps({"dataset_id": dataset, "groups": groups, "venue": "binance"}))
    draft.replace(run_dir / "dataset.json")
    while True:
        state = json.loads((run_dir / "stack.json").read_text())["services"]
        engines = {name: entry["pid"] for name, entry in state.items() if name.startswith("engine-") and entry["ready"]}
        if set(engines) == {f"engine-{group}" for group in groups}:
            return engines
        time.sleep(0.05)

first = ask("one", ["a", "b"])
more = ask("one", ["a", "b", "c"])
other = ask("two", ["a"])
print("KEPT", first.items() <= more.items(), flush=True)
print("REPLACED", other["engine-a"] != first["engine-a"], flush=True)
if "--speed" in sys.argv:
    try:
        time.sleep(600)
    except KeyboardInterrupt:
        print("INTERRUPTED", flush=True)
        sys.exit(1)
sys.exit(7)
"""


class Platform:
    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self._script = folder / "small_platform.py"
        self._script.write_text(PROGRAM)
        (folder / "jobs").mkdir()
        (folder / "jobs" / "__init__.py").touch()
        (folder / "jobs" / "one_pass.py").write_text(ONE_PASS)
        self._env = {name: value for name, value in os.environ.items() if not name.startswith("TP_")}
        self._env |= {"PYTHONPATH": str(folder), "TP_HOME_DIR": str(self.home)}
        self.started: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        program = [str(self._script)] if arguments[0] == "up" else ["-m", "trading_platform.cli"]
        process = subprocess.Popen(
            [sys.executable, *program, *arguments],
            env=self._env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def state(self) -> dict[str, dict[str, object]]:
        return json.loads((self.home / "run" / "stack.json").read_text())


@pytest.fixture
def platform_of_its_own(tmp_path: Path) -> Iterator[Platform]:
    platform = Platform(tmp_path)
    yield platform
    for process in platform.started:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=20)


def _until_line(process: "subprocess.Popen[str]", start: str) -> str:
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if line.strip().startswith(start):
            return seen
    raise AssertionError(f"{start!r} was never said:\n{seen}")


def test_one_pass_and_the_end(platform_of_its_own: Platform) -> None:
    process = platform_of_its_own.start(
        "up", "--once", "--data", "synthetic", "--port", str(free_port()), "--", "--x", "1"
    )
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 7, output
    for name in ("postgres", "valkey", "migrations", "api-1"):
        assert f"✓ {name}" in output
    assert "ARGUMENTS ['--data', 'synthetic', '--once', '--x', '1']" in output
    assert "KEPT True" in output
    assert "REPLACED True" in output
    assert not (platform_of_its_own.home / "run" / "endpoints.json").exists()
    assert platform_of_its_own.state()["phase"] == "stopped"


def test_serving_status_recovery_and_down(platform_of_its_own: Platform) -> None:
    port = str(free_port())
    first = platform_of_its_own.start("up", "--port", port)
    shown = _until_line(first, "Serving.")
    assert "The pass failed (exit code 7)" in shown
    assert f"http://127.0.0.1:{port}/app/" in shown
    require_current(Databases(Settings(home_dir=platform_of_its_own.home)).engine(), "control", "control")
    status = platform_of_its_own.start("status")
    assert "postgres" in status.communicate(timeout=20)[0]
    assert status.returncode == 0

    # Keeper and supervisor at once: PostgreSQL is told by its death signal, and nobody waits for it.
    state = platform_of_its_own.state()
    database = psutil.Process(int(str(state["services"]["postgres"]["pid"])))  # type: ignore[index]
    supervisor = psutil.Process(int(str(state["supervisor"]["pid"])))
    supervisor.suspend()
    first.kill()
    supervisor.kill()
    first.communicate()
    second = platform_of_its_own.start("up", "--port", port, "--speed", "max")
    _until_line(second, "REPLACED")
    # Where nobody reaps orphans (a container without an init), an ended process stays as a zombie.
    assert not database.is_running() or database.status() == psutil.STATUS_ZOMBIE

    # In the middle of the pass: that is interrupted as by Ctrl-C, and everything is gone when `down` returns.
    pids = [int(str(entry["pid"])) for entry in platform_of_its_own.state()["services"].values() if entry["pid"]]  # type: ignore[index]
    down = platform_of_its_own.start("down")
    assert "Stopped." in down.communicate(timeout=20)[0]
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert "INTERRUPTED" in second.communicate(timeout=5)[0]
    assert second.returncode == 130


def test_taken_port_is_one_clear_error(platform_of_its_own: Platform) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        process = platform_of_its_own.start("up", "--port", str(other.getsockname()[1]))
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert f"(pid {os.getpid()}) listens there" in output
    assert "Traceback" not in output
