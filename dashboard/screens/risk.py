"""Risk: the limits in force with how much of them is used, and the circuit breakers."""

import pandas as pd
import streamlit as st

from dashboard import data, names, tables
from dashboard.sources import Refused

SHOWN = {
    "max_order_notional": "Largest order",
    "max_position_notional": "Largest position in one symbol",
    "max_gross_notional": "All positions together",
    "max_daily_loss": "Loss a day",
    "max_drawdown": "Drawdown, share of the highest equity",
    "max_open_positions": "Open positions",
    "max_open_orders": "Working orders",
    "max_orders_per_second": "Orders a second",
    "max_orders_per_minute": "Orders a minute",
    "max_orders_per_day": "Orders a day",
}
MAY_ARM = ("engineer", "compliance", "admin")

view = data.view()
st.title("Risk")

st.subheader("Limits in force")
st.caption("Limits hold for accounts of one currency. Traders lower their own at once; raising one takes an admin.")
in_force = {currency: data.limits(view, currency) for currency in ("USDT", "INR")}
if not any(in_force.values()):
    st.caption("No limits are set yet: nothing may be entered until somebody has set them.")
else:
    table = pd.DataFrame(
        {
            currency: {
                label: "no limit" if limits[name] is None else f"{float(limits[name]):,.10g}"
                for name, label in SHOWN.items()
            }
            for currency, limits in in_force.items()
            if limits
        }
    ).rename_axis("limit")
    tables.show(
        table.reset_index(),
        {"limit": tables.words("Limit", width="medium")} | {name: tables.words(name) for name in table.columns},
    )

st.subheader("Circuit breakers")
st.caption("They stop entries, never exits, and arm again by their rule; after a market-wide halt a person arms them.")
breakers = data.breakers(view.viewer)
if not breakers:
    st.success("No breaker has opened so far.", icon=":material/check:")
else:
    rows = pd.DataFrame(breakers).assign(
        armed=lambda rows: [["Armed"] if state == "CLOSED" else ["Open"] for state in rows["state"]],
        since=lambda rows: pd.to_datetime(rows["opened_at"], utc=True, format="ISO8601"),
        until=lambda rows: [
            "a person arms it" if state == "OPEN" and not at else names.moment(at) if at else ""
            for state, at in zip(rows["state"], rows["arms_at"], strict=True)
        ],
    )  # fmt: skip
    tables.show(
        rows,
        {
            "name": tables.words("Breaker"),
            "armed": tables.status("State", "Armed", "Open"),
            "reason": tables.words("Why", width="large"),
            "since": tables.time("Open since"),
            "until": tables.words("Arms at"),
            "trips": tables.number("Times"),
        },
    )
    still_open = [row["name"] for row in breakers if row["state"] != "CLOSED"]
    if still_open and view.viewer.role in MAY_ARM:
        with st.form("arm", clear_on_submit=True):
            name = st.selectbox("Breaker", still_open)
            typed = st.text_input(f"Type `arm` and its name, such as `arm {still_open[0]}`")
            if st.form_submit_button("Arm again"):
                try:
                    data.rearm_breaker(name, typed)
                except Refused as refusal:
                    st.toast(str(refusal))
                st.rerun()
