"""System health: every service, every lease, every open alert."""

import streamlit as st

from dashboard import data

st.title("System health")
alerts = data.alerts()
if alerts.empty:
    st.success("No open alert.")
else:
    critical = int((alerts["severity"] == "critical").sum())
    (st.error if critical else st.warning)(f"{len(alerts)} open alerts, {critical} of them critical.")
    st.dataframe(alerts, hide_index=True, width="stretch")

st.subheader("Services")
services = data.services()
if services.empty:
    st.caption("No service has reported yet.")
else:
    st.dataframe(
        services,
        hide_index=True,
        width="stretch",
        column_config={
            "age": st.column_config.NumberColumn("last sign of life", format="%.0f s ago"),
            "alive": st.column_config.CheckboxColumn("alive"),
        },
    )
