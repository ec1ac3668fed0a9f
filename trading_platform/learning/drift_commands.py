"""Commands on streams, drift and experiments: `learn prequential`, `learn drift-bench`, `learn ab-bench`.

Each shows its progress on the error stream and prints one JSON object as its last line of output.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from trading_platform.learning.drift_bench import Progress as Report

PlotOption = Annotated[Path | None, typer.Option("--plot", help="Write a plot (PNG) to this file.")]


def drift_bench(
    streams: Annotated[
        int, typer.Option("--streams", min=2, help="Streams with a change, and five times as many without.")
    ] = 100,
    windows: Annotated[
        int, typer.Option("--windows", min=1, help="Windows of unchanged AR(.95) features to look for drift in.")
    ] = 200,
    plot: PlotOption = None,
) -> None:
    """Measure drift detectors: delay, misses and false alarms, ours beside river's.

    Error streams are made from seeds (0, 1, 2, ...), so the table can be repeated. A detector is good where its delay is
    short **and** its false alarms few: the first is worth nothing without the second. The last line is JSON.
    """
    from trading_platform.learning import drift_plots
    from trading_platform.learning.drift_bench import (
        AIM_DELAY,
        AIM_FALSE_ALARMS,
        SHIFTS,
        compare,
        feature_false_alarms,
        met_aim,
    )

    with _progress() as report:
        rows = list(compare(streams, report))
        features = feature_false_alarms(windows, report)
    table = Table("detector", "false alarms per 10,000", "95 % interval", "us a sample", title="Drift detectors")
    for shift in SHIFTS:
        table.add_column(f"delay {shift.name}")
        table.add_column("missed")
    for row in rows:
        lower, upper = row.false_alarms_interval
        cells = [
            row.detector,
            f"{row.false_alarms:.2f}",
            f"{lower:.2f} to {upper:.2f}",
            f"{row.microseconds_per_sample:.1f}",
        ]
        for delay in row.delays.values():
            cells += ["-" if delay.median is None else f"{delay.median:.0f}", f"{delay.missed:.0%}"]
        table.add_row(*cells)
    console = Console(width=150)
    console.print(table)
    lower, upper = features.interval
    console.print(
        f"AR(.95) features without drift: {features.false_alarm_share:.1%} of {features.windows} windows raise an alarm "
        f"({lower:.1%} to {upper:.1%}); the textbook test fires on {features.textbook_share:.0%} of the features."
    )
    aim = met_aim(rows[0])
    console.print(
        f"Aim: {SHIFTS[0].name} seen within {AIM_DELAY:.0f} samples at {AIM_FALSE_ALARMS} false alarms per 10,000: "
        f"{rows[0].detector} {'meets' if aim['met'] else 'does NOT meet'} it."
    )
    result = {"detectors": [asdict(row) for row in rows], "features": asdict(features), "aim": aim}
    _finish(result, None if plot is None else drift_plots.detectors(rows, plot))


def ab_bench(
    runs: Annotated[int, typer.Option("--runs", min=10, help="Experiments simulated for every row.")] = 1_000,
    plot: PlotOption = None,
) -> None:
    """Measure experiments: false promotions when the arms are equal, time to a decision when they are not.

    A challenger that equals the champion must not be promoted more than 5 % of the time, **however often one looks** and
    whether or not labels overlap. All differences are made from seeds, so the table can be repeated. The last line is JSON.
    """
    from trading_platform.learning import drift_plots
    from trading_platform.learning.ab_bench import false_promotions, times_to_decision

    with _progress() as report:
        promotions = false_promotions(runs, report)
        decisions = times_to_decision(runs, report)
    console = Console(width=150)
    table = Table(
        "differences", "naive peeking", "confidence sequence", "on block means (used)", "95 % interval",
        title=f"False promotions, {runs:,} A/A experiments a row",
    )  # fmt: skip
    for row in promotions:
        lower, upper = row.interval
        table.add_row(
            row.differences,
            f"{row.naive:.1%}",
            f"{row.single_trades:.1%}",
            f"{row.blocks:.1%}",
            f"{lower:.1%} to {upper:.1%}",
        )
    console.print(table)
    table = Table(
        "effect (standard deviations)",
        "median trades",
        "decided by 3,000",
        "undecided after 6,000",
        title="Time to a decision",
    )
    for decision in decisions:
        median = "-" if decision.median_trades is None else f"{decision.median_trades:,.0f}"
        table.add_row(f"{decision.effect:g}", median, f"{decision.decided_by_3000:.0%}", f"{decision.missed:.0%}")
    console.print(table)
    result = {
        "false_promotions": [asdict(row) for row in promotions],
        "time_to_decision": [asdict(row) for row in decisions],
    }
    _finish(result, None if plot is None else drift_plots.experiments(promotions, decisions, plot))


def prequential(
    data: Annotated[Path, typer.Option("--data", help="A CSV or Parquet file, one row an example.")],
    label: Annotated[str, typer.Option("--label", help="The column to predict: two classes or more.")],
    moment: Annotated[
        str | None, typer.Option("--time", help="The column to sort by; without it, the file's order.")
    ] = None,
    arf: Annotated[
        bool, typer.Option("--arf/--no-arf", help="Also run river's adaptive random forest, which takes the longest.")
    ] = True,
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same figures.")] = 7,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", help="The plot over time (PNG). Default: `<data>-prequential.png` in this folder."),
    ] = None,
) -> None:
    """Learn a labelled stream row by row: **predict first, then see the label**. Any data, not only markets.

    Our learner beside saying the last label again (`no_change`), the frequency of classes (`base_rate`) and river's
    adaptive random forest (`arf`). Text columns are numbered, missing values allowed. A temporal kappa above 0 means better
    than saying the last label again. The last line is JSON.

    Example: `trading-platform learn prequential --data stream.csv --label y --time at --plot stream.png`
    """
    from trading_platform.learning import drift_plots
    from trading_platform.learning.prequential import (
        UnreadableStreamError,
        document,
        read_stream,
        rolling,
        score_stream,
    )

    console = Console()
    try:
        stream = read_stream(data, label, moment)
    except UnreadableStreamError as problem:
        Console(stderr=True).print(f"[red]{problem}[/red]")
        raise typer.Exit(1) from None
    with _progress() as report:
        scores, weights = score_stream(stream, with_arf=arf, seed=seed, progress=report)
    table = Table("predictor", "accuracy", "temporal kappa", "log-loss", "drifts", "updates", "seconds",
                  title=f"{data.name}: {len(stream.label):,} rows, each predicted before its label was seen")  # fmt: skip
    for name, score in scores.items():
        kappa = "-" if score.kappa_temporal is None else f"{score.kappa_temporal:.4f}"
        table.add_row(name, f"{score.accuracy:.4f}", kappa, f"{score.log_loss:.4f}", str(score.drift_count),
                      f"{score.updates:,}", f"{score.seconds:.2f}")  # fmt: skip
    console.print(table)
    lines = {}
    for name, score in scores.items():
        rows, accuracy = rolling(score.right)
        lines[name] = ([stream.moments[row] for row in rows.tolist()], accuracy.tolist())
    marks = [stream.moments[row] for row in scores["ours"].drifts]
    drawn = drift_plots.over_time(
        lines, marks, f"{data.name}: accuracy of the rows before", plot or Path(f"{data.stem}-prequential.png")
    )
    _finish(document(stream, scores, weights), drawn)


@contextmanager
def _progress() -> Iterator[Report]:
    """A bar for each piece of work, on the error stream so that the output stays readable by programs."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,}/{task.total:,}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield report


def _finish(result: Mapping[str, Any], plot: Path | None) -> None:
    """The JSON object, as the last line."""
    typer.echo(json.dumps({**result, "plot": None if plot is None else str(plot)}))
