"""The command `learn report`: several evaluations as one Markdown document."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def report(
    reports: Annotated[list[Path], typer.Argument(help="Reports of `learn evaluate`, with their plots beside them.")],
    out: Annotated[Path, typer.Option(help="The Markdown file; its plots go to a folder beside it.")],
) -> None:
    """Put evaluations together to one document with tables and plots. The last line is one JSON object.

    Example:

        trading-platform learn report binance.json nifty.json --out learning-report.md
    """
    from trading_platform.learning.evaluation_document import write_document

    try:
        found = [json.loads(path.read_text()) for path in reports]
        write_document(found, [path.parent / f"{path.stem}-plots" for path in reports], out)
    except (OSError, ValueError, KeyError) as problem:
        Console(stderr=True).print(
            f"[red]cannot report:[/red] {problem}; expected the files that `learn evaluate --out` writes"
        )
        raise typer.Exit(1) from problem
    typer.echo(json.dumps({"document": str(out), "evaluations": len(found), "trials": sum(r["trials"] for r in found)}))
