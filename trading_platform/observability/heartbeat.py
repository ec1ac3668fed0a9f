"""Heartbeats: every supervised service says every few seconds that it lives and in what state.

`health/services` and the dashboard's system page read them; a beat older than `STALE_AFTER_SECONDS` means trouble.
An engine's or scorer's right to act is its lease, never its heartbeat.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import func
from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from trading_platform.storage.control import ServiceStatus

BEAT_EVERY_SECONDS = 5.0
STALE_AFTER_SECONDS = 20.0
PROCESS_STARTED_AT = datetime.now(UTC)


def beat(session: Session, service: str, state: str, detail: Mapping[str, Any] | None = None) -> None:
    """Record in the control database that `service` is alive; `detail` is shown as it is (JSON, no secrets)."""
    session.execute(beat_statement(service, state, detail))


async def beat_async(session: AsyncSession, service: str, state: str, detail: Mapping[str, Any] | None = None) -> None:
    """`beat` for asynchronous services."""
    await session.execute(beat_statement(service, state, detail))


def beat_statement(service: str, state: str, detail: Mapping[str, Any] | None = None) -> Insert:
    """The upsert behind both. `started_at` is this process's start, so a restart shows."""
    new = insert(ServiceStatus).values(
        service=service, state=state, detail=dict(detail or {}), started_at=PROCESS_STARTED_AT, beat_at=func.now()
    )
    return new.on_conflict_do_update(
        index_elements=[ServiceStatus.service],
        set_={
            "state": new.excluded.state,
            "detail": new.excluded.detail,
            "started_at": new.excluded.started_at,
            "beat_at": new.excluded.beat_at,
        },
    )
