"""How soon each process of a running platform is back after SIGKILL. `python bench/recovery.py --home var`

Kills one supervised process after the other, by the identity in <home>/run/stack.json, and waits until the supervisor
calls its successor ready. Engines must be RUNNING again, which is later than ready. At the end, market time must have gone
on. Only for a platform of your own that serves on this machine: everything on it is paper.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table
from sqlalchemy import func, select

from trading_platform.identifiers import GroupId
from trading_platform.settings import Settings
from trading_platform.storage.control import MarketProgress
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import EngineLease

GIVE_UP_SECONDS = 120.0
AIM_SECONDS = 15.0


def services(home: Path) -> dict[str, dict[str, Any]]:
    return dict(json.loads((home / "run" / "stack.json").read_text())["services"])


def kill(home: Path, name: str) -> int:
    """SIGKILL to the process that the state names, if it is still that very process. Returns its pid."""
    entry = services(home)[name]
    process = psutil.Process(entry["pid"])
    if abs(process.create_time() - entry["create_time"]) > 0.1:
        raise SystemExit(f"pid {entry['pid']} is not {name} any more; is {home} the home of a running platform?")
    process.kill()
    return int(entry["pid"])


def seconds_until(condition: Callable[[], bool]) -> float:
    started = time.monotonic()
    while time.monotonic() - started < GIVE_UP_SECONDS:
        if condition():
            return time.monotonic() - started
        time.sleep(0.05)
    return float("inf")


def engine_runs(databases: Databases, group: str, since_epoch: int) -> bool:
    with databases.group(GroupId(group)) as session:
        row = session.execute(
            select(EngineLease.state, EngineLease.epoch, EngineLease.expires_at > func.now())
        ).one_or_none()
    return row is not None and row[0] == "RUNNING" and row[1] > since_epoch and bool(row[2])


def epoch(databases: Databases, group: str) -> int:
    with databases.group(GroupId(group)) as session:
        return session.scalar(select(EngineLease.epoch)) or 0


def market_time(databases: Databases) -> object:
    with databases.control() as session:
        return session.scalar(select(func.max(MarketProgress.scored_through)))


def recovery(home: Path, name: str, databases: Databases) -> float:
    """Seconds from the kill until the service works again."""
    group = name.removeprefix("engine-") if name.startswith("engine-") else None
    before = epoch(databases, group) if group else 0
    old = kill(home, name)

    def back() -> bool:
        entry = services(home)[name]
        if not entry["ready"] or entry["pid"] in (None, old):
            return False
        return group is None or engine_runs(databases, group, before)

    return seconds_until(back)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--home", type=Path, default=Path("var"), help="state folder of the running platform")
    parser.add_argument("--only", nargs="*", help="services to kill; default: every one")
    options = parser.parse_args()
    home = options.home.resolve()
    databases = Databases(Settings(home_dir=home))
    start = market_time(databases)
    table = Table("process", "back after s", f"within {AIM_SECONDS:.0f} s")
    figures: dict[str, float] = {}
    for name in options.only or list(services(home)):
        figures[name] = round(recovery(home, name, databases), 1)
        table.add_row(name, f"{figures[name]}", "yes" if figures[name] <= AIM_SECONDS else "NO")
        seconds_until(lambda: all(entry["ready"] for entry in services(home).values()))  # one failure at a time
        time.sleep(2)
    went_on = seconds_until(lambda: market_time(databases) != start)
    Console().print(table)
    print(json.dumps({"seconds": figures, "market_time_went_on": went_on < GIVE_UP_SECONDS}))


if __name__ == "__main__":
    main()
