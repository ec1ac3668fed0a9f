"""Charts as Vega-Lite specifications: half the CPU of `st.line_chart`, and one look on all pages. Times are UTC."""

from collections.abc import Mapping
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
CLOCK = {"year": "%Y", "month": "%b %Y", "week": "%d %b", "date": "%d %b", "hours": "%H:%M", "minutes": "%H:%M"}
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
    show(
        data,
        {
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
                    "encoding": {
                        "x": {**over_time(x), "timeUnit": "utcyearmonthdate", "bandPosition": 0.5},
                        "y": {"field": running, "type": "quantitative"},
                    },
                },
            ],
        },
    )  # fmt: skip


def bars(
    data: pd.DataFrame, category: str, value: str, *, title: str, format: str = ".1%",
    reference: float | None = None, alarm: float | None = None, tooltip: list[Encoding] | None = None,
    order: list[str] | None = None,
) -> None:  # fmt: skip
    """Horizontal bars; `reference` draws a dashed line to be compared with, beyond `alarm` a bar is red."""
    layers: list[dict[str, Any]] = [
        {
            "mark": {"type": "bar", "cornerRadiusEnd": 2},
            "encoding": {
                "color": {"value": BLUE} if alarm is None else alarming(value, alarm),
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
    show(data, {"layer": layers}, height=28 * len(data) + (60 if title else 30))


def band(data: pd.DataFrame, *, title: str) -> None:
    """A confidence sequence (time, lower, mean, upper) that narrows as evidence comes in, and zero to be cleared."""
    x = over_time("time")
    y = {"type": "quantitative", "title": title, "axis": {"format": "+.3f"}}
    bounds = [{"field": name, "format": "+.4f"} for name in ("lower", "mean", "upper")]
    show(
        data,
        {
            "layer": [
                {
                    "mark": {"type": "area", "opacity": 0.2, "color": BLUE},
                    "encoding": {
                        "x": x, "y": {"field": "lower", **y}, "y2": {"field": "upper"},
                        "tooltip": [when("time"), *bounds],
                    },
                },
                {
                    "mark": {"type": "line", "strokeWidth": 1.6, "color": BLUE},
                    "encoding": {"x": x, "y": {"field": "mean", **y}},
                },
                {
                    "mark": {"type": "rule", "strokeDash": [4, 4], "color": RED},
                    "encoding": {"y": {"datum": 0, "type": "quantitative"}},
                },
            ]
        },
    )  # fmt: skip


def reliability(validated: pd.DataFrame, traded: pd.DataFrame) -> None:
    """Of what was given a confidence of x, the share that came true; on the diagonal is honest.

    Both: role, confidence, observed, rows; `traded` also lower and upper. Validation is drawn as a line, what was
    traded as circles with their intervals.
    """
    every = pd.concat([validated, traded], ignore_index=True)
    low, high = every["confidence"].min() - 0.03, every["confidence"].max() + 0.03
    color = {"field": "role", "type": "nominal", "scale": {**ROLES, "domain": ["Champion", "Challenger"]}}
    x = {
        "field": "confidence", "type": "quantitative", "title": "Confidence promised",
        "scale": {"domain": [low, high], "nice": False}, "axis": {"format": ".0%"},
    }  # fmt: skip
    y = {
        "field": "observed", "type": "quantitative", "title": "Came true", "scale": {"zero": False},
        "axis": {"format": ".0%"},
    }  # fmt: skip
    tooltip = [
        {"field": "role", "title": "Model"},
        {"field": "measured", "title": "Measured on"},
        {"field": "confidence", "format": ".1%", "title": "Confidence promised"},
        {"field": "observed", "format": ".1%", "title": "Came true"},
        {"field": "rows", "format": ",d", "title": "Cases"},
    ]
    ends = {"values": [{"a": low}, {"a": high}]}
    circles = [{"filter": "datum.measured == 'traded signals'"}]
    layers: list[dict[str, Any]] = [
        {
            "data": ends,
            "mark": {"type": "line", "strokeDash": [4, 4], "color": GREY},
            "encoding": {"x": {"field": "a", "type": "quantitative"}, "y": {"field": "a", "type": "quantitative"}},
        },
        {
            "transform": [{"filter": "datum.measured == 'validation'"}],
            "mark": {"type": "line", "strokeWidth": 2, "point": {"size": 28}, "clip": True},
            "encoding": {"x": x, "y": y, "color": color, "tooltip": tooltip},
        },
        {
            "transform": circles,
            "mark": {"type": "rule", "opacity": 0.35, "clip": True},
            "encoding": {"x": x, "y": {**y, "field": "lower"}, "y2": {"field": "upper"}, "color": color},
        },
        {
            "transform": circles,
            "mark": {"type": "point", "filled": False, "strokeWidth": 2, "clip": True},
            "encoding": {
                "x": x, "y": y, "color": color, "tooltip": tooltip,
                "size": {"field": "rows", "type": "quantitative", "legend": None, "scale": {"range": [40, 350]}},
            },
        },
    ]  # fmt: skip
    named = [validated.assign(measured="validation"), traded.assign(measured="traded signals")]
    show(pd.concat([part for part in named if len(part)], ignore_index=True), {"layer": layers}, height=340)


def shares(
    data: pd.DataFrame, x: str, value: str, color: str, order: list[str], colors: Mapping[str, str]
) -> None:  # fmt: skip
    """How a whole is made up day by day, as stacked bars."""
    scale = {"domain": order, "range": [colors[name] for name in order]}
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
    axis = {"format": CLOCK, "labelOverlap": True}
    return {"field": field, "type": "temporal", "title": None, "scale": {"type": "utc"}, "axis": axis}


def alarming(field: str, beyond: float) -> Encoding:
    return {"condition": {"test": f"datum['{field}'] > {beyond}", "value": RED}, "value": BLUE}


def when(field: str) -> Encoding:
    """A tooltip's time: UTC, whatever the browser's zone is."""
    return {"field": field, "type": "temporal", "timeUnit": "utcyearmonthdatehoursminutes", "title": "Time (UTC)"}
