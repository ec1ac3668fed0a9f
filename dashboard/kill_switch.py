"""The kill switch, in the sidebar of every page: stops new entries at once; exits still go out."""

from collections.abc import Callable
from typing import Any

import streamlit as st

from dashboard import data, names
from dashboard.sources import Refused

MAY_HALT_PLATFORM = ("engineer", "compliance", "admin")
ACTIONS = {
    "cancel": "Stop entries, cancel those that work",
    "block": "Stop entries alone",
    "flatten": "Stop entries and leave every position",
}


def show(view: data.View) -> None:
    """Stop the trading of whose books are shown, or all of it; and what is needed to let it go on."""
    with st.sidebar, st.popover("Kill switch", icon=":material/front_hand:", width="stretch"):
        st.markdown("Stops new entries at once and survives restarts. Exits still go out, so positions can be closed.")
        _stop(view)
        for halt in data.active_halts(view.viewer):
            if view.viewer.is_staff or halt["set_by"] == view.viewer.user_id:
                _clear(halt, view)
        if refusal := st.session_state.pop("halt_refused", None):
            st.error(refusal)


def _stop(view: data.View) -> None:
    whose = "My trading" if view.is_own else f"Trading of {data.people(view.viewer)[view.user_id]}"
    scopes = {"user": whose}
    if view.viewer.role in MAY_HALT_PLATFORM:
        scopes["platform"] = "All trading of the platform"
    with st.form("halt", border=False, clear_on_submit=True):
        scope = "user"
        if len(scopes) > 1 or not view.is_own:
            scope = st.radio("What to stop", list(scopes), format_func=lambda scope: scopes[scope])
        action = st.selectbox("What it does", list(ACTIONS), format_func=lambda action: ACTIONS[action])
        reason = st.text_input("Reason", placeholder="What made you stop", max_chars=500)
        if st.form_submit_button("Stop trading", type="primary", width="stretch", key="stop_trading"):
            scope_id = view.user_id if scope == "user" else None
            _try(lambda: data.halt(scope, reason.strip() or "stopped from the dashboard", scope_id, action))


def _clear(halt: dict[str, Any], view: data.View) -> None:
    words = f"clear {halt['scope']} {halt['scope_id']}"
    with st.form(f"clear-{halt['halt_id']}", clear_on_submit=True):
        does = ACTIONS[halt["action"]]
        st.markdown(f"**Halted: {names.halted(halt, view.viewer.user_id)}.** {halt['reason']}  \n{does}.")
        reason = st.text_input("Why may it go on?", max_chars=500)
        typed = st.text_input(f"Type `{words}`")
        if st.form_submit_button("Let trading go on", width="stretch"):
            _try(lambda: data.clear_halt(halt["halt_id"], reason, typed))


def _try(change: Callable[[], None]) -> None:
    """Make the change and draw the page anew, with the refusal where it was refused."""
    try:
        change()
    except Refused as refusal:
        st.session_state["halt_refused"] = str(refusal)
    st.rerun()
