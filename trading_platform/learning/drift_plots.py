"""Plots of what the benches and the prequential run have found, written as PNG files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trading_platform.learning.ab_bench import ALPHA, FalsePromotions, TimeToDecision
from trading_platform.learning.drift_bench import SHIFTS, DetectorRow

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, ACCENT, WARN, SOFT = "#1f2937", "#2563eb", "#dc2626", "#94a3b8"
AIM_DELAY, AIM_FALSE_ALARMS = 80.0, 0.2


def detectors(rows: Sequence[DetectorRow], path: Path) -> Path:
    """Delay (median, and from the 10th to the 90th percentile) over false alarms; the aim is the shaded corner."""
    made = _figure(1, 7.6, 4.4)
    axes = made.axes[0]
    shift = SHIFTS[0].name
    axes.axhspan(0, AIM_DELAY, xmax=1.0, color=ACCENT, alpha=0.06)
    axes.axvline(AIM_FALSE_ALARMS, color=SOFT, linewidth=1, linestyle="--")
    for row in rows:
        delay = row.delays[shift]
        if delay.median is None or delay.p10 is None or delay.p90 is None:
            continue
        colour = ACCENT if "ours" in row.detector else INK
        x = max(row.false_alarms, 0.01)
        axes.errorbar(
            x, delay.median, yerr=[[delay.median - delay.p10], [delay.p90 - delay.median]], fmt="o", color=colour,
            markersize=5, linewidth=1,
        )  # fmt: skip
        missed = f", {delay.missed:.0%} missed" if delay.missed else ""
        axes.annotate(
            f"{row.detector}{missed}", (x, delay.median), textcoords="offset points", xytext=(6, 4), fontsize=8
        )
    axes.set_xscale("log")
    axes.set_xlim(0.007, 40)
    axes.set_xlabel("false alarms per 10,000 samples (none is drawn at .01)", fontsize=8)
    axes.set_ylabel(f"samples to the alarm, {shift}", fontsize=8)
    return _saved(made, path)


def experiments(promotions: Sequence[FalsePromotions], decisions: Sequence[TimeToDecision], path: Path) -> Path:
    """False promotions by way of looking, beside the trades that a true difference takes."""
    made = _figure(2, 9.6, 3.8)
    left, right = made.axes
    ways = {"naive test at every trade": SOFT, "sequence on trades": INK, "sequence on blocks (used)": ACCENT}
    for number, (way, colour) in enumerate(ways.items()):
        shares = [(row.naive, row.single_trades, row.blocks)[number] for row in promotions]
        places = [place + (number - 1) * 0.26 for place in range(len(promotions))]
        left.bar(places, shares, 0.24, color=colour, label=way)
    for place, row in enumerate(promotions):
        left.plot([place + 0.26] * 2, row.interval, color=WARN, linewidth=1.5)
    left.axhline(ALPHA, color=WARN, linewidth=1, linestyle="--")
    left.set_xticks(range(len(promotions)), [row.differences for row in promotions], fontsize=8)
    left.set_title("Share of A/A experiments that promote (aim: dashed)", fontsize=9, loc="left", color=INK)
    left.legend(fontsize=8, frameon=False)
    decided = [row for row in decisions if row.median_trades is not None]
    right.plot([row.effect for row in decided], [row.median_trades or 0.0 for row in decided], "o-", color=ACCENT)
    for decision in decided:
        right.annotate(f"{decision.median_trades:,.0f}", (decision.effect, decision.median_trades or 0.0), fontsize=8,
                       textcoords="offset points", xytext=(6, 4))  # fmt: skip
    right.set_yscale("log")
    right.set_xlabel("true difference, standard deviations of a trade", fontsize=8)
    right.set_title("Median trades to a promotion", fontsize=9, loc="left", color=INK)
    return _saved(made, path)


def over_time(
    lines: Mapping[str, tuple[Sequence[Any], Sequence[float]]], marks: Sequence[Any], title: str, path: Path
) -> Path:
    """One line a predictor over time or rows; `marks` are drifts, as vertical lines."""
    made = _figure(1, 9.0, 4.0)
    axes = made.axes[0]
    colours = {"ours": ACCENT, "arf": INK, "no_change": SOFT, "base_rate": "#a16207"}
    for name, (x, y) in lines.items():
        axes.plot(x, y, linewidth=1.6 if name == "ours" else 1.0, label=name.replace("_", " "), color=colours.get(name))
    for number, mark in enumerate(marks):
        axes.axvline(mark, color=WARN, linewidth=0.8, linestyle="--", label="drift found" if number == 0 else None)
    axes.legend(fontsize=8, frameon=False)
    axes.set_title(title, fontsize=9, loc="left", color=INK)
    return _saved(made, path)


def _figure(columns: int, width: float, height: float) -> "Figure":
    """Made without pyplot, whose global state leaks between threads."""
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), dpi=110, layout="constrained")
    for axes in made.subplots(1, columns, squeeze=False)[0]:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8, colors=INK)
        axes.grid(alpha=0.25, linewidth=0.6)
    return made


def _saved(made: "Figure", path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    made.savefig(path, format="png")
    return path
