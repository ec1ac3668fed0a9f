"""Commands on the whole platform: `up`, `status`, `down`."""

import os
import signal
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, cast

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trading_platform.settings import Settings
from trading_platform.stack.keeper import TAKEOVER_SECONDS, AlreadyRunningError, keep, read_state
from trading_platform.stack.ports import PortTakenError
from trading_platform.stack.processes import Identity
from trading_platform.stack.supervisor import ServiceFailedError

Home = Annotated[
    Path | None, typer.Option("--home", help="State folder. Default: TP_HOME_DIR, else `var`.", show_default=False)
]


def up(
    data: Annotated[
        str,
        typer.Option(
            help="What to learn from and trade on: a file or folder of bars, `binance` (public data), `synthetic` "
            "(seeded), or `auto`: Binance where it can be reached, else synthetic."
        ),
    ] = "auto",
    once: Annotated[bool, typer.Option("--once", help="Stop everything after one pass, with its exit code.")] = False,
    scale: Annotated[int, typer.Option(min=1, max=64, help="Instances of the API and of the dashboard.")] = 1,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on. Default: TP_PUBLIC_HOST, else 127.0.0.1.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port to listen on. Default: TP_PORT, else 8400.")
    ] = None,
    home: Home = None,
    speed: Annotated[
        str | None, typer.Option(help="Speed of the replay: `max`, or bars a second.", show_default=False)
    ] = None,
    drill: Annotated[
        str | None, typer.Option(help="Plant something to watch the platform react: `drift`.", show_default=False)
    ] = None,
    venue: Annotated[
        str | None,
        typer.Option(
            help="Where orders go: `binance` or `zerodha`. Default: by the data's exchange.", show_default=False
        ),
    ] = None,
    passed_on: Annotated[
        list[str] | None,
        typer.Argument(help="After `--`: options for the pass itself, see `python -m jobs.one_pass --help`."),
    ] = None,
) -> None:
    """Start everything, run one pass of the loop, go on serving until Ctrl-C.

    PostgreSQL, Valkey and the load balancer start from the installed packages, unless TP_DATABASE_URL and TP_REDIS_URL
    name servers. Everything that is kept is in the state folder; starting again goes on where the last run stopped.

        trading-platform up --data synthetic
        trading-platform up --data ../bars --once
        trading-platform up --data ../nse_daily --venue zerodha
        trading-platform up --data binance --scale 2 --port 9000
    """
    from trading_platform.stack.servers import ServerStartError
    from trading_platform.stack.up import Order, run

    console = Console()
    options = {"--data": _absolute(data), "--speed": speed, "--drill": drill, "--venue": venue}
    arguments = [part for name, value in options.items() if value is not None for part in (name, value)]
    order = Order(
        home=_home(home),
        run_id=uuid.uuid4().hex,
        once=once,
        scale=scale,
        host=host,
        port=port,
        pass_arguments=(*arguments, *(["--once"] if once else []), *(passed_on or [])),
    )

    def supervise(keeper: Identity) -> int:
        try:
            _log_to(order.home / "logs" / "supervisor.log")
            return run(order, console, keeper)
        except (PortTakenError, ServerStartError, ServiceFailedError) as error:
            console.print(f"[red]Not started[/red]: {escape(str(error))}", highlight=False, soft_wrap=True)
            return 1
        except Exception:
            console.print_exception()
            return 1

    try:
        code = keep(order.home, supervise)
    except AlreadyRunningError as error:
        console.print(f"[red]Not started[/red]: {escape(str(error))}", highlight=False, soft_wrap=True)
        code = 1
    raise typer.Exit(code)


def status(home: Home = None) -> None:
    """Show every process of the running platform. Exit code 1 if something is down, 3 if nothing runs."""
    console = Console()
    state = read_state(_home(home))
    if _supervisor(state) is None:
        console.print(f"No platform runs from {_home(home)}. Start one with `trading-platform up`.")
        raise typer.Exit(3)
    services = cast("dict[str, dict[str, object]]", state.get("services", {}))
    table = Table("service", "state", "pid", "restarts", "since", title=f"{state.get('url')}  ({state.get('phase')})")
    down = False
    for name, entry in services.items():
        alive = _identity(entry) is not None
        ready = bool(entry["ready"]) and alive
        down = down or not ready
        shown = str(entry["state"]) if alive or not entry["ready"] else "gone"
        table.add_row(
            name, f"[{'green' if ready else 'red'}]{shown}[/]", str(entry["pid"] or ""), str(entry["restarts"]),
            _ago(str(entry["since"])),
        )  # fmt: skip
    console.print(table)
    raise typer.Exit(int(down))


def down(home: Home = None) -> None:
    """Stop the running platform: every process ends, in order, within 10 seconds."""
    console = Console()
    state = read_state(_home(home))
    target = _identity(state.get("keeper")) or _supervisor(state)
    if target is None:
        console.print(f"No platform runs from {_home(home)}.")
        return
    os.kill(target.pid, signal.SIGTERM)
    deadline = time.monotonic() + TAKEOVER_SECONDS
    while Identity(target.pid, target.create_time).process() is not None:
        if time.monotonic() > deadline:
            console.print(f"[red]Process {target.pid} has not ended within {TAKEOVER_SECONDS:.0f} s.[/red]")
            raise typer.Exit(1)
        time.sleep(0.05)
    console.print("Stopped.")


def _home(given: Path | None) -> Path:
    return (Settings(home_dir=given) if given else Settings()).home


def _absolute(data: str) -> str:
    """Names stay names; a path means the same wherever the pass runs."""
    return data if data in ("auto", "binance", "synthetic") else str(Path(data).expanduser().resolve())


def _supervisor(state: dict[str, object]) -> Identity | None:
    return _identity(state.get("supervisor"))


def _identity(entry: object) -> Identity | None:
    """The process that an entry of stack.json names, if it still lives."""
    if not isinstance(entry, dict) or not entry.get("pid"):
        return None
    identity = Identity(entry["pid"], entry["create_time"])
    return identity if identity.process() else None


def _ago(since: str) -> str:
    seconds = int((datetime.now(UTC) - datetime.fromisoformat(since)).total_seconds())
    days, rest = divmod(max(0, seconds), 86_400)
    clock = f"{rest // 3600:02}:{rest % 3600 // 60:02}:{rest % 60:02}"
    return f"{days} d {clock}" if days else clock


def _log_to(path: Path) -> None:
    """The supervisor's own log goes to a file, so that the terminal stays with the pass."""
    import io
    import logging

    import structlog

    from trading_platform.observability import logs

    path.parent.mkdir(parents=True, exist_ok=True)
    output = path.open("ab")
    logs.configure("supervisor")
    structlog.configure(logger_factory=structlog.BytesLoggerFactory(output))
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(io.TextIOWrapper(output, write_through=True))
