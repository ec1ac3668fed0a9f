"""The readable page of a day's records: one self-contained HTML file that prints well. No script, no time stamp."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from trading_platform.compliance.record_files import IST, cell

ROWS_ON_PAGE = 40
HEADINGS = {
    "event_ts_ist": "time (IST)",
    "started_at_ist": "start (IST)",
    "window_start": "start (IST)",
    "window_kind": "busiest",
    "ops_limit": "limit",
    "data_label": "data",
    "group_id": "group",
    "strategy_id": "strategy",
    "control_id": "control",
    "scope_ref": "about",
    "tradingsymbol": "instrument",
    "first_ist": "first (IST)",
    "last_ist": "last (IST)",
    "market_from": "market time from (IST)",
    "market_to": "to (IST)",
    "serves_from": "serves from (market time, IST)",
    "serves_to": "to",
}
SERIES = (
    ("sent", "orders sent", "#1f4e79"),
    ("filled", "fills", "#7fa7c9"),
    ("refused", "rejected or blocked", "#b3541e"),
)


def render(*, tables: Mapping[str, list[dict[str, Any]]], hourly: Sequence[Mapping[str, Any]], **known: Any) -> str:
    """The page. `tables` maps a record's name to its rows; long tables are cut, the files hold all."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = shown
    environment.filters["heading"] = heading
    environment.filters["css"] = css
    template = environment.get_template("daily_records.html")
    on_page = {**tables, "ops_rate": busiest(tables["ops_rate"])}
    return template.render(tables=on_page, most=ROWS_ON_PAGE, chart=hourly_bars(hourly), **known)


def shown(value: Any) -> str:
    """A value as people read it: Indian time to the second, numbers with separators."""
    match value:
        case None:
            return "–"
        case bool():
            return "yes" if value else "no"
        case datetime():
            local = value if value.tzinfo is None else value.astimezone(IST)
            return f"{local:%Y-%m-%d %H:%M:%S}"
        case float() | Decimal():
            return f"{value:,.2f}".rstrip("0").rstrip(".")
        case int():
            return f"{value:,}"
        case _:
            return cell(value).removeprefix("'")


def heading(column: str) -> str:
    """A column's name as people read it.

    >>> heading("orders_wrong_id"), heading("event_ts_ist")
    ('orders wrong id', 'time (IST)')
    """
    return HEADINGS.get(column, column.removesuffix("_ref").replace("_", " "))


def css(value: Any, column: str) -> str:
    """How a cell is set: numbers (n) to the right, times (t) on one line, long words (w) may break anywhere."""
    if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
        return "n"
    if column.endswith("_ist") or column == "window_start":
        return "t"
    return "w" if column in {"version", "reason", "reset_reason", "impact"} else ""


def hourly_bars(hourly: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Geometry of the chart of events by hour of the Indian day; None for a day without any."""
    by_hour = {row["hour"]: row for row in hourly}
    highest = max((row[name] for row in hourly for name, *_ in SERIES), default=0)
    if not highest:
        return None
    width, height, left = 720, 150, 44
    slot = (width - left) / 24
    bar = slot * 0.8 / len(SERIES)
    bars = [
        {
            "x": round(left + hour * slot + slot * 0.1 + number * bar, 2),
            "y": round(height - height * row[name] / highest, 2),
            "height": round(height * row[name] / highest, 2),
            "width": round(bar, 2),
            "fill": fill,
            "title": f"{hour:02}:00 – {label}: {row[name]:,}",
        }
        for hour, row in sorted(by_hour.items())
        for number, (name, label, fill) in enumerate(SERIES)
        if row[name]
    ]
    return {
        "width": width, "height": height, "left": left, "bars": bars, "highest": highest,
        "hours": [(hour, round(left + (hour + 0.5) * slot, 1)) for hour in range(0, 24, 2)],
        "series": [(label, fill) for _, label, fill in SERIES],
    }  # fmt: skip


def busiest(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Of the rate windows, the busiest of each kind an account and exchange; breaches first, then the fullest."""
    worst: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    for row in rows:
        key = (row["group_id"], row["account_ref"], row["exchange"], row["window_kind"])
        if key not in worst or row["total"] > worst[key]["total"]:
            worst[key] = row
    return sorted(
        worst.values(), key=lambda row: (not row["breached"], not row["over_limit"], -row["total"] / row["ops_limit"])
    )
