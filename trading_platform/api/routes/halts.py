"""The kill switch: latches that stop new entries for a user, an account, a group or the whole platform.

Setting one is easy and needs no confirmation; it takes effect at the engines' next look, well within a second.
Clearing one needs the typed words, and is up to whoever set it, or to compliance and admins. Latches live in the
control database and the audit rows in the groups', which no transaction spans; so a latch is committed before its
audit row when it is set, and after it when it is cleared: a failure in between leaves trading stopped, not running.
"""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from sqlalchemy import true
from sqlalchemy.dialects.postgresql import insert

from trading_platform.accounts.sessions import SessionUser
from trading_platform.api import queries
from trading_platform.api.identity import Reader, Services, ServicesOf, Writer, resolve_subject
from trading_platform.api.problems import ERRORS, ProblemError
from trading_platform.api.schemas import HaltIn, HaltOut
from trading_platform.compliance.audit import record
from trading_platform.identifiers import GroupId, UserId
from trading_platform.observability.traces import current_trace_id
from trading_platform.storage.control import Halt

WIDE_SCOPES = ("group", "platform")
MAY_HALT_WIDELY = ("engineer", "compliance", "admin")
EVERYTHING = "*"
router = APIRouter(
    prefix="/api/halts",
    tags=["kill switch"],
    responses={status: ERRORS[status] for status in (401, 403, 404, 422, 429, 503)},
)


@router.get("", summary="Halts")
async def halts(
    user: Reader,
    services: ServicesOf,
    active: Annotated[bool, Query(description="Only those that still hold.")] = True,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> list[HaltOut]:
    """Those that touch you; all of them for compliance, engineers and admins."""
    visible = true() if user.role in MAY_HALT_WIDELY else await _touching(services, user)
    async with services.databases.control_async() as session:
        rows = await session.scalars(queries.halts(limit, visible, active=active))
        return [HaltOut.model_validate(row) for row in rows]


@router.post(
    "", status_code=201, summary="Stop trading", responses={200: {"model": HaltOut, "description": "Held already."}}
)
async def halt(body: HaltIn, user: Writer, services: ServicesOf, response: Response) -> HaltOut:
    """New entries stop at once in the scope; exits go on, so that positions can still be closed."""
    scope_id, owner, groups = await _scope(services, user, body)
    async with services.databases.control_async() as session:
        new = insert(Halt).values(scope=body.scope, scope_id=scope_id, reason=body.reason, set_by=user.user_id)
        row = await session.scalar(new.on_conflict_do_nothing().returning(Halt))
        if row is None:
            response.status_code = 200
            row = await session.scalar(queries.active_halt(body.scope, scope_id))
        if row is None:
            raise ProblemError(
                409, "Cleared at the same moment", "somebody cleared this halt while it was being set",
                remedy="Send it again.",
            )  # fmt: skip
        held = HaltOut.model_validate(row)
    if response.status_code != 200:
        await _audit(services, user, "HALT", held, owner=owner, groups=groups, reason=body.reason)
    return held


@router.delete("/{halt_id}", summary="Let trading go on")
async def clear(
    halt_id: int,
    user: Writer,
    services: ServicesOf,
    reason: Annotated[str, Query(min_length=3, max_length=500, examples=["Checked: prices were right"])],
    confirmation: Annotated[str, Query(max_length=200, description="The words `clear <scope> <scope id>`.")],
) -> HaltOut:
    """Only this latch opens; any other that holds the same account keeps it stopped."""
    visible = true() if user.role in MAY_HALT_WIDELY else await _touching(services, user)
    async with services.databases.control_async() as session:
        row = await session.scalar(queries.halt(halt_id).where(visible))
        if row is None:
            raise ProblemError(
                404, "No such halt", f"there is no halt {halt_id} that touches you", remedy="GET /api/halts"
            )
        _require_may_clear(user, row)
        words = f"clear {row.scope} {row.scope_id}"
        if confirmation != words:
            raise ProblemError(
                422, "Confirmation does not match", f"the confirmation was {confirmation!r}",
                expected=repr(words), remedy="Type the words exactly and send them again.",
            )  # fmt: skip
        row.cleared_by, row.cleared_at, row.clear_reason = user.user_id, datetime.now(UTC), reason
        cleared = HaltOut.model_validate(row)
        owner, groups = await _where(services, user, row)
        await _audit(services, user, "CLEAR", cleared, owner=owner, groups=groups, reason=reason)
    return cleared


def _require_may_clear(user: SessionUser, row: Halt) -> None:
    if row.cleared_at is not None:
        raise ProblemError(422, "Cleared already", f"{row.cleared_by} cleared it at {row.cleared_at.isoformat()}")
    if row.set_by != user.user_id and not user.is_staff:
        raise ProblemError(
            403, "Not yours to clear", f"{row.set_by} set this halt",
            expected="whoever set it, compliance or an admin", remedy=f"Ask {row.set_by}, compliance or an admin.",
        )  # fmt: skip


async def _scope(services: Services, user: SessionUser, body: HaltIn) -> tuple[str, str, list[GroupId]]:
    """(scope id, user named in the audit, groups touched) of a halt that this user may set."""
    if body.scope in WIDE_SCOPES:
        if user.role not in MAY_HALT_WIDELY:
            raise ProblemError(
                403, "Not yours to stop", f"role {user.role} may stop its own trading only",
                expected="scope user or account", remedy="Ask an engineer, compliance or an admin.",
            )  # fmt: skip
        every = await _all_groups(services)
        if body.scope == "platform":
            return EVERYTHING, EVERYTHING, every
        if body.scope_id not in every:
            raise ProblemError(404, "No such group", f"there is no group {body.scope_id!r}", expected=", ".join(every))
        return body.scope_id, EVERYTHING, [GroupId(body.scope_id)]
    if body.scope == "user":
        whose = await resolve_subject(services, user, body.scope_id)
        return whose.user_id, whose.user_id, [whose.group_id]
    whose = await resolve_subject(services, user, body.user_id)
    async with services.databases.group_async(whose.group_id) as session:
        if await session.scalar(queries.account(whose.user_id, body.scope_id or "")) is None:
            raise ProblemError(
                404, "No such account", f"{whose.user_id} has no account {body.scope_id!r}", remedy="GET /api/accounts"
            )
    return body.scope_id or "", whose.user_id, [whose.group_id]


async def _where(services: Services, user: SessionUser, row: Halt) -> tuple[str, list[GroupId]]:
    """(user named in the audit, groups touched) of a halt that exists."""
    if row.scope == "platform":
        return EVERYTHING, await _all_groups(services)
    if row.scope == "group":
        return EVERYTHING, [GroupId(row.scope_id)]
    if row.scope == "user":
        async with services.databases.control_async() as session:
            group_id = await session.scalar(queries.group_of_user(UserId(row.scope_id)))
        return row.scope_id, [GroupId(group_id)] if group_id else []
    for group_id in await _all_groups(services):
        async with services.databases.group_async(group_id) as session:
            if owner := await session.scalar(queries.account_owner(row.scope_id)):
                return owner, [group_id]
    return user.user_id, [user.group_id]


async def _touching(services: Services, user: SessionUser) -> Any:
    async with services.databases.group_async(user.group_id) as session:
        accounts = (await session.scalars(queries.accounts(user.user_id))).all()
    return queries.halts_of(user.user_id, user.group_id, [account.account_id for account in accounts])


async def _all_groups(services: Services) -> list[GroupId]:
    async with services.databases.control_async() as session:
        return [GroupId(group_id) for group_id in await session.scalars(queries.group_ids())]


async def _audit(
    services: Services,
    user: SessionUser,
    event_type: str,
    held: HaltOut,
    *,
    owner: str,
    groups: list[GroupId],
    reason: str,
) -> None:
    for group_id in groups:
        async with services.databases.group_async(group_id) as session:
            record(
                session, user_id=owner, actor=f"{user.role}:{user.user_id}", event_type=event_type,
                account_id=held.scope_id if held.scope == "account" else None,
                detail={"halt_id": held.halt_id, "scope": held.scope, "scope_id": held.scope_id, "reason": reason},
                trace_id=current_trace_id(),
            )  # fmt: skip
