"""Fair shares of a group's way to the venues: a queue a user, taken in turn, each within its quota.

    shares = FairShares(lanes=16)
    shares.quota(user_id, Quota(per_second=10))
    shares.put(Errand(user_id, account_id, send))
    await shares.drain()

Users are served round robin, so who has ten thousand errands waits behind himself alone. An account's errands keep their
order, one at a time. Exits (`urgent`) go before a user's other errands and are never held back by a quota of rates: a limit
must not keep a position open.
"""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import islice

from trading_platform.identifiers import AccountId, UserId

Send = Callable[[], Awaitable[None]]
DAY_SECONDS = 86_400.0
LOOK_AGAIN_SECONDS = 0.05
"""Quotas may be counted by a market's clock, which does not go by our seconds."""


@dataclass(frozen=True)
class Quota:
    """How often a user may send; None where there is no such limit. Windows slide, the day's too."""

    per_second: int | None = None
    per_minute: int | None = None
    per_day: int | None = None

    @property
    def windows(self) -> tuple[tuple[float, int], ...]:
        limits = ((1.0, self.per_second), (60.0, self.per_minute), (DAY_SECONDS, self.per_day))
        return tuple((span, limit) for span, limit in limits if limit is not None)


@dataclass(frozen=True)
class Errand:
    """One order to be sent for a user."""

    user_id: UserId
    account_id: AccountId
    send: Send
    urgent: bool = False


@dataclass
class Lane:
    """The errands of one user, and when the latest ones were sent."""

    quota: Quota = field(default_factory=Quota)
    urgent: deque[Errand] = field(default_factory=deque)
    waiting: deque[Errand] = field(default_factory=deque)
    sent_at: deque[float] = field(default_factory=deque)
    busy: set[AccountId] = field(default_factory=set)

    @property
    def queued(self) -> int:
        return len(self.urgent) + len(self.waiting)

    def next(self, now: float) -> Errand | None:
        """The errand that may go now, taken out of the queue: None while all must wait."""
        for queue, free in ((self.urgent, True), (self.waiting, False)):
            if not queue or (not free and self.room_in(now) > 0):
                continue
            errand = self._first_of_a_free_account(queue)
            if errand is not None:
                self.busy.add(errand.account_id)
                self.sent_at.append(now)
                return errand
        return None

    def room_in(self, now: float) -> float:
        """Seconds until the quota has room; 0.0 where it has."""
        widest = max((span for span, _ in self.quota.windows), default=0.0)
        while self.sent_at and self.sent_at[0] <= now - widest:
            self.sent_at.popleft()
        wait = 0.0
        for span, limit in self.quota.windows:
            if len(self.sent_at) < limit:
                continue
            if limit == 0:
                return span
            wait = max(wait, self.sent_at[-limit] + span - now)
        return max(wait, 0.0)

    def forget(self, account_id: AccountId) -> None:
        """Leave out what is queued for an account: what went wrong with one order may concern those that follow it."""
        for queue in (self.urgent, self.waiting):
            kept = [errand for errand in queue if errand.account_id != account_id]
            queue.clear()
            queue.extend(kept)

    def _first_of_a_free_account(self, queue: deque[Errand]) -> Errand | None:
        """Looks a little way past accounts with an order on the wire: far enough for a user's accounts, not for a flood."""
        passed: set[AccountId] = set(self.busy)
        for place, errand in enumerate(islice(queue, 64)):
            if errand.account_id not in passed:
                del queue[place]
                return errand
            passed.add(errand.account_id)
        return None


class FairShares:
    """The queues of one group. `lanes`: how many orders may be on the wire at once; `clock` in seconds."""

    def __init__(self, lanes: int = 16, clock: Callable[[], float] = time.monotonic) -> None:
        self._lanes, self._clock = lanes, clock
        self._users: dict[UserId, Lane] = {}
        self._turns: OrderedDict[UserId, Lane] = OrderedDict()
        """Of those with something queued: whoever was served goes to the end."""
        self._changed = asyncio.Event()
        self._flying = 0

    def quota(self, user_id: UserId, quota: Quota) -> None:
        """What a user may send from now on."""
        self._lane(user_id).quota = quota

    def put(self, errand: Errand) -> None:
        lane = self._turns.setdefault(errand.user_id, self._lane(errand.user_id))
        (lane.urgent if errand.urgent else lane.waiting).append(errand)
        self._changed.set()

    def drop(self, user_id: UserId) -> int:
        """Forget what is not urgent of a user, as a halt asks; returns how many errands."""
        lane = self._lane(user_id)
        dropped = len(lane.waiting)
        lane.waiting.clear()
        self._changed.set()
        return dropped

    @property
    def queued(self) -> int:
        return sum(lane.queued for lane in self._turns.values())

    async def drain(self) -> list[BaseException]:
        """Send until nothing is queued or on the wire; returns what went wrong. That stops the account's others alone."""
        return await self._work(until_empty=True)

    async def serve(self, stop: asyncio.Event) -> list[BaseException]:
        """Send whatever comes, until `stop` is set and nothing is on the wire."""
        return await self._work(until_empty=False, stop=stop)

    async def _work(self, *, until_empty: bool, stop: asyncio.Event | None = None) -> list[BaseException]:
        troubles: list[BaseException] = []
        tasks: set[asyncio.Task[None]] = set()

        def stopping() -> bool:
            return stop is not None and stop.is_set()

        while True:
            self._changed.clear()
            while not stopping() and self._flying < self._lanes and (errand := self._take()) is not None:
                self._flying += 1
                task = asyncio.create_task(self._fly(errand, troubles, stopping))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            if self._flying == 0 and (stopping() or (until_empty and self.queued == 0)):
                return troubles
            await self._wait(stop)

    def _take(self) -> Errand | None:
        """The errand of the next user whose turn it is and who may send now."""
        now = self._clock()
        for user_id, lane in self._turns.items():
            errand = lane.next(now)
            if errand is not None:
                self._turns.move_to_end(user_id)
                if not lane.queued:
                    del self._turns[user_id]
                return errand
        return None

    async def _fly(self, errand: Errand, troubles: list[BaseException], stopping: Callable[[], bool]) -> None:
        """Carry an errand, and then the next one that may go, until there is none."""
        following: Errand | None = errand
        while following is not None:
            await self._carry(following, troubles)
            following = None if stopping() else self._take()
        self._flying -= 1
        self._changed.set()

    async def _carry(self, errand: Errand, troubles: list[BaseException]) -> None:
        try:
            await errand.send()
        except BaseException as trouble:  # told to the caller, after the others' orders are through
            troubles.append(trouble)
            self._users[errand.user_id].forget(errand.account_id)
        finally:
            self._users[errand.user_id].busy.discard(errand.account_id)

    async def _wait(self, stop: asyncio.Event | None) -> None:
        """Until something changes, or the first quota has room again."""
        waits = [LOOK_AGAIN_SECONDS] if stop is not None else []
        if self._flying < self._lanes:
            now = self._clock()
            rooms = (lane.room_in(now) for lane in self._turns.values() if lane.waiting and not lane.busy)
            waits += [room for room in rooms if room > 0]
        timeout = min(*waits, LOOK_AGAIN_SECONDS) if waits else None
        try:
            await asyncio.wait_for(self._changed.wait(), timeout)
        except TimeoutError:
            return

    def _lane(self, user_id: UserId) -> Lane:
        return self._users.setdefault(user_id, Lane())
