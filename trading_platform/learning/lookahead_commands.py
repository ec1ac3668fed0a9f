"""The command `learn check-lookahead`: do features know the future, do they forget the past, are they the same live?"""

import importlib
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from trading_platform.learning.bar_options import AcceptLoss, Columns, Labels, SymbolName, TimeZone, VenueName, reading
from trading_platform.learning.command_progress import command_progress


def check_lookahead(
    data: Annotated[Path, typer.Option(help="A file or folder of bars; every symbol's newest 5,000 are checked.")],
    features: Annotated[
        str,
        typer.Option(
            help="`module:function` of your own: from one symbol's bars (a polars frame) to a matrix, or to a frame "
            "with named columns; or a set of the platform's, `standard` or `wide`."
        ),
    ] = "standard",
    interval: Annotated[str | None, typer.Option(help="Put finer bars together to this interval first.")] = None,
    time_zone: TimeZone = None,
    venue: VenueName = None,
    symbol: SymbolName = None,
    columns: Columns = None,
    labels: Labels = None,
    accept_loss: AcceptLoss = False,
) -> None:
    """Check features mechanically on real bars. Exits with 1 where one fails.

    *Look-ahead*: recomputed with the data cut at t, the row at t must be equal to the last bit. *Recursive*: with 199,
    399, 499, 999 or 1,999 bars of history the newest row must agree with the full history's to 2 % of the column's
    deviation. *Live*: the platform's own features, taken bar by bar, must equal the batch to the last bit.

    A feature that knows the future is `leaking` in the last line's JSON; one that never forgets is `never_settling`.

    Examples:

        trading-platform learn check-lookahead --data binance_1h

        trading-platform learn check-lookahead --data binance_1h --features my_features:returns
    """
    from trading_platform.features.checks import check_symbols
    from trading_platform.features.definition import FEATURE_SETS
    from trading_platform.learning.evaluation_bars import bars_of_files
    from trading_platform.market_data.reading import interval_seconds

    console = Console()
    try:
        with command_progress() as report:
            report("reading", 0, None)
            options = reading(time_zone, venue, symbol, columns, labels, accept_loss=accept_loss)
            bars = bars_of_files(data, None if interval is None else interval_seconds(interval), options).bars
            if features in FEATURE_SETS:
                found = check_symbols(bars, progress=report, features=FEATURE_SETS[features])
            else:
                compute, names = _own(features, bars)
                found = check_symbols(bars, compute, names, report)
    except (ValueError, OSError, ImportError, AttributeError) as problem:
        Console(stderr=True).print(f"[red]cannot check features on {data}:[/red] {problem}")
        raise typer.Exit(1) from problem
    table = Table("symbol", "bars", "knows the future", "needs more history", "differs live", "passed")
    for one in found:
        history = ", ".join(f"{name}: {'never settles' if n < 0 else n}" for name, n in one.history.items())
        live = "not checked" if one.differing is None else ", ".join(one.differing) or "none"
        table.add_row(one.symbol, f"{one.bars:,}", ", ".join(one.leaking) or "none", history or "none", live,
                      "yes" if one.passed else "[red]no[/red]")  # fmt: skip
    console.print(table)
    passed = all(one.passed for one in found)
    last = {
        "passed": passed, "symbols": len(found), "leaking": sorted({name for one in found for name in one.leaking}),
        "never_settling": sorted({name for one in found for name, n in one.history.items() if n < 0}),
        "most_history": max((n for one in found for n in one.history.values() if n >= 0), default=199),
        "differing_live": sorted({name for one in found for name in one.differing or []}),
    }  # fmt: skip
    typer.echo(json.dumps(last))
    if not passed:
        raise typer.Exit(1)


def _own(target: str, bars: Any) -> tuple[Any, list[str]]:
    """A function of the caller's, from `module:function` in the working directory or installed, and its columns."""
    from trading_platform.features.definition import FEATURE_SETS

    module, _, name = target.partition(":")
    if not name:
        sets = ", ".join(FEATURE_SETS)
        raise ValueError(f"--features {target!r} is neither one of the platform's sets ({sets}) nor a module:function")
    sys.path.insert(0, str(Path.cwd()))
    function = getattr(importlib.import_module(module), name)
    first = function(bars.filter(bars["symbol"] == bars["symbol"][0]).head(1_000))
    if hasattr(first, "columns"):
        return (lambda part: function(part).to_numpy()), list(first.columns)
    return function, [f"column {number}" for number in range(first.shape[1])]
