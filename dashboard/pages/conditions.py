"""Market conditions: where the strategy earns and where it does not."""

import streamlit as st

from dashboard import charts, data

NAMES = {"volatility": "Volatility", "trend": "Trend", "liquidity": "Liquidity", "session": "Session"}

st.title("Market conditions")
st.caption("The condition is the one at the entry of the trade, known at that time.")
outcomes = data.outcomes()
if outcomes.empty:
    st.caption("No closed trade yet.")
    st.stop()
overall = outcomes["success"].mean()
for row in (("volatility", "trend"), ("liquidity", "session")):
    for column, condition in zip(st.columns(2), row, strict=True):
        grouped = outcomes.groupby(condition, as_index=False).agg(
            trades=("success", "size"), success_rate=("success", "mean"), mean_net_return=("net_return", "mean")
        )
        with column:
            st.subheader(NAMES[condition])
            charts.bars(grouped, condition, "success_rate", title="share in profit after costs", reference=overall)
            st.dataframe(
                grouped,
                hide_index=True,
                width="stretch",
                column_config={
                    "success_rate": st.column_config.NumberColumn("in profit", format="percent"),
                    "mean_net_return": st.column_config.NumberColumn("mean net return", format="percent"),
                },
            )
accuracy = data.accuracy_over_time()
if not accuracy.empty:
    st.subheader("Accuracy of the signals over time")
    charts.lines(accuracy, "day", "accuracy", color="version", title="share of resolved bars called right")
