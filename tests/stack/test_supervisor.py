"""Services are kept running, started in order, ended in order, and leave nothing behind."""

import itertools
import os
import signal
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.stack.conftest import SmallStack, until

Start = Callable[[str], SmallStack]

TWO = """
supervisor.add(
    Service("store", ["sleep", "600"]),
    Service("web", ["sleep", "600"], depends_on=("store",)),
)
await supervisor.ready("store", "web", within=10)
await until_stopped()
"""


def test_killed_service_is_back_and_its_dependents_go_on(small_stack: Start) -> None:
    stack = small_stack(TWO).wait_up()
    store, web = stack.pid("store"), stack.pid("web")
    os.kill(store, signal.SIGKILL)
    took = until(lambda: stack.service("store")["pid"] not in (store, None) and bool(stack.service("store")["ready"]))
    assert took < 2.0
    assert stack.service("store")["restarts"] == 1
    assert stack.service("store")["last_exit"] == -signal.SIGKILL
    assert stack.pid("web") == web


def test_delay_before_a_restart_doubles(small_stack: Start, home: Path) -> None:
    stack = small_stack(
        """
supervisor.add(Service("failing", python("import time; print(time.time())")))
await asyncio.sleep(2)
"""
    )
    stack.output()
    starts = [float(line) for line in (home / "logs" / "failing.log").read_text().split()]
    gaps = [later - earlier for earlier, later in itertools.pairwise(starts)]
    assert len(gaps) >= 3
    # 0.2, 0.4, 0.8, ... seconds, and on top what it takes to start an interpreter
    for number, gap in enumerate(gaps):
        assert 0.2 * 2**number <= gap < 0.2 * 2**number + 0.6


def test_services_end_before_what_they_depend_on(small_stack: Start, home: Path) -> None:
    stack = small_stack(
        """
def noting(name):
    note = f"open({str(HOME / 'order')!r}, 'a').write({name!r} + chr(10))"
    return python(f"import signal, sys, time\\n"
        f"def end(*_):\\n    time.sleep(0.2)\\n    {note}\\n    sys.exit(0)\\n"
        "signal.signal(signal.SIGTERM, end)\\nprint('listening', flush=True)\\ntime.sleep(600)")
def listening(name):
    return lambda: "listening" in (HOME / "logs" / f"{name}.log").read_text()
supervisor.add(
    Service("database", noting("database"), ready=listening("database")),
    Service("exchange", noting("exchange"), ready=listening("exchange"), depends_on=("database",)),
    Service("engine", noting("engine"), ready=listening("engine"), depends_on=("exchange", "database")),
)
await supervisor.ready("database", "exchange", "engine", within=10)
await until_stopped()
"""
    ).wait_up()
    stack.stop()
    assert (home / "order").read_text().split() == ["engine", "exchange", "database"]
    assert stack.process.returncode == 0


STUBBORN = """
deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
grandchild = deaf + "time.sleep(600)"
parent = deaf + f"import subprocess, sys; subprocess.Popen([sys.executable, '-I', '-S', '-c', {grandchild!r}], start_new_session=True); time.sleep(600)"
supervisor.add(Service("deaf", python(parent)), Service("deaf-too", python(parent)))
await supervisor.ready("deaf", "deaf-too", within=10)
await asyncio.sleep(0.5)
await until_stopped()
"""


def test_children_and_grandchildren_that_ignore_sigterm_end_within_ten_seconds(small_stack: Start) -> None:
    stack = small_stack(STUBBORN).wait_up()
    assert len(stack.alive()) == 4
    assert stack.stop(signal.SIGINT) < 10.0
    assert stack.alive() == []


def test_orphans_of_a_killed_service_end_before_it_starts_again(small_stack: Start, home: Path) -> None:
    stack = small_stack(
        """
worker = "import socket, time; s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); print(s.getsockname()[1], flush=True); time.sleep(600)"
parent = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-I', '-S', '-c', {worker!r}]); time.sleep(600)"
supervisor.add(Service("pool", python(parent)))
await until_stopped()
"""
    ).wait_up()
    log = home / "logs" / "pool.log"
    until(lambda: log.exists() and bool(log.read_text().strip()))
    parent = psutil.Process(stack.pid("pool"))
    (worker,) = parent.children()
    parent.kill()
    until(lambda: stack.service("pool")["restarts"] == 1)
    assert not worker.is_running()


def test_service_that_never_comes_up_is_an_error_with_its_log(small_stack: Start) -> None:
    stack = small_stack(
        """
supervisor.add(
    Service("broken", python("raise SystemExit('the licence has expired')"), ready=lambda: False),
    Service("absent", ["/no/such/program"]),
)
for name in ("broken", "absent"):
    try:
        await supervisor.ready(name, within=20)
    except ServiceFailedError as error:
        print("ERROR", error)
"""
    )
    output = stack.output()
    assert "ERROR broken ends as soon as it starts (exit code 1)" in output
    assert "the licence has expired" in output
    assert "ERROR absent" in output
    assert "cannot start /no/such/program" in output


def test_server_that_hangs_is_started_again(small_stack: Start) -> None:
    stack = small_stack(
        """
import socket
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
supervisor.add(Service("web", [sys.executable, "-I", "-S", "-m", "http.server", str(port), "--bind", "127.0.0.1"],
    ready=http_ok(f"http://127.0.0.1:{port}/"), restart_if_unready_for=1.0, stop_timeout=0.5))
await supervisor.ready("web", within=10)
await until_stopped()
"""
    ).wait_up()
    hanging = stack.pid("web")
    os.kill(hanging, signal.SIGSTOP)
    took = until(lambda: stack.service("web")["pid"] not in (hanging, None) and bool(stack.service("web")["ready"]), 15)
    assert took > 1.0


def test_services_can_be_replaced_while_others_run(small_stack: Start) -> None:
    stack = small_stack(
        """
sleep = ["sleep", "600"]
supervisor.add(Service("store", sleep), Service("engine-a", sleep, depends_on=("store",)))
await supervisor.ready("store", "engine-a", within=10)
await supervisor.remove("engine-a")
supervisor.add(Service("engine-b", sleep, depends_on=("store",)))
await supervisor.ready("engine-b", within=10)
print("NAMES", supervisor.names())
code = await supervisor.run_to_end(Service("pass", python("raise SystemExit(7)"), restart=False))
print("CODE", code)
try:
    supervisor.add(Service("lost", sleep, depends_on=("nobody",)))
except ValueError as error:
    print("ERROR", error)
"""
    )
    output = stack.output()
    assert "NAMES ['store', 'engine-b']" in output
    assert "CODE 7" in output
    assert "ERROR service 'lost' depends on ['nobody'], which nobody added" in output
    assert stack.alive() == []


def test_ctrl_c_reaches_children_even_of_a_shell_that_ignores_it(small_stack: Start) -> None:
    """A shell starts `make run &` with SIGINT ignored, and that is inherited by every program started from there."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        stack = small_stack(
            """
catch = "import time\\ntry:\\n    print('waiting', flush=True)\\n    time.sleep(600)\\nexcept KeyboardInterrupt:\\n    print('interrupted')"
supervisor.add(Service("pass", python(catch), stop_signal=signal.SIGINT,
    ready=lambda: "waiting" in (HOME / "logs" / "pass.log").read_text()))
await supervisor.ready("pass", within=10)
await until_stopped()
"""
        ).wait_up()
    finally:
        signal.signal(signal.SIGINT, before)
    stack.stop()
    assert "interrupted" in (stack.home / "logs" / "pass.log").read_text()


QUICK = STUBBORN.replace("python(parent)", "python(parent), stop_timeout=0.5")


def test_nothing_survives_the_supervisor_and_the_next_start_waits_for_that(small_stack: Start) -> None:
    first = small_stack(STUBBORN).wait_up()
    assert len(first.alive()) == 4
    os.kill(first.supervisor_pid(), signal.SIGKILL)
    second = small_stack(TWO).wait_up()
    assert first.alive() == []
    assert "the supervisor was ended by SIGKILL; 4 processes it left were ended too" in first.output()
    assert first.process.returncode == 1
    second.stop()


def test_nothing_survives_the_keeper(small_stack: Start) -> None:
    stack = small_stack(QUICK).wait_up()
    supervisor = psutil.Process(stack.supervisor_pid())
    stack.process.kill()
    assert stack.process.wait() == -signal.SIGKILL
    until(lambda: not supervisor.is_running() or supervisor.status() == psutil.STATUS_ZOMBIE)
    assert stack.alive() == []


def test_next_start_ends_what_is_left_when_keeper_and_supervisor_died_at_once(small_stack: Start) -> None:
    first = small_stack(QUICK).wait_up()
    supervisor = psutil.Process(first.supervisor_pid())
    supervisor.suspend()  # or it would begin to clean up in the instant between the two signals
    first.process.kill()
    supervisor.kill()
    first.process.wait()
    until(lambda: not supervisor.is_running() or supervisor.status() == psutil.STATUS_ZOMBIE)
    left = len(first.alive())
    assert left > 0, "grandchildren hear nothing of it"
    second = small_stack(TWO)
    assert second.process.stdout is not None
    line = next(line for line in second.process.stdout if line.startswith("LEFTOVERS"))
    assert int(line.split()[1]) == left
    second.wait_up()
    assert first.alive() == []
    second.stop()


def test_one_stack_a_home_folder(small_stack: Start) -> None:
    first = small_stack(TWO).wait_up()
    second = small_stack(TWO)
    output = second.output()
    assert second.process.returncode == 1
    assert "REFUSED a platform already runs from" in output
    assert "trading-platform down" in output
    assert first.service("web")["ready"]
    first.stop()
    small_stack(TWO).wait_up().stop()
