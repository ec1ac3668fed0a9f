"""Signals: what the models say of the newest bars, and whether their confidence has been worth its name."""

import streamlit as st

from dashboard import charts, data

STATES = {
    "ok": "acts: confidence at or above the strategy's threshold",
    "abstain": "no trade: confidence below the threshold",
    "outlier": "no trade: the bar is unlike anything the model was trained on",
    "expired": "no trade: the model is past its expiry",
}

st.title("Signals")
left, middle, right = st.columns(3)
state = left.selectbox("State", ["all", *STATES], help="\n".join(f"**{k}**: {v}\n" for k, v in STATES.items()))
role = middle.selectbox("Model", ["champion and challenger", "champion", "challenger"])
symbol = right.selectbox("Instrument", ["all", *data.symbols()])

signals = data.signals(
    state=None if state == "all" else state,
    role=role if role in {"champion", "challenger"} else None,
    symbol=None if symbol == "all" else symbol,
)
if signals.empty:
    st.caption("No signal matches. Signals appear once a champion serves and bars arrive.")
else:
    if not signals["certified"].any():
        st.warning(
            "**Uncertified.** No threshold of these models reaches a precision of 80 % with the stated guarantee on this "
            "market, so none is claimed. Paper trading goes on with each strategy's own threshold; live accounts take "
            "certified signals alone unless their owner says otherwise."
        )
    st.dataframe(
        signals,
        hide_index=True,
        width="stretch",
        column_config={
            "confidence": st.column_config.ProgressColumn(
                "confidence", min_value=0, max_value=1, format="%.3f",
                help="Calibrated probability that the trade, net of costs, ends in profit.",
            ),
            "lower": st.column_config.NumberColumn("lower", format="%.3f"),
            "upper": st.column_config.NumberColumn("upper", format="%.3f"),
            "threshold": st.column_config.NumberColumn("threshold", format="%.3f"),
        },
    )  # fmt: skip

st.subheader("Reliability")
bins = data.reliability()
if bins.empty:
    st.caption("Not enough signals have come to their end yet to compare confidence with what happened.")
else:
    chart, text = st.columns([3, 2])
    with chart:
        charts.reliability(bins, "mean_confidence", "success_rate", "resolved")
    with text:
        st.markdown(
            "Each dot gathers bars that were given about the same confidence. On the dashed line, the confidence is "
            "honest: of the bars at 60 %, 60 % came true. Below it, the model promised too much."
        )
        st.dataframe(bins.round(3), hide_index=True, width="stretch")
