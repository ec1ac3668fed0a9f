"""The trading stage of a pass: have the dataset's services started, open paper accounts, run the replay, watch it."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx
from sqlalchemy import func, or_, select

from trading_platform.execution.paper import provision
from trading_platform.identifiers import DatasetId, GroupId, UserId
from trading_platform.settings import Settings
from trading_platform.storage.control import Dataset, MarketProgress, User
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import EngineLease, Intent, Order, SignalCursor

START_TIMEOUT_SECONDS = 240.0
STALL_TIMEOUT_SECONDS = 120.0
VENUES = {"binance": "binance", "nse": "zerodha"}
"""{exchange whose bars these are: the broker or exchange that orders go to}."""
UNFINISHED = ("PLANNED", "SENDING", "SUBMITTED", "UNKNOWN")
RESTING = "WORKING"
"""An order that the venue has and keeps, such as one for the next session: a replay may end before that."""

Report = Callable[[str, int, int], None]


class TradingStalledError(RuntimeError):
    """A service did not come up, or the replay stopped moving."""


@dataclass
class Services:
    """What trades a dataset: sandbox, collector, scorer, and the engine of each group that has traders."""

    settings: Settings
    databases: Databases
    dataset_id: str
    dataset: Dataset = field(init=False)
    traders: dict[GroupId, list[UserId]] = field(init=False)

    def __post_init__(self) -> None:
        with self.databases.control() as session:
            self.dataset = session.scalars(select(Dataset).where(Dataset.dataset_id == self.dataset_id)).one()
            users = session.execute(
                select(User.group_id, User.user_id).where(User.role == "trader", User.disabled_at.is_(None))
            ).all()
        self.traders = {}
        for group_id, user_id in users:
            self.traders.setdefault(GroupId(group_id), []).append(UserId(user_id))

    @property
    def venue(self) -> str | None:
        """Where orders go; None for data of an exchange that the platform does not trade at: scored only."""
        return VENUES.get("binance" if self.dataset.kind == "synthetic" else self.dataset.venue)

    @property
    def tradable(self) -> bool:
        return self.venue is not None

    def start(self) -> None:
        """Ask the supervisor for the services, wait for the sandbox, and open a paper account for every trader."""
        request = {"dataset_id": self.dataset_id, "groups": sorted(self.traders), "venue": self.venue}
        target = self.settings.run_dir / "dataset.json"
        partial = target.with_suffix(".partial")
        partial.write_text(json.dumps(request))
        partial.replace(target)
        if not self.tradable:
            return
        self._wait_for("the sandbox exchange", lambda: self.status().get("dataset_id") == self.dataset_id)
        for users in self.traders.values():
            for user_id in users:
                provision(self.databases, self.settings, user_id, DatasetId(self.dataset_id))
        self._wait_for("the engines", self._engines_run)

    def status(self) -> dict[str, Any]:
        """The sandbox's own account of the replay; empty while it is not up."""
        try:
            answer = httpx.get(f"{self.settings.sandbox_url}/sandbox/status", headers=self._auth(), timeout=5)
            return dict(answer.raise_for_status().json())
        except (httpx.HTTPError, json.JSONDecodeError):
            return {}

    def start_replay(self, speed: str, beyond_tail: bool) -> None:
        body = {
            "participants": [f"engine-{group_id}" for group_id in self.traders],
            "speed": _speed(speed),
            "beyond_tail": beyond_tail,
        }
        httpx.post(
            f"{self.settings.sandbox_url}/sandbox/replay/start", json=body, headers=self._auth(), timeout=10
        ).raise_for_status()

    def progress(self) -> MarketProgress | None:
        with self.databases.control() as session:
            return session.scalars(
                select(MarketProgress).where(MarketProgress.dataset_id == self.dataset_id)
            ).one_or_none()

    def settled(self) -> bool:
        """Every signal is consumed and no order is unfinished."""
        progress = self.progress()
        if progress is None:
            return False
        for group_id in self.traders:
            with self.databases.group(group_id) as session:
                cursor = session.scalar(select(SignalCursor.seq).where(SignalCursor.dataset_id == self.dataset_id))
                open_intents = session.scalar(
                    select(func.count())
                    .select_from(Intent)
                    .outerjoin(Order, Order.intent_id == Intent.intent_id)
                    .where(
                        Intent.dataset_id == self.dataset_id, Intent.state.in_(UNFINISHED),
                        or_(Intent.state != "SUBMITTED", Order.state != RESTING),
                    )
                )  # fmt: skip
            if (cursor or 0) < progress.last_seq or open_intents:
                return False
        return True

    def _engines_run(self) -> bool:
        for group_id in self.traders:
            with self.databases.group(group_id) as session:
                row = session.execute(
                    select(EngineLease.state, EngineLease.expires_at > func.now()).where(
                        EngineLease.group_id == group_id
                    )
                ).one_or_none()
            if row is None or not row[1] or row[0] != "RUNNING":
                return False
        return True

    def _wait_for(self, what: str, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not ready():
            if time.monotonic() > deadline:
                raise TradingStalledError(
                    f"{what} did not come up within {START_TIMEOUT_SECONDS:.0f} s; see `trading-platform status` and "
                    f"{self.settings.logs_dir}"
                )
            time.sleep(0.2)

    def _auth(self) -> dict[str, str]:
        token = self.settings.sandbox_admin_token
        return {} if token is None else {"Authorization": f"Bearer {token.get_secret_value()}"}


def replay(services: Services, *, speed: str, beyond_tail: bool, report: Report) -> None:
    """Run the replay to the end of the data's tail and until every order is settled; live data: only start it."""
    if services.dataset.kind == "venue":
        report("live market: signals and paper orders follow with each closed bar", 1, 1)
        return
    if services.tradable:
        services.start_replay(speed, beyond_tail)
    moved, seen = time.monotonic(), ""
    while True:
        done, total, at = _position(services)
        report(f"market time {at:%Y-%m-%d %H:%M}" if at else "waiting for the first bar", done, total)
        if total and done >= total and (not services.tradable or services.settled()):
            return
        if f"{done} {at}" != seen:
            moved, seen = time.monotonic(), f"{done} {at}"
        if time.monotonic() - moved > STALL_TIMEOUT_SECONDS:
            raise TradingStalledError(
                f"the replay stands still at {at} ({done} of {total} steps) for {STALL_TIMEOUT_SECONDS:.0f} s; see the "
                f"logs of scorer, sandbox and engines in {services.settings.logs_dir}"
            )
        time.sleep(0.25)


def _position(services: Services) -> tuple[int, int, datetime | None]:
    """(steps done, steps in all, market time)."""
    progress = services.progress()
    scored = progress.scored_through if progress else None
    if services.tradable:
        status = services.status()
        return int(status.get("steps_done", 0)), int(status.get("steps_total", 0)), scored
    first = services.dataset.replay_from
    last = max(datetime.fromisoformat(symbol["last"]) for symbol in services.dataset.symbols.values())
    if first is None:
        return 0, 0, scored
    span = max(int((last - first).total_seconds()), 1)
    reached = int((scored - first).total_seconds()) if scored else 0
    return min(reached, span), span, scored


def _speed(speed: str) -> str | float:
    return speed if speed == "max" else float(speed)
