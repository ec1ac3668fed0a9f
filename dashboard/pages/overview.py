"""Overview: what the account is worth, what it holds, what it earned."""

import streamlit as st

from dashboard import charts, data, live

st.title("Overview")
live.tiles()

equity = data.equity()
st.subheader("Equity")
if equity.empty:
    st.caption("No equity points yet: they appear once the engine has traded.")
else:
    charts.lines(equity, "market_time", "equity", color="account" if equity["account"].nunique() > 1 else None)
    peak = equity.groupby("account")["equity"].cummax()
    drawdown = equity.assign(drawdown=equity["equity"] / peak - 1)
    worst = drawdown["drawdown"].min()
    st.caption(f"Deepest fall from a peak: {worst:.2%}. Market time, UTC.")

left, right = st.columns([3, 2])
with left:
    st.subheader("Open positions")
    positions = data.positions()
    if positions.empty:
        st.caption("Flat: nothing is held.")
    else:
        st.dataframe(positions, hide_index=True, width="stretch")
with right:
    st.subheader("Profit and loss by strategy")
    outcomes = data.outcomes()
    if outcomes.empty:
        st.caption("No closed trade yet.")
    else:
        totals = outcomes.groupby(["strategy", "currency"], as_index=False)[["gross", "costs", "net"]].sum()
        st.dataframe(totals.round(2), hide_index=True, width="stretch")
        wins = outcomes["success"].mean()
        st.caption(f"{len(outcomes)} closed trades, {wins:.1%} of them in profit after costs.")

if not outcomes.empty:
    st.subheader("Net result of each closed trade")
    running = outcomes.sort_values("exit_time").assign(cumulative=lambda rows: rows["net"].cumsum())
    charts.lines(running, "exit_time", "cumulative", title="cumulative net P&L", zero=True)
