"""Overview: what the account is worth, what it holds, what it earned."""

import streamlit as st

from dashboard import charts, data, live, names, tables

view = data.view()
st.title("Overview")
if view.is_own:
    for session in data.kite_sessions(view).values():
        if session["wanted_by"]:
            left, right = st.columns([5, 1], vertical_alignment="center")
            left.warning(
                f"**Log in to Zerodha.** Today's trading is from {names.moment_in_india(session['wanted_by'])}; without a log-in "
                f"nothing is traded for account `{session['account_id']}`.",
                icon=":material/lock:",
            )
            right.link_button("Log in", f"/api/kite/login?account={session['account_id']}", type="primary")
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
        "symbol": tables.words("Instrument", width=170),  # a sold or hedging option is its own instrument
        "contract": tables.words("Contract"),
        "quantity": tables.quantity("Quantity"),
        "average_price": tables.price("Average price"),
        "last_price": tables.price("Last price"),
        "stop_price": tables.price("Stop at venue"),
        "value": tables.money("Value", currency),
        "unrealized": tables.money("Open result", currency),
        "unrealized_share": tables.share("Open result (%)", "%+.2f"),
    }
    if (positions["contract"] == positions["symbol"]).all():
        del columns["contract"]
    if positions["account"].nunique() > 1:
        columns["account"] = tables.words("Account")
    tables.show(positions, columns)

st.subheader("Closed trades")
daily, strategies = data.daily_pnl(view), data.strategy_pnl(view)
if daily.empty or strategies.empty:
    st.caption("No closed trade is in the reports yet. The newest ones are under Orders; reports follow every pass.")
    st.stop()
st.caption("From the reports, which follow every pass: the figures above are newer.")
for currency, days in daily.groupby("currency"):
    rows = strategies[strategies["currency"] == currency]
    trades = int(rows["trades"].sum())
    figures = {
        f"Net result ({currency})": f"{rows['net_pnl'].sum():+,.2f}",
        f"Before costs ({currency})": f"{rows['gross_pnl'].sum():+,.2f}",
        f"Costs ({currency})": f"{rows['costs'].sum():,.2f}",
        "Trades": f"{trades:,}",
        "In profit after costs": names.percent((rows["success_rate"] * rows["trades"]).sum() / trades),
    }
    for column, (label, value) in zip(st.columns(len(figures)), figures.items(), strict=True):
        column.metric(label, value)
    charts.signed_bars(days, "day", "net_pnl", title=f"Net result a day ({currency})", running="cumulative")
    if len(rows) > 1:
        who = zip(rows["strategy_id"], rows["arm"], strict=True)
        tables.show(
            rows.assign(who=[f"{names.strategy(strategy)}, {arm}" for strategy, arm in who]),
            {
                "who": tables.words("Strategy, model"),
                "trades": tables.number("Trades"),
                "success_rate": tables.share("In profit"),
                "gross_pnl": tables.money("Before costs", str(currency)),
                "costs": tables.money("Costs", str(currency)),
                "net_pnl": tables.money("Net", str(currency)),
            },
        )
st.caption("Bars: result of the trades closed that day (Indian date, market time), net of costs. Line: their sum.")
