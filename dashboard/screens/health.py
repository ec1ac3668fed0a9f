"""System health: every service, every lease, every open alert."""

import pandas as pd
import streamlit as st

from dashboard import data, names, tables
from dashboard.sources import Refused

SHOUT = {"critical": st.error, "warning": st.warning, "info": st.info}
MOST_ALERTS = 20


def called(name: str) -> str:
    return names.service(name, {market.dataset_id: market.name for market in data.markets()})


view = data.view()
st.title("System health")
health = data.health(view.viewer)
alerts = data.alerts(view.viewer)

silent = [called(row["service"]) for row in health["services"] if row["stale"]]
idle = [called(row["name"]) for row in health["leases"] if not row["valid"]]
one, two, three = st.columns(3)
one.metric("Services alive", f"{len(health['services']) - len(silent)} of {len(health['services'])}")
two.metric("Leases valid", f"{len(health['leases']) - len(idle)} of {len(health['leases'])}")
three.metric("Open alerts", len(alerts))

st.subheader("Alerts")
if alerts.empty:
    st.success("No open alert.", icon=":material/check:")
for alert in alerts.head(MOST_ALERTS).itertuples():
    times = f" ({alert.count} times)" if alert.count > 1 else ""
    about = f"{called(alert.source)}, since {names.moment(alert.raised_at)}{times}"
    taken = f" · {alert.acknowledged_by} looks after it" if alert.acknowledged_by else ""
    text, button = st.columns([6, 1], vertical_alignment="center")
    with text:
        SHOUT[alert.severity](f"**{alert.title}** · {about}{taken}  \n{alert.detail}")
    if not alert.acknowledged_by and button.button("I take it", key=f"alert-{alert.alert_id}", width="stretch"):
        try:
            data.acknowledge(alert.alert_id)
        except Refused as refusal:
            st.toast(str(refusal))
        st.rerun()
if len(alerts) > MOST_ALERTS:
    st.caption(f"and {len(alerts) - MOST_ALERTS} older ones.")

st.subheader("Who may act")
st.caption("A lease says which process may trade or score: it, never a process's state, is what live means.")
if not health["leases"]:
    st.caption("No lease has been taken yet: engines and the scorer start once there is data.")
else:
    leases = pd.DataFrame(health["leases"]).assign(
        who=lambda rows: rows["name"].map(called),
        lease=lambda rows: [["Valid"] if valid else ["Expired"] for valid in rows["valid"]],
        shown=lambda rows: rows["state"].fillna("").str.capitalize(),
        reached=lambda rows: [
            names.moment((detail or {}).get("market_time")) for detail in rows["detail"]
        ],
        age=lambda rows: rows["age_seconds"].map(names.age) + " ago",
    )  # fmt: skip
    tables.show(
        leases,
        {
            "who": tables.words("Service"),
            "lease": tables.status("Lease", "Valid", "Expired"),
            "shown": tables.words("State"),
            "age": tables.words("Renewed"),
            "reached": tables.words("Market time reached"),
            "epoch": tables.number("Epoch", help="Goes up with every takeover."),
            "holder": tables.words("Held by", width="medium"),
        },
    )

engines = [row for row in health["leases"] if (row["detail"] or {}).get("reconciliation")]
if engines:
    st.subheader("Books and venues")
    st.caption("Every engine compares its accounts with the venue before it trades, and ever again; an account that differs "
               "is set aside, and not traded until it matches. Orders that are not the platform's are left alone.")  # fmt: skip
    compared = pd.DataFrame([row["detail"]["reconciliation"] for row in engines]).assign(
        who=[called(row["name"]) for row in engines],
        books=lambda rows: [["Match"] if matches else ["Differ"] for matches in rows["matches"]],
        at=lambda rows: pd.to_datetime(rows["at"], utc=True, format="ISO8601"),
        which=lambda rows: rows["differences"].map("; ".join),
        bans=[names.bans(row["detail"].get("bans")) for row in engines],
    )
    tables.show(
        compared,
        {
            "who": tables.words("Engine"),
            "books": tables.status("Books", "Match", "Differ"),
            "at": tables.time("Compared", seconds=True),
            "set_aside": tables.number("Accounts set aside"),
            "open_outcomes": tables.number("Outcomes unknown"),
            "late_fills": tables.number("Late fills"),
            "foreign_orders": tables.number("Others' orders"),
            "which": tables.words("Differences", width="large"),
            "bans": tables.words(
                "F&O ban today", help="Without the day's list nothing new is opened in shares' derivatives."
            ),
        },
    )

st.subheader("Services")
if not health["services"]:
    st.caption("No service has reported yet.")
else:
    services = pd.DataFrame(health["services"]).assign(
        who=lambda rows: rows["service"].map(called),
        alive=lambda rows: [["Silent"] if stale else ["Alive"] for stale in rows["stale"]],
        shown=lambda rows: rows["state"].str.capitalize(),
        age=lambda rows: rows["beat_age_seconds"].map(names.age) + " ago",
        started_at=lambda rows: pd.to_datetime(rows["started_at"], utc=True, format="ISO8601"),
        about=lambda rows: rows["detail"].map(names.details),
    )
    tables.show(
        services.sort_values(["stale", "who"], ascending=[False, True]),
        {
            "who": tables.words("Service"),
            "alive": tables.status("Alive", "Alive", "Silent"),
            "shown": tables.words("State"),
            "age": tables.words("Last sign of life"),
            "started_at": tables.time("Started", seconds=True),
            "about": tables.words("Detail", width="large"),
        },
    )
st.caption(f"As of {pd.Timestamp.now('UTC'):%Y-%m-%d %H:%M:%S} UTC. Reload to look again.")
