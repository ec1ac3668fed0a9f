"""The torture itself: engines trade, and are killed; the market goes on; at the end all books are compared.

Every group has two engines, one of which stands by. An engine dies by its own trap inside the send path, by SIGKILL from
outside, or is stopped past its lease and let go on; now and then the exchange or the database is killed as well. What was
killed is started again at once. Days are closed as they come: in the evening nothing may be open any more.
"""

import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError

from trading_platform.torture.comparison import Verdict, compare_at_rest, unsettled
from trading_platform.torture.deployment import Deployment, Traded
from trading_platform.torture.engines import LEASE_SECONDS, Nursery
from trading_platform.torture.exchange import Exchange
from trading_platform.torture.market import Market

log = structlog.get_logger(__name__)
STEP_SECONDS = 0.5
OUTAGE_EVERY = 60
"""Kills of engines between two kills of the exchange or the database."""
FIRST_INSTRUCTIONS, LAST_INSTRUCTIONS = 20, 12_000
"""An order takes two thousand: an engine lives for some orders, and dies anywhere within the last."""
FROM_OUTSIDE, PAUSED = 0.2, 0.2
LONGEST_LIFE_SECONDS = 15.0
SETTLE_SECONDS, SABOTAGED_SECONDS = 300.0, 45.0
"""That an evening may take; where a protection is missing, what is open stays so."""
ORDER_FAULTS: tuple[tuple[float, dict[str, Any]], ...] = (
    (0.02, {"kind": "timed_out_400"}), (0.02, {"kind": "server_error", "status": 504, "accepted": True}),
    (0.02, {"kind": "server_error", "status": 502, "accepted": False}), (0.02, {"kind": "disconnect", "accepted": True}),
    (0.02, {"kind": "disconnect", "accepted": False}), (0.02, {"kind": "malformed_json"}),
    (0.02, {"kind": "too_many_requests"}),
)  # fmt: skip
FAULTS: list[dict[str, Any]] = [
    *(
        {"route": route, "probability": chance, **fault}
        for route in ("POST /orders/*", "POST /api/v3/order")
        for chance, fault in ORDER_FAULTS
    ),
    {"kind": "server_error", "door": "any", "route": "GET *", "probability": 0.005, "status": 503, "accepted": False},
    {"kind": "hide_order", "door": "kite", "probability": 0.5, "seconds": 2.0},
]


@dataclass(frozen=True)
class Wishes:
    """What to do. `sabotage`: the name of a protection to remove, which must make the torture fail."""

    kills: int
    seed: int
    groups: int = 6
    faults: bool = True
    venues: tuple[str, ...] = ("binance", "zerodha")
    sabotage: str | None = None
    folder: Path = Path("torture")


@dataclass
class Slot:
    """One of the two engines of a group, and how it is to end."""

    traded: Traded
    pid: int = 0
    crash: int = 0
    ends_at: float = 0.0
    paused_until: float = 0.0


@dataclass
class Torture:
    """`run` does all of it; `told` hears (kills done, what is going on)."""

    wishes: Wishes
    told: Callable[[int, str], None] = lambda kills, what: None
    kills: dict[str, int] = field(default_factory=lambda: {"engines": 0, "exchange": 0, "database": 0, "pauses": 0})
    days: int = 0
    draw: random.Random = field(init=False)
    slots: list[Slot] = field(default_factory=list)
    killing: bool = True

    def __post_init__(self) -> None:
        self.draw = random.Random(self.wishes.seed)
        folder = self.wishes.folder
        folder.mkdir(parents=True, exist_ok=True)
        self.exchange = Exchange(folder, self.wishes.seed)
        self.deployment = Deployment(folder, self.exchange, self.wishes.groups, self.wishes.venues)

    @property
    def done(self) -> int:
        return self.kills["engines"] + self.kills["exchange"] + self.kills["database"]

    def run(self) -> Verdict:
        self.exchange.start()
        self.deployment.start()
        self.deployment.fill()
        self.nursery = Nursery(self.deployment.environment, self.wishes.folder / "engines.log")
        self.nursery.start()
        self.market = Market(self.deployment.databases, self.exchange, self.wishes.venues, self.wishes.seed)
        self._inject()
        try:
            for traded in self.deployment.traded:
                for _ in range(2):
                    self.slots.append(Slot(traded))
                    self._spawn(self.slots[-1])
            self._torment()
            return self._settle()
        finally:
            for slot in self.slots:
                _signal(slot.pid, signal.SIGKILL)
            self.nursery.stop()
            self.exchange.stop()
            self.deployment.stop()

    # --- killing -----------------------------------------------------------------------------------------------------

    def _torment(self) -> None:
        next_step, next_outage = time.monotonic(), OUTAGE_EVERY
        while self.done < self.wishes.kills:
            self._look_after_engines()
            if self.done >= next_outage:
                self._outage()
                next_outage += OUTAGE_EVERY
            if time.monotonic() >= next_step:
                next_step = time.monotonic() + STEP_SECONDS
                self._step()
            time.sleep(0.02)
            self.told(self.done, f"{self.market.now:%d %b %H:%M} UTC")

    def _look_after_engines(self) -> None:
        now = time.monotonic()
        for slot in self.slots:
            if slot.paused_until:
                if now >= slot.paused_until:
                    slot.paused_until = 0.0
                    _signal(slot.pid, signal.SIGCONT)
                continue
            if not _alive(slot.pid):
                self.kills["engines"] += 1
                self._spawn(slot)
            elif self.killing and now >= slot.ends_at:
                if self.draw.random() < PAUSED:
                    self.kills["pauses"] += 1
                    slot.paused_until = now + LEASE_SECONDS * 1.5
                    slot.ends_at = slot.paused_until + LONGEST_LIFE_SECONDS
                    _signal(slot.pid, signal.SIGSTOP)
                else:
                    _signal(slot.pid, signal.SIGKILL)

    def _spawn(self, slot: Slot) -> None:
        outside = self.draw.random() < FROM_OUTSIDE
        trap = self.draw.randint(FIRST_INSTRUCTIONS, LAST_INSTRUCTIONS)
        slot.crash = 0 if outside or not self.killing else trap
        life = self.draw.uniform(1.0, LONGEST_LIFE_SECONDS) if outside else LONGEST_LIFE_SECONDS * 4
        slot.ends_at = time.monotonic() + life
        slot.pid = self.nursery.engine(
            group=slot.traded.group_id, dataset=slot.traded.dataset_id, crash=slot.crash, sabotage=self.wishes.sabotage
        )

    def _outage(self) -> None:
        if self.draw.random() < 0.5:
            self.kills["exchange"] += 1
            self.exchange.kill()
            self.exchange.start()
            self._inject()
        else:
            self.kills["database"] += 1
            self.deployment.kill()
            self.deployment.start()

    def _inject(self) -> None:
        if self.wishes.faults and self.killing:
            self.exchange.tell("/faults", FAULTS)

    # --- the market --------------------------------------------------------------------------------------------------

    def _step(self) -> None:
        try:
            if self.market.day_is_over:
                self._close_day()
            self.market.step()
        except (OSError, SQLAlchemyError) as error:  # one of both has just been killed
            log.warning("step_missed", error=f"{type(error).__name__}: {error}"[:200])

    def _close_day(self) -> None:
        """Evening: the day's book is whole, and every outcome of the day has to be settled before the next one begins.

        What an engine sends in the evening itself is an after-market order: tomorrow's book tells of it.
        """
        deadline = time.monotonic() + (SABOTAGED_SECONDS if self.wishes.sabotage else SETTLE_SECONDS)
        while True:
            self.market.close_day()
            open_outcomes = self._open_outcomes(self.market.after_market)
            if not open_outcomes:
                self.days += 1
                return
            if time.monotonic() > deadline:
                log.error("day_not_closed", open_outcomes=open_outcomes)
                self.days += 1
                return
            self.told(self.done, f"closing the day: {open_outcomes} open")
            self._look_after_engines()
            time.sleep(0.1)

    def _open_outcomes(self, sent_before: datetime | None = None) -> int:
        """Orders that are neither finished nor rest: what never arrived goes out again in the evening, and may."""
        databases, theirs = self.deployment.databases, self.exchange.tell("/books")
        return sum(
            len(unsettled(databases, each, theirs[each.account_id], sent_before)) for each in self.deployment.traded
        )

    # --- the end -----------------------------------------------------------------------------------------------------

    def _settle(self) -> Verdict:
        """No more kills, no more faults: engines settle what is open, and the books are compared."""
        self.killing = False
        self.exchange.tell("/faults", method="DELETE")
        for slot in self.slots:  # none may die any more: their traps go with them
            _signal(slot.pid, signal.SIGCONT)
            _signal(slot.pid, signal.SIGKILL)
            slot.paused_until = 0.0
            while _alive(slot.pid):
                time.sleep(0.01)
            self._spawn(slot)
        self._close_day()
        if self._open_outcomes():  # sent on this evening by engines that were killed then
            self.market.step()
            self._close_day()
        time.sleep(LEASE_SECONDS + 1.0)
        return compare_at_rest(self.deployment.databases, self.deployment.traded, lambda: self.exchange.tell("/books"))


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _signal(pid: int, which: signal.Signals) -> None:
    try:
        os.kill(pid, which)
    except ProcessLookupError:
        return
