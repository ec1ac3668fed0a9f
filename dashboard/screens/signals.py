"""Signals: what the models say of the newest bars, and whether their confidence has been worth its name."""

from typing import Any

import pandas as pd
import streamlit as st

from dashboard import charts, data, names, tables

STATES = {
    "ok": "Acts: confidence at or above the threshold",
    "abstain": "Abstains: confidence below the threshold",
    "outlier": "Outlier: unlike anything the model was trained on",
    "expired": "Expired: the model is past its expiry",
}
BIN = ["confidence", "observed", "rows"]
FEWEST_TRADED = 10
ROLES = {"champion": "Champion", "challenger": "Challenger"}


def evidence(confidence: float, bins: list[dict[str, Any]]) -> str:
    """What became of the bars that were given about this confidence when the version was validated."""
    if not bins or pd.isna(confidence):
        return names.DASH
    nearest = min(bins, key=lambda each: abs(each["confidence"] - confidence))
    return f"{nearest['observed']:.0%} of {nearest['rows']:,}"


def show_kept(watched: dict[str, dict[str, Any]], versions: dict[str, str]) -> None:
    """Whether published signals came true as often as they promised, so far."""
    for version_id, seen in watched.items():
        said = (
            f"{versions.get(version_id, names.short(version_id))}: of {seen['trades']:,} signals that it published, counted "
            f"one after the other, {names.percent(seen['precision'])} came true ({names.percent(seen['lower'])} to "
            f"{names.percent(seen['upper'])}); their confidences promised {names.percent(seen['promised'])}."
        )
        {"none": st.caption, "warning": st.warning, "retrain": st.error}[seen["state"]](said)
    if watched:
        st.caption("The bounds hold at 95 % each, however often one looks.")


view = data.view()
st.title("Signals")
left, middle, right = st.columns(3)
state = left.selectbox("State", STATES, index=None, placeholder="All", format_func=lambda state: STATES[state])
role = middle.selectbox("Model", ROLES, index=None, placeholder="Both", format_func=lambda role: ROLES[role])
symbols = view.market.symbols if view.market else ()
symbol = right.selectbox("Instrument", symbols, index=None, placeholder="All")

signals = data.signals(view, state=state, role=role, symbol=symbol)
versions = data.version_names(view)
if signals.empty:
    filtered = state or role or symbol
    st.caption(
        "No signal matches: loosen the filters."
        if filtered
        else "No signal yet. They appear once a model serves and bars arrive."
    )
else:
    if not signals["certified"].any():
        st.warning(
            "**Uncertified.** No threshold of these models reaches a precision of 80 % with the stated guarantee on "
            "this market, so none is claimed. Paper trading goes on with each strategy's own threshold; live accounts "
            "take certified signals alone unless their owner says otherwise.",
            icon=":material/verified_user:",
        )
    version = signals["version_id"].map(versions).fillna(signals["version_id"].map(names.short))
    signals["model"] = signals["role"].str.capitalize() + ", " + version
    signals["says"] = signals["state"].str.capitalize().where(signals["state"] != "ok", "Long")
    signals["interval"] = [
        f"{low:.2f} – {high:.2f}" if pd.notna(low) and pd.notna(high) else names.DASH
        for low, high in zip(signals["confidence_lower"], signals["confidence_upper"], strict=True)
    ]
    validated_by = data.validation(view)
    signals["evidence"] = [
        evidence(confidence, validated_by.get(version_id, []))
        for confidence, version_id in zip(signals["confidence"], signals["version_id"], strict=True)
    ]
    tables.show(
        signals,
        {
            "available_at": tables.time("Bar closed"),
            "symbol": tables.words("Instrument"),
            "says": tables.words("Says", help="Long: buy. Abstain, Outlier and Expired: no trade."),
            "confidence": tables.confidence("Confidence"),
            "interval": tables.words("Interval", help="Within which the true probability is expected (Venn-Abers)."),
            "evidence": tables.words(
                "Evidence", help="Bars that validation gave about this confidence: how many came true, of how many."
            ),
            "threshold": tables.number("Threshold", "%.3f", help="Confidence from which the strategy acts."),
            "price": tables.price("Close"),
            "target_price": tables.price("Target"),
            "stop_price": tables.price("Stop"),
            "model": tables.words("Model"),
        },
    )
    st.caption(f"The newest {len(signals)}, newest first. Times are market time.")
    show_kept(data.watched(view), versions)


def validation_bins() -> pd.DataFrame:
    """What each serving version's confidence was worth on bars it had not learned from."""
    found = [
        pd.DataFrame(model["metrics"].get("reliability") or [], columns=BIN).assign(role=ROLES[served_as])
        for served_as, model in serving.items()
    ]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=[*BIN, "role"])


def traded_bins() -> pd.DataFrame:
    """What it was worth for those versions on signals that were traded, where enough of them have ended."""
    rows = data.reliability(view)
    if rows.empty:
        return pd.DataFrame(columns=[*BIN, "lower", "upper", "role"])
    rows["role"] = rows["version_id"].map({model["version_id"]: ROLES[role] for role, model in serving.items()})
    return rows[rows["role"].notna() & (rows["rows"] >= FEWEST_TRADED)].drop(columns="version_id")


st.subheader("Reliability")
serving = data.serving(view)
validated, traded = validation_bins(), traded_bins()
if validated.empty and traded.empty:
    st.caption("Confidence can be compared with what happened once a model has been validated or trades have closed.")
    st.stop()
chart, words = st.columns([3, 2], gap="medium")
with chart:
    charts.reliability(validated, traded)
with words:
    st.markdown(
        "Each point gathers cases that were given about the same confidence. On the dashed line the confidence is "
        "honest: of the cases at 60 %, 60 % ended in profit. Below it, the model promised too much."
    )
    for served_as, model in serving.items():
        figures = model["metrics"]
        st.markdown(
            f"**{ROLES[served_as]}**, {names.version(model['version_id'], model['kind'])}: calibration error "
            f"{names.percent(figures.get('ece'), 2)}, base rate {names.percent(figures.get('base_rate'))}."
        )
    st.caption(
        "Lines: validation, on bars the model had not learned from. Circles: signals that somebody traded, at least "
        f"{FEWEST_TRADED} of them, with the interval in which the true share lies (95 %, Wilson)."
    )
