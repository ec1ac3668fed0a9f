"""Health: for the load balancer (no log-in), for people (who is alive, who may act) and for Prometheus."""

import asyncio
import ipaddress
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy import text

from trading_platform.accounts.sessions import SessionUser
from trading_platform.api import queries
from trading_platform.api.identity import Reader, Services, ServicesOf, Writer
from trading_platform.api.problems import ERRORS, ProblemError
from trading_platform.api.schemas import AlertOut, LeaseOut, Live, Page, Ready, ServiceOut, ServicesHealth
from trading_platform.identifiers import GroupId
from trading_platform.observability.heartbeat import STALE_AFTER_SECONDS
from trading_platform.storage.control import Alert

READY_WITHIN_SECONDS = 2.0
SEES_EVERYTHING = ("engineer", "compliance", "admin")
router = APIRouter(tags=["health"], responses={status: ERRORS[status] for status in (422, 503)})


@router.get("/api/health/live", summary="Is this instance running")
async def live() -> Live:
    """Always 200 while the process answers: an instance is not restarted because a server behind it is away."""
    return Live()


@router.get("/api/health/ready", summary="Can this instance do its work", responses={503: {"model": Ready}})
async def ready(services: ServicesOf, response: Response) -> Ready:
    postgres, valkey = await asyncio.gather(_postgres(services), _valkey(services))
    well = postgres == valkey == "ok"
    response.status_code = 200 if well else 503
    return Ready(status="ready" if well else "not ready", postgres=postgres, valkey=valkey)


@router.get("/api/health/services", summary="Heartbeats and leases", responses={401: ERRORS[401]})
async def services_health(user: Reader, services: ServicesOf) -> ServicesHealth:
    """Ages are by PostgreSQL's clock. Traders see their own group's engine, and of it nothing about others' accounts."""
    async with services.databases.control_async() as session:
        beats = (await session.execute(queries.services())).all()
        single = (await session.execute(queries.leases())).all()
        groups = await session.scalars(queries.group_ids()) if user.role in SEES_EVERYTHING else [user.group_id]
        wanted = [GroupId(group_id) for group_id in groups]
    own = None if user.role in SEES_EVERYTHING else await _own(services, user)
    leases = [
        LeaseOut(name=lease.name, holder=lease.holder, epoch=lease.epoch, age_seconds=float(age), valid=valid)
        for lease, age, valid in single
    ]
    for group_id in wanted:
        async with services.databases.group_async(group_id) as session:
            for lease, age, valid in await session.execute(queries.engine_lease(group_id)):
                leases.append(
                    LeaseOut(
                        name=f"engine:{group_id}", holder=lease.holder, epoch=lease.epoch, age_seconds=float(age),
                        valid=valid, state=lease.state, detail=_without_others(lease.detail, own),
                    )
                )  # fmt: skip
    return ServicesHealth(
        services=[
            ServiceOut(
                service=beat.service, state=beat.state, detail=_without_others(beat.detail, own),
                started_at=beat.started_at, beat_age_seconds=float(age), stale=float(age) > STALE_AFTER_SECONDS,
            )
            for beat, age in beats
        ],
        leases=leases,
    )  # fmt: skip


async def _own(services: Services, user: SessionUser) -> frozenset[str]:
    """Names by which an engine speaks of a user: his id and his accounts."""
    async with services.databases.group_async(user.group_id) as session:
        accounts = await session.scalars(queries.accounts(user.user_id))
        return frozenset({user.user_id, *(account.account_id for account in accounts)})


def _without_others(detail: dict[str, Any], own: frozenset[str] | None) -> dict[str, Any]:
    """What an engine shows, without the lines about accounts and users that are not the reader's; None: sees all."""
    if own is None:
        return detail
    shown = dict(detail)
    if compared := shown.get("reconciliation"):
        lines = [line for line in compared["differences"] if line.partition(":")[0] in own]
        shown["reconciliation"] = compared | {"differences": lines}
    if halts := shown.get("halts"):
        shown["halts"] = [
            halt for halt in halts if halt.partition(":")[0] not in ("user", "account") or halt.partition(":")[2] in own
        ]
    return shown


@router.get("/api/alerts", summary="Alerts", responses={401: ERRORS[401]})
async def alerts(
    user: Reader,
    services: ServicesOf,
    open_only: Annotated[bool, Query(alias="open", description="Only those not resolved.")] = True,
    after: Annotated[int | None, Query(ge=0, description="`next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> Page[AlertOut]:
    """Traders see those about themselves; the others see all."""
    about = None if user.role in SEES_EVERYTHING else user.user_id
    async with services.databases.control_async() as session:
        statement = queries.alerts(limit, after, is_open=open_only, about_user=about)
        rows = (await session.scalars(statement)).all()
    following = str(rows[-1].alert_id) if len(rows) == limit else None
    return Page(items=[AlertOut.model_validate(row) for row in rows], next=following)


@router.post(
    "/api/alerts/{alert_id}/acknowledge",
    summary="I am looking after this alert",
    responses={status: ERRORS[status] for status in (401, 404)},
)
async def acknowledge(alert_id: int, user: Writer, services: ServicesOf) -> AlertOut:
    """It stays open until what it is about has passed. The first to acknowledge is the one named."""
    async with services.databases.control_async() as session:
        row = await session.get(Alert, alert_id, with_for_update=True)
        if row is None or not _may_see(user, row):
            raise ProblemError(404, "No such alert", f"there is no alert {alert_id} for you", remedy="GET /api/alerts")
        row.acknowledged_by = row.acknowledged_by or user.user_id
        await session.flush()
        return AlertOut.model_validate(row)


@router.get("/metrics", include_in_schema=False)
async def metrics(request: Request) -> Response:
    """For a Prometheus on this machine; the load balancer's requests are refused, whoever sends them."""
    peer = request.client.host if request.client else ""
    if "x-forwarded-for" in request.headers or not _is_loopback(peer):
        raise ProblemError(404, "Not Found", "metrics are served to this machine only")
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def _may_see(user: SessionUser, row: Alert) -> bool:
    return user.role in SEES_EVERYTHING or row.labels.get("user_id") == user.user_id


def _is_loopback(peer: str) -> bool:
    try:
        return ipaddress.ip_address(peer).is_loopback
    except ValueError:
        return False


async def _postgres(services: Services) -> str:
    try:
        async with asyncio.timeout(READY_WITHIN_SECONDS):
            async with services.databases.control_async() as session:
                await session.execute(text("select 1"))
    except Exception as error:
        return type(error).__name__
    return "ok"


async def _valkey(services: Services) -> str:
    try:
        async with asyncio.timeout(READY_WITHIN_SECONDS):
            await services.sessions.ping()
    except Exception as error:
        return type(error).__name__
    return "ok"
