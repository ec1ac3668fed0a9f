"""The supervisor: keeps a list of services running, in the order of their dependencies, and ends them in reverse.

    supervisor = Supervisor(home, run_id)
    supervisor.add(Service("api", ["trading-platform", "api"], depends_on=("postgres",), ready=http_ok(url)))
    await supervisor.ready("api", within=60)
    ...
    await supervisor.stop()

One task a service: wait for what it depends on, start it, watch it, start it again when it ends. As a *subreaper* the
supervisor inherits the orphans of a service that died (workers that would still hold its port, runs that would go on
beside their successor) and ends them before it starts the service again. It must therefore start no other
subprocesses while it runs. The state of everything is in `<home>/run/stack.json`.
"""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

import psutil
import structlog

from trading_platform.stack.logfiles import open_log, rotate, tail
from trading_platform.stack.processes import RUN_MARKER, Identity, descendants, spawn

log = structlog.get_logger(__name__)

STATE_FILE = Path("run") / "stack.json"
FIRST_DELAY_SECONDS = 0.2
LONGEST_DELAY_SECONDS = 5.0
STEADY_AFTER_SECONDS = 30.0
"""A service that lived this long starts with the first delay again when it ends."""
STOP_WITHIN_SECONDS = 9.0
ORPHAN_GRACE_SECONDS = 1.0
HOPELESS_AFTER = 3
"""So many ends without ever having been ready, and whoever waits for the service is told."""


class State(StrEnum):
    WAITING = "waiting"
    """for a service it depends on"""
    STARTING = "starting"
    READY = "ready"
    UNREADY = "unready"
    """was ready, runs, and does not answer now"""
    BACKOFF = "backoff"
    """ended, and will be started again"""
    STOPPING = "stopping"
    ENDED = "ended"


class ServiceFailedError(RuntimeError):
    """A service did not come up; the message holds the end of its log."""


@dataclass(frozen=True)
class Service:
    """What to run and how to treat it. Times in seconds."""

    name: str
    command: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    """On top of the supervisor's own environment."""
    depends_on: tuple[str, ...] = ()
    """Services that must be ready before this one starts and that end after it."""
    ready: Callable[[], bool] | None = None
    """Called in a thread, over and over; returns within two seconds. None: ready once it has run for `settle`."""
    settle: float = 0.0
    before_start: Callable[[], None] | None = None
    """Called in a thread before every start, for what an earlier run may have left behind."""
    ready_within: float = 90.0
    restart_if_unready_for: float | None = None
    """For servers whose silence means that they hang; None leaves a running process alone."""
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout: float = 3.0
    restart: bool = True
    on_terminal: bool = False
    """Its output goes to our terminal instead of a log file."""
    cwd: Path | None = None


@dataclass
class _Child:
    service: Service
    task: asyncio.Task[None]
    state: State = State.WAITING
    identity: Identity | None = None
    exited: asyncio.Future[int] | None = None
    restarts: int = -1
    last_exit: int | None = None
    never_ready: int = 0
    delay: float = 0.0
    stopping: bool = False
    since: datetime = field(default_factory=lambda: datetime.now(UTC))


class Supervisor:
    """Runs services of one home folder. Belongs to one event loop in the main thread."""

    def __init__(
        self, home: Path, run_id: str, on_change: Callable[[str, State], None] = lambda _name, _state: None
    ) -> None:
        self.home = home
        self.facts: dict[str, object] = {"run_id": run_id, "supervisor": _as_json(Identity.of(os.getpid()))}
        """Written into stack.json beside the services."""
        self._on_change = on_change
        self._environment = os.environ | {RUN_MARKER: run_id}
        self._children: dict[str, _Child] = {}
        self._running: dict[int, _Child] = {}
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        self._housekeeping = loop.create_task(self._keep_house())

    # --- what a caller does ------------------------------------------------------------------------------------------

    def add(self, *services: Service) -> None:
        """Begin to run `services`. Whatever they depend on must have been added before or be among them."""
        known = self._children.keys() | {service.name for service in services}
        for service in services:
            if missing := set(service.depends_on) - known:
                raise ValueError(f"service {service.name!r} depends on {sorted(missing)}, which nobody added")
            if service.name in self._children:
                raise ValueError(f"there is already a service {service.name!r}")
            child = _Child(service, asyncio.get_running_loop().create_task(asyncio.sleep(0)))
            self._children[service.name] = child
            child.task = asyncio.get_running_loop().create_task(self._keep(child), name=service.name)
        self.write_state()

    async def remove(self, *names: str, within: float = STOP_WITHIN_SECONDS) -> None:
        """Stop the named services, dependents among them first, and forget them."""
        deadline = _now() + within
        chosen = [self._children[name] for name in names if name in self._children]
        await asyncio.gather(*(self._stop_in_order(child, chosen, deadline) for child in chosen))
        for child in chosen:
            self._children.pop(child.service.name, None)
        self.write_state()

    async def stop(self, within: float = STOP_WITHIN_SECONDS) -> None:
        """Stop everything, in reverse order of dependency; nothing of it is left when this returns."""
        everything = list(self._children.values())
        for child in everything:
            child.stopping = True
        deadline = _now() + within
        await asyncio.gather(*(self._stop_in_order(child, everything, deadline) for child in everything))
        await self._end_orphans(grace=0.2)
        self._housekeeping.cancel()
        asyncio.get_running_loop().remove_signal_handler(signal.SIGCHLD)
        self.write_state()

    async def ready(self, *names: str, within: float) -> None:
        """Wait until all the named services are ready at once. Raises `ServiceFailedError` when one does not come up."""
        deadline = _now() + within
        for name in names:
            child = self._children[name]
            while child.state is not State.READY:
                if child.never_ready >= HOPELESS_AFTER or child.state is State.ENDED:
                    raise ServiceFailedError(
                        f"{name} ends as soon as it starts (exit code {child.last_exit}). The end of "
                        f"{self.log_path(name)}:\n{tail(self.log_path(name))}"
                    )
                if _now() > deadline:
                    raise ServiceFailedError(
                        f"{name} was not ready within {within:.0f} s ({child.state}). The end of "
                        f"{self.log_path(name)}:\n{tail(self.log_path(name))}"
                    )
                await asyncio.sleep(0.02)

    async def run_to_end(self, service: Service) -> int:
        """Run a service with `restart=False` and return its exit code (negative: the signal that ended it)."""
        self.add(service)
        child = self._children[service.name]
        await asyncio.wait([child.task])
        await self.remove(service.name)
        return 1 if child.last_exit is None else child.last_exit

    def names(self) -> list[str]:
        return list(self._children)

    def log_path(self, name: str) -> Path:
        return self.home / "logs" / f"{name}.log"

    def write_state(self) -> None:
        """Replace stack.json: a reader sees the old one or the new one, never half of it."""
        path = self.home / STATE_FILE
        services = {name: _described(child) for name, child in self._children.items()}
        draft = path.with_suffix(".tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(json.dumps(self.facts | {"services": services}, indent=1))
            draft.replace(path)
        except OSError:  # a full disk must not take the services down with it
            log.exception("state_not_written")

    # --- the life of one service -------------------------------------------------------------------------------------

    async def _keep(self, child: _Child) -> None:
        """Start the service, and start it again whenever it ends, until it is told to stop."""
        service = child.service
        while not child.stopping:
            await self._wait_for_dependencies(child)
            began = _now()
            code = await self._run(child)
            child.last_exit = code
            say = log.info if child.stopping or not service.restart else log.warning
            say("service_ended", process=service.name, exit_code=code, lived=round(_now() - began, 1))
            await self._end_orphans(ORPHAN_GRACE_SECONDS)
            if child.stopping or not service.restart:
                break
            steady = _now() - began > STEADY_AFTER_SECONDS
            child.delay = FIRST_DELAY_SECONDS if steady or not child.delay else child.delay * 2
            child.delay = min(child.delay, LONGEST_DELAY_SECONDS)
            self._set(child, State.BACKOFF)
            await asyncio.sleep(child.delay)
        self._set(child, State.ENDED)

    async def _wait_for_dependencies(self, child: _Child) -> None:
        self._set(child, State.WAITING)
        while any(self._children[name].state is not State.READY for name in child.service.depends_on):
            await asyncio.sleep(0.02)

    async def _run(self, child: _Child) -> int:
        """One start of the service: returns the exit code when the process has ended."""
        self._set(child, State.STARTING)
        try:
            if child.service.before_start is not None:
                await asyncio.to_thread(child.service.before_start)
            child.exited = self._spawn(child)
        except Exception as error:  # whatever it is, trying again is all there is to do
            log.exception("service_not_started", process=child.service.name)
            with contextlib.suppress(OSError), open_log(self.log_path(child.service.name)) as output:
                output.write(f"cannot start {child.service.command[0]}: {error}\n".encode())
            child.never_ready += 1
            return 127
        child.restarts += 1
        watch = asyncio.get_running_loop().create_task(self._watch(child, child.exited))
        try:
            return await asyncio.shield(child.exited)
        finally:
            watch.cancel()
            child.never_ready += child.state is State.STARTING
            child.identity = None

    def _spawn(self, child: _Child) -> "asyncio.Future[int]":
        service = child.service
        output = None if service.on_terminal else open_log(self.log_path(service.name))
        try:
            process = spawn(
                service.command,
                env=self._environment | dict(service.env),
                cwd=service.cwd or self.home,
                output=output,
                last_signal=service.stop_signal,
            )
        finally:
            if output is not None:
                output.close()
        exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        child.exited = exited
        child.identity = Identity.of(process.pid)
        self._running[process.pid] = child
        _forget(process)
        log.info("service_started", process=service.name, pid=process.pid)
        self.write_state()
        return exited

    async def _watch(self, child: _Child, exited: "asyncio.Future[int]") -> None:
        """Ask the service again and again whether it is ready; end it when it stays silent for too long."""
        service = child.service
        began = silent_since = _now()
        patience: float | None = service.ready_within
        while not exited.done():
            answers = await self._answers(service, lived=_now() - began)
            if child.stopping:
                return
            if answers:
                silent_since = _now()
                patience = service.restart_if_unready_for
                child.never_ready = 0
                self._set(child, State.READY)
            elif child.state is State.READY:
                self._set(child, State.UNREADY)
            if patience is not None and _now() - silent_since > patience:
                log.error("service_silent", process=service.name, seconds=round(_now() - silent_since, 1))
                await self._end(child, exited, service.stop_timeout)
                return
            await asyncio.sleep(2.0 if child.state is State.READY else 0.1)

    async def _answers(self, service: Service, lived: float) -> bool:
        if service.ready is None:
            return lived >= service.settle
        try:
            return await asyncio.to_thread(service.ready)
        except Exception:
            log.exception("readiness_check_failed", process=service.name)
            return False

    # --- ending ------------------------------------------------------------------------------------------------------

    async def _stop_in_order(self, child: _Child, among: list[_Child], deadline: float) -> None:
        child.stopping = True
        dependents = [other.task for other in among if child.service.name in other.service.depends_on]
        if dependents:
            await asyncio.wait(dependents)
        if child.exited is not None and not child.exited.done():
            self._set(child, State.STOPPING)
            await self._end(child, child.exited, max(0.0, min(child.service.stop_timeout, deadline - _now())))
        child.task.cancel()
        await asyncio.gather(child.task, return_exceptions=True)
        await self._end_orphans(max(0.0, min(ORPHAN_GRACE_SECONDS, deadline - _now())))
        self._set(child, State.ENDED)

    async def _end(self, child: _Child, exited: "asyncio.Future[int]", patience: float) -> None:
        """The stop signal, `patience`, then SIGKILL to the process and all its descendants."""
        identity = child.identity
        if identity is None:
            return
        # Not yet reaped, by us alone: the pid is still this process's.
        os.kill(identity.pid, child.service.stop_signal)
        done, _ = await asyncio.wait([exited], timeout=patience)
        if done:
            return
        log.warning("service_killed", process=child.service.name, after=round(patience, 1))
        for process in [*descendants(identity.pid), psutil.Process(identity.pid)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        await asyncio.wait([exited], timeout=2.0)

    async def _end_orphans(self, grace: float) -> None:
        """End what dead services left behind: children of ours that we did not start."""
        deadline = _now() + grace
        told: set[int] = set()
        while orphans := self._orphans():
            for orphan in orphans:
                with contextlib.suppress(psutil.NoSuchProcess):
                    if _now() >= deadline:
                        orphan.kill()
                    elif orphan.pid not in told:
                        log.warning("orphan_ended", pid=orphan.pid, name=orphan.name())
                        orphan.terminate()
                        told.add(orphan.pid)
            await asyncio.sleep(0.02)
            self._reap()

    def _orphans(self) -> list[psutil.Process]:
        self._reap()
        return [process for process in psutil.Process().children() if process.pid not in self._running]

    def _reap(self) -> None:
        """Notice every child that has ended, our own and inherited ones."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            child = self._running.pop(pid, None)
            if child is not None and child.exited is not None:
                child.exited.set_result(os.waitstatus_to_exitcode(status))

    # --- bookkeeping -------------------------------------------------------------------------------------------------

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(5.0)
            for name in [*self._children, "supervisor"]:
                with contextlib.suppress(OSError):
                    rotate(self.log_path(name))

    def _set(self, child: _Child, state: State) -> None:
        if child.state is not state:
            child.state = state
            child.since = datetime.now(UTC)
            self.write_state()
            self._on_change(child.service.name, state)


def _described(child: _Child) -> dict[str, object]:
    return {
        "state": child.state.value,
        "ready": child.state is State.READY,
        "restarts": max(0, child.restarts),
        "since": child.since.isoformat(timespec="milliseconds"),
        "last_exit": child.last_exit,
        **_as_json(child.identity),
    }


def _as_json(identity: Identity | None) -> dict[str, object]:
    return {
        "pid": identity.pid if identity else None,
        "create_time": identity.create_time if identity else None,
    }


def _forget(process: "subprocess.Popen[bytes]") -> None:
    """The supervisor reaps by itself; Popen is not to wait for this one a second time."""
    process.returncode = 0


def _now() -> float:
    return asyncio.get_running_loop().time()
