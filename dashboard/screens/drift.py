"""Drift: is the market still the one the model was trained on, and what was done about it."""

from typing import Any

import pandas as pd
import streamlit as st

from dashboard import charts, data, names, tables

MEANING = {
    "none": (st.success, "No drift."),
    "warning": (st.warning, "A warning: the stream looks different, not yet enough to act on."),
    "retrain": (st.error, "Drift: retraining was asked for."),
}
SAYS = {"none": "No drift", "warning": "Warning", "retrain": "Retraining asked for"}
MOST_FEATURES = 15


def show_features(features: dict[str, dict[str, Any]]) -> None:
    if not features:
        st.caption("Too few bars since the training for a comparison of features.")
        return
    rows = pd.DataFrame(features).T.rename_axis("name").reset_index()
    rows["feature"] = rows["name"].str.replace("_", " ")
    rows["ratio"] = rows["statistic"].astype(float) / rows["threshold"].astype(float)
    drifted = int(rows["drifted"].sum())
    shown = rows.sort_values("ratio", ascending=False).head(MOST_FEATURES)[["feature", "ratio", "p_value"]]
    st.markdown(f"{drifted} of {len(rows)} features have drifted.")
    charts.bars(
        shown.astype({"p_value": float}), "feature", "ratio", title="Distance to the training window / its threshold",
        format=".2f", reference=1.0, alarm=1.0,
        tooltip=[{"field": "p_value", "format": ".3f", "title": "p-value"}],
    )  # fmt: skip
    st.caption(
        "Beyond the dashed line a feature has drifted. Thresholds come from a block bootstrap of the training window "
        "itself, and the false discovery rate over all features is held at 5 %, so that autocorrelated features do not "
        "raise false alarms."
    )


def show_errors(errors: dict[str, dict[str, Any]]) -> None:
    if not errors:
        st.caption("No signal has come to its end yet.")
        return
    rows = pd.DataFrame(errors).T.rename_axis("detector").reset_index()
    rows["detector"] = [name[0].upper() + name[1:].replace("_", " ") for name in rows["detector"]]
    rows["says"] = rows["state"].map(SAYS)
    rows["since"] = pd.to_datetime(rows["since"], utc=True, format="ISO8601")
    rows["statistic"] = pd.to_numeric(rows["statistic"])
    tables.show(
        rows,
        {
            "detector": tables.words("Detector"),
            "says": tables.words("Says"),
            "since": tables.time("Since"),
            "statistic": tables.number("Statistic", "%.4f"),
        },
    )


def show_conditions(conditions: dict[str, dict[str, Any]]) -> None:
    if not conditions:
        st.caption("Too little is known of single market conditions yet.")
        return
    drifted = [found for found in conditions.values() if found.get("drifted")]
    for found in sorted(drifted, key=lambda found: float(found["p_value"])):
        st.markdown(f"- {found['said']}")
    st.caption(
        f"{len(drifted)} of {len(conditions)} questions about single conditions answered with drift: has the market's mix "
        "of them changed, are confidences off in one, does what was learnt no longer hold in one? The error over all "
        "conditions of a question is held at 5 %."
    )


def show_checks(reports: list[dict[str, Any]], versions: dict[str, str]) -> None:
    rows = pd.DataFrame(reports)
    rows["version"] = rows["version_id"].map(versions).fillna(rows["version_id"].map(names.short))
    rows["says"] = rows["decision"].map(SAYS)
    rows["drifted"] = [sum(bool(f["drifted"]) for f in report["features"].values()) for report in reports]
    for column in ("window_from", "window_to", "created_at"):
        rows[column] = pd.to_datetime(rows[column], utc=True, format="ISO8601")
    tables.show(
        rows,
        {
            "window_to": tables.time("Bars up to"),
            "window_from": tables.time("Bars from"),
            "version": tables.words("Version"),
            "says": tables.words("Says"),
            "drifted": tables.number("Features drifted"),
            "created_at": tables.time("Checked"),
        },
    )


def show_retrained(versions: dict[str, str]) -> None:
    retrained = [model for model in data.registry(view)[0] if model["origin"] == "drift"]
    if not retrained:
        st.caption("No version has been trained because of drift.")
        return
    roles = {model["version_id"]: f"serves as {served_as}" for served_as, model in data.serving(view).items()}
    for model in retrained[:5]:
        state = roles.get(model["version_id"], "does not serve now")
        st.markdown(f"- {versions[model['version_id']]}, trained {names.moment(model['created_at'])}: {state}")


view = data.view()
st.title("Drift")
reports = data.drift_reports(view)
if not reports:
    st.caption("No drift check has run yet: they begin once a model serves, and follow every pass.")
    st.stop()
versions = data.version_names(view)
newest = reports[0]
box, text = MEANING[newest["decision"]]
name = versions.get(newest["version_id"], names.short(newest["version_id"]))
box(f"**{text}** {name}, checked on bars up to {names.moment(newest['window_to'])} (market time).")

st.subheader("Features")
show_features(newest["features"])
st.subheader("Market conditions")
show_conditions(newest["conditions"])
st.subheader("Errors")
show_errors(newest["error"])
st.subheader("What was done about it")
show_retrained(versions)
st.subheader("All checks")
show_checks(reports, versions)
