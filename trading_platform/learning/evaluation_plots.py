"""The plots of an evaluation, as PNG files: what people would rather look at than read."""

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, ACCENT, WARN, SOFT = "#1f2937", "#2563eb", "#dc2626", "#94a3b8"
Report = Mapping[str, Any]


def write_plots(report: Report, folder: Path) -> dict[str, Path]:
    """Write every plot that the report holds the data for; {title: file}."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn: dict[str, tuple[str, Callable[[Axes, Report], None]]] = {
        "Of the bars given this confidence, how many came true": ("reliability", _reliability),
        "Precision and coverage by confidence, 95 % intervals": ("precision", _precision),
        "Log-loss saved against the base rate, by test window": ("folds", _folds),
        "Log-loss saved against the base rate, by market condition": ("conditions", _conditions),
        "Money: summed net return after costs": ("equity", _equity),
        "Sharpe ratio of every trial, a period": ("trials", _trials),
        "Out-of-sample rank of in-sample winners (below 0: worse than the median trial)": ("overfitting", _overfitting),
    }
    return {title: _write(folder / f"{name}.png", title, draw, report) for title, (name, draw) in drawn.items()}


def _write(path: Path, title: str, draw: "Callable[[Axes, Report], None]", report: Report) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.0), dpi=80, layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8, colors=INK)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_title(title, fontsize=9, loc="left", color=INK)
    draw(axes, report)
    # No date, no version of the library: the same report gives the same bytes.
    figure.savefig(path, format="png", metadata={"Software": None})
    return path


def _reliability(axes: "Axes", report: Report) -> None:
    rows = report["plots"]["reliability"]
    said, came = [row["confidence"] for row in rows], [row["observed"] for row in rows]
    low, high = min(said + came), max(said + came)
    axes.plot([low, high], [low, high], color=SOFT, linestyle="--", linewidth=1)
    axes.plot(said, came, "o-", color=ACCENT, markersize=4, linewidth=1)
    axes.set_xlabel("confidence", fontsize=8)
    axes.set_ylabel("came true", fontsize=8)


def _precision(axes: "Axes", report: Report) -> None:
    card = report["overall"]
    for name, colour, shift in (("precision_at", ACCENT, -0.6), ("coverage_at", SOFT, 0.6)):
        found = [(int(level), value) for level, value in card[name].items() if value is not None]
        x = [level + shift for level, _ in found]
        y = [value["value"] for _, value in found]
        low = [value["value"] - value["lower"] for _, value in found]
        high = [value["upper"] - value["value"] for _, value in found]
        axes.errorbar(x, y, [low, high], fmt="o", color=colour, markersize=4, capsize=3, label=name.split("_")[0])
    axes.axhline(card["base_rate"], color=WARN, linestyle="--", linewidth=1, label="base rate")
    axes.axhline(0.8, color=INK, linestyle=":", linewidth=1, label="target")
    axes.set_ylim(0, 1.02)
    axes.set_xlim(55, 95)
    axes.set_xlabel("confidence of at least, %", fontsize=8)
    axes.legend(fontsize=7, frameon=False, ncols=4)


def _gains(axes: "Axes", gains: Mapping[str, float]) -> None:
    names = list(gains)[::-1]
    values = [1_000 * gains[name] for name in names]
    axes.barh(names, values, color=[ACCENT if value > 0 else WARN for value in values], height=0.6)
    axes.axvline(0.0, color=INK, linewidth=0.8)
    axes.set_xlabel("thousandths of a nat; above 0 is better than saying the base rate", fontsize=8)
    axes.tick_params(axis="y", labelsize=6 if len(names) > 8 else 8)


def _folds(axes: "Axes", report: Report) -> None:
    _gains(axes, {f"{card['from'][:10]} to {card['to'][:10]}": _gain(card) for card in report["folds"] if _known(card)})


def _conditions(axes: "Axes", report: Report) -> None:
    parts = {f"{name} {value}": card for name, values in report["conditions"].items() for value, card in values.items()}
    _gains(axes, {name: _gain(card) for name, card in parts.items() if _known(card)})


def _equity(axes: "Axes", report: Report) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    series = report["plots"]["equity"]
    time: Any = [datetime.fromisoformat(moment) for moment in series["time"]]
    axes.plot(time, series["every_bar"], color=SOFT, linewidth=1, label="entering whenever free")
    named = f"published signals ({series['trades']:,} trades)"
    axes.plot(time, series["published"], color=ACCENT, linewidth=1.3, label=named)
    axes.axhline(0.0, color=INK, linewidth=0.8)
    locator = AutoDateLocator(maxticks=8)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    axes.legend(fontsize=7, frameon=False)


def _trials(axes: "Axes", report: Report) -> None:
    ratios = report["plots"]["trial_sharpes"]
    axes.plot(range(len(ratios)), ratios, "o", color=SOFT, markersize=4)
    axes.axhline(report["sharpe"]["search_stretch"], color=ACCENT, linewidth=1, label="the one chosen by log-loss")
    axes.axhline(report["sharpe"]["evaluation_stretch"], color=WARN, linewidth=1, label="the same, evaluated later")
    axes.axhline(0.0, color=INK, linewidth=0.8)
    axes.set_xlabel("trial", fontsize=8)
    axes.legend(fontsize=7, frameon=False)


def _overfitting(axes: "Axes", report: Report) -> None:
    found = report["plots"]["overfitting_logits"]
    if found["counts"]:
        axes.stairs(found["counts"], found["edges"], fill=True, color=ACCENT)
    axes.axvline(0.0, color=WARN, linewidth=1)
    said = "not measured" if report["pbo"] is None else f"{report['pbo']:.2f}"
    axes.set_xlabel(f"logit of the rank; probability of overfitting {said}", fontsize=8)


def _known(card: Mapping[str, Any]) -> bool:
    return card["log_loss"] is not None


def _gain(card: Mapping[str, Any]) -> float:
    return float(card["log_loss_base_rate"] - card["log_loss"])
