"""Compliance: the state of the audit trail and the daily records to download. For compliance officers and admins."""

import pandas as pd
import streamlit as st

from dashboard import data, names, tables

RECORDS = {
    "daily_records.html": "The day on one page, to read or print",
    "order_audit_log.csv": "Order and trade audit log, with the hashes of the chain",
    "ops_rate.csv": "Order rate against the limits",
    "order_to_trade_ratio.csv": "Order-to-trade ratio",
    "algo_tagging.csv": "Algo tagging",
    "risk_control_log.csv": "Risk controls: refused orders and halts",
    "access_log.csv": "Access: log-ins, refusals, changes of roles",
    "incident_log.csv": "Incidents",
    "strategy_register.csv": "Strategy register: what served when",
    "manifest.json": "Manifest: hash and rows of every file",
}


def show_chains() -> None:
    anchors = data.audit_anchors()
    if anchors.empty or anchors["seq"].isna().all():
        st.caption("No chain has been sealed yet: the first seal follows the first audited event.")
        return
    anchors["head"] = anchors["hash"].str.slice(0, 16)
    tables.show(
        anchors,
        {
            "group_id": tables.words("User group"),
            "seq": tables.number("Sealed up to entry"),
            "anchored_at": tables.time("Anchored", seconds=True),
            "head": tables.words("Head of the chain", help="First 16 digits of the SHA-256 kept outside the group."),
        },
    )


def show_records() -> None:
    days = data.record_days()
    if not days:
        st.caption("No record has been written yet; they are written at 00:30 IST and after each pass.")
        return
    chooser, _ = st.columns([1, 3])
    day = chooser.selectbox("Day (IST)", days)
    manifest = data.record_manifest(day)
    show_figures(manifest)
    for name, about in sorted(manifest["files"].items(), key=lambda entry: list(RECORDS).index(entry[0])):
        show_file(day, name, about)
    show_file(day, "manifest.json", {})
    st.caption(
        f"Written {names.moment(manifest['generated_at'])}; keep until {manifest['keep_until']}. Account and user "
        "identifiers are masked. These are records of the platform, not filings: those are the broker's."
    )


def show_figures(manifest: dict[str, object]) -> None:
    figures = pd.Series(manifest["figures"])
    shown = {
        "Orders sent": "orders_sent",
        "Fills": "fills",
        "Refused by risk": "risk_blocks",
        "Halts": "halts",
        "Incidents": "incidents",
        "Exceptions": "exceptions",
    }
    for column, (label, key) in zip(st.columns(len(shown)), shown.items(), strict=True):
        column.metric(label, f"{figures.get(key, 0):,}")
    if figures.get("chains_whole"):
        st.success("All audit chains were whole when the records were written.", icon=":material/verified:")
    else:
        st.error("An audit chain was NOT whole when the records were written: see the page of the day.")
    if labels := manifest.get("data"):
        st.caption(f"What was traded: {'; '.join(map(str, labels))}.")  # type: ignore[call-overload]


def show_file(day: str, name: str, about: dict[str, object]) -> None:
    words, rows, button = st.columns([6, 2, 2], vertical_alignment="center")
    words.markdown(f"{RECORDS.get(name, name)}  \n:gray[`{name}`]")
    rows.caption(f"{about['rows']:,} rows" if "rows" in about else "")
    button.download_button(
        "Download", lambda: data.record_file(day, name), f"{day}-{name}", key=f"{day}/{name}", on_click="ignore",
        icon=":material/download:", width="stretch",
    )  # fmt: skip


view = data.view()
st.title("Compliance")
if not view.viewer.is_staff:
    st.info("Daily records are for compliance officers and administrators. Your own trades are under Orders.")
    st.stop()
st.subheader("Audit chains")
show_chains()
st.subheader("Daily records")
show_records()
