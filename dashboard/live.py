"""Live numbers without reruns: a component that listens to the API's event stream in the browser.

A rerun of a page costs tens of milliseconds of server CPU; a thousand open pages could not each rerun every few
seconds. So what changes by the second is drawn by the browser itself. A page in the background closes its stream: a
browser has few connections to one host, and nobody looks.
"""

import streamlit as st

CSS = """
:host { display: block; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(160px, 1fr)); gap: 12px; }
.tile { background: var(--st-secondary-background-color); border-radius: 8px; padding: 12px 16px; min-height: 58px; }
.name { font-size: 13px; opacity: .65; }
.value { font-size: 23px; font-weight: 600; margin-top: 2px; font-variant-numeric: tabular-nums; white-space: nowrap; }
.long { font-size: 18px; padding-top: 4px; }
.unit { font-size: 13px; font-weight: 400; opacity: .65; margin-left: 4px; }
.up { color: #047857; } .down { color: #dc2626; } .stale { opacity: .45; }
.foot { font-size: 12px; opacity: .65; margin-top: 8px; min-height: 16px; }
"""

HTML = '<div class="tiles" id="tiles"></div><div class="foot" id="foot">Connecting …</div>'

JS = """
const number = (v, digits) => Number(v).toLocaleString("en", {minimumFractionDigits: digits, maximumFractionDigits: digits});
const clock = t => t ? t.slice(0, 16).replace("T", " ") : "–";
const tone = v => v == null || Number(v) === 0 ? "" : Number(v) > 0 ? "up" : "down";

function tile(name, value, unit, cls) {
  const box = document.createElement("div"); box.className = "tile";
  const head = document.createElement("div"); head.className = "name"; head.textContent = name;
  const body = document.createElement("div"); body.className = "value " + (cls || ""); body.textContent = value;
  if (unit) { const u = document.createElement("span"); u.className = "unit"; u.textContent = unit; body.append(u); }
  box.append(head, body);
  return box;
}
const money = (name, v, currency, cls) => tile(name, v == null ? "–" : number(v, 2), v == null ? "" : currency, cls);

export default function ({ parentElement }) {
  const tiles = parentElement.querySelector("#tiles"), foot = parentElement.querySelector("#foot");
  let source = null, ended = false;

  function draw(d) {
    const e = d.engine || {};
    const acting = e.alive ? e.state : e.state === "none" ? "not started" : e.state + ", not acting";
    tiles.replaceChildren(
      money("Equity", d.equity, d.currency),
      money("Realised result, net", d.realized_pnl, d.currency, tone(d.realized_pnl)),
      tile("Open positions", d.open_positions ?? "–"),
      tile("Closed trades", d.closed_trades == null ? "–" : number(d.closed_trades, 0)),
      tile("Engine", acting.charAt(0).toUpperCase() + acting.slice(1).toLowerCase(), "", (e.alive ? "" : "down") + (acting.length > 12 ? " long" : "")),
      tile("Market time (UTC)", clock(d.market_time), "", "long"));
    say("Live. Last change " + new Date().toISOString().slice(11, 19) + " UTC.", false);
  }
  function say(text, stale) { foot.textContent = text; tiles.classList.toggle("stale", stale); }
  function open() {
    if (source || ended || document.hidden) return;
    source = new EventSource("/api/stream", { withCredentials: true });
    source.addEventListener("snapshot", m => draw(JSON.parse(m.data)));
    source.addEventListener("end", () => { ended = true; close(); say("Your session has ended: log in again.", true); });
    source.onerror = () => {
      if (source.readyState === EventSource.CLOSED) say("No live numbers: log in again, or close other pages of yours.", true);
      else say("The live stream was lost; trying again …", true);
    };
  }
  function close() { if (source) { source.close(); source = null; } }
  function look() { document.hidden ? close() : open(); }
  document.addEventListener("visibilitychange", look);
  open();
  return () => { document.removeEventListener("visibilitychange", look); close(); };
}
"""

_component = st.components.v2.component("live_tiles", html=HTML, css=CSS, js=JS)


def tiles() -> None:
    """Equity, result, positions, engine and market time of whoever is logged in, kept current by the browser."""
    _component(key="live_tiles")
