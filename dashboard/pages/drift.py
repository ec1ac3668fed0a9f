"""Drift: is the market still the one the model was trained on, and what was done about it."""

import streamlit as st

from dashboard import charts, data

MEANING = {
    "none": ("No drift.", st.success),
    "warning": ("A warning: the stream looks different, not yet enough to act on.", st.warning),
    "retrain": ("Drift: retraining was asked for.", st.error),
}

st.title("Drift")
reports = data.drift_reports()
if reports.empty:
    st.caption("No drift check has run yet; they run every ten minutes and after each pass.")
    st.stop()
newest = reports.iloc[0]
text, box = MEANING[newest["decision"]]
box(f"**{text}** Checked on bars up to {newest['window_to']:%Y-%m-%d %H:%M} UTC of version `{newest['version']}`.")

features = data.drift_features(newest)
if not features.empty:
    st.subheader("Features: distance to the training window, over the computed threshold")
    charts.bars(features.head(15), "feature", "ratio", title="statistic / threshold", reference=1.0)
    st.caption(
        "Thresholds are computed by block bootstrap from the training window itself, and the false discovery rate over all "
        "features is held at 5 %: autocorrelated features do not raise false alarms."
    )
errors = data.drift_errors(newest)
if not errors.empty:
    st.subheader("Error stream")
    st.dataframe(errors, hide_index=True, width="stretch")
st.subheader("All checks")
st.dataframe(
    reports.drop(columns=["features", "error"]).rename(columns={"run_key": "retraining key"}),
    hide_index=True,
    width="stretch",
)
