"""Charts as Vega-Lite specifications: half the CPU of `st.line_chart`, and one look on all pages. Times are UTC."""

from typing import Any

import pandas as pd
import streamlit as st

BLUE, RED, GREEN, GREY, AMBER = "#2563eb", "#dc2626", "#059669", "#94a3b8", "#d97706"
PALETTE = [BLUE, AMBER, GREEN, "#7c3aed", "#db2777", "#0891b2"]
ROLES = {"domain": ["champion", "challenger"], "range": [BLUE, AMBER]}
"""A role has the same colour everywhere."""
CONFIG = {
    "view": {"stroke": None},
    "axis": {
        "labelFontSize": 11, "titleFontSize": 11, "titleFontWeight": "normal", "titleColor": "#64748b",
        "gridColor": "#e5e7eb", "domain": False, "tickColor": "#cbd5e1",
    },
    "legend": {"orient": "top", "title": None, "labelFontSize": 11, "labelLimit": 300},
    "range": {"category": PALETTE},
}  # fmt: skip
Encoding = dict[str, Any]


def show(data: pd.DataFrame, spec: dict[str, Any], *, height: int = 260) -> None:
    """Draw one specification over the width it is given."""
    st.vega_lite_chart(data, {"config": CONFIG, "height": height, **spec}, width="stretch")


def lines(
    data: pd.DataFrame, x: str, y: str, *, color: str | None = None, title: str = "", format: str = ",.2f",
    zero: bool = False, roles: bool = False, height: int = 260,
) -> None:  # fmt: skip
    """A line over time; `color` names the column that separates lines, which may be roles."""
    encoding: Encoding = {
        "x": over_time(x),
        "y": {
            "field": y, "type": "quantitative", "title": title, "scale": {"zero": zero}, "axis": {"format": format},
        },
        "tooltip": [when(x), {"field": y, "type": "quantitative", "format": format, "title": title or y}],
    }  # fmt: skip
    if color:
        encoding["color"] = {"field": color, "type": "nominal", **({"scale": ROLES} if roles else {})}
        encoding["tooltip"].append({"field": color, "type": "nominal"})
    show(data, {"mark": {"type": "line", "strokeWidth": 1.6}, "encoding": encoding}, height=height)


def signed_bars(data: pd.DataFrame, x: str, y: str, *, title: str, running: str) -> None:
    """A bar a day, green above zero and red below, and the running sum as a line."""
    encoding = {"x": over_time(x)}
    show(
        data,
        {
            "encoding": encoding,
            "layer": [
                {
                    "mark": {"type": "bar", "opacity": 0.65, "width": {"band": 0.8}},
                    "encoding": {
                        "x": {**over_time(x), "timeUnit": "utcyearmonthdate"},
                        "y": {"field": y, "type": "quantitative", "title": title, "axis": {"format": ",.0f"}},
                        "color": {"condition": {"test": f"datum['{y}'] < 0", "value": RED}, "value": GREEN},
                        "tooltip": [
                            {**when(x), "timeUnit": "utcyearmonthdate", "title": "Day (IST)"},
                            {"field": y, "format": ",.2f", "title": "Net result"},
                            {"field": running, "format": ",.2f", "title": "Sum so far"},
                            {"field": "trades", "format": ",d", "title": "Trades"},
                        ],
                    },
                },
                {
                    "mark": {"type": "line", "strokeWidth": 1.8, "color": BLUE},
                    "encoding": {"y": {"field": running, "type": "quantitative"}},
                },
            ],
        },
    )  # fmt: skip


def bars(
    data: pd.DataFrame, category: str, value: str, *, title: str, format: str = ".1%",
    reference: float | None = None, tooltip: list[Encoding] | None = None, order: list[str] | None = None,
) -> None:  # fmt: skip
    """Horizontal bars; `reference` draws a dashed line to be compared with."""
    layers: list[dict[str, Any]] = [
        {
            "mark": {"type": "bar", "cornerRadiusEnd": 2, "color": BLUE},
            "encoding": {
                "y": {
                    "field": category, "type": "nominal", "sort": order or "-x", "title": None,
                    "axis": {"labelLimit": 260},
                },
                "x": {"field": value, "type": "quantitative", "title": title, "axis": {"format": format}},
                "tooltip": [{"field": category}, {"field": value, "format": format, "title": title}, *(tooltip or [])],
            },
        }
    ]  # fmt: skip
    if reference is not None:
        layers.append(
            {
                "mark": {"type": "rule", "strokeDash": [4, 4], "color": RED},
                "encoding": {"x": {"datum": reference, "type": "quantitative"}},
            }
        )
    show(data, {"layer": layers}, height=max(70, 30 * len(data)))


def band(data: pd.DataFrame, *, title: str) -> None:
    """A confidence sequence (time, lower, mean, upper) that narrows as evidence comes in, and zero to be cleared."""
    axis = {"format": "+.3f"}
    show(
        data,
        {
            "encoding": {"x": over_time("time")},
            "layer": [
                {
                    "mark": {"type": "area", "opacity": 0.2, "color": BLUE},
                    "encoding": {
                        "y": {"field": "lower", "type": "quantitative", "title": title, "axis": axis},
                        "y2": {"field": "upper"},
                        "tooltip": [
                            when("time"),
                            *({"field": name, "format": "+.4f"} for name in ("lower", "mean", "upper")),
                        ],
                    },
                },
                {
                    "mark": {"type": "line", "strokeWidth": 1.6, "color": BLUE},
                    "encoding": {"y": {"field": "mean", "type": "quantitative"}},
                },
                {
                    "mark": {"type": "rule", "strokeDash": [4, 4], "color": RED},
                    "encoding": {"y": {"datum": 0, "type": "quantitative"}, "x": None},
                },
            ],
        },
    )


def reliability(data: pd.DataFrame) -> None:
    """Of what was given a confidence of x, the share that came true: confidence, observed, rows, of; lower and upper
    where there is an interval. On the diagonal is honest."""
    low = max(0.0, float(data["confidence"].min()) - 0.1)
    high = min(1.0, float(data["confidence"].max()) + 0.1)
    seen = {"domain": [min(low, float(data["observed"].min())), max(high, float(data["observed"].max()))], "nice": True}
    color = {"field": "of", "type": "nominal"}
    x = {
        "field": "confidence", "type": "quantitative", "title": "Confidence promised",
        "scale": {"domain": [low, high]}, "axis": {"format": ".0%"},
    }  # fmt: skip
    layers: list[dict[str, Any]] = [
        {
            "data": {"values": [{"a": low}, {"a": high}]},
            "mark": {"type": "line", "strokeDash": [4, 4], "color": GREY},
            "encoding": {
                "x": {"field": "a", "type": "quantitative"},
                "y": {"field": "a", "type": "quantitative"},
            },
        },
        {
            "mark": {"type": "rule", "opacity": 0.45, "clip": True},
            "transform": [{"filter": "isValid(datum.lower)"}],
            "encoding": {
                "x": x, "y": {"field": "lower", "type": "quantitative"}, "y2": {"field": "upper"}, "color": color,
            },
        },
        {
            "mark": {"type": "circle", "opacity": 0.85, "clip": True},
            "encoding": {
                "x": x,
                "y": {
                    "field": "observed", "type": "quantitative", "title": "Came true", "scale": seen,
                    "axis": {"format": ".0%"},
                },
                "size": {"field": "rows", "type": "quantitative", "legend": None, "scale": {"range": [30, 350]}},
                "color": color,
                "tooltip": [
                    {"field": "of", "title": "Measured on"},
                    {"field": "confidence", "format": ".1%", "title": "Confidence promised"},
                    {"field": "observed", "format": ".1%", "title": "Came true"},
                    {"field": "rows", "format": ",d", "title": "Cases"},
                ],
            },
        },
    ]  # fmt: skip
    show(data, {"layer": layers}, height=340)


def shares(data: pd.DataFrame, x: str, value: str, color: str, order: list[str]) -> None:
    """How a whole is made up over time, as stacked areas."""
    scale = {"domain": order, "range": ["#93c5fd", "#cbd5e1", "#fca5a5", "#e5e7eb"][: len(order)]}
    show(
        data,
        {
            "mark": {"type": "bar"},
            "encoding": {
                "x": {**over_time(x), "timeUnit": "utcyearmonthdate"},
                "y": {
                    "field": value, "type": "quantitative", "stack": "normalize", "title": "Share of bars",
                    "axis": {"format": ".0%"},
                },
                "color": {"field": color, "type": "nominal", "scale": scale, "sort": order},
                "tooltip": [{**when(x), "timeUnit": "utcyearmonthdate"}, {"field": color}, {"field": value}],
            },
        },
        height=180,
    )  # fmt: skip


def over_time(field: str) -> Encoding:
    return {"field": field, "type": "temporal", "title": None, "scale": {"type": "utc"}}


def when(field: str) -> Encoding:
    """A tooltip's time: UTC, whatever the browser's zone is."""
    return {"field": field, "type": "temporal", "timeUnit": "utcyearmonthdatehoursminutes", "title": "Time (UTC)"}
