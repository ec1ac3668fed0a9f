"""The command `sandbox serve`."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from trading_platform.identifiers import DatasetId
from trading_platform.market_data.lake import Lake
from trading_platform.observability import logs
from trading_platform.settings import settings
from trading_platform.storage.databases import Databases

app = typer.Typer(no_args_is_help=True, help="An exchange of your own, which official Binance clients take for real.")


@app.callback()
def _sandbox() -> None:
    """An exchange of your own, which official Binance clients take for real."""


@app.command()
def serve(
    dataset: Annotated[str, typer.Option(help="Whose prices to trade at, as `trading-platform lake show` lists it.")],
    port: Annotated[int, typer.Option(help="Port on loopback.")] = 8500,
    journal: Annotated[
        Path | None, typer.Option(help="Folder of the journal. Default: <home>/sandbox/<dataset>.")
    ] = None,
) -> None:
    """Serve Binance's spot API for one dataset: files and synthetic data are replayed, live data are passed through.

    The replay waits until POST /sandbox/replay/start. Books survive any kill: they are rebuilt from the journal.
    """
    from trading_platform.sandbox.server import assemble

    current = settings()
    logs.configure("sandbox", current)
    if current.sandbox_admin_token is None:
        raise typer.BadParameter(
            "TP_SANDBOX_ADMIN_TOKEN is not set: the control routes need a token (any long random string)"
        )
    folder = journal or current.home / "sandbox" / dataset
    sandbox = assemble(
        Databases(current),
        Lake(current.lake_dir),
        DatasetId(dataset),
        folder,
        current.sandbox_admin_token.get_secret_value(),
    )
    asyncio.run(sandbox.serve("127.0.0.1", port))
