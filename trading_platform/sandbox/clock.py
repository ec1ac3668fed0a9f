"""Market time: who moves it, how fast, and who must have finished with a step before the next one comes.

In a replay the clock waits for its participants (the engines): each acknowledges a step when it has done all it wants to
do at that time. One that stays silent for `PATIENCE_SECONDS` is left behind, with a warning, until it speaks again. So a
replay at full speed is exact, and a dead engine cannot stop the market. While one that was left behind may still come
back, time runs at `SLOW_STEPS_PER_SECOND` at most: an engine that is being restarted misses minutes, not the replay.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import structlog

from trading_platform.sandbox.exchange import Exchange
from trading_platform.sandbox.sources import Step

log = structlog.get_logger(__name__)

PATIENCE_SECONDS = 20.0
"""Longer than an engine that was killed takes to be back. Who misses a step of daily bars misses a day, and with it the
broker's book of that day."""
SLOW_STEPS_PER_SECOND = 2.0
GONE_AFTER_SECONDS = 60.0
Speed = float | Literal["max"]
Mode = Literal["replay", "synthetic", "live"]
State = Literal["waiting", "running", "ended"]


@dataclass
class Participant:
    """Somebody the clock waits for. `acked`: market time (milliseconds) up to which everything is done."""

    acked: int = -1
    left_behind_at: float | None = None

    @property
    def may_come_back(self) -> bool:
        return self.left_behind_at is not None and time.monotonic() - self.left_behind_at < GONE_AFTER_SECONDS


@dataclass(frozen=True)
class Tail:
    """The stored steps that are to be replayed: market times in milliseconds, None for live data."""

    first: int | None
    last: int | None
    steps: int


@dataclass
class Clock:
    """Drives an exchange."""

    exchange: Exchange
    mode: Mode
    tail: Tail
    speed: Speed = "max"
    pace: float = 1.0
    """Steps per second of a synthetic market after its stored tail."""
    state: State = "waiting"
    participants: dict[str, Participant] = field(default_factory=dict)
    on_step: Callable[[], None] = lambda: None
    """Called after every step, before its end is on disk."""
    beyond_tail: bool = False
    alone: float | None = None
    """Steps per second at `max` while there is no participant to wait for. None: as fast as it goes."""
    stopped: bool = False
    """By hand: time stands until it is moved or let run again."""
    _owed: int = 0
    _until: int | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)
    _started: asyncio.Event = field(default_factory=asyncio.Event)
    _acked: asyncio.Event = field(default_factory=asyncio.Event)
    _stepped: asyncio.Condition = field(default_factory=asyncio.Condition)

    def __post_init__(self) -> None:
        if self.exchange.replay is not None:
            self._take(self.exchange.replay)
        if self._is_at_end():
            self.state = "ended"

    def start(self, participants: list[str], speed: Speed | None = None, beyond_tail: bool | None = None) -> None:
        """Let time run, or run otherwise. A replay that has ended stays ended.

        `beyond_tail`: whether a synthetic market goes on after its stored tail; by default it does.
        """
        command = {
            "participants": participants,
            "speed": self.speed if speed is None else speed,
            "beyond_tail": self.mode == "synthetic" and beyond_tail is not False,
        }
        self.exchange.start_replay(command)
        self._take(command)

    async def advance(self, *, steps: int = 0, until: int | None = None) -> None:
        """Let time move by so many steps, or on to a market time (milliseconds), at once; return when it is there.

        A time at which nothing happens is reached too: the next bar waits for its turn.
        """
        if steps <= 0 and (until is None or until <= self.exchange.now):
            return
        self._owed, self._until = steps, until
        self._arrived.clear()
        self._started.set()
        self._changed.set()
        await self._arrived.wait()

    def hold(self, *, still: bool) -> None:
        """Stop time by hand, or let it run again."""
        self.stopped = still
        self._changed.set()

    def set_speed(self, speed: Speed) -> None:
        """Steps per second from now on, without a new start."""
        self.speed = speed
        self._changed.set()

    def ack(self, name: str, market_time: int) -> None:
        """A participant has done all it wants to do up to `market_time` (milliseconds)."""
        participant = self.participants.setdefault(name, Participant())
        participant.acked = max(participant.acked, market_time)
        if participant.left_behind_at is not None:
            participant.left_behind_at = None
            log.info("participant_is_back", participant=name, acked=iso(participant.acked))
        self._acked.set()

    async def run(self, steps: AsyncIterator[Step]) -> None:
        """Take every step in turn; returns when the source ends."""
        if self.mode != "live":
            await self._started.wait()
        async for step in steps:
            await self._all_done()
            while self._is_at_end():
                self._end()
                self._started.clear()
                await self._started.wait()
            self.state = "running"
            began = time.monotonic()
            while self._until is not None and step.time > self._until:
                await self._take_step(Step(self._until, []))
                await self._pause(began)
            await self._take_step(step)
            await self._pause(began)
        await self._all_done()
        self._end()

    async def reached(self, market_time: int, within_seconds: float) -> None:
        """Return when market time is `market_time` (milliseconds) or later, or when that does not happen in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_seconds), self._stepped:
                await self._stepped.wait_for(lambda: (self.exchange.market_time or -1) >= market_time)

    def status(self) -> dict[str, Any]:
        """What GET /sandbox/status answers; times are ISO 8601, UTC."""
        return {
            "dataset_id": self.exchange.genesis.dataset_id,
            "mode": self.mode,
            "state": self.state,
            "market_time": iso(self.exchange.market_time),
            "first": iso(self.tail.first),
            "last": iso(self.tail.last),
            "steps_total": self.tail.steps,
            "steps_done": self.exchange.steps,
            "speed": self.speed,
            "participants": {
                name: iso(each.acked if each.acked >= 0 else None) for name, each in self.participants.items()
            },
            "orders": self.exchange.books.last_order_id,
            "trades": self.exchange.books.last_trade_id,
        }

    # --- inside ------------------------------------------------------------------------------------------------------

    async def _take_step(self, step: Step) -> None:
        self.exchange.step(step)
        self.on_step()
        await self.exchange.durable()
        self._owed = max(self._owed - 1, 0)
        if self._until is not None and step.time >= self._until:
            self._until = None
        async with self._stepped:
            self._stepped.notify_all()

    def _take(self, command: dict[str, Any]) -> None:
        self.speed, self.beyond_tail = command["speed"], command["beyond_tail"]
        self.participants = {name: self.participants.get(name, Participant()) for name in command["participants"]}
        self._started.set()
        self._acked.set()

    def _end(self) -> None:
        if self.state != "ended":
            log.info("replay_ended", market_time=iso(self.exchange.market_time), steps=self.exchange.steps)
        self.state = "ended"

    def _is_past_tail(self) -> bool:
        now, last = self.exchange.market_time, self.tail.last
        return self.mode != "live" and now is not None and last is not None and now >= last

    def _is_at_end(self) -> bool:
        return self._is_past_tail() and not self.beyond_tail

    async def _pause(self, began: float) -> None:
        """What is left of the time that a step takes at the present speed."""
        while True:
            if self._owed or self._until is not None:
                await asyncio.sleep(0)  # the doors stay open while time is in haste
                return
            self._arrived.set()
            self._changed.clear()
            wait = None if self.stopped else self._left_of_step(began)
            if wait is not None and wait <= 0:
                return
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                return

    def _left_of_step(self, began: float) -> float:
        speed = self.pace if self._is_past_tail() else self.speed
        if speed == "max" and not self.participants and self.alone is not None:
            speed = self.alone
        if any(each.may_come_back for each in self.participants.values()):
            speed = SLOW_STEPS_PER_SECOND if speed == "max" else min(speed, SLOW_STEPS_PER_SECOND)
        if speed == "max" or self.mode == "live":
            return 0.0
        return 1.0 / speed - (time.monotonic() - began)

    async def _all_done(self) -> None:
        """Wait until every participant that keeps up has acknowledged the step before."""
        now = self.exchange.market_time
        if now is None or self.mode == "live" or self.state == "ended":
            return
        deadline = time.monotonic() + PATIENCE_SECONDS
        while late := [n for n, each in self.participants.items() if each.left_behind_at is None and each.acked < now]:
            self._acked.clear()
            try:
                async with asyncio.timeout(max(deadline - time.monotonic(), 0.01)):
                    await self._acked.wait()
            except TimeoutError:
                for name in late:
                    self._leave_behind(name, now)

    def _leave_behind(self, name: str, now: int) -> None:
        participant = self.participants.get(name)
        if participant is not None and participant.acked < now:
            participant.left_behind_at = time.monotonic()
            log.warning("participant_left_behind", participant=name, market_time=iso(now), patience=PATIENCE_SECONDS)


def iso(milliseconds: int | None) -> str | None:
    """Market time as JSON has it."""
    return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1_000, UTC).isoformat()
