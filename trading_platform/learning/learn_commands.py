"""The commands `learn …`: measurements that anybody can run on files of their own."""

import typer

from trading_platform.learning.evaluate_commands import evaluate
from trading_platform.learning.lookahead_commands import check_lookahead
from trading_platform.learning.report_commands import report

learn = typer.Typer(
    help="Measure what can be learnt: evaluations on any bars, each with one JSON object as its last line.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
learn.command("evaluate")(evaluate)
learn.command("check-lookahead")(check_lookahead)
learn.command("report")(report)


@learn.callback()
def _group() -> None:
    """Only its presence matters: it keeps `learn` a group however many commands it has."""
