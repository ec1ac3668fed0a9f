"""The command `models rebuild`: the others of `models` know nothing of strategies."""

import json
from typing import Annotated

import typer
from rich.console import Console

from trading_platform.learning.commands import models
from trading_platform.learning.plan import TrainingPlan
from trading_platform.settings import settings
from trading_platform.storage.control import ModelVersion
from trading_platform.storage.databases import Databases

__all__ = ["models"]


@models.command("rebuild")
def rebuild(version_id: Annotated[str, typer.Argument(help="A version id, as `models list` shows it.")]) -> None:
    """Build a version again from its recorded ingredients, and compare the artifacts bit for bit.

    Data, code, libraries, features, plan, hyperparameters, seed and threads are those of the registry; where one of them
    is not to be had any more, it is named. Nothing is written. The last line is one JSON object; exit status 0 where the
    file is the same.
    """
    from trading_platform.learning.artifact import ArtifactError
    from trading_platform.learning.command_progress import command_progress
    from trading_platform.learning.rebuilding import RebuildError
    from trading_platform.learning.rebuilding import rebuild as build_again
    from trading_platform.learning.registry import UnknownVersionError
    from trading_platform.market_data.lake import Lake
    from trading_platform.strategies.definition import StrategyError

    current, console = settings(), Console(stderr=True)
    try:
        with command_progress() as progress:
            found = build_again(Databases(current), Lake(current.lake_dir), _plan_of, version_id, progress)
    except (ArtifactError, RebuildError, StrategyError, UnknownVersionError) as problem:
        console.print(f"[red]{problem}[/red]")
        raise typer.Exit(2) from None
    for name, (then, now) in found.differences.items():
        console.print(f"[yellow]{name}[/yellow] was {then}, is {now}")
    verdict = (
        "bit for bit the same" if found.same else f"another file: {found.rebuilt[:16]}, not {found.registered[:16]}"
    )
    console.print(f"{version_id} is {verdict} ({found.seconds:.1f} s).")
    typer.echo(json.dumps(found.document()))
    raise typer.Exit(0 if found.same else 1)


def _plan_of(row: ModelVersion) -> TrainingPlan:
    """The strategy's plan with the settings that were in force."""
    from trading_platform.strategies.definition import configured, strategy, training_plan

    recorded = row.params["plan"]
    settings_then = {name: recorded[name] for name in ("barriers", "target_coverage", "valid_bars")}
    return training_plan(configured(strategy(row.strategy_id), settings_then))
