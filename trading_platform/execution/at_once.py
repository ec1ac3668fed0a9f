"""Many accounts' errands at once: a group has a thousand, and each of them waits for its venue.

    await at_once(settle(portfolio) for portfolio in portfolios)
    decisions = await by_account(decisions, waits_for_its_stop, freed)      # each account's own one after the other

What goes wrong with one is told when all have ended.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from trading_platform.execution.decisions import Decision

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


async def by_account(
    decisions: Sequence[Decision], concerns: Callable[[Decision], bool],
    led: Callable[[list[Decision], int], Awaitable[Decision | None]],
) -> list[Decision]:  # fmt: skip
    """The decisions, each that it concerns replaced by what is led of it, or left out where that is None.

    `led(decisions so far, place)`: accounts go side by side, the decisions of each one in turn.
    """
    after, dropped = list(decisions), set[int]()

    async def one(places: Sequence[int]) -> None:
        for place in places:
            decision = await led(after, place)
            if decision is None:
                dropped.add(place)
            else:
                after[place] = decision

    places: dict[str, list[int]] = {}
    for place, decision in enumerate(after):
        if concerns(decision):
            places.setdefault(decision.portfolio.account_id, []).append(place)
    await at_once(map(one, places.values()))
    return [decision for place, decision in enumerate(after) if place not in dropped]
