"""Fair shares: turns, an account's order, exits first, and a flood that delays nobody but its owner."""

import asyncio
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from trading_platform.execution.shares import Errand, FairShares, Send
from trading_platform.identifiers import AccountId, UserId


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
    assert await shares.drained() == []
    assert log[:8] == ["flood 0", "flood 1", "ann 0", "ben 0", "flood 2", "ann 1", "ben 1", "flood 3"]
    assert Counter(each.split()[0] for each in log) == {"flood": 1_000, "ann": 3, "ben": 3}


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("12")), max_size=60), st.integers(1, 5))
def test_each_accounts_errands_keep_their_order_and_none_is_lost(queue: list[tuple[str, str]], lanes: int) -> None:
    async def run() -> list[str]:
        shares, log = FairShares(lanes), list[str]()
        for number, (user, account) in enumerate(queue):
            shares.put(errand(user, noting(log, f"{user}{account} {number:03}"), f"{user}{account}"))
        await shares.drained()
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
    await shares.drained()
    assert (most, twice) == (3, False)


async def test_an_exit_goes_before_what_its_user_has_waiting() -> None:
    shares, log = FairShares(lanes=1), list[str]()
    for number in range(3):
        shares.put(errand("ann", noting(log, f"entry {number}")))
    shares.put(errand("ben", noting(log, "ben")))
    shares.put(errand("ann", noting(log, "exit"), urgent=True))
    await shares.drained()
    assert log == ["entry 0", "exit", "ben", "entry 1", "entry 2"], "the first was on the wire already"


async def test_what_comes_later_goes_as_well() -> None:
    """Also what comes in the very moment in which the last flight ends."""
    shares, log = FairShares(lanes=1), list[str]()

    async def last() -> None:
        log.append("last")
        asyncio.get_running_loop().call_soon(lambda: shares.put(errand("ben", noting(log, "meanwhile"))))

    shares.put(errand("ann", last))
    await asyncio.sleep(0)
    assert await shares.drained() == []
    shares.put(errand("ann", noting(log, "afterwards")))
    await shares.drained()
    assert log == ["last", "meanwhile", "afterwards"]


async def test_what_goes_wrong_with_one_order_stops_its_account_alone() -> None:
    """A lost lease shows in the first answer: nothing more may follow for that account."""
    shares, log = FairShares(lanes=2), list[str]()

    async def breaks() -> None:
        raise ConnectionError("gone")

    shares.put(errand("ann", breaks, "first"))
    shares.put(errand("ann", noting(log, "after the trouble"), "first"))
    shares.put(errand("ann", noting(log, "ann's other account"), "second"))
    shares.put(errand("ben", noting(log, "ben")))
    troubles = await shares.drained()
    assert [str(each) for each in troubles] == ["gone"]
    assert sorted(log) == ["ann's other account", "ben"]
