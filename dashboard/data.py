"""What the pages show, and where it comes from. No other file of the dashboard knows that.

    what is live          the API, asked with the browser's own session, so that the API decides who may see what
    history, aggregates   the marts in the analytics database, always filtered by the user whose books are shown
    which datasets        the control database: a page must say that prices are synthetic before any mart is built
    records               the files in the reports folder

What all users share (signals, models, experiments, drift) is kept for all of them together, what belongs to one under
that user's name; see `sources`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
import streamlit as st
from sqlalchemy import select

from dashboard import names
from dashboard.sources import (
    EVERYBODY,
    HISTORY_SECONDS,
    LIVE_SECONDS,
    Unavailable,
    ask,
    ask_kept,
    ask_live,
    change,
    control,
    mart,
    table,
)
from trading_platform.settings import settings
from trading_platform.storage.control import AuditAnchor, Dataset, Group, MarketProgress, User

NEWEST_EQUITY_POINTS = 1_000
OLDER_EQUITY_POINTS = 500
STAFF = ("compliance", "admin")
ROLES = ("champion", "challenger")


@dataclass(frozen=True)
class Viewer:
    """Who is logged in."""

    user_id: str
    display_name: str
    role: str

    @property
    def is_staff(self) -> bool:
        """May look at other users' books: compliance and admin."""
        return self.role in STAFF


@dataclass(frozen=True)
class Market:
    """A dataset as people speak of it. No page mixes two of them."""

    dataset_id: str
    kind: str
    name: str
    symbols: tuple[str, ...]
    drill: str | None
    market_time: datetime | None
    """Bars are scored up to here; None before the first one."""
    is_current: bool
    """The one that is scored now, and that live numbers are about."""


@dataclass(frozen=True)
class Account:
    """One of a user's accounts."""

    name: str
    currency: str


@dataclass(frozen=True)
class View:
    """What the pages show: whose books, on which dataset."""

    viewer: Viewer
    user_id: str
    market: Market | None

    @property
    def dataset_id(self) -> str:
        return self.market.dataset_id if self.market else ""

    @property
    def is_own(self) -> bool:
        """The books shown are the viewer's."""
        return self.user_id == self.viewer.user_id


def view() -> View:
    """The view that app.py has put together for this run."""
    found: View = st.session_state["view"]
    return found


# --- who and what ----------------------------------------------------------------------------------------------------


def current_viewer() -> Viewer:
    """Who is asking; asked anew at every run, so that a session that was ended shows nothing more."""
    me = ask("/api/me")
    return Viewer(me["user_id"], me["display_name"], me["role"])


def people(viewer: Viewer) -> dict[str, str]:
    """{user id: name} of those whose books the viewer may look at, traders first."""
    if not viewer.is_staff:
        return {viewer.user_id: viewer.display_name}
    return _people()


@st.cache_data(ttl=HISTORY_SECONDS, show_spinner=False)
def _people() -> dict[str, str]:
    query = select(User.user_id, User.display_name).order_by(User.role != "trader", User.display_name)
    return {row.user_id: row.display_name for row in control(lambda session: session.execute(query).all())}


@st.cache_data(ttl=LIVE_SECONDS, show_spinner=False)
def markets() -> list[Market]:
    """All datasets, the one that is scored now first."""
    query = (
        select(Dataset, MarketProgress)
        .join(MarketProgress, MarketProgress.dataset_id == Dataset.dataset_id, isouter=True)
        .order_by(MarketProgress.updated_at.desc().nulls_last(), Dataset.updated_at.desc())
    )
    rows = control(lambda session: session.execute(query).all())
    called = names.datasets([dataset for dataset, _ in rows])
    return [
        Market(
            dataset_id=dataset.dataset_id,
            kind=dataset.kind,
            name=called[dataset.dataset_id],
            symbols=tuple(sorted(dataset.symbols)),
            drill=(dataset.details.get("drill") or {}).get("what"),
            market_time=progress.scored_through if progress else None,
            is_current=number == 0,
        )
        for number, (dataset, progress) in enumerate(rows)
    ]


# --- the user's books ------------------------------------------------------------------------------------------------


def accounts(view: View) -> dict[str, Account]:
    """{account id: account} of the user's accounts on this dataset."""
    # A live account has no dataset of its own: it trades on the venue's.
    live = view.market is not None and view.market.kind == "venue"
    found = _books(view, "/api/accounts")
    mine = [row for row in found if row["dataset_id"] == view.dataset_id or (live and row["dataset_id"] is None)]
    called = names.accounts(mine)
    return {row["account_id"]: Account(called[row["account_id"]], row["currency"]) for row in mine}


def positions(view: View) -> pd.DataFrame:
    """Open positions, with what they are worth at the last price."""
    rows = _of_market(view, _books(view, "/api/positions"))
    held = table(rows, numbers=("quantity", "average_price", "last_price", "stop_price", "realized_pnl"))
    if not held.empty:
        held["contract"] = held["contract"].fillna(held["symbol"])
        held["value"] = held["quantity"] * held["last_price"]
        held["unrealized"] = held["quantity"] * (held["last_price"] - held["average_price"])
        direction = (held["quantity"] > 0) * 2 - 1  # a sold leg gains as its price falls
        held["unrealized_share"] = (held["last_price"] / held["average_price"] - 1) * direction
    return held


def orders(view: View, limit: int) -> pd.DataFrame:
    """The newest orders, with the milliseconds the venue took to acknowledge each."""
    rows = _of_market(view, _books(view, "/api/orders", limit=limit)["items"])
    sent = table(
        rows,
        numbers=("quantity", "filled_quantity", "average_price"),
        times=("market_time", "sent_at", "acknowledged_at"),
    )
    if not sent.empty:
        sent["latency_ms"] = (sent["acknowledged_at"] - sent["sent_at"]).dt.total_seconds() * 1000
        sent["reason"] = sent["reject_text"].fillna(sent["reject_code"])
    return sent


def denials(view: View, limit: int) -> pd.DataFrame:
    """The newest orders that risk kept back."""
    items = _books(view, "/api/denials", limit=limit)["items"]
    rows = [row for row in items if row["dataset_id"] == view.dataset_id]
    kept_back = table(rows, numbers=("quantity", "reference_price"), times=("market_time",))
    if not kept_back.empty:
        kept_back["figures"] = kept_back["denial"].str.partition(": ")[2]
    return kept_back


def fills(view: View, limit: int) -> pd.DataFrame:
    """The newest fills."""
    rows = _of_market(view, _books(view, "/api/fills", limit=limit)["items"])
    filled = table(rows, numbers=("price", "quantity", "fee"), times=("market_time",))
    if not filled.empty:
        filled["notional"] = filled["price"] * filled["quantity"]
    return filled


def trades(view: View, limit: int) -> pd.DataFrame:
    """The newest closed trades."""
    rows = [row for row in _books(view, "/api/outcomes", limit=limit)["items"] if row["dataset_id"] == view.dataset_id]
    numbers = ("quantity", "entry_price", "exit_price", "gross_pnl", "costs", "net_pnl")
    return table(rows, numbers=numbers, times=("entry_time", "exit_time"))


def all_trades(view: View) -> bytes:
    """Every closed trade that the marts hold, as CSV."""
    sql = """
        select exit_time, symbol, strategy_id, version_id, arm, entry_time, exit_reason, quantity, entry_price,
               exit_price, gross_pnl, costs, net_pnl, currency, net_return, confidence, certified, volatility, trend,
               liquidity, session, account_id, trade_id, data_label
        from marts.fct_trades where user_id = :user_id and dataset_id = :dataset_id order by exit_time, trade_id"""
    return mart(sql, user_id=view.user_id, dataset_id=view.dataset_id).to_csv(index=False).encode()


def equity(view: View) -> pd.DataFrame:
    """Equity by account and market time: the newest points from the API, older ones, thinned, from the marts."""
    curves = []
    for account_id, account in accounts(view).items():
        points = _books(view, "/api/equity", account_id=account_id, limit=NEWEST_EQUITY_POINTS)
        curve = table(points, numbers=("equity",), times=("market_time",))
        if len(curve) == NEWEST_EQUITY_POINTS:
            before = curve["market_time"].iloc[0].floor("D").to_pydatetime()  # a whole day, so that the answer is kept
            older = _older_equity(view, account_id, before)
            curve = pd.concat([older, curve[curve["market_time"] >= before]] if len(older) else [curve])
        curves.append(curve.assign(account=account.name))
    return pd.concat(curves, ignore_index=True) if curves else pd.DataFrame()


def _older_equity(view: View, account_id: str, before: datetime) -> pd.DataFrame:
    sql = """
        select market_time, equity::float as equity, currency from (
            select *, row_number() over (order by market_time) as number, count(*) over () as points
            from marts.fct_equity
            where user_id = :user_id and account_id = :account_id and market_time < :before
        ) as p
        where number % (points / :wanted + 1) = 0 order by market_time"""
    return mart(sql, user_id=view.user_id, account_id=account_id, before=before, wanted=OLDER_EQUITY_POINTS)


def daily_pnl(view: View) -> pd.DataFrame:
    """Net result by Indian day (at midnight UTC, for charts) and currency, all strategies together, and their running sum."""
    sql = """
        select exit_date::timestamp at time zone 'UTC' as day, currency, sum(trades)::bigint as trades, sum(net_pnl)::float as net_pnl,
               (sum(sum(net_pnl)) over (partition by currency order by exit_date))::float as cumulative
        from marts.fct_daily_pnl where user_id = :user_id and dataset_id = :dataset_id
        group by exit_date, currency order by exit_date"""
    return mart(sql, user_id=view.user_id, dataset_id=view.dataset_id)


def strategy_pnl(view: View) -> pd.DataFrame:
    """What each strategy earned on whose signals: gross, costs, net, share of trades in profit."""
    sql = """
        select strategy_id, arm, currency, count(*) as trades, avg(success::int)::float as success_rate,
               sum(gross_pnl)::float as gross_pnl, sum(costs)::float as costs, sum(net_pnl)::float as net_pnl
        from marts.fct_trades where user_id = :user_id and dataset_id = :dataset_id
        group by strategy_id, arm, currency order by strategy_id, arm, currency"""
    return mart(sql, user_id=view.user_id, dataset_id=view.dataset_id)


def condition_results(view: View) -> pd.DataFrame:
    """The user's closed trades by market condition at entry; each trade counts once in each condition type."""
    sql = """
        select c.condition_type, c.condition, count(*) as trades, avg(t.success::int)::float as success_rate,
               avg(t.confidence) as mean_confidence, avg(t.net_return) as mean_net_return
        from marts.fct_trades as t cross join lateral (values
            ('volatility', t.volatility), ('trend', t.trend), ('liquidity', t.liquidity), ('session', t.session)
        ) as c (condition_type, condition)
        where t.user_id = :user_id and t.dataset_id = :dataset_id
        group by 1, 2 order by 1, 2"""
    return mart(sql, user_id=view.user_id, dataset_id=view.dataset_id)


def _books(view: View, path: str, **parameters: object) -> Any:
    """What belongs to the user whose books are shown. To traders the API refuses other users' books."""
    return ask_live(view.viewer.user_id, path, user_id=None if view.is_own else view.user_id, **parameters)


def _of_market(view: View, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of the dataset's accounts, with the account's name and currency."""
    known = accounts(view)
    return [
        row | {"account": known[row["account_id"]].name, "currency": known[row["account_id"]].currency}
        for row in rows
        if row["account_id"] in known
    ]


# --- what the models say and how they fare: shared by all users ------------------------------------------------------


def signals(
    view: View, *, symbol: str | None = None, state: str | None = None, role: str | None = None, limit: int = 200
) -> pd.DataFrame:
    """The newest signals."""
    page = ask_live(
        EVERYBODY, "/api/signals", dataset_id=view.dataset_id, symbol=symbol, state=state, role=role, limit=limit
    )
    return table(page["items"], numbers=("price", "target_price", "stop_price"), times=("available_at", "exit_by"))


def registry(view: View) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(newest model versions, with those that serve now in any case; what served from when to when)."""
    found = ask_kept("/api/models", dataset_id=view.dataset_id, limit=30)
    models: list[dict[str, Any]] = found["models"]
    known = {model["version_id"] for model in models}
    for served in found["deployments"]:
        if served["to_time"] is None and served["version_id"] not in known:
            models.append(ask_kept(f"/api/models/{quote(served['version_id'])}"))
    return models, found["deployments"]


def version_names(view: View) -> dict[str, str]:
    """{version id: name}."""
    return {model["version_id"]: names.version(model["version_id"], model["kind"]) for model in registry(view)[0]}


def serving(view: View) -> dict[str, dict[str, Any]]:
    """{role: the version that serves in it, with `since`, a market time}; champion first."""
    models, deployments = registry(view)
    by_id = {model["version_id"]: model for model in models}
    return {
        served["role"]: by_id[served["version_id"]] | {"since": served["from_time"]}
        for served in sorted(deployments, key=lambda served: ROLES.index(served["role"]))
        if served["to_time"] is None
    }


def experiments(view: View) -> list[dict[str, Any]]:
    """Champion against challenger, newest first."""
    found: list[dict[str, Any]] = ask_kept("/api/experiments", dataset_id=view.dataset_id, limit=20)
    return found


def drift_reports(view: View) -> list[dict[str, Any]]:
    """The newest drift checks."""
    found: list[dict[str, Any]] = ask_kept("/api/drift", dataset_id=view.dataset_id, limit=30)["items"]
    return found


def validation(view: View) -> dict[str, list[dict[str, Any]]]:
    """{version id: its reliability table on bars that it had not learned from}."""
    return {model["version_id"]: model["metrics"].get("reliability") or [] for model in registry(view)[0]}


def watched(view: View) -> dict[str, dict[str, Any]]:
    """{version id: what its published signals have kept of their promise, at its newest check}, where any has ended."""
    found: dict[str, dict[str, Any]] = {}
    for report in reversed(drift_reports(view)):
        seen = report["error"].get("precision of published", {})
        if seen.get("trades"):
            found[report["version_id"]] = seen
    return found


def reliability(view: View) -> pd.DataFrame:
    """Confidence promised against success found, of signals that somebody traded, with Wilson's 95 % interval."""
    sql = """
        select version_id, mean_confidence as confidence, success_rate as observed, resolved as rows,
               success_rate_lower as lower, success_rate_upper as upper
        from marts.fct_reliability where dataset_id = :dataset_id order by version_id, mean_confidence"""
    return mart(sql, dataset_id=view.dataset_id)


def accuracy_over_time(view: View) -> pd.DataFrame:
    """Share of traded signals that made money, over the 30 days before each day, by version."""
    sql = """
        select exit_date::timestamp at time zone 'UTC' as day, version_id, sum(trades_30d)::bigint as trades,
               (sum(success_rate_30d * trades_30d) / sum(trades_30d))::float as success_rate
        from marts.fct_accuracy_over_time where dataset_id = :dataset_id
        group by exit_date, version_id having sum(trades_30d) >= 10 order by day"""
    return mart(sql, dataset_id=view.dataset_id)


def condition_history(view: View) -> pd.DataFrame:
    """How many of a day's scored bars were in which volatility and trend."""
    sql = """
        select signal_date::timestamp at time zone 'UTC' as day, c.condition_type, c.condition, sum(signals)::bigint as bars
        from marts.fct_signal_quality cross join lateral (values
            ('volatility', volatility), ('trend', trend)
        ) as c (condition_type, condition)
        where dataset_id = :dataset_id and role = 'champion'
        group by 1, 2, 3 order by 1"""
    return mart(sql, dataset_id=view.dataset_id)


# --- health, alerts, the kill switch ---------------------------------------------------------------------------------


def health(viewer: Viewer) -> dict[str, list[dict[str, Any]]]:
    """{services: heartbeats, leases: who may act}."""
    found: dict[str, list[dict[str, Any]]] = ask_live(viewer.user_id, "/api/health/services")
    return found


def alerts(viewer: Viewer) -> pd.DataFrame:
    """Open alerts, newest first."""
    page = ask_live(viewer.user_id, "/api/alerts", limit=200)
    return table(page["items"], times=("raised_at", "last_seen_at"))


def acknowledge(alert_id: int) -> None:
    """Say that the viewer looks after an alert. Raises `Refused`."""
    change("POST", f"/api/alerts/{alert_id}/acknowledge")


def active_halts(viewer: Viewer) -> list[dict[str, Any]]:
    """Latches that hold now and touch the viewer; all of them for staff and engineers."""
    found: list[dict[str, Any]] = ask_live(viewer.user_id, "/api/halts")
    return found


def limits(view: View, currency: str) -> dict[str, Any] | None:
    """The limits in force of whose books are shown, in a currency; None: there are none."""
    whose = {} if view.is_own else {"user_id": view.user_id}
    found = ask_live(view.viewer.user_id, "/api/risk-limits", currency=currency, **whose)
    in_force: dict[str, Any] | None = found["in_force"]
    return in_force


def breakers(viewer: Viewer) -> list[dict[str, Any]]:
    """Circuit breakers that are or were open, as the engine last wrote them."""
    found: list[dict[str, Any]] = ask_live(viewer.user_id, "/api/breakers")
    return found


def rearm_breaker(name: str, confirmation: str) -> None:
    """Ask the engine to close a breaker; the words are `arm <name>`. Raises `Refused`."""
    change("POST", "/api/breakers/arm", body={"name": name, "confirmation": confirmation})


def halt(scope: str, reason: str, scope_id: str | None = None, action: str = "cancel") -> None:
    """Stop new entries in a scope; `action` says what else (`block`, `cancel`, `flatten`). Raises `Refused`."""
    change("POST", "/api/halts", body={"scope": scope, "scope_id": scope_id, "reason": reason, "action": action})


def clear_halt(halt_id: int, reason: str, confirmation: str) -> None:
    """Open one latch; the words are `clear <scope> <scope id>`. Raises `Refused`."""
    change("DELETE", f"/api/halts/{halt_id}", {"reason": reason, "confirmation": confirmation})


# --- exchange accounts -----------------------------------------------------------------------------------------------


def exchange_accounts(view: View) -> list[dict[str, Any]]:
    """All open accounts of the user, live ones first."""
    found = [row for row in _books(view, "/api/accounts") if row["closed_at"] is None]
    return sorted(found, key=lambda row: row["kind"] != "live")


def kite_sessions(view: View) -> dict[str, dict[str, Any]]:
    """{account id: its log-in of today} of the viewer's own accounts at Zerodha."""
    if not any(row["venue"] == "zerodha" and row["kind"] == "live" for row in exchange_accounts(view)):
        return {}
    return {row["account_id"]: row for row in ask_live(view.viewer.user_id, "/api/kite/sessions")}


def connect(venue: str, api_key: str, api_secret: str, source_address: str | None) -> None:
    """Keep the keys of a live account. Raises `Refused`."""
    body = {"venue": venue, "api_key": api_key, "api_secret": api_secret, "source_address": source_address}
    change("POST", "/api/accounts", body=body)


def arm(account_id: str, confirmation: str) -> None:
    """Let an account trade real money; the words are `arm <account id>`. Raises `Refused`."""
    change("PUT", f"/api/accounts/{quote(account_id, safe='')}/armed", body={"confirmation": confirmation})


def disarm(account_id: str) -> None:
    change("DELETE", f"/api/accounts/{quote(account_id, safe='')}/armed")


def strategies(viewer: Viewer) -> dict[str, dict[str, Any]]:
    """{strategy id: what it is} of those that may trade an account."""
    return {row["strategy_id"]: row for row in ask_live(viewer.user_id, "/api/strategies")}


def subscriptions(view: View) -> list[dict[str, Any]]:
    """Which strategies trade which of the user's accounts, and how."""
    found: list[dict[str, Any]] = _books(view, "/api/subscriptions")
    return found


def subscribe(account_id: str, strategy_id: str, terms: Mapping[str, Any]) -> None:
    """Let a strategy trade an account on these terms, or stop it (`enabled`). Raises `Refused`."""
    change("PUT", f"/api/subscriptions/{quote(account_id, safe='')}/{quote(strategy_id, safe='')}", body=dict(terms))


def log_out_of_kite(account_id: str) -> None:
    change("DELETE", "/api/kite/session", {"account": account_id})


# --- compliance ------------------------------------------------------------------------------------------------------


def audit_anchors() -> pd.DataFrame:
    """The newest anchor of each group's audit chain."""
    newest = (
        select(AuditAnchor.group_id, AuditAnchor.seq, AuditAnchor.hash, AuditAnchor.anchored_at)
        .distinct(AuditAnchor.group_id)
        .order_by(AuditAnchor.group_id, AuditAnchor.seq.desc())
        .subquery()
    )
    query = (
        select(Group.group_id, newest.c.seq, newest.c.hash, newest.c.anchored_at)
        .join(newest, newest.c.group_id == Group.group_id, isouter=True)
        .order_by(Group.group_id)
    )
    rows = control(lambda session: session.execute(query).mappings().all())
    return table([dict(row) for row in rows], times=("anchored_at",))


def record_days() -> list[str]:
    """Indian dates with daily records, newest first."""
    found = settings().reports_dir.glob("????-??-??/manifest.json")
    return sorted((path.parent.name for path in found), reverse=True)


def record_manifest(day: str) -> dict[str, Any]:
    """What a day's folder holds: figures, chains, {files: {name: {sha256, rows}}}."""
    try:
        found: dict[str, Any] = json.loads(_record_path(day, "manifest.json").read_text())
    except (OSError, ValueError) as error:
        raise Unavailable(f"The records of {day} cannot be read ({error}). Write them again.") from None
    return found


def record_file(day: str, name: str) -> bytes:
    """One file of a day's records."""
    return _record_path(day, name).read_bytes()


def _record_path(day: str, name: str) -> Path:
    if day not in record_days():
        raise Unavailable(f"There are no records of {day}.")
    return settings().reports_dir / day / Path(name).name
