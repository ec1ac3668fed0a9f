"""The kill switch over HTTP: who may stop what, and who may let it go on. What a latch does is in
`execution/kill_switch.py`.

Setting one is easy and needs no confirmation. Clearing one needs the typed words, and is up to whoever set it, or to
compliance and admins.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from sqlalchemy import true

from trading_platform.accounts.sessions import SessionUser
from trading_platform.api import queries
from trading_platform.api.identity import Reader, Services, ServicesOf, Writer, resolve_subject
from trading_platform.api.problems import ERRORS, ProblemError
from trading_platform.api.schemas import HaltIn, HaltOut
from trading_platform.execution.kill_switch import (
    EVERYTHING,
    KillSwitchError,
    Target,
    clear_halt,
    set_halt,
    target_of,
    words_to_clear,
)
from trading_platform.storage.control import Halt

WIDE_SCOPES = ("group", "platform")
MAY_HALT_WIDELY = ("engineer", "compliance", "admin")
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
    """New entries stop at once in the scope, those that work are cancelled, and with `flatten` every position is left.
    Exits always go on. A halt that holds already becomes stronger, never weaker."""
    target = await _target(services, user, body)
    try:
        row, is_new = await set_halt(
            services.databases, target, body.reason, _actor(user), body.action, set_by=user.user_id
        )
    except KillSwitchError as error:
        raise ProblemError(409, "Cleared at the same moment", str(error), remedy="Send it again.") from None
    if not is_new:
        response.status_code = 200
    return HaltOut.model_validate(row)


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
        raise ProblemError(404, "No such halt", f"there is no halt {halt_id} that touches you", remedy="GET /api/halts")
    _require_may_clear(user, row)
    words = words_to_clear(row)
    if confirmation != words:
        raise ProblemError(
            422, "Confirmation does not match", f"the confirmation was {confirmation!r}",
            expected=repr(words), remedy="Type the words exactly and send them again.",
        )  # fmt: skip
    try:
        cleared = await clear_halt(
            services.databases, halt_id, typed=confirmation, reason=reason, actor=_actor(user), cleared_by=user.user_id
        )
    except KillSwitchError as error:
        raise ProblemError(422, "Cleared already", str(error)) from None
    return HaltOut.model_validate(cleared)


def _require_may_clear(user: SessionUser, row: Halt) -> None:
    if row.cleared_at is not None:
        raise ProblemError(422, "Cleared already", f"{row.cleared_by} cleared it at {row.cleared_at.isoformat()}")
    if row.set_by != user.user_id and not user.is_staff:
        raise ProblemError(
            403, "Not yours to clear", f"{row.set_by} set this halt",
            expected="whoever set it, compliance or an admin", remedy=f"Ask {row.set_by}, compliance or an admin.",
        )  # fmt: skip


async def _target(services: Services, user: SessionUser, body: HaltIn) -> Target:
    """What this user may stop, and asks to."""
    if body.scope in WIDE_SCOPES:
        if user.role not in MAY_HALT_WIDELY:
            raise ProblemError(
                403, "Not yours to stop", f"role {user.role} may stop its own trading only",
                expected="scope user or account", remedy="Ask an engineer, compliance or an admin.",
            )  # fmt: skip
        try:
            return await target_of(services.databases, body.scope, body.scope_id or EVERYTHING)
        except KillSwitchError as error:
            raise ProblemError(404, "No such group", str(error)) from None
    if body.scope == "user":
        whose = await resolve_subject(services, user, body.scope_id)
        return Target("user", whose.user_id, whose.user_id, (whose.group_id,))
    whose = await resolve_subject(services, user, body.user_id)
    account_id = body.scope_id or ""
    async with services.databases.group_async(whose.group_id) as session:
        if await session.scalar(queries.account(whose.user_id, account_id)) is None:
            raise ProblemError(
                404, "No such account", f"{whose.user_id} has no account {account_id!r}", remedy="GET /api/accounts"
            )
    return Target("account", account_id, whose.user_id, (whose.group_id,))


def _actor(user: SessionUser) -> str:
    return f"{user.role}:{user.user_id}"


async def _touching(services: Services, user: SessionUser) -> Any:
    async with services.databases.group_async(user.group_id) as session:
        accounts = (await session.scalars(queries.accounts(user.user_id))).all()
    return queries.halts_of(user.user_id, user.group_id, [account.account_id for account in accounts])
