"""Models and experiments: what serves, what challenges it, and the evidence for a promotion."""

import streamlit as st

from dashboard import charts, data

st.title("Models and experiments")
serving = data.serving()
columns = st.columns(max(len(serving), 1))
for column, model in zip(columns, serving, strict=False):
    with column.container(border=True):
        st.caption(f"{model['role']} since {model['since']}")
        st.markdown(f"**{model['kind']}** `{model['version_id']}`")
        figures = model["metrics"]
        one, two, three = st.columns(3)
        one.metric("Log-loss", data.figure(figures.get("log_loss")))
        two.metric("Accuracy", data.figure(figures.get("accuracy"), percent=True))
        three.metric("Base rate", data.figure(figures.get("base_rate"), percent=True))
        st.caption(
            "certified at 80 %"
            if model["certified"]
            else "not certified at 80 %: no threshold carries that guarantee here"
        )
if not serving:
    st.caption("No model serves yet.")

st.subheader("Experiments")
experiments = data.experiments()
if experiments.empty:
    st.caption("No experiment has been started.")
else:
    st.dataframe(experiments.drop(columns=["evidence"]), hide_index=True, width="stretch")
    chosen = st.selectbox("Evidence of", experiments["experiment"])
    series = data.evidence(experiments, chosen)
    if series.empty:
        st.caption("No block of resolved bars yet.")
    else:
        charts.band(series, "block", "lower", "upper", title="champion's log-loss minus challenger's")
        st.caption(
            "A confidence sequence: it may be looked at after every block without spoiling it. The challenger is promoted "
            "only when the whole band is above the line and the minimum of days, bars and market conditions is met; below "
            "it, the challenger is rolled back."
        )

st.subheader("All versions")
versions = data.versions()
if not versions.empty:
    st.dataframe(
        versions,
        hide_index=True,
        width="stretch",
        column_config={"certified": st.column_config.CheckboxColumn("certified")},
    )
