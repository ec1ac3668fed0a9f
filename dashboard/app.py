"""What Streamlit runs: who is asking, whose books and which dataset they look at, and what holds on every page."""

from pathlib import Path

import streamlit as st

from dashboard import data, kill_switch, names
from dashboard.sources import LoggedOut, Refused, Unavailable

TRADING = [
    st.Page("screens/overview.py", title="Overview", icon=":material/monitoring:", default=True),
    st.Page("screens/signals.py", title="Signals", icon=":material/bolt:"),
    st.Page("screens/orders.py", title="Orders", icon=":material/receipt_long:"),
    st.Page("screens/risk.py", title="Risk", icon=":material/shield:"),
    st.Page("screens/accounts.py", title="Accounts", icon=":material/account_balance:"),
]
LEARNING = [
    st.Page("screens/models.py", title="Models and experiments", icon=":material/science:"),
    st.Page("screens/drift.py", title="Drift", icon=":material/trending_down:"),
    st.Page("screens/conditions.py", title="Market conditions", icon=":material/thermostat:"),
]
COMPLIANCE = st.Page("screens/compliance.py", title="Compliance", icon=":material/gavel:")
HEALTH = st.Page("screens/health.py", title="System health", icon=":material/favorite:")


ICON = str(Path(__file__).with_name("icon.svg"))  # a named icon would be fetched from elsewhere
# Tables are wide: less empty space around the page than Streamlit leaves.
STYLE = """<style>
.block-container { padding: 4.5rem 2.5rem 2rem 2.5rem; }
.st-key-stop_trading button { background: #dc2626; border-color: #dc2626; }
</style>"""


def main() -> None:
    st.set_page_config(page_title="Trading platform", page_icon=ICON, layout="wide")
    st.html(STYLE)
    try:
        viewer = data.current_viewer()
        page = st.navigation({"Trading": TRADING, "Learning": LEARNING, "Records": _records(viewer)})
        st.session_state["view"] = _view(viewer)
        _banners(st.session_state["view"])
        kill_switch.show(st.session_state["view"])
        page.run()
    except LoggedOut:
        st.error("You are not logged in, or your session has ended.")
        st.link_button("Log in", "/login?next=/app/", type="primary")
    except (Unavailable, Refused) as error:
        st.error(str(error), icon=":material/cloud_off:")
        st.button("Try again")


def _records(viewer: data.Viewer) -> list[object]:
    return [COMPLIANCE, HEALTH] if viewer.is_staff else [HEALTH]


def _view(viewer: data.Viewer) -> data.View:
    """What the sidebar's choices add up to."""
    known = {market.dataset_id: market for market in data.markets()}
    people = data.people(viewer)
    with st.sidebar:
        chosen = next(iter(known), "")
        if len(known) > 1:
            chosen = st.selectbox(
                "Data", list(known), format_func=lambda dataset_id: known[dataset_id].name, key="data"
            )
        user_id = viewer.user_id
        if viewer.is_staff:
            user_id = st.selectbox("Books of", list(people), format_func=lambda user_id: people[user_id], key="whose")
        st.caption(f"{viewer.display_name} ({viewer.role})")
        left, right = st.columns(2)
        left.link_button("Lineage", "/dagster/", width="stretch", help="Data lineage and runs, in Dagster (read-only).")
        right.link_button("Log out", "/logout", width="stretch")
    return data.View(viewer, user_id, known.get(chosen))


def _banners(view: data.View) -> None:
    """What nobody may overlook, on whatever page they are."""
    market = view.market
    if market is None:
        st.info("No market data has been collected yet: the first pass of the loop is still on its way.")
    else:
        reached = f"Market time {names.moment(market.market_time)}." if market.market_time else "No bar is scored yet."
        if market.kind == "synthetic":
            st.warning(
                f"**Synthetic data.** Prices are generated from a seed; nothing on this page is a market. {reached}",
                icon=":material/experiment:",
            )
        elif market.kind == "files":
            st.info(
                f"**Replayed history.** {market.name}. Orders go to the sandbox exchange. {reached}",
                icon=":material/history:",
            )
        if market.drill:
            st.warning(f"**Drill:** the data were changed on purpose: {market.drill}.", icon=":material/warning:")
        if not market.is_current:
            st.info("These are the records of earlier data; the platform works on other data now (see **Data**).")
    for halt in data.active_halts(view.viewer):
        st.error(
            f"**Halted: {names.halted(halt, view.viewer.user_id)}**, since {names.moment(halt['set_at'])}: {halt['reason']}",
            icon=":material/front_hand:",
        )


main()
