"""The readable page of a day's records: one self-contained HTML file that prints well. No script, no time stamp."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from trading_platform.compliance.record_files import IST, cell

ROWS_ON_PAGE = 40
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
    template = environment.get_template("daily_records.html")
    return template.render(
        tables=tables, most=ROWS_ON_PAGE, chart=hourly_bars(hourly), interesting=_interesting, **known
    )


def shown(value: Any) -> str:
    """A value as people read it: Indian time to the second, whole-number floats without a fraction."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        if value.tzinfo is None:
            return f"{value:%Y-%m-%d %H:%M:%S}"
        return f"{value.astimezone(IST):%Y-%m-%d %H:%M}"
    if isinstance(value, (float, Decimal)):
        return f"{value:,.2f}".rstrip("0").rstrip(".")
    if isinstance(value, int):
        return f"{value:,}"
    return cell(value).removeprefix("'")


def heading(column: str) -> str:
    """`orders_wrong_id` -> `orders wrong id`; zones in brackets.

    >>> heading("event_ts_ist")
    'time (IST)'
    """
    names = {
        "event_ts_ist": "time (IST)",
        "started_at_ist": "start (IST)",
        "data_label": "data",
        "account_ref": "account",
    }
    return names.get(column, column.removesuffix("_ref").replace("_", " "))


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


def _interesting(name: str, rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows the page shows first where a table is cut: those over a limit, then the busiest."""
    if name == "ops_rate":
        order = {"day": 0, "minute": 1, "second": 2}
        return sorted(
            rows, key=lambda row: (not row["breached"], not row["over_limit"], order[row["window_kind"]], -row["total"])
        )
    return list(rows)
