"""Tables in one look: only the columns asked for, in that order, with units in the heading and numbers as people read
them. Times are UTC and say so.

    tables.show(trades, {"exit_time": tables.time("Closed"), "net_pnl": tables.money("Net result", "USDT")})
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

SHORT, LONG_PIXELS = 10, 560
PERCENT = "%%"
Column = Any
"""What `st.column_config` makes."""


def show(rows: pd.DataFrame, columns: Mapping[str, Column]) -> None:
    """Draw a table: all rows of a short one, a window of a long one."""
    shown = rows[list(columns)].copy()
    for name, column in columns.items():
        if str(column["type_config"].get("format")).endswith(PERCENT):
            shown[name] = 100 * shown[name].astype(float)
    st.dataframe(
        shown, hide_index=True, width="stretch", column_config=dict(columns), placeholder="",
        height="auto" if len(rows) <= SHORT else LONG_PIXELS,
    )  # fmt: skip


def words(label: str, *, help: str | None = None, width: Any = None) -> Column:
    return st.column_config.TextColumn(label, help=help, width=width)


def time(label: str, *, seconds: bool = False) -> Column:
    """A point in time, UTC."""
    shown = "YYYY-MM-DD HH:mm:ss" if seconds else "YYYY-MM-DD HH:mm"
    return st.column_config.DatetimeColumn(f"{label} (UTC)", format=shown, timezone="UTC")


def money(label: str, currency: str) -> Column:
    return st.column_config.NumberColumn(f"{label} ({currency})", format="%,.2f")


def price(label: str) -> Column:
    """Seven significant digits: enough for bitcoin and for what costs a fraction of a cent."""
    return st.column_config.NumberColumn(label, format="%,.7g")


def quantity(label: str) -> Column:
    return st.column_config.NumberColumn(label, format="%,.8g")


def share(label: str, format: str = "%.1f", *, help: str | None = None) -> Column:
    """A fraction, shown as a percentage."""
    return st.column_config.NumberColumn(label, format=f"{format}{PERCENT}", help=help)


def number(label: str, format: str = "%,d", *, help: str | None = None) -> Column:
    return st.column_config.NumberColumn(label, format=format, help=help)


def confidence(label: str) -> Column:
    return st.column_config.ProgressColumn(
        label, min_value=0, max_value=1, format="%.3f",
        help="Calibrated probability that the trade, net of costs, ends in profit.",
    )  # fmt: skip


def status(label: str, good: str, bad: str) -> Column:
    """One of two words, each in a list of its own, on green and on red."""
    return st.column_config.MultiselectColumn(label, options=[good, bad], color=["#bbf7d0", "#fecaca"])


def tick(label: str, *, help: str | None = None) -> Column:
    return st.column_config.CheckboxColumn(label, help=help)
