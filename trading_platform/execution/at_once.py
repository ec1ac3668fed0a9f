"""Many accounts' errands at once, each account's own one after the other: a group has a thousand, and each waits for its venue.

await at_once(settle(portfolio) for portfolio in portfolios)
"""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

LANES = 16
"""So many sessions of the database may be held meanwhile."""
T = TypeVar("T")


async def at_once(errands: Iterable[Coroutine[Any, Any, T]], lanes: int = LANES) -> list[T]:
    """Their results, in order. Raises the first trouble, but only when all have ended: none may go on unseen."""
    room = asyncio.Semaphore(lanes)

    async def run(errand: Coroutine[Any, Any, T]) -> T:
        async with room:
            return await errand

    ended = await asyncio.gather(*map(run, errands), return_exceptions=True)
    results = []
    for each in ended:
        if isinstance(each, BaseException):
            raise each
        results.append(each)
    return results
