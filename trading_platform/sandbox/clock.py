"""Market time: who moves it, how fast, and who must have finished with a step before the next one comes.

In a replay the clock waits for its participants (the engines): each acknowledges a step when it has done all it wants to
do at that time. One that stays silent for `PATIENCE_SECONDS` is left behind, with a warning, until it speaks again. So a
replay at full speed is exact, and a dead engine cannot stop the market.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import structlog

from trading_platform.market_data.feed import Step
from trading_platform.sandbox.exchange import Exchange

log = structlog.get_logger(__name__)

PATIENCE_SECONDS = 5.0
BEYOND_TAIL_STEPS_PER_SECOND = 1.0
Speed = float | Literal["max"]
Mode = Literal["replay", "synthetic", "live"]


@dataclass
class Participant:
    """Somebody the clock waits for. `acked` is the market time up to which everything is done."""

    acked: datetime | None = None
    left_behind: bool = False


@dataclass
class Clock:
    """Drives an exchange through `steps`. `tail_ends` is the last market time of the stored tail, None for live data."""

    exchange: Exchange
    mode: Mode
    tail_starts: datetime | None
    tail_ends: datetime | None
    tail_steps: int
    state: Literal["waiting", "running", "ended"] = "waiting"
    participants: dict[str, Participant] = field(default_factory=dict)
    speed: Speed = "max"
    beyond_tail: bool = False
    _started: asyncio.Event = field(default_factory=asyncio.Event)
    _acked: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        if self.exchange.replay is not None:
            self._take(self.exchange.replay)
        if self._tail_is_over() and not self.beyond_tail:
            self.state = "ended"

    async def start(self, participants: list[str], speed: Speed, beyond_tail: bool) -> None:
        """Let time run. Starting a replay that has ended only says again that it has."""
        await self.exchange.start_replay({"participants": participants, "speed": speed, "beyond_tail": beyond_tail})
        assert self.exchange.replay is not None
        self._take(self.exchange.replay)

    def _take(self, command: dict[str, Any]) -> None:
        self.speed, self.beyond_tail = command["speed"], command["beyond_tail"]
        self.participants = {name: self.participants.get(name, Participant()) for name in command["participants"]}
        self._started.set()

    def ack(self, name: str, market_time: datetime) -> None:
        """A participant has done all it wants to do up to `market_time`."""
        participant = self.participants.setdefault(name, Participant())
        if participant.acked is None or market_time > participant.acked:
            participant.acked = market_time
        participant.left_behind = False
        self._acked.set()

    async def run(self, steps: AsyncIterator[Step]) -> None:
        """Take every step in turn; returns when the source ends."""
        if self.mode != "live":
            await self._started.wait()
        self.state = "running"
        async for step in steps:
            await self._all_done()
            while self._tail_is_over() and not self.beyond_tail:
                self.state = "ended"
                self._started.clear()
                await self._started.wait()
            self.state = "running"
            began = time.monotonic()
            await self.exchange.step(step)
            await self._pace(began)
        await self._all_done()
        self.state = "ended"
        log.info("replay_ended", market_time=str(self.exchange.market_time), steps=self.exchange.steps)

    def status(self) -> dict[str, Any]:
        return {
            "dataset_id": self.exchange.dataset_id,
            "mode": self.mode,
            "state": self.state,
            "market_time": _iso(self.exchange.market_time),
            "first": _iso(self.tail_starts),
            "last": _iso(self.tail_ends),
            "steps_total": self.tail_steps,
            "steps_done": self.exchange.steps,
            "speed": self.speed,
            "participants": {name: _iso(each.acked) for name, each in self.participants.items()},
            "orders": self.exchange.books.last_order_id,
            "trades": self.exchange.books.last_trade_id,
        }

    def _tail_is_over(self) -> bool:
        now = self.exchange.market_time
        return self.mode != "live" and now is not None and self.tail_ends is not None and now >= self.tail_ends

    async def _pace(self, began: float) -> None:
        speed = BEYOND_TAIL_STEPS_PER_SECOND if self._tail_is_over() and self.beyond_tail else self.speed
        if speed != "max":
            await asyncio.sleep(max(1.0 / speed - (time.monotonic() - began), 0.0))

    async def _all_done(self) -> None:
        """Wait until every participant that keeps up has acknowledged the step before."""
        now = self.exchange.market_time
        if now is None or self.mode == "live":
            return
        deadline = time.monotonic() + PATIENCE_SECONDS
        while late := [
            name for name, each in self.participants.items() if not each.left_behind and not _has(each, now)
        ]:
            self._acked.clear()
            try:
                await asyncio.wait_for(self._acked.wait(), max(deadline - time.monotonic(), 0.01))
            except TimeoutError:
                for name in late:
                    self.participants[name].left_behind = True
                log.warning("participants_left_behind", participants=late, market_time=str(now))


def _has(participant: Participant, market_time: datetime) -> bool:
    return participant.acked is not None and participant.acked >= market_time


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
