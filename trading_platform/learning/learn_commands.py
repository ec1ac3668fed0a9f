"""The commands `learn …`: measurements that anybody can run on data of their own; no platform needs to be running."""

import typer

from trading_platform.learning import drift_commands
from trading_platform.learning.evaluate_commands import evaluate
from trading_platform.learning.lookahead_commands import check_lookahead
from trading_platform.learning.report_commands import report

learn = typer.Typer(
    help="Learn on data of your own, and measure the methods. Each command ends with one line of JSON.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
learn.command("evaluate")(evaluate)
learn.command("drift-bench")(drift_commands.drift_bench)
learn.command("prequential")(drift_commands.prequential)
learn.command("ab-bench")(drift_commands.ab_bench)
learn.command("check-lookahead")(check_lookahead)
learn.command("report")(report)


@learn.callback()
def _group() -> None:
    """Only its presence matters: it keeps `learn` a group however many commands it has."""
