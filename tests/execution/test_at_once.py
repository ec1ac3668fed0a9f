"""Errands of many accounts: so many at once, all to their end, their results in order."""

import asyncio

import pytest

from trading_platform.execution.at_once import at_once


async def test_so_many_run_at_once_and_their_results_keep_their_order() -> None:
    running, most = 0, 0

    async def errand(number: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001 * (20 - number))
        running -= 1
        return number

    assert await at_once((errand(number) for number in range(20)), lanes=7) == list(range(20))
    assert most == 7
    assert await at_once([]) == []


async def test_trouble_is_told_when_all_have_ended() -> None:
    ended = []

    async def errand(number: int) -> None:
        await asyncio.sleep(0.001 * number)
        if number == 1:
            raise OSError("first")
        ended.append(number)

    with pytest.raises(OSError, match="first"):
        await at_once(errand(number) for number in range(6))
    assert ended == [0, 2, 3, 4, 5]
