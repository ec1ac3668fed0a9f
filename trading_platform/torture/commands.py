"""The command `torture`: kill everything, at random, and compare the books."""

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import structlog
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

VENUES = {"binance": ("binance",), "zerodha": ("zerodha",), "both": ("binance", "zerodha")}


def torture(
    kills: Annotated[int, typer.Option(min=1, help="How many processes to kill.")] = 100,
    faults: Annotated[str, typer.Option(help="`all`: the exchange loses and garbles answers as well; `none`.")] = "all",
    seed: Annotated[int, typer.Option(help="Of the market, of the faults, and of when what is killed.")] = 7,
    groups: Annotated[int, typer.Option(min=1, max=64, help="Groups that trade at the same time, two engines each.")] = 6,
    venue: Annotated[str, typer.Option(help="`binance`, `zerodha` or `both`.")] = "both",
    sabotage: Annotated[
        str | None,
        typer.Option(help="Remove a protection, to see that it is missed: sending_mark, epoch_check, fill_ids, absence_proof, unknown_state."),
    ] = None,
    keep: Annotated[Path | None, typer.Option(help="Folder for logs and databases; by default they go afterwards.")] = None,
) -> None:  # fmt: skip
    """Let engines trade at a sandbox of their own while engines, exchange and database are killed; then compare all books.

    Engines die between any two instructions of the send path, from outside, or sleep past their lease. The last line is one
    JSON object; the exit status is 0 only if nothing was lost, doubled or left open and both sides agree to the last digit.

    Example: `trading-platform torture --kills 2000 --faults all --seed 1`
    """
    from trading_platform.torture.engines import LEASE_SECONDS, RECEIVE_WINDOW_SECONDS
    from trading_platform.torture.run import Torture, Wishes
    from trading_platform.torture.sabotage import SABOTAGES

    if venue not in VENUES:
        raise typer.BadParameter(f"--venue is {', '.join(VENUES)}; got {venue!r}")
    if faults not in ("all", "none"):
        raise typer.BadParameter(f"--faults is `all` or `none`; got {faults!r}")
    if sabotage is not None and sabotage not in SABOTAGES:
        raise typer.BadParameter(f"--sabotage is one of {', '.join(SABOTAGES)}; got {sabotage!r}")
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    folder = keep or Path(tempfile.mkdtemp(prefix="torture-"))
    console = Console(stderr=True)
    began = time.monotonic()
    columns = (
        TextColumn("kills"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    try:
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("starting", total=kills)
            wishes = Wishes(kills, seed, groups, faults == "all", VENUES[venue], sabotage, folder)
            said = -1

            def told(done: int, what: str) -> None:
                nonlocal said
                progress.update(task, completed=done, description=what)
                if not console.is_terminal and done // 10 > said:  # into a log: a line every ten kills
                    said = done // 10
                    console.print(f"{done} of {kills} kills, {time.monotonic() - began:.0f} s, {what}", highlight=False)

            run = Torture(wishes, told)
            verdict = run.run()
    except Exception:
        console.print(f"the run broke off; its logs and books are in {folder}", style="red", highlight=False)
        raise
    if keep is None:
        shutil.rmtree(folder, ignore_errors=True)
    for line in verdict.lines[:50]:
        console.print(line, style="red", markup=False)
    shown = {
        "kills": run.done, **verdict.shown(), "seconds": round(time.monotonic() - began, 1), "killed": run.kills,
        "days_closed": run.days, "groups": groups, "lease_seconds": LEASE_SECONDS,
        "receive_window_seconds": RECEIVE_WINDOW_SECONDS, "seed": seed, "sabotage": sabotage,
    }  # fmt: skip
    typer.echo(json.dumps(shown))
    raise typer.Exit(0 if verdict.clean else 1)
