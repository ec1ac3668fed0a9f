"""What things are called on the pages: names where identifiers would be noise, and numbers as people read them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from trading_platform.storage.control import Dataset

MODELS = {"lightgbm": "LightGBM", "logistic": "Logistic regression", "legacy": "Imported model"}
VENUES = {"binance": "Binance", "zerodha": "Zerodha"}
ORIGINS = {
    "initial": "first training", "weekly": "weekly retraining", "drift": "retrained on drift", "manual": "by hand",
    "import": "imported",
}  # fmt: skip
DASH = "–"


def datasets(rows: Sequence[Dataset]) -> dict[str, str]:
    """{dataset id: name}; where two are called alike, with the beginning of the identifier."""
    called = {row.dataset_id: _dataset(row) for row in rows}
    shared = {name for name, times in Counter(called.values()).items() if times > 1}
    return {key: f"{name} {short(key)}" if name in shared else name for key, name in called.items()}


def _dataset(row: Dataset) -> str:
    """`binance_1h (Binance, 1 h bars)`, `Synthetic market, seed 7 (1 h bars)`, `Binance live (5 min bars)`."""
    bars = f"{interval(row.interval_seconds)} bars"
    drill = ", drill" if row.details.get("drill") else ""
    if row.kind == "synthetic":
        return f"Synthetic market, {row.source} ({bars}{drill})"
    if row.kind == "venue":
        return f"{venue_name(row.venue)} live ({bars})"
    return f"{Path(row.source).name} ({venue_name(row.venue)}, {bars}{drill})"


def interval(seconds: int) -> str:
    """`15 min`, `1 h`, `1 d`."""
    for length, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= length and seconds % length == 0:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def venue_name(venue: str) -> str:
    return VENUES.get(venue, venue.capitalize())


def strategy(strategy_id: str) -> str:
    """`barrier_long` -> `Barrier long`."""
    return strategy_id.replace("_", " ").capitalize()


def version(version_id: str, kind: str) -> str:
    """`LightGBM 5ae0c3`: the kind of model, and enough of the identifier to tell two apart."""
    return f"{MODELS.get(kind, kind)} {short(version_id)}"


def short(identifier: str) -> str:
    """The first six characters after the prefix."""
    return identifier.rpartition("_")[2][:6]


def accounts(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """{account id: name}: `Sandbox USDT`; numbered where a person has several alike, oldest first."""
    found: dict[str, str] = {}
    seen: dict[str, int] = {}
    for row in sorted(rows, key=lambda row: row["created_at"]):
        name = f"{row['kind'].capitalize()} {row['currency']}"
        seen[name] = seen.get(name, 0) + 1
        found[row["account_id"]] = name if seen[name] == 1 else f"{name} no. {seen[name]}"
    return found


def service(name: str, datasets: Mapping[str, str]) -> str:
    """`engine-g1` -> `Engine g1`, `scorer:files_5ae0c3` -> `Scorer, binance_1h (Binance, 1 h bars)`."""
    head, _, rest = name.replace(":", "-", 1).partition("-")
    head = "API" if head == "api" else head.capitalize()
    return f"{head}, {datasets[rest]}" if rest in datasets else f"{head} {rest}".strip()


def details(found: Mapping[str, Any] | None) -> str:
    """A service's details as words: `market time 2024-05-31 00:00 UTC, orders 12`. What is empty is left out."""
    told = {key: value for key, value in (found or {}).items() if value not in (None, "", [], {})}
    return ", ".join(
        f"{key.replace('_', ' ')} {moment(value) if key.endswith(('time', '_at', 'through')) else value}"
        for key, value in told.items()
    )


def bans(found: Mapping[str, Any] | None) -> str:
    """What an engine shows of the day's F&O ban list: names, `none`, `not loaded`; a dash where it trades no derivatives."""
    if found is None:
        return DASH
    return "not loaded" if found["underlyings"] is None else ", ".join(found["underlyings"]) or "none"


def moment(value: str | datetime | pd.Timestamp | None) -> str:
    """A time of the API or of a table, as `2026-11-19 05:00 UTC`."""
    if value is None or value is pd.NaT:
        return DASH
    return f"{pd.Timestamp(value).tz_convert('UTC'):%Y-%m-%d %H:%M} UTC"


def moment_in_india(value: str | datetime) -> str:
    """The same in Indian time, which is what a trader at NSE goes by: `2026-11-19 09:00 IST`."""
    return f"{pd.Timestamp(value).tz_convert('Asia/Kolkata'):%Y-%m-%d %H:%M} IST"


def condition(value: str) -> str:
    """`sideways` -> `Sideways`, `us` -> `US`."""
    return value.upper() if value == "us" else value.replace("_", " ").capitalize()


def number(value: float | None, digits: int = 4) -> str:
    return DASH if value is None or pd.isna(value) else f"{value:,.{digits}f}"


def percent(value: float | None, digits: int = 1) -> str:
    return DASH if value is None or pd.isna(value) else f"{value:.{digits}%}"


def money(value: float, currency: str) -> str:
    """`1,234.50 USDT`."""
    return f"{value:,.2f} {currency}"


def age(seconds: float) -> str:
    """`4 s`, `3 min`, `2 h`, `5 d`."""
    for length, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def halted(halt: Mapping[str, Any], viewer_id: str) -> str:
    """What a halt covers: `your trading`, `all trading of the platform`, `group g1`."""
    if halt["scope"] == "platform":
        return "all trading of the platform"
    return "your trading" if halt["scope_id"] == viewer_id else f"{halt['scope']} {halt['scope_id']}"
