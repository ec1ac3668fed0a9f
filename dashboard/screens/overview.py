"""Overview: what the account is worth, what it holds, what it earned."""

import streamlit as st

from dashboard import charts, data, live, names, tables

view = data.view()
st.title("Overview")
if view.is_own and (view.market is None or view.market.is_current):
    live.tiles()

st.subheader("Equity")
equity = data.equity(view)
if equity.empty:
    st.caption("No equity yet: the first point is written when an engine has traded for this account.")
else:
    currency = equity["currency"].iloc[-1]
    several = equity["account"].nunique() > 1
    charts.lines(equity, "market_time", "equity", color="account" if several else None, title=f"Equity ({currency})")
    start, end = equity.groupby("account")["equity"].first().sum(), equity.groupby("account")["equity"].last().sum()
    deepest = (equity["equity"] / equity.groupby("account")["equity"].cummax() - 1).min()
    st.caption(
        f"{names.money(start, currency)} at the start, {names.money(end, currency)} now ({end / start - 1:+.2%}). "
        f"Deepest fall from a peak: {abs(deepest):.2%}. Market time, UTC."
    )

st.subheader("Open positions")
positions = data.positions(view)
if positions.empty:
    st.caption("Flat: nothing is held.")
else:
    currency = positions["currency"].iloc[0]
    columns = {
        "symbol": tables.words("Instrument"),
        "quantity": tables.quantity("Quantity"),
        "average_price": tables.price("Average price"),
        "last_price": tables.price("Last price"),
        "value": tables.money("Value", currency),
        "unrealized": tables.money("Open result", currency),
        "unrealized_share": tables.share("Open result (%)"),
    }
    if positions["account"].nunique() > 1:
        columns["account"] = tables.words("Account")
    tables.show(positions, columns)

st.subheader("Closed trades")
daily, strategies = data.daily_pnl(view), data.strategy_pnl(view)
if daily.empty or strategies.empty:
    st.caption("No closed trade is in the reports yet. The newest ones are under Orders; reports follow every pass.")
    st.stop()
left, right = st.columns([3, 2], gap="medium")
for currency, days in daily.groupby("currency"):
    with left:
        charts.signed_bars(days, "exit_date", "net_pnl", title=f"Net result a day ({currency})", running="cumulative")
for currency, rows in strategies.groupby("currency"):
    with right:
        one, two, three = st.columns(3)
        one.metric(f"Net result ({currency})", f"{rows['net_pnl'].sum():+,.2f}")
        two.metric("Trades", f"{rows['trades'].sum():,}")
        three.metric("In profit", names.percent((rows["success_rate"] * rows["trades"]).sum() / rows["trades"].sum()))
        shown = rows.assign(
            who=[f"{names.strategy(s)}, {arm}" for s, arm in zip(rows["strategy_id"], rows["arm"], strict=True)]
        )
        tables.show(
            shown,
            {
                "who": tables.words("Strategy, model"),
                "trades": tables.number("Trades"),
                "success_rate": tables.share("In profit"),
                "gross_pnl": tables.money("Gross", str(currency)),
                "costs": tables.money("Costs", str(currency)),
                "net_pnl": tables.money("Net", str(currency)),
            },
        )
st.caption("Bars: result of the trades closed that day (Indian date, market time), net of costs. Line: their sum.")
