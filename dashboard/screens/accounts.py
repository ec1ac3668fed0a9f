"""Exchange accounts: connect, log in for the day, arm for real money, disarm; and which strategies trade them."""

from typing import Any

import streamlit as st

from dashboard import data, names, strategy_terms
from dashboard.sources import Refused

VENUES = {"zerodha": "Zerodha (Kite Connect)", "binance": "Binance (spot)"}


def attempt(change: Any) -> None:
    """Make a change and draw the page anew, with the refusal where it was refused."""
    try:
        change()
    except Refused as refusal:
        st.session_state["account_refused"] = str(refusal)
    st.rerun()


def session_of(account: dict[str, Any]) -> None:
    """Today's log-in at Zerodha."""
    session = sessions.get(account["account_id"])
    if session is None or account["kind"] == "sandbox":
        return
    until, wanted = session["logged_in_until"], session["wanted_by"]
    if until:
        st.success(f"Logged in until {names.moment_in_india(until)} at the latest.", icon=":material/lock_open:")
        if st.button("Log out", key=f"out-{account['account_id']}"):
            attempt(lambda: data.log_out_of_kite(account["account_id"]))
        return
    text = (
        f"Not logged in. Today's trading is from {names.moment_in_india(wanted)}." if wanted else "Not logged in today."
    )
    st.warning(f"{text} Nothing is traded for this account until its owner logs in.", icon=":material/lock:")
    st.link_button(
        "Log in at Zerodha", f"/api/kite/login?account={account['account_id']}", type="primary",
        help="Opens Zerodha's own page. Password and second factor never come here.",
    )  # fmt: skip


def armed(account: dict[str, Any]) -> None:
    account_id = account["account_id"]
    if account["armed_at"]:
        st.error(f"**Armed for real money** since {names.moment(account['armed_at'])}.", icon=":material/bolt:")
        if st.button("Disarm", key=f"disarm-{account_id}", help="At once. Positions stay as they are."):
            attempt(lambda: data.disarm(account_id))
        return
    with st.form(f"arm-{account_id}", clear_on_submit=True):
        words = f"arm {account_id}"
        st.markdown("Not armed: nothing is sent to the exchange for this account.")
        typed = st.text_input(f"To trade real money with it, type `{words}`")
        if st.form_submit_button("Arm"):
            attempt(lambda: data.arm(account_id, typed))


def connect() -> None:
    with st.form("connect", clear_on_submit=True):
        venue = st.selectbox("Exchange", list(VENUES), format_func=lambda each: VENUES[each])
        key = st.text_input("API key", type="password", autocomplete="off")
        secret = st.text_input("API secret", type="password", autocomplete="off")
        address = st.text_input(
            "Address that requests leave from", placeholder="only where this machine has several",
            help="Zerodha takes orders from the one address on the app's list.",
        )  # fmt: skip
        st.caption("Keys are sealed before they are stored and never shown again. A new account is not armed.")
        if st.form_submit_button("Connect", type="primary"):
            attempt(lambda: data.connect(venue, key, secret, address.strip() or None))


def set_aside(account_id: str) -> None:
    """Why an engine does not trade the account, where its books differ from the venue's."""
    for lease in data.health(view.viewer)["leases"]:
        compared = (lease["detail"] or {}).get("reconciliation") or {}
        for line in compared.get("differences", []):
            if line.partition(":")[0] == account_id:
                st.warning(f"**Set aside, not traded until books and venue match.** {line.partition(': ')[2]}",
                           icon=":material/sync_problem:")  # fmt: skip


view = data.view()
st.title("Accounts")
if refusal := st.session_state.pop("account_refused", None):
    st.error(refusal)
found = data.exchange_accounts(view)
sessions = data.kite_sessions(view) if view.is_own else {}
subscriptions = data.subscriptions(view)
if not found:
    st.caption("No account yet.")
for account in found:
    kind = "Real money" if account["kind"] == "live" else "Paper"
    with st.container(border=True):
        st.markdown(
            f"**{names.VENUES.get(account['venue'], account['venue'])}** · {kind} · {account['currency']} · "
            f"`{account['account_id']}` · since {names.moment(account['created_at'])}"
        )
        set_aside(account["account_id"])
        if account["kind"] == "live" and view.is_own:
            session_of(account)
            armed(account)
        own = [row for row in subscriptions if row["account_id"] == account["account_id"]]
        strategy_terms.show(account, own)
        if view.is_own:
            with st.expander("Strategies", icon=":material/tune:", expanded=False):
                strategy_terms.ask(account, own, data.strategies(view.viewer), attempt)
if view.is_own:
    with st.expander("Connect an account", icon=":material/add_link:", expanded=False):
        connect()
else:
    st.caption("Only its owner connects, arms or logs in an account.")
