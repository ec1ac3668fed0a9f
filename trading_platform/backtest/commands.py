"""The command `backtest`: play a strategy over files, say what speaks against the result, write the page."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from trading_platform.market_data.reading import ReadOptions, interval_seconds
from trading_platform.market_data.tables import UnreadableFileError

BASIS_POINT = 1e-4


def backtest(
    data: Annotated[Path, typer.Option(help="A file or folder of bars: CSV, JSON, feather, parquet, packed or not.")],
    strategy: Annotated[
        str, typer.Option(help="`sma_cross`, or an installed strategy: `barrier_long`, `delivery_long`, ...")
    ],
    *,
    set_: Annotated[list[str] | None, typer.Option("--set", help="A parameter, as fast=20. Repeat for more.")] = None,
    grid: Annotated[
        list[str] | None, typer.Option(help="A parameter to vary, as fast=5:50:5 or stop=1,2,5. Repeat for more.")
    ] = None,
    symbol: Annotated[list[str] | None, typer.Option(help="Only this symbol. Repeat for more. Default: all.")] = None,
    cash: Annotated[
        float, typer.Option(help="Money at the start, shared equally by the symbols.", min=1e-9)
    ] = 1_000_000.0,
    fraction: Annotated[
        float | None, typer.Option(help="Share of equity in a position. Default: the strategy's, else .95.")
    ] = None,
    quantity: Annotated[float | None, typer.Option(help="Fixed size of every entry, in place of a share.")] = None,
    charges: Annotated[
        str,
        typer.Option(help="`auto` (by venue), `none`, `delivery`, `intraday`, `futures`, `options`, or a rate: 0.001."),
    ] = "auto",
    fill: Annotated[
        str, typer.Option(help="`open`: orders fill at the next open; `close`: at the close that decided.")
    ] = "open",
    slippage_bps: Annotated[
        float, typer.Option(help="Against every market and stop order, in basis points.", min=0.0)
    ] = 0.0,
    finer: Annotated[
        Path | None, typer.Option(help="Finer bars of the same symbols: they say whether stop or target came first.")
    ] = None,
    signals: Annotated[
        Path | None, typer.Option(help="Parquet with symbol, bar_open_time, state: enter where state is `ok` only.")
    ] = None,
    partial_last: Annotated[bool, typer.Option(help="The last bar is not over: decide nothing on it.")] = False,
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("backtest.html"),
    time_zone: Annotated[str | None, typer.Option(help="Zone of times without an offset.")] = None,
    interval: Annotated[str | None, typer.Option(help="1m, 5m, 1h, 1d... Default: the most frequent step.")] = None,
    venue: Annotated[str | None, typer.Option(help="`binance`, `bitfinex` or `nse`. Default: by the data.")] = None,
    accept_loss: Annotated[
        bool, typer.Option(help="Go on with a source that loses more than 5 % of its rows.")
    ] = False,
) -> None:
    """Play a strategy over files of bars, and say what speaks against the result.

    Stops and targets fill inside bars, gaps at the open; charges are those of the venue, by head and day. With `--grid`
    every combination is played, on all cores, and the best one is judged as the best of so many: deflated Sharpe ratio,
    probability of overfitting. Prints a table, writes a page with plots, and ends with one line of JSON.

    The platform's own strategies enter on their model's signals; without `--signals` they enter at every close, which
    shows what their barriers earn alone.

    Examples:

        trading-platform backtest --data bars.csv --strategy sma_cross --set fast=10 --set slow=50 --set stop=2

        trading-platform backtest --data binance_1h --strategy sma_cross --grid fast=5:50:5 --grid slow=20:200:20
    """
    from trading_platform.backtest.grid import GridError, axis
    from trading_platform.backtest.report import page, shown
    from trading_platform.backtest.session import Request, execute
    from trading_platform.strategies.definition import StrategyError

    console, began = Console(stderr=True), time.perf_counter()
    try:
        request = Request(
            data=data, strategy=strategy, parameters={name: values[0] for name, values in map(axis, set_ or [])},
            axes=dict(map(axis, grid or [])), symbols=tuple(symbol or ()), cash=cash, fraction=fraction, quantity=quantity,
            charges=charges, next_open=_fill(fill) == "open", slippage=slippage_bps * BASIS_POINT, partial_last=partial_last,
            finer=finer, signals=signals,
            read=ReadOptions(
                time_zone=time_zone, venue=venue, accept_loss=accept_loss,
                interval_seconds=None if interval is None else interval_seconds(interval),
            ),
        )  # fmt: skip
        with _progress(console) as bar:
            task = bar.add_task("reading", total=None)
            report = execute(
                request,
                lambda name: bar.update(task, description=f"reading {name}"),
                lambda done, total: bar.update(task, description="playing", completed=done, total=total),
            )
    except (UnreadableFileError, StrategyError, GridError, LookupError, ValueError) as problem:
        console.print(f"[red]backtest:[/red] {problem}", highlight=False)
        raise typer.Exit(1) from problem
    found = report.as_json() | {"seconds": round(time.perf_counter() - began, 3), "page": str(out)}
    chosen = report.trials[report.chosen]
    rows = {**asdict(chosen.figures), **report.measured}
    facts = {
        "strategy": f"{strategy} {found['parameters']}", "data": str(data), "symbols": ", ".join(found["symbols"]),
        "bars": f"{found['bars']:,} of {report.loaded.rows:,} rows", "fills at": fill, "charges": charges,
        "trials": f"{len(report.trials):,}", "notes": "; ".join(report.loaded.notes) or "none",
    }  # fmt: skip
    out.write_text(
        page(f"Backtest of {strategy}", facts, rows, report.findings, report.results, report.trials, request.axes)
    )
    table = Table("figure", "value", title=f"{strategy} {found['parameters']}")
    for name, value in rows.items():
        table.add_row(name, shown(value))
    stdout = Console()
    stdout.print(table)
    for finding in report.findings:
        stdout.print(f"[red]{finding.code}[/red]: {finding.text}", highlight=False)
    typer.echo(json.dumps(found))


def _fill(text: str) -> Literal["open", "close"]:
    if text in ("open", "close"):
        return text  # type: ignore[return-value]
    raise ValueError(f"--fill {text!r}: expected open or close")


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True)
