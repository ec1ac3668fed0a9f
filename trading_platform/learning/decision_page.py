"""An experiment's decision and its evidence as one HTML page that needs no server: plots, figures, what is wanting."""

import base64
import io
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment

from trading_platform.learning.arms import CHALLENGER, CHAMPION
from trading_platform.storage.control import Experiment

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, ACCENT, WARN, SOFT = "#1f2937", "#2563eb", "#dc2626", "#94a3b8"
SAID = {
    "continue": "It goes on: nothing is decided yet.",
    "promote": "The challenger is promoted.",
    "keep": "The champion stays.",
    "rollback": "The challenger is withdrawn: it loses money against the champion.",
}
_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Experiment {{ row.experiment_id }}</title>
<style>body{font:15px/1.5 system-ui,sans-serif;color:#1f2937;max-width:60rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;margin:1rem 0;font-size:13px}td,th{padding:.25rem .9rem;text-align:right;
border-bottom:1px solid #e5e7eb}td:first-child,th:first-child{text-align:left}img{max-width:100%}
.answer{font-size:1.15rem;border-left:4px solid #2563eb;padding-left:1rem}</style>
<h1>Experiment <code>{{ row.experiment_id }}</code></h1><p class="answer">{{ said }}</p>
<p>Champion <code>{{ row.champion_id }}</code>, challenger <code>{{ row.challenger_id }}</code>, {{ row.strategy_id }} on
{{ row.dataset_id }}, since {{ since }} (market time); {{ evidence.rows or 0 }} bars that both have scored and whose outcome is
known, in {{ row.samples }} blocks over {{ "%.1f"|format(evidence.days or 0) }} days. The error of this challenger:
{{ "%.2f"|format(100 * (evidence.alpha or 0)) }} %, its share of what all challengers may err.</p>
{% if wanting %}<p>What stands in the way of a promotion:</p><ul>{% for each in wanting %}<li>{{ each }}</li>{% endfor %}
</ul>{% endif %}
<table><tr><th></th><th>champion</th><th>challenger</th></tr>{% for name, both in figures %}<tr><td>{{ name }}</td>
{% for each in both %}<td>{{ each }}</td>{% endfor %}</tr>{% endfor %}</table>
{% for title, image in plots.items() %}<p><img alt="{{ title }}" src="data:image/png;base64,{{ image }}"></p>{% endfor %}
<p>Bands are confidence sequences: they hold at every look. Above zero the challenger is better.</p></html>
"""


def write_decision(folder: Path, row: Experiment) -> Path:
    """Write `<folder>/<experiment>.html` from the evidence in the row, and return its path."""
    evidence = row.evidence
    figures = [
        (name, [_shown(evidence.get(key, {}).get(arm)) for arm in (CHAMPION, CHALLENGER)])
        for name, key in (("log-loss", "log_loss"), ("calibration error", "ece"), ("drawdown", "drawdown"))
    ]
    page = Environment(autoescape=True).from_string(_PAGE)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{row.experiment_id}.html"
    path.write_text(
        page.render(
            row=row, evidence=evidence, said=SAID[row.decision], since=f"{row.started_at:%Y-%m-%d %H:%M} UTC",
            wanting=evidence.get("wanting", []), figures=figures, plots=_plots(evidence),
        )
    )  # fmt: skip
    return path


def _plots(evidence: Mapping[str, Any]) -> dict[str, str]:
    """{title: PNG in base64} of what the evidence holds the data for."""
    drawn: dict[str, str] = {}
    for title, name in (
        ("Log-loss of the champion minus the challenger's, a block", "series"),
        ("Net return of the challenger's published signals minus the champion's, a block", "harm_series"),
    ):
        if evidence.get(name, {}).get("time"):
            drawn[title] = _png(title, lambda axes, name=name: _band(axes, evidence[name]))
    if parts := evidence.get("by_condition"):
        title = "Log-loss of the champion minus the challenger's, by market condition"
        drawn[title] = _png(title, lambda axes: _conditions(axes, parts), rows=len(parts))
    return drawn


def _png(title: str, draw: Any, rows: int = 10) -> str:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, max(3.0, 0.26 * rows)), dpi=90, layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8, colors=INK)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_title(title, fontsize=9, loc="left", color=INK)
    draw(axes)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return base64.b64encode(buffer.getvalue()).decode()


def _band(axes: "Axes", series: Mapping[str, Sequence[Any]]) -> None:
    time: Any = [datetime.fromisoformat(moment) for moment in series["time"]]
    axes.fill_between(time, series["lower"], series["upper"], color=ACCENT, alpha=0.15, linewidth=0)
    axes.plot(time, series["mean"], color=ACCENT, linewidth=1.3)
    axes.axhline(0.0, color=WARN, linewidth=1, linestyle="--")
    axes.tick_params(axis="x", labelrotation=20)


def _conditions(axes: "Axes", parts: Mapping[str, Mapping[str, float]]) -> None:
    names = list(parts)[::-1]
    gains = [parts[name][CHAMPION] - parts[name][CHALLENGER] for name in names]
    labels = [f"{name} ({parts[name]['rows']:,} bars)" for name in names]
    axes.barh(labels, gains, color=[ACCENT if gain > 0 else WARN for gain in gains], height=0.6)
    axes.axvline(0.0, color=INK, linewidth=0.8)


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
