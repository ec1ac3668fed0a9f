"""The page of one model version: what it was made of, how good it was out of sample, and where."""

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment

from trading_platform.storage.control import ModelVersion

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Model {{ row.version_id }}</title>
<style>
 body { font: 15px/1.5 system-ui, sans-serif; color: #1f2937; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
 h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
 table { border-collapse: collapse; } td, th { padding: .25rem .9rem .25rem 0; text-align: left; vertical-align: top; }
 th { color: #64748b; font-weight: 500; } .no { color: #b45309; } .yes { color: #047857; } code { font-size: .9em; }
</style></head><body>
<h1>Model version <code>{{ row.version_id }}</code></h1>
<p class="{{ 'yes' if row.certified else 'no' }}">{{ "Certified at 80 %." if row.certified else
"Not certified at 80 %: no threshold reaches that precision with the stated guarantee. Its signals are marked uncertified." }}</p>
<table>
{% for name, value in facts %}<tr><th>{{ name }}</th><td>{{ value }}</td></tr>
{% endfor %}</table>
<h2>Out of sample (purged walk-forward)</h2>
<table>
{% for name, value in figures %}<tr><th>{{ name }}</th><td>{{ value }}</td></tr>
{% endfor %}</table>
{% if tables %}{% for title, rows in tables %}<h2>{{ title }}</h2>
<table><tr>{% for name in rows[0] %}<th>{{ name }}</th>{% endfor %}</tr>
{% for each in rows %}<tr>{% for value in each.values() %}<td>{{ value }}</td>{% endfor %}</tr>
{% endfor %}</table>{% endfor %}{% endif %}
<h2>Parameters</h2><pre>{{ parameters }}</pre>
</body></html>
"""


def write_card(folder: Path, row: ModelVersion) -> Path:
    """Write `<folder>/<version>.html` and return its path. Times are UTC."""
    facts = [
        ("kind", row.kind),
        ("asked for by", row.origin),
        ("parent", row.parent_id or "none"),
        ("dataset", row.dataset_id),
        ("data version", row.data_version),
        ("feature set", row.feature_hash),
        ("code", row.code_version),
        ("dependencies", row.lock_hash),
        ("seed", row.seed),
        ("rows learnt from", f"{row.rows:,}"),
        ("first and last bar learnt from", f"{_time(row.trained_from)} to {_time(row.trained_to)}"),
        ("signals expire after", _time(row.expires_at)),
        ("artifact (sha256)", row.artifact_sha256),
    ]
    plain = [(name, _number(value)) for name, value in row.metrics.items() if not isinstance(value, (dict, list))]
    nested = [(name, _rows(value)) for name, value in row.metrics.items() if isinstance(value, dict) and value]
    page = Environment(autoescape=True).from_string(PAGE).render(
        row=row,
        facts=facts,
        figures=plain,
        tables=[(name.replace("_", " "), rows) for name, rows in nested if rows],
        parameters=json.dumps(row.params, indent=2, sort_keys=True, default=str),
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{row.version_id}.html"
    path.write_text(page)
    return path


def _rows(values: dict[str, Any]) -> list[dict[str, str]]:
    """A nested figure as table rows: one a key, its own figures as columns."""
    rows = []
    for name, value in values.items():
        columns = value if isinstance(value, dict) else {"value": value}
        rows.append({"": str(name), **{key: _number(each) for key, each in columns.items()}})
    return rows


def _number(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {None: "–", True: "yes", False: "no"}[value]
    return f"{value:,.4f}" if isinstance(value, float) else str(value)


def _time(moment: Any) -> str:
    return "–" if moment is None else f"{moment:%Y-%m-%d %H:%M} UTC"
