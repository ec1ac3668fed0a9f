"""The engine's lease: one row a group, an epoch that rises with every takeover, PostgreSQL's own clock.

Every transaction of an engine starts with `check`, which holds the row until commit: a holder that was asleep finds its
epoch gone and writes nothing. One that falls asleep inside a transaction has it ended by the server after a lease's time
(`Databases(asleep_after=TTL)`), or it would keep its successor waiting for as long as it sleeps.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from trading_platform.identifiers import GroupId
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import EngineLease
from trading_platform.storage.lease import LeaseLostError

TTL = timedelta(seconds=10)
RENEW_EVERY_SECONDS = 2.0


@dataclass
class GroupLease:
    """What this process holds of a group's lease, and what it shows there."""

    databases: Databases
    group_id: GroupId
    holder: str
    epoch: int = 0
    state: str = "STARTING"
    detail: dict[str, Any] = field(default_factory=dict)

    async def acquire(self) -> bool:
        """Take the lease if it is free or run out; False while another engine holds it.

        Locked with its key, the row is had only when every transaction that checked it is over.
        """
        mine = {"holder": self.holder, "expires_at": func.now() + TTL, "renewed_at": func.now(), "state": self.state}
        to_be_had = or_(EngineLease.expires_at <= func.now(), EngineLease.holder == self.holder)
        of_group = EngineLease.group_id == self.group_id
        async with self.databases.group_async(self.group_id) as session:
            locked = await session.execute(select(EngineLease.epoch).where(of_group, to_be_had).with_for_update())
            before = locked.scalar_one_or_none()
            if before is not None:
                taken = await session.execute(
                    update(EngineLease).where(of_group).values(epoch=before + 1, **mine).returning(EngineLease.epoch)
                )
            else:  # another's, or the group's first
                first = insert(EngineLease).values(group_id=self.group_id, epoch=1, **mine)
                taken = await session.execute(first.on_conflict_do_nothing().returning(EngineLease.epoch))
            epoch = taken.scalar_one_or_none()
        self.epoch = epoch or 0
        return epoch is not None

    async def is_left(self) -> bool:
        """Whether an engine has held the lease, and holds it no more (or that engine is this one)."""
        left = or_(EngineLease.expires_at <= func.now(), EngineLease.holder == self.holder)
        async with self.databases.group_async(self.group_id) as session:
            found = await session.execute(select(EngineLease.epoch).where(EngineLease.group_id == self.group_id, left))
            return found.scalar_one_or_none() is not None

    async def renew(self) -> None:
        """Extend the lease and show state and detail. Raises `LeaseLostError`.

        In a thread, over a connection of its own: however many orders are on their way, it waits behind none of them.
        """
        await asyncio.to_thread(self._renew, self.state, dict(self.detail))

    def _renew(self, state: str, detail: dict[str, Any]) -> None:
        renewal = (
            update(EngineLease)
            .where(*self._ours())
            .values(expires_at=func.now() + TTL, renewed_at=func.now(), state=state, detail=detail)
            .returning(EngineLease.epoch)
        )
        with self.databases.group(self.group_id) as session:
            if session.execute(renewal).scalar_one_or_none() is None:
                raise self.lost()

    async def show(self, state: str, **detail: Any) -> None:
        """Change what the engine shows, at once."""
        self.state = state
        self.detail |= detail
        await self.renew()

    async def check(self, session: AsyncSession) -> None:
        """Make the caller's transaction depend on the lease. Raises `LeaseLostError`.

        It shares the row's key until it ends: a renewal may pass it, a successor may not.
        """
        held = select(EngineLease.epoch).where(*self._ours()).with_for_update(read=True, key_share=True)
        if (await session.execute(held)).scalar_one_or_none() is None:
            raise self.lost()

    def lost(self) -> LeaseLostError:
        return LeaseLostError(f"the engine lease of group {self.group_id!r} is no longer ours (epoch {self.epoch})")

    async def release(self) -> None:
        """Give the lease up, so that a successor need not wait for it to run out."""
        giving = update(EngineLease).where(*self._ours()).values(expires_at=func.now(), state="STOPPED")
        async with self.databases.group_async(self.group_id) as session:
            await session.execute(giving)

    def shown(self) -> Mapping[str, Any]:
        return {"group": self.group_id, "state": self.state, "epoch": self.epoch, **self.detail}

    def _ours(self) -> tuple[ColumnElement[bool], ...]:
        return (
            EngineLease.group_id == self.group_id,
            EngineLease.holder == self.holder,
            EngineLease.epoch == self.epoch,
            EngineLease.expires_at > func.now(),
        )
