"""A group's lease under load and at its end: renewals pass orders that are being booked, successors wait for them."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import func, update

from trading_platform.accounts.users import NewUser, create_user
from trading_platform.execution.lease import GroupLease
from trading_platform.identifiers import GroupId, UserId
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import EngineLease
from trading_platform.storage.lease import LeaseLostError

GROUP = GroupId("g1")


@pytest.fixture
def group(platform: Databases) -> Databases:
    person = NewUser("a@example.com", "A", "trader", GROUP, "correct horse battery", user_id=UserId("alice"))
    create_user(platform, person, actor="t")
    return platform


async def run_out(databases: Databases) -> None:
    """As if the holder had not renewed for long."""
    async with databases.group_async(GROUP) as session:
        await session.execute(update(EngineLease).values(expires_at=func.now() - timedelta(seconds=1)))


async def test_a_renewal_waits_for_no_transaction_that_is_under_the_lease(group: Databases) -> None:
    lease = GroupLease(group, GROUP, "one")
    assert await lease.acquire()
    async with group.group_async(GROUP) as session:
        await lease.check(session)
        await asyncio.wait_for(lease.renew(), 5)
        async with group.group_async(GROUP) as other:
            await lease.check(other)
    await group.aclose()


async def test_a_successor_waits_for_every_transaction_that_is_under_the_lease(group: Databases) -> None:
    one, two = GroupLease(group, GROUP, "one"), GroupLease(group, GROUP, "two")
    assert await one.acquire()
    assert not await two.acquire(), "it is held"
    async with group.group_async(GROUP) as session:
        await one.check(session)
        await run_out(group)
        taking = asyncio.create_task(two.acquire())
        await asyncio.sleep(0.5)
        assert not taking.done(), "what was begun under the lease may still be written"
    assert await asyncio.wait_for(taking, 5)
    assert (one.epoch, two.epoch) == (1, 2)
    async with group.group_async(GROUP) as session:
        with pytest.raises(LeaseLostError, match="epoch 1"):
            await one.check(session)
    with pytest.raises(LeaseLostError):
        await one.renew()
    assert not await one.acquire()
    await two.release()
    assert await one.acquire()
    assert one.epoch == 3
    await group.aclose()


async def test_of_many_who_want_a_free_lease_one_has_it(group: Databases) -> None:
    leases = [GroupLease(group, GROUP, f"engine-{number}") for number in range(8)]
    for epoch in (1, 2):
        taken = await asyncio.gather(*(lease.acquire() for lease in leases))
        assert sum(taken) == 1
        assert leases[taken.index(True)].epoch == epoch
        await run_out(group)
        leases.pop(taken.index(True))
    await group.aclose()
