"""Charts as Vega-Lite specifications: half the CPU of `st.line_chart`, and one look on all pages."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st

BLUE, RED, GREEN, GREY = "#2563eb", "#dc2626", "#059669", "#94a3b8"
CONFIG = {
    "view": {"stroke": None},
    "axis": {"labelFontSize": 11, "titleFontSize": 11, "gridColor": "#e5e7eb", "domain": False, "tickColor": "#cbd5e1"},
    "legend": {"orient": "top", "title": None, "labelFontSize": 11},
}


def show(data: pd.DataFrame, spec: dict[str, Any], *, height: int = 260) -> None:
    """Draw one specification over the page's width."""
    st.vega_lite_chart(data, {"config": CONFIG, "height": height, **spec}, width="stretch")


def lines(data: pd.DataFrame, x: str, y: str, *, color: str | None = None, title: str = "", zero: bool = False) -> None:
    """A line over time; `color` names the column that separates lines."""
    encoding: dict[str, Any] = {
        "x": {"field": x, "type": "temporal", "title": None},
        "y": {"field": y, "type": "quantitative", "title": title, "scale": {"zero": zero}},
        "tooltip": [{"field": x, "type": "temporal", "format": "%Y-%m-%d %H:%M"}, {"field": y, "format": ",.4~f"}],
    }
    if color:
        encoding["color"] = {"field": color, "type": "nominal"}
        encoding["tooltip"].append({"field": color})
    show(data, {"mark": {"type": "line", "strokeWidth": 1.6}, "encoding": encoding})


def bars(data: pd.DataFrame, category: str, value: str, *, title: str = "", reference: float | None = None) -> None:
    """Horizontal bars, coloured by sign; `reference` draws a dashed line."""
    layers: list[dict[str, Any]] = [
        {
            "mark": {"type": "bar", "cornerRadiusEnd": 2},
            "encoding": {
                "y": {"field": category, "type": "nominal", "sort": "-x", "title": None},
                "x": {"field": value, "type": "quantitative", "title": title},
                "color": {"condition": {"test": f"datum['{value}'] < 0", "value": RED}, "value": BLUE},
                "tooltip": [{"field": category}, {"field": value, "format": ",.4~f"}],
            },
        }
    ]
    if reference is not None:
        layers.append(
            {"mark": {"type": "rule", "strokeDash": [4, 4], "color": GREY}, "encoding": {"x": {"datum": reference}}}
        )
    show(data, {"layer": layers}, height=max(90, 34 * len(data)))


def band(data: pd.DataFrame, x: str, low: str, high: str, *, title: str = "", reference: float = 0.0) -> None:
    """An interval that narrows as evidence comes in, and the line it has to clear."""
    show(
        data,
        {
            "layer": [
                {
                    "mark": {"type": "area", "opacity": 0.25, "color": BLUE},
                    "encoding": {
                        "x": {"field": x, "type": "quantitative", "title": "blocks seen"},
                        "y": {"field": low, "type": "quantitative", "title": title},
                        "y2": {"field": high},
                    },
                },
                {"mark": {"type": "rule", "strokeDash": [4, 4], "color": RED}, "encoding": {"y": {"datum": reference}}},
            ]
        },
    )


def reliability(data: pd.DataFrame, predicted: str, observed: str, count: str) -> None:
    """Of the bars given a confidence of x, the share that came true; on the diagonal is honest."""
    diagonal: Sequence[dict[str, float]] = [{"a": 0.0, "b": 0.0}, {"a": 1.0, "b": 1.0}]
    show(
        data,
        {
            "layer": [
                {
                    "data": {"values": diagonal},
                    "mark": {"type": "line", "strokeDash": [4, 4], "color": GREY},
                    "encoding": {"x": {"field": "a", "type": "quantitative"}, "y": {"field": "b", "type": "quantitative"}},
                },
                {
                    "mark": {"type": "circle", "color": BLUE, "opacity": 0.8},
                    "encoding": {
                        "x": {"field": predicted, "type": "quantitative", "title": "confidence", "scale": {"domain": [0, 1]}},
                        "y": {"field": observed, "type": "quantitative", "title": "came true", "scale": {"domain": [0, 1]}},
                        "size": {"field": count, "type": "quantitative", "legend": None, "scale": {"range": [30, 500]}},
                        "tooltip": [{"field": predicted, "format": ".3f"}, {"field": observed, "format": ".3f"}, {"field": count}],
                    },
                },
            ]
        },
        height=320,
    )  # fmt: skip
