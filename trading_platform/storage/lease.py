"""Leases of single services: one holder at a time, by PostgreSQL's own clock, with an epoch that fences off the past.

A holder renews well before its lease ends; whoever takes over raises the epoch. A write is made only in a transaction
that has checked the lease, so a holder that was asleep cannot write over its successor. Never an advisory lock: those
break behind transaction pooling.
"""

import os
import secrets
import socket
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import ColumnElement, bindparam, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from trading_platform.storage.control import Lease as LeaseRow
from trading_platform.storage.databases import Databases

TTL = timedelta(seconds=6)
RENEW_EVERY_SECONDS = 2.0

_OURS = (
    LeaseRow.name == bindparam("name"),
    LeaseRow.holder == bindparam("holder"),
    LeaseRow.epoch == bindparam("epoch"),
    LeaseRow.expires_at > func.now(),
)
# Made once: this one is executed for every bar.
_HELD = select(LeaseRow.epoch).where(*_OURS).with_for_update(read=True)


class LeaseLostError(RuntimeError):
    """Another process holds the lease now, or it ran out: whatever was about to be written must not be."""


def process_name() -> str:
    """`host:pid:random`: says who holds a lease, and differs from any other process, also across containers."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


@dataclass
class Lease:
    """The lease `name`, as this process holds it. `epoch` is 0 until it is acquired."""

    databases: Databases
    name: str
    holder: str
    ttl: timedelta = TTL
    epoch: int = 0

    def acquire(self) -> bool:
        """Take the lease if it is free, run out, or already ours; False while somebody else holds it."""
        new = insert(LeaseRow).values(
            name=self.name, holder=self.holder, epoch=1, expires_at=func.now() + self.ttl, renewed_at=func.now()
        )
        taken = new.on_conflict_do_update(
            index_elements=[LeaseRow.name],
            set_={
                "holder": self.holder,
                "epoch": LeaseRow.epoch + 1,
                "expires_at": func.now() + self.ttl,
                "renewed_at": func.now(),
            },
            where=or_(LeaseRow.expires_at <= func.now(), LeaseRow.holder == self.holder),
        ).returning(LeaseRow.epoch)
        with self.databases.control() as session:
            epoch = session.execute(taken).scalar_one_or_none()
        self.epoch = epoch or 0
        return epoch is not None

    def renew(self) -> None:
        """Extend the lease. Raises `LeaseLostError`."""
        with self.databases.control() as session:
            renewed = session.execute(
                update(LeaseRow)
                .where(*self._ours())
                .values(expires_at=func.now() + self.ttl, renewed_at=func.now())
                .returning(LeaseRow.epoch)
            ).scalar_one_or_none()
        if renewed is None:
            raise LeaseLostError(f"lease {self.name!r} is no longer ours (epoch {self.epoch})")

    def check(self, session: Session) -> None:
        """Make the caller's transaction depend on the lease: it holds the row until it ends. Raises `LeaseLostError`."""
        ours = {"name": self.name, "holder": self.holder, "epoch": self.epoch}
        held = session.execute(_HELD, ours).scalar_one_or_none()
        if held is None:
            raise LeaseLostError(f"lease {self.name!r} is no longer ours (epoch {self.epoch})")

    def release(self) -> None:
        """Give the lease up, so that a successor need not wait; the epoch goes on rising."""
        with self.databases.control() as session:
            session.execute(update(LeaseRow).where(*self._ours()).values(expires_at=func.now()))
        self.epoch = 0

    def _ours(self) -> tuple[ColumnElement[bool], ...]:
        return (
            LeaseRow.name == self.name,
            LeaseRow.holder == self.holder,
            LeaseRow.epoch == self.epoch,
            LeaseRow.expires_at > func.now(),
        )
