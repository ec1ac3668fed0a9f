"""Alerts: what a person must know, as rows of `control.alerts`, and the port through which they leave the platform.

    raise_alert(session, severity="critical", source="engine:g1", title="Reconciliation differs", detail="...")
    resolve_alert(session, source="engine:g1", title="Reconciliation differs")

An alert is raised in the caller's transaction. The same alert raised again while it is open counts up; it is told
again only when its severity changed. `deliver` hands new alerts to a notifier, at least once each.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

import structlog
from pydantic import SecretStr
from sqlalchemy import case, func, null, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.dialects.postgresql.dml import Insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningInsert, ReturningUpdate

from trading_platform.identifiers import content_id
from trading_platform.observability import metrics
from trading_platform.storage.control import Alert
from trading_platform.storage.databases import Databases

Severity = Literal["info", "warning", "critical"]
DELIVER_AT_ONCE = 20
WEBHOOK_TIMEOUT_SECONDS = 5.0
log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Notice:
    """An alert as a notifier sees it."""

    alert_id: int
    severity: Severity
    source: str
    title: str
    detail: str
    labels: Mapping[str, Any]
    count: int
    raised_at: datetime
    environment: str


class Notifier(Protocol):
    """The way out: webhook, mail, pager. Raises when the notice was not taken."""

    def notify(self, notice: Notice) -> None: ...


class WebhookNotifier:
    """Posts a notice as JSON; anything but 2xx counts as not taken."""

    def __init__(self, url: SecretStr) -> None:
        self._url = url

    def notify(self, notice: Notice) -> None:
        import httpx

        body = {**notice.__dict__, "raised_at": notice.raised_at.isoformat()}
        httpx.post(self._url.get_secret_value(), json=body, timeout=WEBHOOK_TIMEOUT_SECONDS).raise_for_status()


def fingerprint(source: str, title: str, labels: Mapping[str, Any] | None = None) -> str:
    """What makes two alerts the same: source, title and labels; never the detail, which may hold figures."""
    return content_id("alert", source, title, *(f"{key}={value}" for key, value in sorted((labels or {}).items())))


def raise_alert(
    session: Session,
    *,
    severity: Severity,
    source: str,
    title: str,
    detail: str = "",
    labels: Mapping[str, Any] | None = None,
) -> int:
    """Open an alert in the control database, or count up the open one like it. Returns its alert_id."""
    statement = _raising(severity, source, title, detail, labels)
    return session.execute(statement).scalar_one()


async def raise_alert_async(
    session: AsyncSession,
    *,
    severity: Severity,
    source: str,
    title: str,
    detail: str = "",
    labels: Mapping[str, Any] | None = None,
) -> int:
    """`raise_alert` for asynchronous services."""
    statement = _raising(severity, source, title, detail, labels)
    return (await session.execute(statement)).scalar_one()


def resolve_alert(session: Session, *, source: str, title: str, labels: Mapping[str, Any] | None = None) -> bool:
    """Close the open alert of that fingerprint. False where none was open."""
    return session.execute(_resolving(source, title, labels)).first() is not None


async def resolve_alert_async(
    session: AsyncSession, *, source: str, title: str, labels: Mapping[str, Any] | None = None
) -> bool:
    """`resolve_alert` for asynchronous services."""
    return (await session.execute(_resolving(source, title, labels))).first() is not None


def notifier(databases: Databases) -> Notifier | None:
    """The notifier that the settings ask for; None where alerts stay in the table."""
    url = databases.settings.alert_webhook_url
    return None if url is None else WebhookNotifier(url)


def deliver(databases: Databases, notifier: Notifier) -> int:
    """Hand alerts not told yet to the notifier, oldest first; returns how many were taken.

    Processes that deliver at the same time skip each other's rows. A notifier that fails leaves the alert untold for
    the next call: at least once, never lost.
    """
    taken = 0
    with databases.control() as session:
        untold = session.scalars(
            select(Alert)
            .where(Alert.notified_at.is_(None))
            .order_by(Alert.alert_id)
            .limit(DELIVER_AT_ONCE)
            .with_for_update(skip_locked=True)
        )
        for alert in untold.all():
            try:
                notifier.notify(_notice(alert, databases.settings.environment))
            except Exception as error:
                log.warning("alert_not_delivered", alert_id=alert.alert_id, error=f"{type(error).__name__}")
                break
            session.execute(update(Alert).where(Alert.alert_id == alert.alert_id).values(notified_at=func.now()))
            taken += 1
    return taken


def _notice(alert: Alert, environment: str) -> Notice:
    severity: Any = alert.severity
    return Notice(
        alert.alert_id, severity, alert.source, alert.title, alert.detail, alert.labels, alert.count, alert.raised_at,
        environment,
    )  # fmt: skip


def _raising(
    severity: Severity, source: str, title: str, detail: str, labels: Mapping[str, Any] | None
) -> ReturningInsert[int]:
    metrics.ALERTS.labels(source=source.partition(":")[0], severity=severity).inc()
    log.warning("alert_raised", severity=severity, source=source, title=title, detail=detail, labels=dict(labels or {}))
    new: Insert = insert(Alert).values(
        fingerprint=fingerprint(source, title, labels),
        severity=severity,
        source=source,
        title=title,
        detail=detail,
        labels=dict(labels or {}),
    )
    return new.on_conflict_do_update(
        index_elements=[Alert.fingerprint],
        index_where=Alert.resolved_at.is_(None),
        set_={
            "count": Alert.count + 1,
            "last_seen_at": func.now(),
            "severity": new.excluded.severity,
            "detail": new.excluded.detail,
            "notified_at": case((Alert.severity == new.excluded.severity, Alert.notified_at), else_=null()),
        },
    ).returning(Alert.alert_id)


def _resolving(source: str, title: str, labels: Mapping[str, Any] | None) -> ReturningUpdate[int]:
    return (
        update(Alert)
        .where(Alert.fingerprint == fingerprint(source, title, labels), Alert.resolved_at.is_(None))
        .values(resolved_at=func.now())
        .returning(Alert.alert_id)
    )
