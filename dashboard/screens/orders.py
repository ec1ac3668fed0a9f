"""Orders, what was kept back, fills and closed trades."""

import pandas as pd
import streamlit as st

from dashboard import data, names, tables

NEWEST = (100, 200, 500)


def show_orders(limit: int) -> int:
    rows = data.orders(view, limit)
    if rows.empty:
        st.caption("No order yet.")
        return 0
    unknown = int((rows["state"] == "UNKNOWN").sum())
    if unknown:
        st.error(f"{unknown} orders have an unknown outcome: the venue is being asked; nothing is re-sent blindly.")
    rows["status"] = rows["state"].str.replace("_", " ").str.capitalize()
    columns = {
        "market_time": tables.time("Market time"),
        "symbol": tables.words("Instrument"),
        "side": tables.words("Side"),
        "quantity": tables.quantity("Quantity"),
        "filled_quantity": tables.quantity("Filled"),
        "average_price": tables.price("Average price"),
        "status": tables.words("Status"),
        "sent_at": tables.time("Sent", seconds=True),
        "latency_ms": tables.number("Answer (ms)", "%,.0f", help="From sending to the venue's acknowledgement."),
    }
    if rows["order_type"].nunique() > 1:
        columns["order_type"] = tables.words("Type")
    if rows["reason"].notna().any():
        columns["reason"] = tables.words("Reason", width="medium")
    tables.show(tidy(rows), columns | account_and(rows, client_order_id="Client order id"))
    return len(rows)


def show_denials(limit: int) -> int:
    rows = data.denials(view, limit)
    if rows.empty:
        st.caption("Nothing was kept back.")
        return 0
    st.caption("Decisions that risk did not let out. An exit is kept back by the venue's own rules alone.")
    rows["what_for"] = rows["purpose"].str.capitalize()
    tables.show(
        tidy(rows),
        {
            "market_time": tables.time("Market time"),
            "symbol": tables.words("Instrument"),
            "what_for": tables.words("Entry or exit"),
            "quantity": tables.quantity("Quantity"),
            "reference_price": tables.price("Price"),
            "code": tables.words("Code"),
            "figures": tables.words("Figures", width="medium"),
            "meaning": tables.words("Meaning", width="large"),
            "remedy": tables.words("What to do", width="large"),
        },
    )
    return len(rows)


def show_fills(limit: int) -> int:
    rows = data.fills(view, limit)
    if rows.empty:
        st.caption("No fill yet.")
        return 0
    columns = {
        "market_time": tables.time("Market time"),
        "symbol": tables.words("Instrument"),
        "side": tables.words("Side"),
        "quantity": tables.quantity("Quantity"),
        "price": tables.price("Price"),
        "notional": tables.money("Value", rows["currency"].iloc[0]),
        "fee": tables.number("Fee", "%,.6g"),
        "fee_currency": tables.words("Fee in"),
    }
    tables.show(tidy(rows), columns | account_and(rows, trade_id="Trade id", client_order_id="Client order id"))
    return len(rows)


def show_trades(limit: int) -> int:
    rows = data.trades(view, limit)
    if rows.empty:
        st.caption("No closed trade yet.")
        return 0
    currency = rows["currency"].iloc[0]
    rows["left_at"] = rows["exit_reason"].str.capitalize()
    rows["model"] = rows["version_id"].map(data.version_names(view)).fillna(rows["version_id"].map(names.short))
    rows["strategy"] = rows["strategy_id"].map(names.strategy)
    tables.show(
        rows,
        {
            "exit_time": tables.time("Closed"),
            "symbol": tables.words("Instrument"),
            "entry_time": tables.time("Opened"),
            "quantity": tables.quantity("Quantity"),
            "entry_price": tables.price("Bought at"),
            "exit_price": tables.price("Sold at"),
            "left_at": tables.words("Left at", help="Which barrier ended the trade: target, stop or time."),
            "costs": tables.money("Costs", currency),
            "net_pnl": tables.money("Net result", currency),
            "net_return": tables.share("Net return", "%+.2f"),
            "confidence": tables.number("Confidence", "%.3f"),
            "model": tables.words("Model"),
            "strategy": tables.words("Strategy"),
        },
    )
    st.download_button(
        "Download all as CSV", lambda: data.all_trades(view), "closed-trades.csv", "text/csv", on_click="ignore",
        icon=":material/download:", help="Every closed trade up to the newest report, with all columns.",
    )  # fmt: skip
    return len(rows)


def tidy(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(
        **{
            name: rows[name].str.replace("_", " ").str.capitalize()
            for name in ("side", "order_type")
            if name in rows.columns
        }
    )


def account_and(rows: pd.DataFrame, **ids: str) -> dict[str, tables.Column]:
    """The account's column where there are several, and identifiers, which are what a venue asks for."""
    found = {"account": tables.words("Account")} if rows["account"].nunique() > 1 else {}
    return found | {name: tables.words(label, width="small") for name, label in ids.items()}


KINDS = {"Orders": show_orders, "Kept back": show_denials, "Fills": show_fills, "Closed trades": show_trades}
view = data.view()
st.title("Orders")
left, right = st.columns([4, 1], vertical_alignment="bottom")
kind = left.segmented_control("Kind", list(KINDS), default="Orders", required=True, label_visibility="collapsed")
limit = right.selectbox("Newest", NEWEST)
count = KINDS[kind or "Orders"](limit)
if count:
    st.caption(f"The newest {count}, newest first.")
