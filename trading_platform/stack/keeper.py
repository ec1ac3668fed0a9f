"""The keeper: the small process above the supervisor, for the day the supervisor itself is killed.

Children of the supervisor hear of its death (PR_SET_PDEATHSIG); their children do not. The keeper is a *subreaper*:
what loses its parent becomes the keeper's child, and it ends all of it. If the keeper is killed instead, the supervisor
hears of that and shuts down in order. Either way nothing is left but the state folder, and the next start goes on.

One stack a home folder: the lock is held by the open file that keeper and supervisor share, so it is free exactly when
both are gone.
"""

import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import psutil

from trading_platform.stack.processes import Identity, become_subreaper, descendants, die_with_parent, end_all, marked
from trading_platform.stack.supervisor import STATE_FILE

LOCK_FILE = Path("run") / "stack.lock"
LAST_WORDS_SECONDS = 2.0
"""How long children of a dead supervisor may take for the orderly end that their death signal asked for."""
GRACE_SECONDS = 3.0
TAKEOVER_SECONDS = 15.0


class AlreadyRunningError(RuntimeError):
    """Another stack runs from this home folder."""


def keep(home: Path, run: Callable[[Identity], int]) -> int:
    """Run `run(keeper's identity)` in a child process and return its exit code; afterwards nothing of it is alive.

    Raises `AlreadyRunningError`. SIGINT, SIGTERM and SIGHUP are passed on as SIGTERM. Must be called before any thread
    is started: it forks.
    """
    lock = take_lock(home)
    become_subreaper()
    this = Identity.of(os.getpid())
    assert this is not None
    passed_on = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # nohup
        passed_on.discard(signal.SIGHUP)
    signal.pthread_sigmask(signal.SIG_BLOCK, passed_on)
    sys.stdout.flush()
    sys.stderr.flush()
    supervisor = os.fork()
    if supervisor == 0:
        _be_supervisor(run, this, passed_on)
    for number in passed_on:
        signal.signal(number, lambda *_: os.kill(supervisor, signal.SIGTERM))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, passed_on)
    code = _wait_for(supervisor)
    left = _end_descendants()
    if code < 0:
        name = signal.Signals(-code).name
        print(f"the supervisor was ended by {name}; {left} processes it left were ended too", file=sys.stderr)  # noqa: T201
        code = 1
    lock.close()
    return code


def take_lock(home: Path) -> IO[bytes]:
    """Lock the home folder, waiting a little for a stack that is just going away."""
    path = home / LOCK_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.open("ab")
    deadline = time.monotonic() + TAKEOVER_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except BlockingIOError:
            state = read_state(home)
            if time.monotonic() > deadline or not _is_going_away(state):
                lock.close()
                raise AlreadyRunningError(
                    f"a platform already runs from {home} ({state.get('url', 'starting')}). Look at it with "
                    "`trading-platform status`, stop it with `trading-platform down`, or name another state folder "
                    "(HOME_DIR=..., --home ...)."
                ) from None
            time.sleep(0.1)


def read_state(home: Path) -> dict[str, object]:
    """What the running stack, or the last one, wrote about itself; empty where there was none."""
    try:
        found = json.loads((home / STATE_FILE).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def end_leftovers(home: Path) -> int:
    """End what an earlier run left alive (keeper and supervisor killed at once). Call it with the lock held.

    Only processes that are certainly ours: recorded with their creation time, or carrying the run's marker.
    """
    state = read_state(home)
    services = state.get("services")
    recorded = services.values() if isinstance(services, dict) else ()
    found: dict[int, psutil.Process] = {}
    for entry in recorded:
        pid, created = entry.get("pid"), entry.get("create_time")
        process = Identity(pid, created).process() if pid and created else None
        if process is not None:
            found |= {each.pid: each for each in [process, *descendants(process.pid)]}
    if run_id := state.get("run_id"):
        found |= {process.pid: process for process in marked(str(run_id))}
    return end_all(found.values(), GRACE_SECONDS)


def _be_supervisor(run: Callable[[Identity], int], keeper: Identity, passed_on: set[signal.Signals]) -> None:
    """The forked child: runs and exits, and never returns."""
    code = 1
    try:
        os.setsid()
        for number in passed_on:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, passed_on)
        die_with_parent(signal.SIGTERM)
        if os.getppid() == keeper.pid:  # else it died before we asked to be told
            become_subreaper()
            code = run(keeper)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait_for(supervisor: int) -> int:
    """The supervisor's exit code, negative for a signal; orphans that end meanwhile are reaped along the way."""
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == supervisor:
            return os.waitstatus_to_exitcode(status)


def _end_descendants() -> int:
    """End everything that is still below us. Returns how many there were."""
    this = os.getpid()
    count = len(descendants(this))
    deadline = time.monotonic() + LAST_WORDS_SECONDS
    while _reap() and time.monotonic() < deadline:
        time.sleep(0.02)
    while below := descendants(this):
        end_all(below, GRACE_SECONDS)
        _reap()
    return count


def _reap() -> bool:
    """Reap children that have ended; True while any is left."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if pid == 0:
            return True


def _is_going_away(state: dict[str, object]) -> bool:
    supervisor = state.get("supervisor")
    if state.get("phase") == "stopping" or not isinstance(supervisor, dict) or not supervisor.get("pid"):
        return True
    return Identity(supervisor["pid"], supervisor["create_time"]).process() is None
