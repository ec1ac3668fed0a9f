"""Commands on market data: `ingest`, `lake`, `collector`."""

import asyncio
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from trading_platform.identifiers import DatasetId
from trading_platform.market_data.datasets import IngestOptions, IngestReport, VenueUnreachableError
from trading_platform.market_data.datasets import ingest as run_ingest
from trading_platform.market_data.lake import Lake
from trading_platform.market_data.quality import NOT_LOST
from trading_platform.market_data.reading import ReadOptions, interval_name, interval_seconds
from trading_platform.market_data.tables import UnreadableFileError
from trading_platform.settings import settings
from trading_platform.storage.databases import Databases
from trading_platform.storage.lease import TTL


def ingest(
    source: Annotated[str, typer.Argument(help="A file, a folder, `binance`, `synthetic` or `auto`.")],
    *,
    time_zone: Annotated[
        str | None, typer.Option(help="Zone of times without an offset, such as Asia/Kolkata. Default: the venue's.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="`start` or `end`: what a bar's time marks. Default: found out where provable.")
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(help="Columns from left to right, as time,open,high,low,close,volume; - leaves one out."),
    ] = None,
    symbol: Annotated[str | None, typer.Option(help="The symbol, where neither name nor column tells it.")] = None,
    interval: Annotated[str | None, typer.Option(help="1m, 5m, 1h, 1d... Default: the most frequent step.")] = None,
    venue: Annotated[str | None, typer.Option(help="`binance`, `bitfinex` or `nse`. Default: by the data.")] = None,
    accept_loss: Annotated[bool, typer.Option(help="Let a source in that loses more than 5 % of its rows.")] = False,
    repair: Annotated[bool, typer.Option(help="Ask the venue and its backup for bars that are absent.")] = True,
    replay_bars: Annotated[int, typer.Option(help="Time steps kept back for the replay, a tenth at most.")] = 3000,
    drill: Annotated[str | None, typer.Option(help="`drift`: plant a change of regime, to see it found.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of `synthetic`.")] = 7,
    days: Annotated[int, typer.Option(help="Days of history of `binance`.")] = 60,
) -> None:
    """Read bars into the lake: checked, counted, repaired where somebody has what is absent.

    CSV, JSON, feather and parquet are understood, packed with gzip or not: freqtrade's, Binance's klines, Kite's
    candles, NSE's bhavcopy, NIFTY minutes, ticks and plain OHLCV, with a header or without one. Bad rows go to a
    quarantine table with the reason. Reading the same source again adds nothing.

    Examples:

        trading-platform ingest ../data/binance_1h

        trading-platform ingest NIFTY.txt --time-zone Asia/Kolkata --labels end
    """
    options = IngestOptions(
        read=ReadOptions(
            time_zone=time_zone,
            labels=_labels(labels),
            columns=tuple(name.strip() for name in columns.split(",")) if columns else (),
            symbol=symbol,
            venue=venue,
            accept_loss=accept_loss,
        ),
        replay_bars=replay_bars,
        repair=repair,
        drill=_drill(drill),
        seed=seed,
        interval_seconds=_interval(interval),
        days=days,
    )
    console = Console()
    databases = Databases(settings())
    try:
        with _progress(console) as bar:
            task = bar.add_task("reading", total=None)
            report = run_ingest(
                databases,
                Lake(settings().lake_dir),
                source,
                options,
                lambda what, done, total: bar.update(task, description=what, completed=done, total=total),
            )
    except (UnreadableFileError, VenueUnreachableError) as error:
        Console(stderr=True).print(f"[red]cannot ingest {source}:[/red] {error}")
        raise typer.Exit(1) from error
    finally:
        databases.close()
    print_report(report, console)


def print_report(report: IngestReport, console: Console) -> None:
    """The report as tables: the dataset, its symbols, rows set aside by reason."""
    table = Table(title=f"Dataset {report.dataset_id}", show_header=False)
    table.add_row(
        "source", f"{report.source} ({report.kind}, {report.venue}, {interval_name(report.interval_seconds)})"
    )
    table.add_row("rows read", f"{report.rows:,}")
    table.add_row("bars", f"{report.bars:,} (added {report.added:,}, changed {report.changed:,})")
    table.add_row("from, to", f"{report.first:%Y-%m-%d %H:%M} .. {report.last:%Y-%m-%d %H:%M} UTC")
    table.add_row(
        "gaps", f"{report.gaps_found:,}; bars still missing {report.bars_missing:,}, repaired {report.bars_repaired:,}"
    )
    if report.replay_from:
        table.add_row("replay from", f"{report.replay_from:%Y-%m-%d %H:%M} UTC")
    table.add_row("seconds", f"{report.seconds:.1f}")
    console.print(table)
    if report.quarantined:
        reasons = Table("reason", "rows", "", title="Rows set aside")
        for reason, count in sorted(report.quarantined.items(), key=lambda item: -item[1]):
            reasons.add_row(reason, f"{count:,}", "nothing lost" if reason in NOT_LOST else "lost")
        console.print(reasons)
    for note in report.notes:
        console.print(f"note: {note}", highlight=False)
    for file, why in report.left_out.items():
        console.print(f"left out: {file}: {why}", highlight=False)


lake = typer.Typer(help="Look into the lake and keep it in order.", no_args_is_help=True)


@lake.command("show")
def show(
    dataset: Annotated[str, typer.Argument(help="A dataset's id, as `ingest` printed it.")],
    rows: Annotated[int, typer.Option(help="Gaps and quarantined rows shown, longest and newest first.")] = 10,
) -> None:
    """Show a dataset: bars by symbol, gaps, rows in quarantine by reason."""
    console, store = Console(), Lake(settings().lake_dir)
    bars = store.bars(dataset)
    if bars.is_empty():
        Console(stderr=True).print(f"no bars of dataset {dataset!r} in {store.root}")
        raise typer.Exit(1)
    symbols = Table("symbol", "bars", "first", "last", title=f"{dataset}, version {store.data_version(dataset)}")
    for part in bars.partition_by("symbol", maintain_order=True):
        symbols.add_row(part["symbol"][0], f"{len(part):,}", str(part["open_time"][0]), str(part["open_time"][-1]))
    console.print(symbols)
    gaps = Table("symbol", "first", "last", "missing", "repaired", "session", "asked", title="Gaps")
    for gap in store.gaps(dataset).sort("missing", descending=True).head(rows).iter_rows(named=True):
        gaps.add_row(
            gap["symbol"], str(gap["first"]), str(gap["last"]), str(gap["missing"]), str(gap["repaired"]),
            gap["session"], gap["tried"],
        )  # fmt: skip
    console.print(gaps)
    reasons = Table("reason", "rows", "first row", title="Quarantine")
    for part in store.quarantined(dataset).partition_by("reason", maintain_order=True):
        reasons.add_row(
            part["reason"][0], f"{len(part):,}", f"{part['file'][0]}:{part['row_number'][0]} {part['raw'][0]}"
        )
    console.print(reasons)


@lake.command("compact")
def compact() -> None:
    """Join the small files that live batches leave. Safe while others read; old files stay a week."""
    table = Table("table", "files before", "files after")
    for name, (before, after) in Lake(settings().lake_dir).compact().items():
        table.add_row(name, str(before), str(after))
    Console().print(table)


def collector(
    dataset: Annotated[str, typer.Option(help="The dataset whose bars are streamed, as `ingest` printed its id.")],
    flush_seconds: Annotated[float, typer.Option(help="Seconds between writes to the lake.")] = 5.0,
) -> None:
    """Stream a dataset's bars into the lake until SIGTERM: WebSocket for what comes, REST for what was missed.

    One at a time: a second collector of the same dataset stands by until the first one's lease expires.
    """
    from trading_platform.market_data.collector import UnknownDatasetError, collect
    from trading_platform.observability.logs import configure

    configure("collector")
    try:
        asyncio.run(collect(Databases(settings(), asleep_after=TTL), DatasetId(dataset), flush_seconds))
    except UnknownDatasetError as error:
        Console(stderr=True).print(f"[red]{error}[/red]")
        raise typer.Exit(1) from error


def _labels(text: str | None) -> Literal["start", "end"] | None:
    if text in (None, "start", "end"):
        return text  # type: ignore[return-value]
    raise typer.BadParameter(f"{text!r}: expected start or end", param_hint="--labels")


def _drill(text: str | None) -> Literal["drift"] | None:
    if text in (None, "drift"):
        return text  # type: ignore[return-value]
    raise typer.BadParameter(f"{text!r}: expected drift", param_hint="--drill")


def _interval(text: str | None) -> int | None:
    try:
        return None if text is None else interval_seconds(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--interval") from error


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True)
