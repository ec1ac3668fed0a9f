"""Compliance: the audit trail's state and the daily records to download."""

import streamlit as st

from dashboard import data

st.title("Compliance")
st.caption("Records of the platform, kept for at least five years. They are not filings: those are the broker's.")
user = data.current_user()
if user is None or user["role"] not in {"compliance", "admin"}:
    st.info(
        "Daily records are for compliance officers and administrators. Your own orders and trades are under Orders."
    )
    st.stop()

anchors = data.audit_anchors()
st.subheader("Audit chains")
if anchors.empty:
    st.caption("No chain has been sealed yet.")
else:
    st.dataframe(anchors, hide_index=True, width="stretch")

st.subheader("Daily records")
days = data.report_days()
if not days:
    st.caption("No record has been written yet; they are written at 00:30 IST and after each pass.")
    st.stop()
day = st.selectbox("Day (IST)", days)
for path in data.report_files(day):
    name, size, button = st.columns([5, 2, 2])
    name.markdown(f"`{path.name}`")
    size.caption(f"{path.stat().st_size / 1024:,.1f} KiB")
    button.download_button("Download", path.read_bytes(), path.name, key=str(path))
