"""What `trading-platform up` does inside the supervisor: servers, migrations, processes, one pass, serving, the end."""

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from pydantic import SecretStr
from rich.console import Console
from rich.markup import escape

from trading_platform.observability import metrics
from trading_platform.settings import ENDPOINTS_FILE, Settings
from trading_platform.stack.keeper import end_leftovers
from trading_platform.stack.ports import require_public_port
from trading_platform.stack.processes import Identity
from trading_platform.stack.services import DatasetRequest, Plan
from trading_platform.stack.supervisor import Service, State, Supervisor
from trading_platform.storage.databases import Databases
from trading_platform.storage.migrate import migrate

log = structlog.get_logger(__name__)

DATASET_FILE = Path("run") / "dataset.json"
LOOK_EVERY_SECONDS = 0.2
SERVERS_WITHIN_SECONDS = 60.0
PLATFORM_WITHIN_SECONDS = 240.0
INTERRUPTED = 130


@dataclass(frozen=True)
class Order:
    """What was asked for on the command line."""

    home: Path
    run_id: str
    once: bool = False
    scale: int = 1
    host: str | None = None
    port: int | None = None
    pass_arguments: tuple[str, ...] = ()


@dataclass
class Stack:
    """One running stack. `serve` is all of its life; `stop_requested` ends it."""

    order: Order
    plan: Plan
    supervisor: Supervisor
    console: Console
    stop_requested: asyncio.Event = field(default_factory=asyncio.Event)
    _request: DatasetRequest | None = None
    _requested: tuple[str, ...] = ()

    async def serve(self) -> int:
        """Bring everything up, run the pass, go on serving. Returns the exit code."""
        await self._start("servers", self.plan.servers(), SERVERS_WITHIN_SECONDS)
        await self._migrate()
        await self._start("processes", self.plan.platform(), PLATFORM_WITHIN_SECONDS)
        watching = asyncio.get_running_loop().create_task(self._watch_dataset())
        try:
            self._phase("pass")
            code = await self.supervisor.run_to_end(self.plan.one_pass(*self.order.pass_arguments))
            if self.order.once:
                return code if code >= 0 else 128 - code
            if code:
                self.console.print(f"[red]The pass failed (exit code {code}).[/red] Everything else goes on.")
            self._phase("serving")
            self._say_where()
            await asyncio.Event().wait()
            return 0
        finally:
            watching.cancel()

    async def _start(self, what: str, services: list[Service], within: float) -> None:
        began = time.monotonic()
        names = [service.name for service in services]
        self.supervisor.add(*services)
        with self.console.status(f"Starting {what} ..."):
            await self.supervisor.ready(*names, within=within)
        log.info("started", what=what, seconds=round(time.monotonic() - began, 2))

    async def _migrate(self) -> None:
        began = time.monotonic()
        with self.console.status("Migrating the databases ..."):
            await asyncio.to_thread(_migrate, self.plan)
        tell(self.console, "migrations", time.monotonic() - began)

    async def _watch_dataset(self) -> None:
        """Run the services of the dataset that the pass asks for; replace them when it asks for another."""
        path = self.order.home / DATASET_FILE
        while True:
            request = DatasetRequest.read(path)
            if request is not None and request != self._request:
                await self._serve_dataset(request)
            await asyncio.sleep(LOOK_EVERY_SECONDS)

    async def _serve_dataset(self, request: DatasetRequest) -> None:
        log.info("dataset_requested", dataset_id=request.dataset_id, groups=request.groups)
        wanted = {service.name: service for service in self.plan.dataset(request)}
        same = self._request is not None and self._request.dataset_id == request.dataset_id
        keep = {name for name in self._requested if same and name in wanted}
        await self.supervisor.remove(*(name for name in self._requested if name not in keep))
        self.supervisor.add(*(service for name, service in wanted.items() if name not in keep))
        self._request, self._requested = request, tuple(wanted)

    def _phase(self, name: str) -> None:
        self.supervisor.facts["phase"] = name
        self.supervisor.write_state()

    def _say_where(self) -> None:
        url = self.plan.url
        self.console.print(
            f"\n  [bold]Dashboard[/bold]          {url}/app/\n"
            f"  [bold]API[/bold]                {url}/docs\n"
            f"  [bold]Dagster[/bold]            {url}/dagster/  (read-only)\n"
            f"  [bold]Dagster, writable[/bold]  {self.plan.dagster_url}  (this machine only)\n\n"
            "Serving. Ctrl-C stops everything; `trading-platform status` shows the processes.",
            highlight=False,
        )


def run(order: Order, console: Console, keeper: Identity) -> int:
    """The supervisor process: recovers what an earlier run left, serves until told to stop, leaves nothing behind.

    Raises `PortTakenError`, `ServerStartError`, `ServiceFailedError`, each saying what to do.
    """
    settings = fresh_settings(order)
    if ended := end_leftovers(order.home):
        console.print(f"Ended {ended} processes that an earlier run had left.")
    (order.home / DATASET_FILE).unlink(missing_ok=True)
    for announced in metrics.targets_dir(settings).glob("*.json"):
        announced.unlink(missing_ok=True)
    plan = Plan(settings, order.scale)
    if plan.postgres is not None:
        plan.postgres.recover()
    require_public_port(settings.public_host, settings.port)
    plan.prepare_servers()
    plan.write_files()
    try:
        return asyncio.run(_supervise(order, plan, console, keeper))
    finally:
        (order.home / ENDPOINTS_FILE).unlink(missing_ok=True)


def fresh_settings(order: Order) -> Settings:
    """The settings, without the addresses of an earlier run that was not able to remove them."""
    (order.home / ENDPOINTS_FILE).unlink(missing_ok=True)
    given = {"home_dir": order.home, "public_host": order.host, "port": order.port}
    return Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]


async def _supervise(order: Order, plan: Plan, console: Console, keeper: Identity) -> int:
    supervisor = Supervisor(order.home, order.run_id, on_change=_announcer(console))
    supervisor.facts |= {
        "keeper": {"pid": keeper.pid, "create_time": keeper.create_time},
        "url": plan.url,
        "phase": "starting",
    }
    stack = Stack(order, plan, supervisor, console)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stack.stop_requested.set)
    serving = loop.create_task(stack.serve())
    stopping = loop.create_task(stack.stop_requested.wait())
    try:
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            return serving.result()
        console.print("\nStopping ...")
        return 0 if supervisor.facts["phase"] == "serving" else INTERRUPTED
    finally:
        supervisor.facts["phase"] = "stopping"
        stopping.cancel()
        serving.cancel()
        began = time.monotonic()
        await supervisor.stop()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await serving
        supervisor.facts["phase"] = "stopped"
        supervisor.write_state()
        log.info("stopped", seconds=round(time.monotonic() - began, 2))


def tell(console: Console, what: str, seconds: float) -> None:
    console.print(f"  [green]✓[/green] {escape(what):<20} {seconds:5.1f} s", highlight=False)


def _announcer(console: Console) -> Callable[[str, State], None]:
    """Says once of each service that it is ready, and every time that one ended unasked."""
    began: dict[str, float] = {}
    said: set[str] = set()

    def announce(name: str, state: State) -> None:
        began.setdefault(name, time.monotonic())
        if state is State.READY and name not in said and name != "pass":
            said.add(name)
            tell(console, name, time.monotonic() - began[name])
        if state is State.BACKOFF and name in said:
            console.print(f"  [yellow]![/yellow] {escape(name)} ended and is started again", highlight=False)

    return announce


def _migrate(plan: Plan) -> None:
    databases = Databases(settings_of(plan))
    try:
        migrate(databases, on_step=lambda what: log.info("migrating", what=what))
    finally:
        databases.close()


def settings_of(plan: Plan) -> Settings:
    """The settings as every process of this run sees them."""
    database, redis = (SecretStr(str(plan.endpoints()[name])) for name in ("database_url", "redis_url"))
    return plan.settings.model_copy(update={"database_url": database, "redis_url": redis})
