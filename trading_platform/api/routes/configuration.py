"""What a user may set: which strategy trades which account, and the limits it trades within.

Every change is audited in the same transaction. A trader lowers limits at once; only an admin raises them.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import entry_points
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from trading_platform.accounts.sessions import SessionUser
from trading_platform.api import queries
from trading_platform.api.identity import Reader, Services, ServicesOf, Subject, SubjectUser, Writer, resolve_subject
from trading_platform.api.problems import ERRORS, ProblemError
from trading_platform.api.schemas import (
    UNCERTIFIED,
    RiskLimitsBody,
    RiskLimitsHistory,
    RiskLimitsIn,
    RiskLimitsOut,
    StrategyOut,
    SubscriptionIn,
    SubscriptionOut,
)
from trading_platform.compliance.audit import record
from trading_platform.execution.square_off import VENUES_THAT_CLOSE
from trading_platform.observability.traces import current_trace_id
from trading_platform.storage.group import RiskLimits, Subscription

HISTORY = 50
Currency = Annotated[
    Literal["USDT", "INR"], Query(description="What the accounts are kept in that the limits are for.")
]
router = APIRouter(
    prefix="/api",
    tags=["configuration"],
    responses={status: ERRORS[status] for status in (401, 403, 404, 422, 429, 503)},
)


@dataclass(frozen=True)
class LimitScope:
    """Whose limits, in which currency, as the query says."""

    scope: Literal["user", "account", "strategy", "group"] = Query("user")
    scope_id: str | None = Query(None, description="Account, strategy or group id; for a user give `user_id`.")
    currency: str = Query("USDT", pattern="^[A-Z]{3,6}$", description="The limits count accounts of this currency.")

    async def named(self, services: Services, whose: SubjectUser) -> str:
        """The id of the scope. 404 for what there is not."""
        if self.scope == "user":
            return whose.user_id
        if self.scope == "group":
            return whose.group_id
        if self.scope == "strategy":
            known = sorted(point.name for point in entry_points(group="trading_platform.strategies"))
            if self.scope_id in known:
                return self.scope_id
            raise ProblemError(404, "No such strategy", f"{self.scope_id!r} is not known", expected=", ".join(known))
        async with services.databases.group_async(whose.group_id) as session:
            if await session.scalar(queries.account(whose.user_id, self.scope_id or "")) is None:
                raise ProblemError(404, "No such account", f"there is no account {self.scope_id!r}")
        return self.scope_id or ""


@router.get("/strategies", summary="Strategies that may trade an account")
async def strategies(user: Reader, services: ServicesOf) -> list[StrategyOut]:
    """Those that are installed, with their configuration in force."""
    from trading_platform.strategies import definition  # its kernels take seconds to import

    def in_force(session: Session) -> list[definition.StrategyDefinition]:
        return [definition.strategy(name, session) for name in definition.installed()]

    async with services.databases.control_async() as session:
        found = await session.run_sync(in_force)
    return [
        StrategyOut(
            strategy_id=each.strategy_id, description=each.description, capital_fraction=each.capital_fraction
        )
        for each in found
    ]  # fmt: skip


@router.get("/subscriptions", summary="Which strategies trade which accounts")
async def subscriptions(whose: Subject, services: ServicesOf) -> list[SubscriptionOut]:
    async with services.databases.group_async(whose.group_id) as session:
        rows = await session.scalars(queries.subscriptions(whose.user_id))
        return [SubscriptionOut.model_validate(row) for row in rows]


@router.put("/subscriptions/{account_id}/{strategy_id}", summary="Let a strategy trade an account, or stop it")
async def subscribe(
    account_id: str, strategy_id: str, body: SubscriptionIn, user: Writer, services: ServicesOf
) -> SubscriptionOut:
    """Only the owner of an account says what trades it. Open positions of a disabled strategy are still exited."""
    known = sorted(point.name for point in entry_points(group="trading_platform.strategies"))
    if strategy_id not in known:
        raise ProblemError(404, "No such strategy", f"{strategy_id!r} is not installed", expected=", ".join(known))
    async with services.databases.group_async(user.group_id) as session:
        account = await session.scalar(queries.account(user.user_id, account_id))
        if account is None:
            raise ProblemError(
                404, "No such account", f"you have no account {account_id!r}", remedy="GET /api/accounts"
            )
        if body.allow_uncertified and account.kind == "live" and body.confirmation != UNCERTIFIED:
            raise ProblemError(
                422, "Confirmation missing", "uncertified signals on a live account need a typed confirmation",
                expected=f'"confirmation": "{UNCERTIFIED}"', remedy="Send it, or leave allow_uncertified false.",
            )  # fmt: skip
        if not body.overnight and account.venue not in VENUES_THAT_CLOSE:
            raise ProblemError(
                422, "This market never closes", f"account {account_id!r} is at {account.venue}: there is no session's end",
                expected='"overnight": true', remedy="Leave overnight true, or stop the strategy when it should hold nothing.",
            )  # fmt: skip
        values = {
            "capital_fraction": body.capital_fraction,
            "enabled": body.enabled,
            "allow_uncertified": body.allow_uncertified,
            "hedge_away": body.hedge_away,
            "overnight": body.overnight,
            "spread_away": body.spread_away,
            "changed_by": user.user_id,
            "changed_at": datetime.now(UTC),
        }
        new = insert(Subscription).values(
            user_id=user.user_id, account_id=account_id, strategy_id=strategy_id, **values
        )
        row = await session.scalar(
            new.on_conflict_do_update(
                index_elements=[Subscription.user_id, Subscription.account_id, Subscription.strategy_id], set_=values
            ).returning(Subscription)
        )
        changed = SubscriptionOut.model_validate(row)
        _audit(
            session, user, user.user_id, "SUBSCRIPTION", changed.model_dump(mode="json"), account_id=account_id,
            strategy_id=strategy_id,
        )  # fmt: skip
    return changed


@router.get("/risk-limits", summary="Risk limits and their history")
async def risk_limits(whose: Subject, services: ServicesOf, of: Annotated[LimitScope, Depends()]) -> RiskLimitsHistory:
    """Limits hold for accounts of one currency. The narrowest of user, account, strategy and group decides."""
    scope_id = await of.named(services, whose)
    async with services.databases.group_async(whose.group_id) as session:
        rows = await session.scalars(queries.risk_limits(of.scope, scope_id, of.currency, HISTORY))
        history = [RiskLimitsOut.model_validate(row) for row in rows]
    return RiskLimitsHistory(in_force=history[0] if history else None, history=history)


@router.put("/risk-limits", summary="Change risk limits", responses={409: ERRORS[422]})
async def change_risk_limits(
    body: RiskLimitsIn,
    user: Writer,
    services: ServicesOf,
    of: Annotated[LimitScope, Depends()],
    user_id: str | None = Query(None, description="Another user's id; for admins only."),
    currency: Currency = "USDT",
) -> RiskLimitsOut:
    """Traders lower their own at once; raising any of them takes an admin, and so do limits of a strategy or group.
    In force from the next order on."""
    whose = await resolve_subject(services, user, user_id)
    if whose.user_id != user.user_id and user.role != "admin":
        raise ProblemError(403, "Not yours to change", f"role {user.role} may read but not change others' limits")
    if of.scope in ("strategy", "group") and user.role != "admin":
        raise ProblemError(403, "Not yours to change", f"role {user.role} may not change limits of a {of.scope}")
    scope_id = await of.named(services, whose)
    try:
        async with services.databases.group_async(whose.group_id) as session:
            changed = await _add_revision(session, whose, of, scope_id, body, user)
    except IntegrityError:
        raise _conflict(body.revision) from None
    return changed


async def _add_revision(
    session: AsyncSession, whose: SubjectUser, of: LimitScope, scope_id: str, body: RiskLimitsIn, user: SessionUser
) -> RiskLimitsOut:
    in_force = await session.scalar(queries.risk_limits(of.scope, scope_id, of.currency, 1))
    if (in_force.revision if in_force else 0) != body.revision:
        raise _conflict(body.revision, in_force.revision if in_force else 0)
    wanted = body.model_dump(exclude={"revision"})
    raised = [
        name
        for name in RiskLimitsBody.model_fields
        if in_force is None or _raises(getattr(in_force, name), wanted[name])
    ]
    if raised and user.role != "admin":
        raise ProblemError(
            403, "Raising takes an admin", f"raised: {', '.join(raised)}",
            expected="values no higher than those in force", remedy="Ask an admin to raise them.",
        )  # fmt: skip
    row = RiskLimits(
        scope=of.scope, scope_id=scope_id, currency=of.currency, revision=body.revision + 1,
        changed_by=user.user_id, **wanted,
    )  # fmt: skip
    session.add(row)
    await session.flush()
    await session.refresh(row)
    changed = RiskLimitsOut.model_validate(row)
    before = RiskLimitsOut.model_validate(in_force).model_dump(mode="json") if in_force else None
    _audit(session, user, whose.user_id, "LIMITS", {"before": before, "after": changed.model_dump(mode="json")})
    return changed


def _raises(now: Any, wanted: Any) -> bool:
    """None is no limit: taking one away raises it, setting one lowers it."""
    return now is not None and (wanted is None or wanted > now)


def _conflict(sent: int, found: int | None = None) -> ProblemError:
    return ProblemError(
        409, "Changed meanwhile", f"the limits were made from revision {sent}",
        expected="the newest revision" if found is None else f"revision {found}",
        remedy="GET /api/risk-limits, decide again, and send the new revision.",
    )  # fmt: skip


def _audit(
    session: AsyncSession, user: SessionUser, user_id: str, event_type: str, detail: dict[str, Any], **columns: Any
) -> None:
    record(
        session, user_id=user_id, actor=f"{user.role}:{user.user_id}", event_type=event_type, detail=detail,
        trace_id=current_trace_id(), **columns,
    )  # fmt: skip
