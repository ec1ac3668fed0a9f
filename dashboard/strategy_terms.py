"""Which strategies trade an account, and the form in which its owner says how."""

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import pandas as pd
import streamlit as st

from dashboard import data, names, tables

FUTURE, HEDGED, SPREAD = "Its future", "Its future under a put", "A bull call spread"
WAYS = {FUTURE: None, HEDGED: "hedge_away", SPREAD: "spread_away"}
"""How an index is entered, and the term that says how far the option is from the market."""
USUAL_DISTANCE = Decimal(3)
Attempt = Callable[[Callable[[], None]], None]


def show(account: dict[str, Any], subscriptions: Sequence[dict[str, Any]]) -> None:
    """What trades the account."""
    if not subscriptions:
        st.caption("No strategy trades this account.")
        return
    rows = pd.DataFrame([
        {
            "strategy": names.strategy(row["strategy_id"]),
            "state": ["Trades" if row["enabled"] else "Stopped"],
            "share": float(row["capital_fraction"]),
            "how": _how(row),
        }
        for row in subscriptions
    ])  # fmt: skip
    tables.show(
        rows,
        {
            "strategy": tables.words("Strategy"),
            "state": tables.status("State", "Trades", "Stopped"),
            "share": tables.share("Equity in one position (%)"),
            "how": tables.words("Terms", width="large"),
        },
    )


def ask(
    account: dict[str, Any], subscriptions: Sequence[dict[str, Any]], strategies: dict[str, dict[str, Any]], attempt: Attempt
) -> None:  # fmt: skip
    """Let the owner change it: at once, and open positions of a strategy that is stopped are still left by its rules."""
    account_id = account["account_id"]
    chosen = st.selectbox("Strategy", list(strategies), format_func=names.strategy, key=f"strategy-{account_id}")
    if chosen is None:
        return
    st.caption(strategies[chosen]["description"])
    now = next((row for row in subscriptions if row["strategy_id"] == chosen), {})
    with st.form(f"terms-{account_id}-{chosen}"):
        enabled = st.checkbox("Trade this account", value=now.get("enabled", True))
        share = st.number_input(
            "Equity in one position (%)", 0.01, 100.0, step=1.0,
            value=100 * float(now.get("capital_fraction", strategies[chosen]["capital_fraction"])),
        )  # fmt: skip
        terms: dict[str, Any] = {"enabled": enabled, "capital_fraction": _fraction(share)}
        if account["closes"]:
            terms |= _ask_of_indices(now)
        terms["allow_uncertified"] = st.checkbox(
            "Also on signals that are not certified", value=now.get("allow_uncertified", False),
            help="A certified signal was right often enough on data that the model had not seen; most markets have none.",
        )  # fmt: skip
        if words := account["uncertified_confirmation"]:
            terms["confirmation"] = st.text_input(f"For real money on uncertified signals, type `{words}`") or None
        if st.form_submit_button("Save"):
            attempt(lambda: data.subscribe(account_id, chosen, terms))


def _ask_of_indices(now: dict[str, Any]) -> dict[str, Any]:
    before = next((way for way, term in WAYS.items() if term and now.get(term)), FUTURE)
    away = now.get(WAYS[before] or "")
    way = st.selectbox("An index is entered by", list(WAYS), index=list(WAYS).index(before))
    distance = st.number_input(
        "How far the option is from the market (%)", 0.1, 99.0, step=0.5,
        value=100 * float(away) if away else float(USUAL_DISTANCE),
        help="The put so far below the market, or the sold call so far above it. Not used for a future alone.",
    )  # fmt: skip
    overnight = st.checkbox(
        "Hold positions overnight", value=now.get("overnight", True),
        help="Otherwise all is left ahead of the session's end, and nothing is entered from then on.",
    )  # fmt: skip
    terms: dict[str, Any] = {"overnight": overnight}
    if (term := WAYS[way or FUTURE]) is not None:
        terms[term] = _fraction(distance)
    return terms


def _how(row: dict[str, Any]) -> str:
    parts = []
    if row["hedge_away"]:
        parts.append(f"indices under a put {names.percent(float(row['hedge_away']))} below")
    if row["spread_away"]:
        parts.append(f"indices by a call spread {names.percent(float(row['spread_away']))} wide")
    if not row["overnight"]:
        parts.append("nothing overnight")
    if row["allow_uncertified"]:
        parts.append("uncertified signals too")
    return ", ".join(parts)


def _fraction(percent: float) -> str:
    """Exactly what was typed: .3 % is .003."""
    return f"{Decimal(str(percent)) / 100:f}"
