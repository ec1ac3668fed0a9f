"""Circuit breakers over HTTP: what is open and why, and the request that arms one again."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from trading_platform.api import queries
from trading_platform.api.identity import Reader, ServicesOf, Writer
from trading_platform.api.problems import ERRORS, ProblemError
from trading_platform.api.schemas import Row
from trading_platform.execution.breaker_board import request_arming

MAY_ARM = ("engineer", "compliance", "admin")
router = APIRouter(
    prefix="/api/breakers",
    tags=["kill switch"],
    responses={status: ERRORS[status] for status in (401, 403, 404, 422, 429, 503)},
)


class BreakerOut(Row):
    name: str
    state: str
    reason: str
    opened_at: datetime | None = Field(description="Market time; wall time for a venue's.")
    arms_at: datetime | None = Field(description="When it may arm by itself; null while open: a person arms it.")
    trips: int
    arming_requested_by: str | None
    updated_at: datetime


class ArmingIn(BaseModel):
    name: str = Field(examples=["market:*"])
    confirmation: str = Field(max_length=200, description="The words `arm <name>`.")


@router.get("", summary="Circuit breakers")
async def breakers(
    user: Reader,
    services: ServicesOf,
    is_open: Annotated[bool, Query(alias="open", description="Only those that keep entries back.")] = False,
) -> list[BreakerOut]:
    """Those of your group that are or were open, as its engine last wrote them. Of others' accounts traders see none."""
    async with services.databases.group_async(user.group_id) as session:
        rows = (await session.scalars(queries.breakers(is_open=is_open))).all()
        mine = {account.account_id for account in await session.scalars(queries.accounts(user.user_id))}
    return [
        BreakerOut.model_validate(row)
        for row in rows
        if user.role in MAY_ARM or not row.name.startswith("venue:") or row.name.removeprefix("venue:") in mine
    ]


@router.post("/arm", status_code=202, summary="Arm a breaker again")
async def arm(body: ArmingIn, user: Writer, services: ServicesOf) -> dict[str, str]:
    """The engine closes it at its next look. It opens again at once where its reason still holds."""
    if user.role not in MAY_ARM:
        raise ProblemError(
            403, "Not yours to arm", f"role {user.role} may look at breakers",
            expected=", ".join(MAY_ARM), remedy="Ask an engineer, compliance or an admin.",
        )  # fmt: skip
    words = f"arm {body.name}"
    if body.confirmation != words:
        raise ProblemError(
            422, "Confirmation does not match", f"the confirmation was {body.confirmation!r}",
            expected=repr(words), remedy="Type the words exactly and send them again.",
        )  # fmt: skip
    async with services.databases.group_async(user.group_id) as session:
        if not await request_arming(session, body.name, f"{user.role}:{user.user_id}"):
            raise ProblemError(404, "Not open", f"no breaker {body.name!r} is open", remedy="GET /api/breakers")
    return {"name": body.name, "state": "arming"}
