"""The commands `sandbox` (by itself, from files) and `sandbox serve` (of a dataset of the platform)."""

import logging
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import structlog
import typer

app = typer.Typer(
    invoke_without_command=True,
    help="An exchange of your own, which official clients of Binance and Kite take for real.",
)


@app.callback()
def alone(
    context: typer.Context,
    data: Annotated[
        Path | None, typer.Option(help="File or folder of bars or ticks to replay. Default: an invented market.")
    ] = None,
    speed: Annotated[
        str,
        typer.Option(
            help="Times real time; or `max`: as fast as its participants acknowledge, else a minute a second."
        ),
    ] = "1",
    seed: Annotated[int, typer.Option(help="Of order books, paths within bars, invented prices, and faults.")] = 7,
    faults: Annotated[Path | None, typer.Option(help="Faults to come, TOML or JSON: see docs/sandbox.md.")] = None,
    kite_port: Annotated[int, typer.Option(min=0, max=65535, help="Port of Kite Connect; 0 picks a free one.")] = 0,
    binance_port: Annotated[int, typer.Option(min=0, max=65535, help="Port of Binance; 0 picks a free one.")] = 0,
    limits: Annotated[bool, typer.Option(help="Count requests as broker and exchange do.")] = True,
    redirect: Annotated[str, typer.Option(help="Where Kite's log-in page goes back to.")] = "http://127.0.0.1/",
    postback: Annotated[str | None, typer.Option(help="Where Kite posts what became of orders.")] = None,
    start: Annotated[
        str | None,
        typer.Option(help="Market time to begin at, ISO 8601 with a zone. Default: 30 days before the data end."),
    ] = None,
    journal: Annotated[
        Path | None, typer.Option(help="Folder that keeps the books. Default: they go with the process.")
    ] = None,
) -> None:
    """A Kite Connect and a Binance of your own on one market, needing nothing else: no database, no settings.

    Prints one line of JSON that says where they are and with which keys, and serves until SIGTERM.
    """
    if context.invoked_subcommand is not None:
        return
    from trading_platform.market_data.tables import UnreadableFileError
    from trading_platform.sandbox.faults import BadFaultError
    from trading_platform.sandbox.standalone import Wishes, run

    # Standard output is for the one line of JSON.
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    wishes = Wishes(
        data, _speed(speed), seed, faults, kite_port, binance_port, journal, limits, redirect, postback, _moment(start),
        os.environ.get("TP_SANDBOX_ADMIN_TOKEN"),
    )  # fmt: skip
    try:
        run(wishes)
    except (UnreadableFileError, BadFaultError, OSError) as error:
        typer.echo(f"trading-platform sandbox: {error}", err=True)
        raise typer.Exit(2) from error


@app.command()
def serve(
    dataset: Annotated[str, typer.Option(help="Whose prices to trade at, as `trading-platform lake show` lists it.")],
    port: Annotated[int, typer.Option(help="Port on loopback.")] = 8500,
    speed: Annotated[
        str, typer.Option(help="Of the replay, unless its start says otherwise: `max`, or steps per second.")
    ] = "max",
    pace: Annotated[
        float, typer.Option(min=0.001, help="Steps per second of a synthetic market after its tail.")
    ] = 1.0,
    kite_port: Annotated[
        int | None, typer.Option(help="Port of Kite Connect, for a dataset of an Indian exchange. Default: none.")
    ] = None,
    kite_limits: Annotated[
        bool, typer.Option("--kite-limits", help="Count Kite requests by the second and minute, as the broker does.")
    ] = False,
    kite_redirect: Annotated[
        str, typer.Option(help="Where Kite's log-in page goes back to: your app's redirect URL.")
    ] = "http://127.0.0.1/",
    latency_ms: Annotated[float, typer.Option(min=0, help="Delay of every answer, as a network would add it.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of the synthetic order book. A journal keeps the seed it began with.")] = 7,
    weight_limit: Annotated[
        int | None, typer.Option(min=1, help="Request weight a minute. Default: 6,000, in a replay 600,000.")
    ] = None,
    journal: Annotated[
        Path | None, typer.Option(help="Folder of the journal. Default: <home>/sandbox/<dataset>.")
    ] = None,
) -> None:
    """Serve Binance's spot API for one dataset: files and synthetic data are replayed, live data are passed through.

    The replay waits until POST /sandbox/replay/start. Books survive any kill: they are rebuilt from the journal.
    Clients need only another base URL, an account opened by POST /sandbox/accounts, and its key.
    """
    import uvloop

    from trading_platform.market_data.lake import Lake
    from trading_platform.observability import logs
    from trading_platform.sandbox.server import Options, assemble
    from trading_platform.settings import settings
    from trading_platform.storage.databases import Databases

    current = settings()
    logs.configure("sandbox", current)
    if current.sandbox_admin_token is None:
        raise typer.BadParameter("TP_SANDBOX_ADMIN_TOKEN is not set: the control routes need a token (a random string)")
    options = Options(
        journal=journal or current.home / "sandbox" / dataset,
        token=current.sandbox_admin_token.get_secret_value(),
        seed=seed,
        speed=_speed(speed),
        pace=pace,
        latency_seconds=latency_ms / 1_000,
        weight_limit=weight_limit,
        kite_port=kite_port,
        kite_limits=kite_limits,
        kite_redirect=kite_redirect,
    )

    async def run() -> None:
        await assemble(Databases(current), Lake(current.lake_dir), dataset, options).serve("127.0.0.1", port)

    uvloop.run(run())


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"--start is ISO 8601, such as 2023-12-01T09:15:00+05:30; got {text!r}") from error
    if moment.tzinfo is None:
        raise typer.BadParameter(f"--start needs a time zone, such as +05:30; got {text!r}")
    return moment


def _speed(text: str) -> float | Literal["max"]:
    if text == "max":
        return "max"
    try:
        steps = float(text)
    except ValueError:
        steps = 0.0
    if not 0 < steps < float("inf"):
        raise typer.BadParameter(f"--speed is `max` or a positive number of steps per second, got {text!r}")
    return steps
