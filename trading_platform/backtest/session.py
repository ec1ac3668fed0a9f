"""One call of the command `backtest`, without its printing: from files to results, trials and objections."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl

from trading_platform.backtest.charges import FlatSchedule, IndianSchedule, Schedule, SpotSchedule
from trading_platform.backtest.criticism import Finding, criticise, luck
from trading_platform.backtest.files import Loaded, as_bars, instrument_of, load
from trading_platform.backtest.grid import Trial, as_trials, best, combinations, sweep
from trading_platform.backtest.kernel import Finer, Funds
from trading_platform.backtest.simulation import NO_FINER, Backtest, Bars, finer_bars, run
from trading_platform.backtest.strategies import Prepared, defaults, play, prepare
from trading_platform.market_data.reading import ReadOptions
from trading_platform.markets.instruments import is_index

WHOLE = 0.95
"""Of equity, where neither strategy nor caller says how much: the rest pays for gaps between a close and the next open."""
SEGMENTS = ("delivery", "intraday", "futures", "options")


@dataclass(frozen=True)
class Request:
    """What to play. `parameters` fixed, `axes` varied; `fraction` and `quantity`: of an entry, None: the strategy's;
    `charges`: auto, none, a segment of the Indian schedule, or a rate such as 0.001; `slippage`: a fraction of the price."""

    data: Path
    strategy: str
    parameters: Mapping[str, float]
    axes: Mapping[str, Sequence[float]]
    read: ReadOptions
    symbols: tuple[str, ...] = ()
    cash: float = 1_000_000.0
    fraction: float | None = None
    quantity: float | None = None
    charges: str = "auto"
    next_open: bool = True
    slippage: float = 0.0
    partial_last: bool = False
    finer: Path | None = None
    signals: Path | None = None


@dataclass(frozen=True)
class Report:
    """`results`: an account a symbol, each with an equal share of the cash; `trials`: all of the grid, `chosen` the best."""

    request: Request
    loaded: Loaded
    results: list[Backtest]
    trials: list[Trial]
    chosen: int
    measured: dict[str, float | int | None]
    findings: list[Finding]

    def as_json(self) -> dict[str, Any]:
        """The command's last line."""
        chosen = self.trials[self.chosen]
        return {
            "strategy": self.request.strategy,
            "parameters": {**defaults(self.request.strategy), **self.request.parameters, **chosen.parameters},
            "symbols": [result.bars.symbol for result in self.results],
            "bars": sum(len(result.bars) for result in self.results),
            "fills": sum(len(result.order_rows) for result in self.results),
            **asdict(chosen.figures),
            **self.measured,
            "objections": [finding.code for finding in self.findings],
            "order_hash": {result.bars.symbol: result.order_hash for result in self.results},
        }


def execute(
    request: Request, on_file: Callable[[str], None] = lambda _: None,
    on_trials: Callable[[int, int], None] = lambda done, total: None,
) -> Report:  # fmt: skip
    """Read, play, judge. Raises `UnreadableFileError`, `StrategyError`, `GridError`, ValueError: each says what to change."""
    loaded = load(request.data, request.read, request.symbols, on_file)
    signals = None if request.signals is None else pl.read_parquet(request.signals)
    tables = [prepare(request.strategy, as_bars(frame), frame, signals) for frame in loaded.frames.values()]
    finer = _finer(request, [table.bars for table in tables])
    grid = combinations(request.axes) if request.axes else [{}]
    share = request.cash / len(tables)
    done = 0

    def one(parameters: Mapping[str, float]) -> list[Backtest]:
        return [_play(request, table, inside, parameters, share) for table, inside in zip(tables, finer, strict=True)]

    def counted() -> None:
        nonlocal done
        done += 1
        on_trials(done, len(grid))

    trials = sweep(grid, one, counted)
    chosen = best(trials)
    judged = as_trials(trials, chosen, request.axes)
    measured = luck(judged)
    tunable = [name for name in defaults(request.strategy) if name != "capital_fraction"]
    used = [
        name
        for name in tunable
        if {**defaults(request.strategy), **request.parameters, **trials[chosen].parameters}[name]
    ]
    findings = criticise(trials[chosen].figures, len(used), measured, judged.at_edge)
    return Report(request, loaded, one(trials[chosen].parameters), trials, chosen, measured, findings)


def schedule_for(text: str, bars: Bars) -> Schedule:
    """The charges asked for; `auto`: the venue's, delivery for daily bars of shares, futures for an index, else intraday.

    Raises ValueError on a text that is none of these.
    """
    if text == "auto":
        if bars.venue != "nse":
            return SpotSchedule(bars.venue)
        daily = bars.interval_seconds >= 86_400
        return IndianSchedule("futures" if is_index(bars.symbol) else "delivery" if daily else "intraday")
    if text in SEGMENTS:
        return IndianSchedule(text)  # type: ignore[arg-type]
    try:
        rate = Decimal(0) if text == "none" else Decimal(text)
    except ArithmeticError as problem:
        raise ValueError(
            f"charges {text!r}: expected auto, none, {', '.join(SEGMENTS)}, or a rate such as 0.001"
        ) from problem
    if not 0 <= rate < 1:
        raise ValueError(f"a rate of charges is a fraction of the value in [0, 1), not {rate}")
    return FlatSchedule(rate)


def _play(request: Request, table: Prepared, finer: Finer, parameters: Mapping[str, float], cash: float) -> Backtest:
    bars, instrument = table.bars, instrument_of(table.bars)
    played = play(
        request.strategy, table, {**request.parameters, **parameters}, next_open=request.next_open, slippage=request.slippage
    )  # fmt: skip
    schedule = schedule_for(request.charges, bars)
    funds = Funds(
        cash=cash,
        quantity=request.quantity or 0.0,
        fraction=request.fraction or played.fraction or WHOLE,
        step=float(instrument.step),
        minimum_notional=float(instrument.minimum_notional),
        fee_in_base=isinstance(schedule, SpotSchedule) and request.quantity is None,
    )
    rules = played.rules._replace(partial_last=request.partial_last)
    return run(bars, played.wishes, rules, funds, schedule, finer)


def _finer(request: Request, coarse: Sequence[Bars]) -> list[Finer]:
    if request.finer is None:
        return [NO_FINER] * len(coarse)
    found = load(request.finer, request.read, tuple(bars.symbol for bars in coarse))
    return [finer_bars(bars, as_bars(found.frames[bars.symbol])) for bars in coarse]
