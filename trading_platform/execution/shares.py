"""Fair shares of a group's way to the venues: a queue a user, taken in turn.

    shares = FairShares(lanes=16)
    shares.put(Errand(user_id, account_id, send))       # it goes at once where a lane is free
    troubles = await shares.drained()

Users are served round robin, so who has ten thousand errands waits behind himself alone. An account's errands keep their
order, one at a time; exits (`urgent`) go before a user's other errands. How much a user may send is for risk to say.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import islice

from trading_platform.identifiers import AccountId, UserId

Send = Callable[[], Awaitable[None]]
LOOK_AHEAD = 64
"""How far past accounts with an order on the wire: far enough for a user's accounts, not for a flood."""


@dataclass(frozen=True)
class Errand:
    """One order to be sent for a user."""

    user_id: UserId
    account_id: AccountId
    send: Send
    urgent: bool = False


@dataclass
class Queue:
    """What one user has waiting."""

    urgent: deque[Errand] = field(default_factory=deque)
    others: deque[Errand] = field(default_factory=deque)

    def __bool__(self) -> bool:
        return bool(self.urgent or self.others)

    def put(self, errand: Errand) -> None:
        (self.urgent if errand.urgent else self.others).append(errand)

    def take(self, busy: set[AccountId]) -> Errand | None:
        """The first errand of an account that is not busy, and none of whose earlier ones waits; None where there is none."""
        for queue in (self.urgent, self.others):
            passed = set(busy)
            for place, errand in enumerate(islice(queue, LOOK_AHEAD)):
                if errand.account_id not in passed:
                    del queue[place]
                    return errand
                passed.add(errand.account_id)
        return None

    def forget(self, account_id: AccountId) -> None:
        """Leave out what waits for an account: what went wrong with one order may concern those that follow it."""
        for queue in (self.urgent, self.others):
            kept = [errand for errand in queue if errand.account_id != account_id]
            queue.clear()
            queue.extend(kept)


class FairShares:
    """The queues of one group. `lanes`: how many orders may be on the wire at once."""

    def __init__(self, lanes: int = 16) -> None:
        self._free = lanes
        self._turns: OrderedDict[UserId, Queue] = OrderedDict()
        """Of those with something waiting: whoever was served goes to the end."""
        self._busy: set[AccountId] = set()
        self._flights: set[asyncio.Task[None]] = set()
        self._troubles: list[BaseException] = []

    def put(self, errand: Errand) -> None:
        self._turns.setdefault(errand.user_id, Queue()).put(errand)
        if self._free and (following := self._take()) is not None:
            self._free -= 1
            flight = asyncio.create_task(self._fly(following))
            self._flights.add(flight)
            flight.add_done_callback(self._flights.discard)

    async def drained(self) -> list[BaseException]:
        """Wait until nothing waits or is on the wire; returns what went wrong. That stops the account's others alone."""
        while self._flights:
            await asyncio.wait(self._flights)
        return self._troubles

    def _take(self) -> Errand | None:
        """The errand of the next user whose turn it is; None while all that wait are of busy accounts."""
        for user_id, queue in self._turns.items():
            errand = queue.take(self._busy)
            if errand is not None:
                self._busy.add(errand.account_id)
                self._turns.move_to_end(user_id)
                if not queue:
                    del self._turns[user_id]
                return errand
        return None

    async def _fly(self, errand: Errand) -> None:
        """Carry an errand, and then the next one that may go, until there is none: then those that wait are of accounts
        whose own flights go on."""
        following: Errand | None = errand
        while following is not None:
            try:
                await following.send()
            except BaseException as trouble:  # told to the caller, after the others' orders are through
                self._troubles.append(trouble)
                self._forget(following)
            finally:
                self._busy.discard(following.account_id)
            following = self._take()
        self._free += 1

    def _forget(self, errand: Errand) -> None:
        queue = self._turns.get(errand.user_id)
        if queue is not None:
            queue.forget(errand.account_id)
            if not queue:
                del self._turns[errand.user_id]
