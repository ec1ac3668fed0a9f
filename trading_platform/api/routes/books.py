"""A user's books: accounts, orders, fills, positions, equity, outcomes."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Query
from sqlalchemy import Select

from trading_platform.api import queries
from trading_platform.api.identity import Services, ServicesOf, Subject, SubjectUser
from trading_platform.api.problems import ERRORS, ProblemError
from trading_platform.api.schemas import (
    AccountOut,
    DenialOut,
    EquityOut,
    FillOut,
    OrderOut,
    OutcomeOut,
    Page,
    PositionOut,
    Row,
)

R = TypeVar("R", bound=Row)
router = APIRouter(
    prefix="/api", tags=["books"], responses={status: ERRORS[status] for status in (401, 403, 404, 422, 429, 503)}
)
After = Annotated[str | None, Query(description="`next` of the page before.")]
Limit = Annotated[int, Query(ge=1, le=500, description="Rows a page.")]
Symbol = Annotated[str | None, Query(examples=["BTC/USDT"])]


@router.get("/accounts", summary="Accounts")
async def accounts(whose: Subject, services: ServicesOf) -> list[AccountOut]:
    """Exchange accounts, newest first. Credentials are never shown."""
    return await _all(services, whose, queries.accounts(whose.user_id), AccountOut)


@router.get("/orders", summary="Orders")
async def orders(
    whose: Subject,
    services: ServicesOf,
    *,
    symbol: Symbol = None,
    state: Annotated[str | None, Query(examples=["FILLED"])] = None,
    after: After = None,
    limit: Limit = 100,
) -> Page[OrderOut]:
    cursor = queries.decoded(after, queries.ORDER_KEY)
    statement = queries.orders(whose.user_id, cursor, limit, symbol=symbol, state=state)
    return await _page(services, whose, statement, OrderOut, key=queries.ORDER_KEY, limit=limit)


@router.get("/denials", summary="Orders that were not sent")
async def denials(whose: Subject, services: ServicesOf, after: After = None, limit: Limit = 100) -> Page[DenialOut]:
    """What risk kept back, with the figures that decided, what the code means and what to do."""
    statement = queries.denials(whose.user_id, queries.decoded(after, queries.DENIAL_KEY), limit)
    return await _page(services, whose, statement, DenialOut, key=queries.DENIAL_KEY, limit=limit)


@router.get("/fills", summary="Fills")
async def fills(
    whose: Subject, services: ServicesOf, symbol: Symbol = None, after: After = None, limit: Limit = 100
) -> Page[FillOut]:
    cursor = queries.decoded(after, queries.FILL_KEY)
    statement = queries.fills(whose.user_id, cursor, limit, symbol=symbol)
    return await _page(services, whose, statement, FillOut, key=queries.FILL_KEY, limit=limit)


@router.get("/outcomes", summary="Closed trades")
async def outcomes(
    whose: Subject, services: ServicesOf, symbol: Symbol = None, after: After = None, limit: Limit = 100
) -> Page[OutcomeOut]:
    """What became of each entry: success or failure net of costs, with the market conditions at entry."""
    cursor = queries.decoded(after, queries.OUTCOME_KEY)
    statement = queries.outcomes(whose.user_id, cursor, limit, symbol=symbol)
    return await _page(services, whose, statement, OutcomeOut, key=queries.OUTCOME_KEY, limit=limit)


@router.get("/positions", summary="Positions")
async def positions(
    whose: Subject,
    services: ServicesOf,
    flat: Annotated[bool, Query(description="Also those that are closed.")] = False,
) -> list[PositionOut]:
    return await _all(services, whose, queries.positions(whose.user_id, flat=flat), PositionOut)


@router.get("/equity", summary="Equity curve")
async def equity(
    whose: Subject,
    services: ServicesOf,
    account_id: Annotated[str | None, Query(description="Default: the newest account.")] = None,
    before: Annotated[datetime | None, Query(description="Only points before this market time, with its zone.")] = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
) -> list[EquityOut]:
    """The newest points of one account's curve, oldest first."""
    if before is not None and before.tzinfo is None:
        raise ProblemError(422, "Time without zone", f"before={before}", expected="ISO 8601 with a zone, as ...Z")
    async with services.databases.group_async(whose.group_id) as session:
        if account_id is None:
            newest = await session.scalar(queries.accounts(whose.user_id).limit(1))
            if newest is None:
                return []
            account_id = newest.account_id
        points = (await session.scalars(queries.equity(whose.user_id, account_id, before, limit))).all()
    return [EquityOut.model_validate(point) for point in reversed(points)]


async def _all(services: Services, whose: SubjectUser, statement: Select[Any], shape: type[R]) -> list[R]:
    async with services.databases.group_async(whose.group_id) as session:
        return [shape.model_validate(row) for row in await session.scalars(statement)]


async def _page(
    services: Services, whose: SubjectUser, statement: Select[Any], shape: type[R], *, key: Sequence[Any], limit: int
) -> Page[R]:
    async with services.databases.group_async(whose.group_id) as session:
        rows = (await session.scalars(statement)).all()
    full = len(rows) == limit
    following = queries.encoded([getattr(rows[-1], column.key) for column in key]) if full else None
    return Page(items=[shape.model_validate(row) for row in rows], next=following)
