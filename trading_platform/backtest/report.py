"""The HTML page of a backtest: figures, objections, curves, trades, the grid. One file, nothing fetched."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from trading_platform.backtest.criticism import Finding
from trading_platform.backtest.grid import Trial
from trading_platform.backtest.simulation import Backtest
from trading_platform.backtest.statistics import daily

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, ACCENT, WARN, GOOD, SOFT = "#1f2937", "#2563eb", "#dc2626", "#059669", "#94a3b8"
TRADES_SHOWN = 200
STYLE = """body{font:15px/1.5 system-ui,sans-serif;color:#1f2937;max-width:66rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;margin:1rem 0;font-variant-numeric:tabular-nums}td,th{padding:.2rem .8rem;border-bottom:1px
solid #e5e7eb;text-align:right}td:first-child,th:first-child{text-align:left}img{max-width:100%}.objection{border-left:4px
solid #dc2626;padding:.2rem .8rem;margin:.4rem 0;background:#fef2f2}.none{border-color:#059669;background:#ecfdf5}"""


def page(
    title: str, facts: Mapping[str, str], figures: Mapping[str, Any], findings: Sequence[Finding],
    results: Sequence[Backtest], trials: Sequence[Trial], axes: Mapping[str, Sequence[float]],
) -> str:  # fmt: skip
    """The page's HTML. `facts`: what was run; `figures`: name and value of each figure."""
    objections = "".join(f'<p class="objection"><b>{f.code}</b>: {html.escape(f.text)}</p>' for f in findings)
    plots = [("Equity and drawdown", equity_plot(results)), ("Trades", trades_plot(results))]
    if len(trials) > 1:
        plots.append(("Sharpe ratio over the grid", grid_plot(trials, axes)))
    parts = [
        f"<h1>{html.escape(title)}</h1>", _table(["what", "value"], list(facts.items())),
        "<h2>What speaks against it</h2>",
        objections or '<p class="objection none">No objection was found. That is no proof.</p>',
        "<h2>Figures</h2>", _table(["figure", "value"], [(name, shown(value)) for name, value in figures.items()]),
        *(f'<h2>{name}</h2><img alt="{name}" src="data:image/png;base64,{_png(plot)}">' for name, plot in plots),
        "<h2>Charges by head</h2>", _charges(results), f"<h2>Trades (the last {TRADES_SHOWN})</h2>", _trades(results),
    ]  # fmt: skip
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>'


def shown(value: Any) -> str:
    """A figure as people read it; a dash is one that could not be measured."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.2f}" if abs(value) >= 100 else f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def equity_plot(results: Sequence[Backtest]) -> "Figure":
    """Equity of all accounts by day above its drawdown."""
    days, equity = daily(results)
    made = _figure(5.0)
    top, bottom = made.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    top.plot(days, equity, color=ACCENT, linewidth=1.1)
    top.axhline(sum(result.funds.cash for result in results), color=SOFT, linewidth=0.8, linestyle="--")
    if equity.min() > 0 and equity.max() > 10 * equity.min():
        top.set_yscale("log")
    peaks = np.maximum(np.maximum.accumulate(equity), sum(result.funds.cash for result in results))
    bottom.fill_between(days, (equity / peaks - 1.0) * 100.0, 0.0, color=WARN, alpha=0.4)
    top.set_ylabel("equity")
    bottom.set_ylabel("drawdown, %")
    return made


def trades_plot(results: Sequence[Backtest]) -> "Figure":
    """Each trade's net return at its exit, and how they are distributed."""
    made = _figure(3.4)
    over_time, spread = made.subplots(1, 2, width_ratios=(2, 1), sharey=True)
    for result in results:
        values = result.trades["net_return"].to_numpy() * 100.0
        if len(values):
            colours = np.where(values > 0, GOOD, WARN)
            over_time.scatter(result.trades["exit_time"].to_numpy(), values, s=6, c=colours, alpha=0.6, linewidths=0)
    every = np.concatenate([result.trades["net_return"].to_numpy() * 100.0 for result in results])
    spread.hist(every, bins=40, orientation="horizontal", color=ACCENT)
    over_time.axhline(0.0, color=SOFT, linewidth=0.8)
    over_time.set_ylabel("net return of a trade, %")
    spread.set_xlabel("trades")
    return made


def grid_plot(trials: Sequence[Trial], axes: Mapping[str, Sequence[float]]) -> "Figure":
    """A heat map over the first two axes, the best over all others; a line where there is one axis."""
    made = _figure(4.2)
    area = made.subplots()
    names = [name for name, values in axes.items() if len(values) > 1][:2]
    if len(names) == 1:
        ratios = [np.nan if t.figures.sharpe is None else t.figures.sharpe for t in trials]
        area.plot([t.parameters[names[0]] for t in trials], ratios, marker="o", color=ACCENT)
        area.set_xlabel(names[0])
        area.set_ylabel("Sharpe ratio")
        return made
    across, up = (list(axes[name]) for name in names)
    cells = np.full((len(up), len(across)), np.nan)
    for trial in trials:
        row, column = up.index(trial.parameters[names[1]]), across.index(trial.parameters[names[0]])
        cells[row, column] = np.fmax(
            cells[row, column], np.nan if trial.figures.sharpe is None else trial.figures.sharpe
        )
    largest = float(np.nanmax(np.abs(cells))) if np.isfinite(cells).any() else 1.0
    area.set_facecolor("#e5e7eb")  # combinations that were not played
    shade = area.imshow(cells, origin="lower", aspect="auto", cmap="RdBu", vmin=-largest, vmax=largest)
    area.set_xticks(range(len(across)), [f"{value:g}" for value in across], fontsize=7)
    area.set_yticks(range(len(up)), [f"{value:g}" for value in up], fontsize=7)
    area.set_xlabel(names[0])
    area.set_ylabel(names[1])
    made.colorbar(shade, ax=area, label="Sharpe ratio")
    return made


def _figure(height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(9.0, height), dpi=110, layout="constrained")


def _png(made: "Figure") -> str:
    buffer = io.BytesIO()
    made.savefig(buffer, format="png")
    return base64.b64encode(buffer.getvalue()).decode()


def _charges(results: Sequence[Backtest]) -> str:
    heads: dict[str, float] = {}
    for result in results:
        for head, amount in result.charges_by_head().items():
            heads[head] = heads.get(head, 0.0) + float(amount)
    return _table(["head", "amount"], [(head, f"{amount:,.2f}") for head, amount in heads.items()])


def _trades(results: Sequence[Backtest]) -> str:
    rows = [
        (
            result.bars.symbol, f"{row['entry_time']:%Y-%m-%d %H:%M}", f"{row['exit_time']:%Y-%m-%d %H:%M}", row["side"],
            f"{row['quantity']:.8g}", f"{row['entry_price']:.8g}", f"{row['exit_price']:.8g}", f"{row['net']:,.2f}",
            f"{row['net_return']:.2%}", row["reason"],
        )
        for result in results
        for row in result.trades.tail(TRADES_SHOWN).iter_rows(named=True)
    ]  # fmt: skip
    header = ["symbol", "entry", "exit", "side", "quantity", "at", "left at", "net", "return", "reason"]
    return _table(header, sorted(rows, key=lambda row: row[2])[-TRADES_SHOWN:])


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    def line(cells: Sequence[object], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"

    return f"<table>{line(header, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"
