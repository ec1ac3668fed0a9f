"""Market conditions: what they are now, what they were, and where the strategy earns and where it does not."""

import streamlit as st

from dashboard import charts, data, names, tables

ORDER = {
    "volatility": ["low", "normal", "high", "unknown"],
    "trend": ["down", "sideways", "up", "unknown"],
    "liquidity": ["thin", "normal", "deep", "unknown"],
    "session": ["asia", "europe", "us", "weekend"],
}
COLORS = {
    "volatility": {"low": "#93c5fd", "normal": "#cbd5e1", "high": "#fca5a5", "unknown": "#e5e7eb"},
    "trend": {"down": "#fca5a5", "sideways": "#cbd5e1", "up": "#86efac", "unknown": "#e5e7eb"},
}
NAMES = {"volatility": "Volatility", "trend": "Trend", "liquidity": "Liquidity", "session": "Session"}


def show_now() -> None:
    newest = data.signals(view, limit=200)
    if newest.empty:
        st.caption("No bar has been scored yet.")
        return
    rows = newest.drop_duplicates("symbol").sort_values("symbol")
    rows = rows.assign(**{name: rows[name].map(names.condition) for name in ORDER})
    tables.show(
        rows,
        {
            "symbol": tables.words("Instrument"),
            "available_at": tables.time("Bar closed"),
            "price": tables.price("Close"),
            **{name: tables.words(label) for name, label in NAMES.items()},
        },
    )
    st.caption("Volatility and liquidity rank a bar among the instrument's last 1,000, in thirds.")


def show_results() -> None:
    results = data.condition_results(view)
    if results.empty:
        st.caption("No closed trade is in the reports yet; reports follow every pass.")
        return
    one_type = results[results["condition_type"] == "volatility"]
    overall = float((one_type["success_rate"] * one_type["trades"]).sum() / one_type["trades"].sum())
    st.caption(
        f"Closed trades of {whose} by the condition at entry, known at that time. Dashed: all of them, "
        f"{names.percent(overall)} in profit after costs."
    )
    for pair in (("volatility", "trend"), ("liquidity", "session")):
        for column, kind in zip(st.columns(2, gap="medium"), pair, strict=True):
            rows = results[results["condition_type"] == kind]
            rows = rows.assign(
                place=rows["condition"].map(lambda value, known=ORDER[kind]: known.index(value) if value in known else len(known)),
                condition=rows["condition"].map(names.condition)
            )  # fmt: skip
            with column:
                st.markdown(f"**{NAMES[kind]}**")
                charts.bars(
                    rows, "condition", "success_rate", title="In profit after costs", format=".0%", reference=overall,
                    order=[names.condition(value) for value in ORDER[kind]],
                    tooltip=[{"field": "trades", "format": ",d", "title": "Trades"}],
                )  # fmt: skip
                tables.show(
                    rows.sort_values("place"),
                    {
                        "condition": tables.words("Condition"),
                        "trades": tables.number("Trades"),
                        "success_rate": tables.share("In profit"),
                        "mean_confidence": tables.share("Promised", help="Mean confidence of the signals traded."),
                        "mean_net_return": tables.share("Mean net return", "%+.3f"),
                    },
                )


def show_history() -> None:
    history = data.condition_history(view)
    for column, kind in zip(st.columns(2, gap="medium"), ("volatility", "trend"), strict=True):
        rows = history[history["condition_type"] == kind] if not history.empty else history
        if rows.empty:
            continue
        present = [value for value in ORDER[kind] if value in set(rows["condition"])]
        with column:
            st.markdown(f"**{NAMES[kind]}**")
            charts.shares(rows.drop(columns="condition_type"), "day", "bars", "condition", present, COLORS[kind])
    if history.empty:
        st.caption("No history is in the reports yet; reports follow every pass.")


def show_accuracy() -> None:
    accuracy = data.accuracy_over_time(view)
    if accuracy.empty:
        st.caption("Fewer than ten traded signals have come to their end so far.")
        return
    versions = data.version_names(view)
    accuracy["model"] = accuracy["version_id"].map(versions).fillna(accuracy["version_id"].map(names.short))
    charts.lines(accuracy, "day", "success_rate", color="model", title="In profit, 30 days", format=".0%", height=220)
    st.caption(
        "Share of traded signals that ended in profit after costs, over the 30 days before; at least ten trades."
    )


view = data.view()
whose = "yours" if view.is_own else data.people(view.viewer)[view.user_id]
st.title("Market conditions")
st.subheader("Now")
show_now()
st.subheader("Where the strategy earns")
show_results()
st.subheader("How the market was")
show_history()
st.subheader("Accuracy of the signals over time")
show_accuracy()
