"""The command `engine`: the service that trades one user group."""

import asyncio
import signal
import time
from typing import Annotated

import structlog
import typer
import uvloop
from sqlalchemy.exc import OperationalError

from trading_platform.execution.clock import MarketClock, ReplayClock, WallClock
from trading_platform.execution.engine import RETRY_SECONDS, Engine
from trading_platform.identifiers import DatasetId, GroupId
from trading_platform.observability import logs, metrics, traces
from trading_platform.settings import Settings, settings
from trading_platform.storage.control import Dataset
from trading_platform.storage.databases import Databases
from trading_platform.storage.migrate import require_current

log = structlog.get_logger(__name__)


def engine(
    group: Annotated[str, typer.Option(help="The user group to trade, as `trading-platform groups` lists it.")],
    dataset: Annotated[str, typer.Option(help="The dataset whose signals to follow.")],
) -> None:
    """Trade one user group: take the lease, reconcile with the venue, then turn signals into settled orders.

    Runs until SIGTERM or Ctrl-C. A second one for the same group stands by until the first one's lease ends.
    """
    import ccxt.async_support  # noqa: F401  takes seconds and stops an event loop: before there is a lease to renew

    current = settings()
    logs.configure(f"engine:{group}", current)
    traces.configure_tracing(f"engine:{group}", current)
    metrics.serve(f"engine:{group}", current)
    databases = Databases(current)
    group_id, dataset_id = GroupId(group), DatasetId(dataset)
    found = _find(databases, group_id, dataset_id)
    if found is None:
        raise typer.BadParameter(f"no dataset {dataset!r}; `trading-platform lake show` lists them")
    uvloop.run(_serve(databases, group_id, dataset_id, current, found.venue if found.kind == "venue" else None))


def _find(databases: Databases, group_id: GroupId, dataset_id: DatasetId) -> Dataset | None:
    """The dataset, once PostgreSQL answers: an engine that came up first waits, instead of dying again and again."""
    while True:
        try:
            _, schema = databases.group_address(group_id)
            require_current(databases.group_engine(group_id), "group", schema)
            with databases.control() as session:
                return session.get(Dataset, dataset_id)
        except OperationalError as error:
            log.warning("engine_waits_for_database", group=group_id, error=str(error)[:300])
            time.sleep(RETRY_SECONDS)


async def _serve(
    databases: Databases, group_id: GroupId, dataset_id: DatasetId, current: Settings, live_venue: str | None
) -> None:
    clock = _clock(current, group_id, live=live_venue is not None)
    service = Engine(databases, group_id, dataset_id, clock, live_venue)
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, service.stop.set)
    try:
        await service.run()
    finally:
        await clock.close()
        await databases.aclose()


def _clock(current: Settings, group_id: GroupId, *, live: bool) -> MarketClock:
    if live or current.sandbox_url is None or current.sandbox_admin_token is None:
        return WallClock()
    return ReplayClock(current.sandbox_url, current.sandbox_admin_token.get_secret_value(), f"engine-{group_id}")
