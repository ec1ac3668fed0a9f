"""The command `sandbox serve`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(no_args_is_help=True, help="An exchange of your own, which official Binance clients take for real.")


@app.callback()
def _sandbox() -> None:
    """An exchange of your own, which official Binance clients take for real."""


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
