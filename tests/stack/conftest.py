"""A stack of small programs under the real keeper and supervisor.

It runs in a process of its own: a supervisor reaps every child and ends every orphan of the process it lives in, and
pytest has children that it must not touch.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from trading_platform.stack.processes import RUN_MARKER

PRELUDE = """
import asyncio, os, signal, sys, time
from pathlib import Path
from trading_platform.stack.keeper import AlreadyRunningError, end_leftovers, keep
from trading_platform.stack.readiness import http_ok
from trading_platform.stack.supervisor import Service, ServiceFailedError, Supervisor

HOME = Path(sys.argv[1])
RUN_ID = sys.argv[2]

def python(code):
    return [sys.executable, "-I", "-S", "-c", code]  # without the packages it starts at once

async def until_stopped():
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    print("UP", flush=True)
    await stop.wait()

def run(keeper):
    async def main():
        print("LEFTOVERS", end_leftovers(HOME), flush=True)
        supervisor = Supervisor(HOME, RUN_ID)
        try:
            return await scenario(supervisor) or 0
        finally:
            await supervisor.stop()
    return asyncio.run(main())
"""
MAIN = """
try:
    sys.exit(keep(HOME, run))
except AlreadyRunningError as error:
    sys.exit(f"REFUSED {error}")
"""


class SmallStack:
    """One run of a scenario, seen from outside."""

    def __init__(self, home: Path, script: Path, run_id: str) -> None:
        self.home = home
        self.run_id = run_id
        self.process = subprocess.Popen(
            [sys.executable, str(script), str(home), run_id],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def wait_up(self) -> "SmallStack":
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("UP"):
                return self
        raise AssertionError(f"the scenario ended with {self.process.wait()}")

    def output(self, timeout: float = 20) -> str:
        return self.process.communicate(timeout=timeout)[0]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> float:
        """Seconds until everything had ended."""
        began = time.monotonic()
        self.process.send_signal(number)
        self.process.communicate(timeout=20)
        return time.monotonic() - began

    def service(self, name: str) -> dict[str, object]:
        return json.loads((self.home / "run" / "stack.json").read_text())["services"][name]

    def pid(self, name: str) -> int:
        return int(str(self.service(name)["pid"]))

    def supervisor_pid(self) -> int:
        return int(json.loads((self.home / "run" / "stack.json").read_text())["supervisor"]["pid"])

    def alive(self) -> list[psutil.Process]:
        """Every process that a service of this run is or has started, whoever is its parent now."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(RUN_MARKER) == self.run_id and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def small_stack(home: Path, tmp_path: Path) -> Iterator[Callable[[str], SmallStack]]:
    """`small_stack(scenario)` starts one; `scenario` is the body of `async def scenario(supervisor)`."""
    started: list[SmallStack] = []

    def start(scenario: str) -> SmallStack:
        number = len(started)
        script = tmp_path / f"scenario{number}.py"
        body = "\n".join(f"    {line}" for line in scenario.strip().splitlines())
        script.write_text(f"{PRELUDE}\nasync def scenario(supervisor):\n{body}\n{MAIN}")
        started.append(SmallStack(home, script, f"test-{os.getpid()}-{tmp_path.name}-{number}"))
        return started[-1]

    yield start
    for stack in started:
        for process in stack.alive():
            process.kill()
        stack.process.kill()
        stack.process.communicate()


def until(condition: Callable[[], bool], within: float = 10.0) -> float:
    """Seconds until `condition` held."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < within, f"not within {within} s"
        time.sleep(0.02)
    return time.monotonic() - began
