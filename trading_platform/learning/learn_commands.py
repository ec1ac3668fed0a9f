"""`trading-platform learn`: commands on learning that need no platform running."""

import typer

from trading_platform.learning import drift_commands

learn = typer.Typer(
    help="Learning on data of your own, and measurements of the methods it is made of. Nothing needs to be running.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
learn.command("drift-bench")(drift_commands.drift_bench)
learn.command("ab-bench")(drift_commands.ab_bench)
learn.command("prequential")(drift_commands.prequential)
