"""Leases of single services: the collector and the scorer of a dataset. One holder at a time, by PostgreSQL's clock.

A takeover raises the epoch. What a holder writes under its lease is written in a transaction that first calls `require`
with its epoch, so that a process that slept through its expiry can change nothing any more.
"""

from dataclasses import dataclass

from sqlalchemy import func, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from trading_platform.storage.control import Lease

TTL_SECONDS = 10.0
RENEW_EVERY_SECONDS = 3.0


class LeaseLostError(RuntimeError):
    """Somebody else holds the lease, or ours has expired: stop writing at once."""


@dataclass(frozen=True)
class ServiceLease:
    """`name` as in `collector:<dataset>`; `holder` names this process among all (host, process id, start)."""

    name: str
    holder: str
    ttl_seconds: float = TTL_SECONDS

    async def acquire(self, session: AsyncSession) -> int | None:
        """The epoch under which the lease is now ours, or None while another holder's is unexpired."""
        new = insert(Lease).values(
            name=self.name, holder=self.holder, epoch=1, expires_at=self._expiry(), renewed_at=func.now()
        )
        taken = new.on_conflict_do_update(
            index_elements=[Lease.name],
            set_={
                "holder": new.excluded.holder,
                "epoch": Lease.epoch + 1,
                "expires_at": new.excluded.expires_at,
                "renewed_at": func.now(),
            },
            where=(Lease.expires_at <= func.now()) | (Lease.holder == self.holder),
        ).returning(Lease.epoch)
        return (await session.execute(taken)).scalar_one_or_none()

    async def renew(self, session: AsyncSession, epoch: int) -> None:
        """Push the expiry on. Raises `LeaseLostError`."""
        renewed = (
            update(Lease)
            .where(Lease.name == self.name, Lease.epoch == epoch, Lease.expires_at > func.now())
            .values(expires_at=self._expiry(), renewed_at=func.now())
            .returning(Lease.epoch)
        )
        if (await session.execute(renewed)).scalar_one_or_none() is None:
            raise LeaseLostError(f"lease {self.name!r} is no longer ours at epoch {epoch}")

    async def require(self, session: AsyncSession, epoch: int) -> None:
        """Lock the lease row for this transaction while it is still ours. Raises `LeaseLostError`."""
        held = text(
            "select 1 from control.leases where name = :name and epoch = :epoch and expires_at > now() for share"
        )
        if (await session.execute(held, {"name": self.name, "epoch": epoch})).scalar_one_or_none() is None:
            raise LeaseLostError(f"lease {self.name!r} is no longer ours at epoch {epoch}")

    async def release(self, session: AsyncSession, epoch: int) -> None:
        """Let the next holder in at once."""
        await session.execute(
            update(Lease).where(Lease.name == self.name, Lease.epoch == epoch).values(expires_at=func.now())
        )

    def _expiry(self) -> object:
        return func.now() + func.make_interval(0, 0, 0, 0, 0, 0, self.ttl_seconds)
