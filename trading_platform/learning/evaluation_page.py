"""An evaluation as one HTML page that needs no server: figures in tables, plots embedded."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment

_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{{ title }}</title>
<style>body{font:15px/1.5 system-ui,sans-serif;color:#1f2937;max-width:60rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;margin:1rem 0;font-size:13px}td,th{padding:.25rem .7rem;text-align:right;
border-bottom:1px solid #e5e7eb}td:first-child,th:first-child{text-align:left}img{max-width:100%}
.answer{font-size:1.15rem;border-left:4px solid #2563eb;padding-left:1rem}</style>
<h1>{{ title }}</h1><p class="answer">{{ answer }}</p>
<p>{{ setting }}</p>
{% for name, rows in tables.items() %}<h2>{{ name }}</h2><table><tr>{% for head in heads %}<th>{{ head }}</th>
{% endfor %}</tr>{% for row in rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>{% endfor %}</table>
{% endfor %}
{% for title, image in plots.items() %}<p><img alt="{{ title }}" src="data:image/png;base64,{{ image }}"></p>{% endfor %}
<h2>Notes on the data</h2><ul>{% for note in notes %}<li>{{ note }}</li>{% endfor %}</ul></html>
"""
HEADS = ("part", "rows", "effective", "base rate", "accuracy", "log-loss", "of base rate", "Brier", "ECE",
         "precision at 60", "precision at 80", "coverage at 80", "net return, published", "certified")  # fmt: skip


def write_page(report: Mapping[str, Any], plots: Mapping[str, Path], path: Path) -> None:
    """Write the page of a report (see `evaluation.evaluate`) with these plots."""
    tables = {"Overall and by test window": [table_row("overall", report["overall"])] + [
        table_row(f"{card['from'][:10]} to {card['to'][:10]}", card) for card in report["folds"]
    ]} | {
        f"By {name}": [table_row(value, card) for value, card in values.items()]
        for name, values in report["conditions"].items()
    }  # fmt: skip
    page = Environment(autoescape=True).from_string(_PAGE)
    path.write_text(
        page.render(
            title=f"Evaluation of {report['data']['name']}",
            answer=answer(report),
            setting=setting(report),
            heads=HEADS,
            tables=tables,
            plots={title: base64.b64encode(file.read_bytes()).decode() for title, file in plots.items()},
            notes=report["data"]["notes"] or ["nothing had to be guessed or set aside"],
        )
    )


def answer(report: Mapping[str, Any]) -> str:
    """What the evaluation says, in two sentences."""
    card = report["overall"]
    at_80 = card["coverage_at"]["80"]["value"]
    if card["certified_80"]:
        signal = f"80 % precision is certified from a confidence of {card['certified_threshold']:.2f} on."
    elif at_80 == 0:
        signal = "No signal at 80 %: no bar reached that confidence, and nothing is certified."
    else:
        signal = f"No signal is certified at 80 %: {at_80:.2%} of the bars reached that confidence, which is not enough to tell."
    gain = card["log_loss_base_rate"] - card["log_loss"]
    better = "better" if gain > 0 else "worse"
    return (
        f"{signal} Log-loss is {abs(gain):.4f} nats {better} than saying the base rate; accuracy is "
        f"{card['accuracy']:.1%} where the commoner answer would be right {max(card['base_rate'], 1 - card['base_rate']):.1%}."
    )


def setting(report: Mapping[str, Any]) -> str:
    """What was asked, in one sentence."""
    asked = report["question"]
    return (
        f"Long trades of at most {asked['horizon']} bars of {asked['interval']}, barriers {asked['profit']:g} up and "
        f"{asked['stop']:g} down in units of the horizon's volatility, costs {asked['cost_per_side']:.2%} a side"
        + (f", entered by the rule {asked['primary']}" if asked["primary"] else "")
        + f". {report['trials']} trials of hyperparameters ran; probability of backtest overfitting "
        f"{_shown(report['pbo'])}, deflated Sharpe ratio {_shown(report['deflated_sharpe'])}."
    )


def table_row(name: str, card: Mapping[str, Any]) -> list[str]:
    """A card as the cells of `HEADS`."""
    effective = card["n_effective"]
    return [
        name, f"{card['n']:,}", "-" if effective is None else f"{effective:,.0f}", _percent(card["base_rate"]),
        _percent(card["accuracy"]), _shown(card["log_loss"]), _shown(card["log_loss_base_rate"]), _shown(card["brier"]),
        _shown(card["ece"]), _interval(card["precision_at"]["60"]), _interval(card["precision_at"]["80"]),
        _interval(card["coverage_at"]["80"]), _percent(card["expected_value_after_costs"], 3),
        "-" if card["certified_80"] is None else ("yes" if card["certified_80"] else "no"),
    ]  # fmt: skip


def _interval(found: Mapping[str, float] | None) -> str:
    return "-" if found is None else f"{found['value']:.1%} ({found['lower']:.1%} to {found['upper']:.1%})"


def _percent(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}%}"


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
