"""The command `engine`: the service that trades user groups."""

import asyncio
import signal
import time
from collections.abc import Sequence
from typing import Annotated

import structlog
import typer
import uvloop
from sqlalchemy.exc import OperationalError

from trading_platform.execution.clock import MarketClock, ReplayClock, WallClock
from trading_platform.execution.engine import RETRY_SECONDS, Engine
from trading_platform.execution.lease import TTL
from trading_platform.identifiers import DatasetId, GroupId
from trading_platform.observability import logs, metrics, traces
from trading_platform.settings import Settings, settings
from trading_platform.storage.control import Dataset
from trading_platform.storage.databases import Databases
from trading_platform.storage.migrate import require_current

log = structlog.get_logger(__name__)


def engine(
    group: Annotated[
        list[str], typer.Option(help="A user group to trade, as `trading-platform groups` lists it; may be repeated.")
    ],
    dataset: Annotated[str, typer.Option(help="The dataset whose signals to follow.")],
    standby: Annotated[
        bool, typer.Option("--standby", help="Wait beside a running engine, and take over when its lease ends.")
    ] = False,
) -> None:
    """Trade user groups: take a group's lease, reconcile with the venue, then turn signals into settled orders.

    Runs until SIGTERM or Ctrl-C. Each group has a lease of its own: of several engines for a group one trades, and another
    takes over when its lease ends, so groups may be spread over engines in any way. An engine that was started with
    --standby warms up and waits; it is never a group's first.

    Example: `trading-platform engine --group a --group b --dataset binance --standby`
    """
    import ccxt.async_support  # noqa: F401  takes seconds and stops an event loop: before there is a lease to renew

    current = settings()
    groups, dataset_id = [GroupId(each) for each in dict.fromkeys(group)], DatasetId(dataset)
    name = f"engine:{'+'.join(groups)}{':standby' if standby else ''}"
    logs.configure(name, current)
    traces.configure_tracing(name, current)
    metrics.serve(name, current)
    databases = Databases(current, asleep_after=TTL)
    for each in groups:
        found = _find(databases, each, dataset_id)
    if found is None:
        raise typer.BadParameter(f"no dataset {dataset!r}; `trading-platform lake show` lists them")
    live_venue = found.venue if found.kind == "venue" else None
    uvloop.run(_serve(databases, groups, dataset_id, current, live_venue, standby=standby))


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
    databases: Databases, groups: Sequence[GroupId], dataset_id: DatasetId, current: Settings, live_venue: str | None,
    *, standby: bool,
) -> None:  # fmt: skip
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    clocks = {each: _clock(current, each, live=live_venue is not None) for each in groups}
    try:
        async with asyncio.TaskGroup() as running:  # one that fails for good ends the process: its groups move on
            for each, clock in clocks.items():
                service = Engine(databases, each, dataset_id, clock, live_venue, stop, standby)
                running.create_task(service.run())
    finally:
        for clock in clocks.values():
            await clock.close()
        await databases.aclose()


def _clock(current: Settings, group_id: GroupId, *, live: bool) -> MarketClock:
    if live or current.sandbox_url is None or current.sandbox_admin_token is None:
        return WallClock()
    return ReplayClock(current.sandbox_url, current.sandbox_admin_token.get_secret_value(), f"engine-{group_id}")
