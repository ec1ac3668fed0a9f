"""Processes and their trees on Linux: start one that cannot outlive us, name one for certain, end many at once.

A process id alone names nothing: it is given out again. A pid *with its creation time* is one process for ever, and that
pair is what the stack writes down and checks before it signals anything it did not start itself.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import psutil

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
RUN_MARKER = "TP_STACK_RUN"
"""Environment variable that every process of a running stack, and whatever it starts, carries."""

# Looked up before any fork: between fork and exec, loading a library could wait for a lock nobody will release.
_prctl = ctypes.CDLL(None, use_errno=True).prctl if sys.platform == "linux" else None


@dataclass(frozen=True)
class Identity:
    """One process for ever: its pid and when it was created (seconds since the epoch)."""

    pid: int
    create_time: float

    @classmethod
    def of(cls, pid: int) -> "Identity | None":
        try:
            return cls(pid, psutil.Process(pid).create_time())
        except psutil.NoSuchProcess:
            return None

    def process(self) -> psutil.Process | None:
        """The process, where it still lives (a zombie does not)."""
        try:
            process = psutil.Process(self.pid)
            # The system derives it from the time of boot, which moves a little when the clock is set.
            same = abs(process.create_time() - self.create_time) < 2.0
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None


def die_with_parent(last_signal: int = signal.SIGINT) -> None:
    """A `preexec_fn`: ask Linux to send `last_signal` to this process when the thread that started it ends."""
    if _prctl is not None:
        _prctl(PR_SET_PDEATHSIG, last_signal)


def become_subreaper() -> None:
    """From now on the orphans of our descendants become our children, not init's, so that none can escape."""
    if _prctl is not None:
        _prctl(PR_SET_CHILD_SUBREAPER, 1)


def spawn(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path | None,
    output: IO[bytes] | None,
    last_signal: int,
) -> subprocess.Popen[bytes]:
    """Start a child in a session of its own (the terminal's Ctrl-C is ours to pass on) that gets `last_signal` if we
    die. `output` takes both streams; None leaves it on our terminal. Call it from the main thread only: Linux ties the
    death signal to the thread that forked.
    """
    return subprocess.Popen(
        list(command),
        env=dict(env),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
        preexec_fn=partial(_prepare_child, last_signal),
    )


def _prepare_child(last_signal: int) -> None:
    # A shell starts background jobs with SIGINT ignored, exec hands that on, and Python then never sees a Ctrl-C.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    die_with_parent(last_signal)


def descendants(pid: int) -> list[psutil.Process]:
    """Children, grandchildren and so on; empty where the process is gone."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def marked(run_id: str) -> list[psutil.Process]:
    """Processes that carry the marker of the run `run_id` in their environment, but for ourselves."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get(RUN_MARKER) == run_id:
                found.append(process)
    return found


def end_all(processes: Iterable[psutil.Process], grace: float) -> int:
    """SIGTERM, up to `grace` seconds of patience, SIGKILL to the rest. Returns how many there were to end.

    Works on processes that are not our children as well. Blocks; not for an event loop.
    """
    left = {process.pid: process for process in processes if process.is_running()}
    count = len(left)
    for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
        for process in left.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        deadline = time.monotonic() + patience
        while left and time.monotonic() < deadline:
            left = {pid: process for pid, process in left.items() if is_alive(process)}
            time.sleep(0.02)
    return count


def is_alive(process: psutil.Process) -> bool:
    """False for a zombie, which has ended and only waits to be noticed by its parent."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
