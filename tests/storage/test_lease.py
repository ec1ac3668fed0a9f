"""Leases: one holder at a time, takeovers only after the end, and a fence around the past."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from trading_platform.storage.control import Lease as LeaseRow
from trading_platform.storage.databases import Databases
from trading_platform.storage.lease import Lease, LeaseLostError, process_name


def expire(platform: Databases) -> None:
    with platform.control() as session:
        session.execute(update(LeaseRow).values(expires_at=func.now()))


def test_only_one_holds_it_and_a_takeover_raises_the_epoch(platform: Databases) -> None:
    one, two = Lease(platform, "x", "one"), Lease(platform, "x", "two")
    assert one.acquire()
    assert not two.acquire()
    one.renew()
    expire(platform)
    assert two.acquire()
    assert (one.epoch, two.epoch) == (1, 2)
    with pytest.raises(LeaseLostError):
        one.renew()
    with platform.control() as session, pytest.raises(LeaseLostError):
        one.check(session)
    with platform.control() as session:
        two.check(session)


def test_releasing_lets_the_next_in_at_once_but_not_another_s_lease_go(platform: Databases) -> None:
    one, two = Lease(platform, "x", "one"), Lease(platform, "x", "two")
    assert one.acquire()
    one.release()
    assert two.acquire()
    one.release()
    two.renew()
    assert not one.acquire()


def test_its_time_runs_by_the_server_s_clock(platform: Databases) -> None:
    lease = Lease(platform, "x", "one", timedelta(minutes=5))
    assert lease.acquire()
    with platform.control() as session:
        left = session.scalar(select(LeaseRow.expires_at - func.now()))
    assert timedelta(minutes=4) < left <= timedelta(minutes=5)


def test_nobody_takes_over_while_a_checked_transaction_is_open(platform: Databases) -> None:
    """The fence: once checked, the row is held until the commit, even when the lease runs out meanwhile."""
    one, two = Lease(platform, "x", "one", timedelta(milliseconds=300)), Lease(platform, "x", "two")
    assert one.acquire()
    with platform.control() as session:
        one.check(session)
        session.execute(text("select pg_sleep(0.4)"))
        with pytest.raises(OperationalError, match="lock timeout"), platform.control() as other:
            _overwrite(other)
    assert two.acquire()


def _overwrite(session: Session) -> None:
    session.execute(text("set local lock_timeout = '200ms'"))
    session.execute(update(LeaseRow).where(LeaseRow.name == "x").values(holder="two"))


def test_a_race_for_a_free_lease_has_one_winner(platform: Databases) -> None:
    leases = [Lease(platform, "race", f"holder{number}") for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(Lease.acquire, leases))
    assert sum(won) == 1
    assert [lease.epoch for lease in leases if lease.epoch] == [1]


def test_names_of_processes_differ() -> None:
    assert process_name() != process_name()
