"""What Streamlit runs: who is asking, which pages they see, and what holds on every page."""

import streamlit as st

from dashboard import data

PAGES = {
    "Trading": [
        st.Page("pages/overview.py", title="Overview", icon=":material/monitoring:", default=True),
        st.Page("pages/signals.py", title="Signals", icon=":material/bolt:"),
        st.Page("pages/orders.py", title="Orders", icon=":material/receipt_long:"),
    ],
    "Learning": [
        st.Page("pages/models.py", title="Models and experiments", icon=":material/science:"),
        st.Page("pages/drift.py", title="Drift", icon=":material/trending_down:"),
        st.Page("pages/conditions.py", title="Market conditions", icon=":material/thermostat:"),
    ],
    "Records": [
        st.Page("pages/compliance.py", title="Compliance", icon=":material/gavel:"),
        st.Page("pages/health.py", title="System health", icon=":material/favorite:"),
    ],
}


def main() -> None:
    st.set_page_config(page_title="Trading platform", page_icon=":material/candlestick_chart:", layout="wide")
    user = data.current_user()
    if user is None:
        st.error("You are not logged in, or your session has ended.")
        st.link_button("Log in", "/login?next=/app/")
        st.stop()
    page = st.navigation(PAGES)
    dataset = data.dataset()
    with st.sidebar:
        st.caption(f"{user['display_name']} · {user['role']}")
        if dataset is not None:
            st.caption(f"Dataset **{dataset['label']}**")
        st.link_button("Data lineage (Dagster)", "/dagster/", width="stretch")
        st.link_button("Log out", "/logout", width="stretch")
    _banners(dataset)
    page.run()


def _banners(dataset: dict[str, object] | None) -> None:
    """What nobody may overlook, on whatever page they are."""
    if dataset is None:
        st.info("No market data has been collected yet: the first pass of the loop is still on its way.")
    elif dataset["kind"] == "synthetic":
        st.warning("**Synthetic data.** Prices here are generated from a seed; nothing on this page is a market.")
    elif dataset["kind"] == "files":
        st.info("**Replayed history.** Orders go to the sandbox exchange; the market time is not now.")
    if dataset is not None and dataset.get("drill"):
        st.warning(f"**Drill:** the data were changed on purpose ({dataset['drill']}).")
    for halt in data.active_halts():
        st.error(f"**Trading is halted** ({halt['scope']} {halt['scope_id']}): {halt['reason']}")


main()
