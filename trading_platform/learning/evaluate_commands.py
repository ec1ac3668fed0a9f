"""The command `learn evaluate`: any OHLCV files in, an honest report out."""

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from trading_platform.learning.bar_options import AcceptLoss, Columns, Labels, SymbolName, TimeZone, VenueName, reading
from trading_platform.learning.command_progress import Report, command_progress
from trading_platform.market_data.reading import interval_name
from trading_platform.market_data.reading import interval_seconds as seconds_of

SHOWN = (
    "n", "n_effective", "base_rate", "accuracy", "log_loss", "brier", "ece", "precision_at", "coverage_at", "certified_80",
    "expected_value_after_costs",
)  # fmt: skip


def evaluate(
    data: Annotated[Path, typer.Option(help="A file or folder of bars: CSV, JSON, feather or parquet, packed or not.")],
    out: Annotated[Path, typer.Option(help="Where the JSON report goes; page and plots are written beside it.")],
    interval: Annotated[
        str | None, typer.Option(help="1m, 5m, 1h, 1d... Finer bars are put together. Default: the files' own.")
    ] = None,
    horizon: Annotated[int, typer.Option(help="Bars a trade lasts at most.", min=1)] = 12,
    profit: Annotated[float, typer.Option(help="Profit barrier, in deviations of the horizon.")] = 1.0,
    stop: Annotated[float, typer.Option(help="Stop barrier, in deviations of the horizon.")] = 1.0,
    cost: Annotated[
        float | None, typer.Option(help="Cost a side, a fraction of notional. Default: what the venue charges.")
    ] = None,
    primary: Annotated[
        str | None, typer.Option(help="Judge only entries of this rule (meta-labels): trend, breakout or oversold.")
    ] = None,
    model: Annotated[str, typer.Option(help="`lightgbm` or `logistic`.")] = "lightgbm",
    trials: Annotated[int, typer.Option(help="Hyperparameters to try. All are counted.", min=2)] = 20,
    folds: Annotated[int, typer.Option(help="Test windows, in the search and in the evaluation.", min=2)] = 5,
    coverage: Annotated[float, typer.Option(help="Share of bars to publish where nothing is certified.")] = 0.1,
    features: Annotated[
        str, typer.Option(help="`standard`, or `wide`: with longer bars and the market's reference symbol.")
    ] = "standard",
    time_zone: TimeZone = None,
    venue: VenueName = None,
    symbol: SymbolName = None,
    columns: Columns = None,
    labels: Labels = None,
    accept_loss: AcceptLoss = False,
    seed: Annotated[int, typer.Option(help="The same seed gives the same report.")] = 7,
) -> None:
    """Measure what can be predicted on these bars: purged walk-forward, calibrated, certified or not, after costs.

    Hyperparameters and calibration are chosen on the earlier bars, all figures come from the later ones. Interrupted, the
    same command goes on where it stopped.

    The last line is one JSON object: a card of figures for all test bars (`overall`), each test window (`folds`) and each
    market condition (`conditions`), then `pbo`, `deflated_sharpe` and `trials`. A card's `precision_at` and `coverage_at`
    have an interval each for confidences of 60, 70, 80 and 90 %; `certified_80` says whether 80 % precision is proven.
    The report at `--out` has these keys and more, the page beside it the plots.

    Examples:

        trading-platform learn evaluate --data binance_1h --interval 1h --horizon 12 --out report.json

        trading-platform learn evaluate --data nifty_1m_2021 --interval 5m --primary breakout --out nifty.json
    """
    from trading_platform.features.definition import FEATURE_SETS
    from trading_platform.learning.evaluation_bars import bars_of_files, cost_per_side, plan_of
    from trading_platform.learning.labels import BarrierSpec
    from trading_platform.learning.meta_labels import PRIMARY_RULES
    from trading_platform.market_data.tables import UnreadableFileError

    began = time.monotonic()
    try:
        if out.is_dir():
            raise ValueError(f"--out {out} is a folder; name the report's file, such as {out / 'report.json'}")
        if primary is not None and primary not in PRIMARY_RULES:
            raise ValueError(f"no primary rule {primary!r}; expected one of {', '.join(PRIMARY_RULES)}")
        if model not in {"lightgbm", "logistic"}:
            raise ValueError(f"no model {model!r}; expected lightgbm or logistic")
        if features not in FEATURE_SETS:
            raise ValueError(f"no feature set {features!r}; expected one of {', '.join(FEATURE_SETS)}")
        with command_progress() as progress:
            progress("reading", 0, None)
            options = reading(time_zone, venue, symbol, columns, labels, accept_loss=accept_loss)
            found = bars_of_files(data, None if interval is None else seconds_of(interval), options)
            side = cost_per_side(found.venue, found.interval_seconds) if cost is None else cost
            barriers = BarrierSpec(profit, stop, horizon, side)
            question = {
                "interval": interval_name(found.interval_seconds), "horizon": horizon, "profit": profit, "stop": stop,
                "cost_per_side": side, "primary": primary, "model": model, "trials": trials, "folds": folds,
                "coverage": coverage, "features": features, "seed": seed,
            }  # fmt: skip
            report = _evaluated(found, plan_of(barriers, coverage, features), question, out, progress)
            report["data"] |= {"name": data.name}
            report["seconds"] = round(time.monotonic() - began, 1)
            progress("drawing", 0, None)
            page = _write(report, out)
    except (UnreadableFileError, ValueError, OSError) as problem:
        Console(stderr=True).print(f"[red]cannot evaluate {data}:[/red] {problem}")
        raise typer.Exit(1) from problem
    _say(report, out, page)


def _evaluated(found: Any, plan: Any, question: dict[str, Any], out: Path, progress: Report) -> dict[str, Any]:
    """The report, with the study's file beside it."""
    from trading_platform.identifiers import content_id
    from trading_platform.learning.evaluation import Question, evaluate
    from trading_platform.learning.meta_labels import PRIMARY_RULES
    from trading_platform.learning.samples import build_samples
    from trading_platform.learning.search import study_file

    progress("labelling", 0, None)
    embargo = question["horizon"] * found.interval_seconds * 1_000_000
    rule = PRIMARY_RULES[question["primary"]] if question["primary"] else None
    newest = found.bars["available_at"].max()
    samples = build_samples(found.bars, plan, newest, embargo, rule)
    # Everything that decides a trial is in the name; the number of trials is not, so that more can be added later.
    asked = {name: value for name, value in question.items() if name != "trials"}
    name = content_id("evaluation", found.data_id, plan.feature_hash, json.dumps(asked, sort_keys=True))
    report = evaluate(
        samples,
        Question(name, question["model"], question["trials"], question["folds"], question["coverage"], embargo,
                 question["seed"]),
        study_file(out.with_suffix(".study.log")),
        progress,
    )  # fmt: skip
    first, last = found.bars["open_time"].min(), found.bars["open_time"].max()
    return {
        "data": {
            "id": found.data_id, "venue": found.venue, "bars": len(found.bars), "from": first.isoformat(),
            "to": last.isoformat(), "symbols": sorted(found.bars["symbol"].unique().to_list()), "notes": found.notes,
        },
        "question": question,
        "feature_hash": plan.feature_hash,
        **report,
    }  # fmt: skip


def _write(report: dict[str, Any], out: Path) -> Path:
    from trading_platform.learning.evaluation_page import write_page
    from trading_platform.learning.evaluation_plots import write_plots

    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1))
    page = out.with_suffix(".html")
    write_page(report, write_plots(report, out.parent / f"{out.stem}-plots"), page)
    return page


def _say(report: dict[str, Any], out: Path, page: Path) -> None:
    from trading_platform.learning.evaluation_page import answer, setting

    console = Console()
    console.print(f"\n[bold]{answer(report)}[/bold]\n{setting(report)}\n\nReport {out}, page {page}\n")
    last = {
        "overall": _card(report["overall"]),
        "folds": [_card(fold) for fold in report["folds"]],
        "conditions": {
            name: {value: _card(card) for value, card in values.items()}
            for name, values in report["conditions"].items()
        },
        **{name: report[name] for name in ("pbo", "deflated_sharpe", "trials", "seconds")},
        "report": str(out),
        "page": str(page),
    }
    typer.echo(json.dumps(last))


def _card(card: dict[str, Any]) -> dict[str, Any]:
    """What the last line shows of a card; the report has all of it."""
    return {name: card[name] for name in SHOWN}
