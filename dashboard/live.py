"""Live numbers without reruns: a small component that listens to the API's event stream in the browser.

A rerun of a Streamlit page costs tens of milliseconds of server CPU; a thousand open pages could not each rerun every
few seconds. So what changes by the second is drawn by the browser itself.
"""

import streamlit as st

TILES = """
<style>
 body { margin:0; font-family: "Source Sans Pro", system-ui, sans-serif; color:#1f2937; }
 .tiles { display:grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap:12px; }
 .tile { background:#f3f6fb; border-radius:8px; padding:10px 14px; }
 .name { font-size:12px; color:#64748b; } .value { font-size:22px; font-weight:600; margin-top:2px; }
 .up { color:#059669; } .down { color:#dc2626; } .stale { opacity:.45; }
 .foot { font-size:11px; color:#94a3b8; margin-top:6px; }
</style>
<div class="tiles" id="tiles"></div><div class="foot" id="foot">connecting …</div>
<script>
 const origin = window.parent.location.origin, tiles = document.getElementById("tiles"), foot = document.getElementById("foot");
 const money = (v, c) => v == null ? "–" : Number(v).toLocaleString(undefined, {minimumFractionDigits:2, maximumFractionDigits:2}) + " " + (c||"");
 function tile(name, value, cls) { return `<div class="tile"><div class="name">${name}</div><div class="value ${cls||""}">${value}</div></div>`; }
 const sign = v => v == null || Number(v) === 0 ? "" : Number(v) > 0 ? "up" : "down";
 let last = 0;
 function draw(d) {
   last = Date.now();
   const e = d.engine || {};
   tiles.innerHTML = tile("Equity", money(d.equity, d.currency)) + tile("Realised P&L, net", money(d.realized_pnl, d.currency), sign(d.realized_pnl))
     + tile("Open positions", d.open_positions ?? "–") + tile("Closed trades", d.closed_trades ?? "–")
     + tile("Engine", e.state || "–", e.alive === false ? "down" : "") + tile("Market time", d.market_time ? d.market_time.slice(0,16).replace("T"," ") : "–");
   foot.textContent = "live · lease " + (e.alive ? "valid" : "expired");
   tiles.classList.remove("stale");
 }
 const source = new EventSource(origin + "/api/stream", {withCredentials:true});
 source.addEventListener("snapshot", m => draw(JSON.parse(m.data)));
 source.onmessage = m => draw(JSON.parse(m.data));
 setInterval(() => { if (last && Date.now() - last > 15000) { tiles.classList.add("stale"); foot.textContent = "no update for " + Math.round((Date.now()-last)/1000) + " s"; } }, 1000);
</script>
"""


def tiles() -> None:
    """Equity, P&L, positions, engine state and market time, kept current by the browser."""
    st.iframe(TILES, height=175)
