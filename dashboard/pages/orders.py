"""Orders, fills and closed trades of the person who is logged in; and the kill switch."""

import streamlit as st

from dashboard import data

st.title("Orders")
orders, fills, trades = st.tabs(["Orders", "Fills", "Closed trades"])
with orders:
    rows = data.orders()
    if rows.empty:
        st.caption("No order yet.")
    else:
        unknown = int((rows["state"] == "UNKNOWN").sum())
        if unknown:
            st.error(f"{unknown} orders have an unknown outcome: the venue is being asked; nothing is re-sent blindly.")
        st.dataframe(rows, hide_index=True, width="stretch")
with fills:
    rows = data.fills()
    st.dataframe(rows, hide_index=True, width="stretch") if len(rows) else st.caption("No fill yet.")
with trades:
    rows = data.outcomes()
    if rows.empty:
        st.caption("No closed trade yet.")
    else:
        st.dataframe(
            rows,
            hide_index=True,
            width="stretch",
            column_config={"net_return": st.column_config.NumberColumn("net return", format="percent")},
        )
        st.download_button("Download as CSV", rows.to_csv(index=False), "closed-trades.csv", "text/csv")

st.divider()
st.subheader("Kill switch")
st.markdown(
    "Stops new entries at once and survives restarts; exits still go out. Clearing it needs the typed words `RESUME TRADING`."
)
mine = [halt for halt in data.active_halts() if halt["scope"] == "user"]
with st.form("kill-switch", border=False):
    if mine:
        typed = st.text_input("Type RESUME TRADING to clear your halt")
        if st.form_submit_button("Clear my halt", type="primary"):
            st.session_state["kill_switch"] = data.clear_halt(mine[0]["halt_id"], typed)
            st.rerun()
    else:
        reason = st.text_input("Reason", placeholder="what made you stop")
        if st.form_submit_button("Halt my trading", type="primary"):
            st.session_state["kill_switch"] = data.halt_me(reason or "stopped from the dashboard")
            st.rerun()
if message := st.session_state.pop("kill_switch", None):
    st.info(message)
