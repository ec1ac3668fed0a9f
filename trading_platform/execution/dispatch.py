"""Many orders on their way at once: users in turn, each account's in order, and their answers into the books together.

    async with Dispatch(sender, clock_seconds) as out:
        out.put(order)

Leaving waits until every order is sent and every answer booked, and raises what went wrong: no order may be on its way
when a session ends.
"""

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from itertools import accumulate, takewhile
from types import TracebackType

from trading_platform.execution.books import Answer
from trading_platform.execution.outgoing import Outgoing
from trading_platform.execution.sender import Sender
from trading_platform.execution.shares import Errand, FairShares
from trading_platform.venues.port import Accepted

LANES = 64
"""Orders that may be on the wire at once."""
BOOK_WITHIN_SECONDS = 0.25
"""While orders wait to be sent, answers wait as long for each other: one transaction for all costs a tenth of one each."""
MOST_TOGETHER = 500
"""Answers and fills in one transaction, which must be over long before the lease is."""


class Dispatch:
    """One step's orders. `clock_seconds`: now, by the clock that orders per second are counted by."""

    def __init__(self, sender: Sender, clock_seconds: float) -> None:
        self._sender, self._clock_seconds = sender, clock_seconds
        self._shares = FairShares(LANES)
        self._answers: list[Answer] = []
        self._oldest = 0.0
        self._booking = asyncio.Lock()

    def put(self, order: Outgoing) -> None:
        """Send an order whose intent is SENDING in the books, whatever others met with: what is written has to go out."""
        user, account = order.portfolio.user_id, order.portfolio.account_id
        self._shares.put(Errand(user, account, partial(self._send, order), order.intent.purpose == "exit"))

    async def __aenter__(self) -> "Dispatch":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            troubles = await self._shares.drained()
        finally:
            await self._book()
        if error is None and troubles:
            raise troubles[0]

    async def _send(self, order: Outgoing) -> None:
        answer = await self._sender.place(order, self._clock_seconds)
        if not isinstance(answer.result, Accepted):  # it may concern the account's other orders
            await self._sender.book([answer])
            return
        if not self._answers:
            self._oldest = time.monotonic()
        self._answers.append(answer)
        if time.monotonic() - self._oldest >= BOOK_WITHIN_SECONDS and not self._booking.locked():
            await self._book()

    async def _book(self) -> None:
        async with self._booking:
            while self._answers:
                count = _fitting(self._answers)
                together, self._answers = self._answers[:count], self._answers[count:]
                await self._sender.book(together)


def _fitting(answers: Sequence[Answer]) -> int:
    """How many of the first answers one transaction can book; one in any case, which `Sender.book` cuts itself."""
    rows = accumulate(1 + len(answer.accepted.fills) if answer.accepted else 1 for answer in answers)
    return max(sum(1 for _ in takewhile(lambda total: total <= MOST_TOGETHER, rows)), 1)
