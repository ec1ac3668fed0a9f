"""Models and experiments: what serves, what challenges it, and the evidence for a promotion."""

from typing import Any

import pandas as pd
import streamlit as st

from dashboard import charts, data, names, tables

DECISIONS = {
    "continue": "goes on", "promote": "challenger promoted", "keep": "champion kept", "rollback": "challenger withdrawn",
}  # fmt: skip


def show_model(served_as: str, model: dict[str, Any]) -> None:
    figures = model["metrics"]
    st.caption(f"{served_as.capitalize()} since {names.moment(model['since'])} (market time)")
    st.markdown(f"##### {names.version(model['version_id'], model['kind'])}")
    one, two, three, four = st.columns(4)
    one.metric("Accuracy", names.percent(figures.get("accuracy")))
    two.metric("Base rate", names.percent(figures.get("base_rate")), help="Share of bars whose trade would have paid.")
    three.metric(
        "Log-loss", names.number(figures.get("log_loss")),
        help=f"Guessing the base rate gives {names.number(figures.get('log_loss_base_rate'))}. Lower is better.",
    )  # fmt: skip
    four.metric("Calibration error", names.percent(figures.get("ece"), 2))
    precision = figures.get("precision_at_80")
    st.markdown(
        ("**Certified**: " if model["certified"] else "**Not certified** at 80 %: ")
        + (
            "its threshold carries the guarantee of 80 % precision."
            if model["certified"]
            else "no threshold carries that guarantee here, so none is claimed."
        )
        + f" At confidence 80 % and more it was right {names.percent(precision)} of the time." * (precision is not None)
    )
    st.caption(
        f"{model['rows']:,} bars learned from, up to {names.moment(model['trained_to'])}. "
        f"Trained: {names.ORIGINS.get(model['origin'], model['origin'])}. All figures out of sample."
    )


def show_experiments(experiments: list[dict[str, Any]], versions: dict[str, str]) -> None:
    if not experiments:
        st.caption("No experiment has been started: one begins when a challenger serves beside the champion.")
        return
    rows = pd.DataFrame(experiments)
    for column in ("champion", "challenger"):
        ids = rows[f"{column}_id"]
        rows[column] = ids.map(versions).fillna(ids.map(names.short))
    for column in ("started_at", "ended_at"):
        rows[column] = pd.to_datetime(rows[column], utc=True, format="ISO8601")
    rows["result"] = rows["decision"].map(DECISIONS)
    rows["split"] = rows["split_basis_points"] / 10_000
    tables.show(
        rows,
        {
            "started_at": tables.time("Started"),
            "ended_at": tables.time("Ended"),
            "champion": tables.words("Champion"),
            "challenger": tables.words("Challenger"),
            "split": tables.share("Users on the challenger"),
            "samples": tables.number("Blocks seen"),
            "lower": tables.number("Lower bound", "%+.4f"),
            "upper": tables.number("Upper bound", "%+.4f"),
            "result": tables.words("Decision"),
        },
    )
    chosen = experiments[0]
    if len(experiments) > 1:
        chosen = st.selectbox(
            "Evidence of", experiments, format_func=lambda row: f"the experiment of {names.moment(row['started_at'])}"
        )
    show_evidence(chosen["evidence"])


def show_evidence(evidence: dict[str, Any]) -> None:
    series = pd.DataFrame(evidence.get("series") or {})
    if series.empty:
        st.caption("No block of resolved bars yet: the first comparison needs a few label horizons of market time.")
        return
    series["time"] = pd.to_datetime(series["time"], utc=True, format="ISO8601")
    charts.band(series, title="Champion's log-loss minus challenger's")
    if wanting := evidence.get("wanting"):
        st.markdown("What stands in the way of a promotion: " + "; ".join(wanting) + ".")
    st.caption(
        "Above the line the challenger is better. The band is a confidence sequence: it may be looked at after every "
        "block without spoiling it. The challenger is promoted only when the whole band is above the line and enough "
        "days, blocks and market conditions have been seen."
    )


def show_versions(models: list[dict[str, Any]], versions: dict[str, str]) -> None:
    if not models:
        st.caption("No version has been trained yet.")
        return
    roles = {model["version_id"]: served_as for served_as, model in data.serving(view).items()}
    rows = pd.DataFrame(
        {
            "name": versions[model["version_id"]],
            "role": roles.get(model["version_id"], names.DASH),
            "origin": names.ORIGINS.get(model["origin"], model["origin"]),
            "parent": versions.get(model["parent_id"] or "", names.DASH),
            "created_at": pd.Timestamp(model["created_at"]),
            "rows": model["rows"],
            **{name: model["metrics"].get(name) for name in ("accuracy", "log_loss", "ece", "precision_at_80")},
            "certified": model["certified"],
            "version_id": model["version_id"],
        }
        for model in models
    )
    if rows["precision_at_80"].isna().all():
        rows = rows.drop(columns="precision_at_80")
    columns = {
        "name": tables.words("Version"),
        "role": tables.words("Serves as"),
        "origin": tables.words("Origin"),
        "parent": tables.words("Trained on from"),
        "created_at": tables.time("Trained"),
        "rows": tables.number("Bars"),
        "accuracy": tables.share("Accuracy"),
        "log_loss": tables.number("Log-loss", "%.4f"),
        "ece": tables.share("Calibration error", "%.2f"),
        "precision_at_80": tables.share("Precision at 80 %", help="Empty: hardly any bar reached that confidence."),
        "certified": tables.tick("Certified"),
        "version_id": tables.words("Identifier", width="small"),
    }
    tables.show(rows, {name: column for name, column in columns.items() if name in rows})


view = data.view()
st.title("Models and experiments")
serving = data.serving(view)
models, _ = data.registry(view)
versions = data.version_names(view)
if not serving:
    st.caption("No model serves yet: the first one is trained once bars have been collected.")
for column, (served_as, model) in zip(st.columns(max(len(serving), 1)), serving.items(), strict=False):
    with column.container(border=True, height="stretch"):
        show_model(served_as, model)
st.subheader("Experiments")
show_experiments(data.experiments(view), versions)
st.subheader("All versions")
show_versions(models, versions)
