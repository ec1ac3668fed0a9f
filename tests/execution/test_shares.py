"""Fair shares: turns, quotas at their edges, an account's order, and a flood that delays nobody but its owner."""

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading_platform.execution.shares import Errand, FairShares, Quota, Send
from trading_platform.identifiers import AccountId, UserId


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def errand(user: str, send: Send, account: str = "", *, urgent: bool = False) -> Errand:
    return Errand(UserId(user), AccountId(account or user), send, urgent)


def noting(log: list[str], what: str) -> Send:
    async def send() -> None:
        log.append(what)
        await asyncio.sleep(0)

    return send


async def test_users_take_turns_however_much_one_has_queued() -> None:
    shares, log = FairShares(lanes=1), list[str]()
    for number in range(1_000):
        shares.put(errand("flood", noting(log, f"flood {number}")))
    for user in ("ann", "ben"):
        for number in range(3):
            shares.put(errand(user, noting(log, f"{user} {number}")))
    assert await shares.drain() == []
    assert log[:9] == [f"{user} {number}" for number in range(3) for user in ("flood", "ann", "ben")]
    assert Counter(each.split()[0] for each in log) == {"flood": 1_000, "ann": 3, "ben": 3}


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("12")), max_size=60), st.integers(1, 5))
def test_each_accounts_errands_keep_their_order_and_none_is_lost(queue: list[tuple[str, str]], lanes: int) -> None:
    async def run() -> list[str]:
        shares, log = FairShares(lanes), list[str]()
        for number, (user, account) in enumerate(queue):
            shares.put(errand(user, noting(log, f"{user}{account} {number:03}"), f"{user}{account}"))
        await shares.drain()
        return log

    log = asyncio.run(run())
    assert sorted(log) == sorted(f"{user}{account} {number:03}" for number, (user, account) in enumerate(queue))
    for account in {each.split()[0] for each in log}:
        mine = [each for each in log if each.split()[0] == account]
        assert mine == sorted(mine)


async def test_an_account_has_one_order_on_the_wire_and_no_more_are_there_than_lanes() -> None:
    shares, flying, most, twice = FairShares(lanes=3), Counter[str](), 0, False

    def send(account: str) -> Send:
        async def fly() -> None:
            nonlocal most, twice
            twice |= flying[account] > 0
            flying[account] += 1
            most = max(most, flying.total())
            await asyncio.sleep(0.001)
            flying[account] -= 1

        return fly

    for user in "abcdefgh":
        for _ in range(4):
            shares.put(errand(user, send(user)))
    await shares.drain()
    assert (most, twice) == (3, False)


@pytest.mark.parametrize(
    ("quota", "sent_by"),
    [
        (Quota(per_second=3), {0.0: 3, 0.999: 3, 1.0: 6}),
        (Quota(per_second=3, per_minute=4), {0.0: 3, 1.0: 4, 59.999: 4, 60.0: 7}),
        (Quota(per_day=2), {0.0: 2, 86_399.0: 2, 86_400.0: 4}),
        (Quota(per_second=0), {0.0: 0, 5.0: 0}),
        (Quota(), {0.0: 9}),
    ],
)
async def test_a_quota_is_full_to_its_edge_and_no_further(quota: Quota, sent_by: dict[float, int]) -> None:
    clock, log = Clock(), list[str]()
    shares = FairShares(lanes=4, clock=clock)
    shares.quota(UserId("ann"), quota)
    for number in range(9):
        shares.put(errand("ann", noting(log, str(number))))
    stop = asyncio.Event()
    serving = asyncio.create_task(shares.serve(stop))
    for moment, sent in sent_by.items():
        clock.now = moment
        await asyncio.sleep(0.3)
        assert len(log) == sent
    stop.set()
    await serving


async def test_an_exit_goes_first_and_is_held_back_by_no_quota() -> None:
    clock, log = Clock(), list[str]()
    shares = FairShares(lanes=1, clock=clock)
    shares.quota(UserId("ann"), Quota(per_second=1))
    for number in range(3):
        shares.put(errand("ann", noting(log, f"entry {number}")))
    shares.put(errand("ann", noting(log, "exit"), urgent=True))
    stop = asyncio.Event()
    serving = asyncio.create_task(shares.serve(stop))
    await asyncio.sleep(0.2)
    assert log == ["exit"]  # it took the second's room
    assert shares.drop(UserId("ann")) == 3
    stop.set()
    await serving
    assert log == ["exit"]


async def test_what_goes_wrong_with_one_order_stops_its_account_alone() -> None:
    """A lost lease shows in the first answer: nothing more may follow for that account."""
    shares, log = FairShares(lanes=2), list[str]()

    async def breaks() -> None:
        raise ConnectionError("gone")

    shares.put(errand("ann", breaks, "first"))
    shares.put(errand("ann", noting(log, "after the trouble"), "first"))
    shares.put(errand("ann", noting(log, "ann's other account"), "second"))
    shares.put(errand("ben", noting(log, "ben")))
    troubles = await shares.drain()
    assert [str(each) for each in troubles] == ["gone"]
    assert sorted(log) == ["ann's other account", "ben"]
