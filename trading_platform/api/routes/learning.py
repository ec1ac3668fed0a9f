"""What the models say and how they fare: signals, models, experiments, drift. Shared by all users."""

from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy.ext.asyncio import AsyncSession

from trading_platform.api import queries
from trading_platform.api.identity import Reader, ServicesOf
from trading_platform.api.problems import ERRORS, ProblemError
from trading_platform.api.schemas import (
    DeploymentOut,
    DriftOut,
    ExperimentOut,
    ModelOut,
    ModelsOut,
    Page,
    SignalOut,
)
from trading_platform.identifiers import DatasetId

router = APIRouter(
    prefix="/api", tags=["learning"], responses={status: ERRORS[status] for status in (401, 404, 422, 429, 503)}
)
DatasetQuery = Annotated[str | None, Query(description="Default: the dataset that was scored last.")]
StrategyQuery = Annotated[str | None, Query(examples=["barrier_long"])]
Limit = Annotated[int, Query(ge=1, le=500)]
BeforeNumber = Annotated[int | None, Query(ge=0, description="`next` of the page before.", alias="after")]


@router.get("/signals", summary="Signals")
async def signals(
    _: Reader,
    services: ServicesOf,
    *,
    dataset_id: DatasetQuery = None,
    symbol: Annotated[str | None, Query(examples=["BTC/USDT"])] = None,
    state: Annotated[str | None, Query(pattern="^(ok|abstain|outlier|expired)$")] = None,
    role: Annotated[str | None, Query(pattern="^(champion|challenger)$")] = None,
    after: BeforeNumber = None,
    limit: Limit = 100,
) -> Page[SignalOut]:
    """Newest first, by the dataset's gap-free sequence."""
    async with services.databases.control_async() as session:
        dataset = await _dataset(session, dataset_id)
        if dataset is None:
            return Page(items=[], next=None)
        rows = (
            await session.scalars(queries.signals(dataset, after, limit, symbol=symbol, state=state, role=role))
        ).all()
    following = str(rows[-1].seq) if len(rows) == limit else None
    return Page(items=[SignalOut.model_validate(row) for row in rows], next=following)


@router.get("/models", summary="Model versions and what served when")
async def models(
    _: Reader,
    services: ServicesOf,
    dataset_id: DatasetQuery = None,
    strategy_id: StrategyQuery = None,
    limit: Limit = 50,
) -> ModelsOut:
    async with services.databases.control_async() as session:
        dataset = await _dataset(session, dataset_id)
        if dataset is None:
            return ModelsOut(models=[], deployments=[])
        versions = (await session.scalars(queries.models(dataset, limit, strategy_id))).all()
        served = (await session.scalars(queries.deployments(dataset, limit))).all()
    return ModelsOut(
        models=[ModelOut.model_validate(row) for row in versions],
        deployments=[DeploymentOut.model_validate(row) for row in served],
    )


@router.get("/models/{version_id}", summary="One model version")
async def model(version_id: str, _: Reader, services: ServicesOf) -> ModelOut:
    async with services.databases.control_async() as session:
        row = await session.scalar(queries.model(version_id))
    if row is None:
        raise ProblemError(404, "No such model", f"there is no version {version_id!r}", remedy="GET /api/models")
    return ModelOut.model_validate(row)


@router.get("/experiments", summary="Experiments")
async def experiments(
    _: Reader,
    services: ServicesOf,
    dataset_id: DatasetQuery = None,
    strategy_id: StrategyQuery = None,
    limit: Limit = 50,
) -> list[ExperimentOut]:
    """Champion against challenger, newest first, with the confidence sequence of their paired difference."""
    async with services.databases.control_async() as session:
        dataset = await _dataset(session, dataset_id)
        if dataset is None:
            return []
        rows = await session.scalars(queries.experiments(dataset, limit, strategy_id))
        return [ExperimentOut.model_validate(row) for row in rows]


@router.get("/drift", summary="Drift reports")
async def drift(
    _: Reader,
    services: ServicesOf,
    dataset_id: DatasetQuery = None,
    version_id: Annotated[str | None, Query()] = None,
    after: BeforeNumber = None,
    limit: Limit = 50,
) -> Page[DriftOut]:
    async with services.databases.control_async() as session:
        dataset = await _dataset(session, dataset_id)
        if dataset is None:
            return Page(items=[], next=None)
        rows = (await session.scalars(queries.drift(dataset, after, limit, version_id))).all()
    following = str(rows[-1].report_id) if len(rows) == limit else None
    return Page(items=[DriftOut.model_validate(row) for row in rows], next=following)


async def _dataset(session: AsyncSession, named: str | None) -> DatasetId | None:
    found = named or await session.scalar(queries.latest_dataset())
    return None if found is None else DatasetId(found)
