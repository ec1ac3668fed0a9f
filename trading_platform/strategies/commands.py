"""The command `scorer`: the service behind the signals."""

import asyncio
import contextlib
import signal
from typing import Annotated

import typer

from trading_platform.identifiers import DatasetId
from trading_platform.market_data.feed import BarFeed, LakeFeed, VenueFeed
from trading_platform.market_data.lake import Lake
from trading_platform.observability import logs, metrics, traces
from trading_platform.settings import settings
from trading_platform.storage.databases import Databases
from trading_platform.strategies.definition import strategy
from trading_platform.strategies.scorer import Scorer, Stopped, tradable_symbols

VENUES_WITH_A_STREAM = frozenset({"binance"})


def scorer(
    dataset: Annotated[str, typer.Option(help="The dataset to score, as `trading-platform lake show` lists it.")],
    strategy_id: Annotated[str, typer.Option("--strategy", help="The strategy whose models score.")] = "barrier_long",
) -> None:
    """Score every closed bar of a dataset with the champion and the challenger and write the signals.

    Runs until SIGTERM or Ctrl-C. A second one on the same dataset stands by until the first one's lease ends.
    """
    current = settings()
    logs.configure("scorer", current)
    traces.configure_tracing("scorer", current)
    metrics.serve("scorer", current)
    databases = Databases(current)
    with databases.control() as session:
        definition = strategy(strategy_id, session)
    service = Scorer(databases, Lake(current.lake_dir), DatasetId(dataset), definition)
    asyncio.run(_serve(service))


async def _serve(service: Scorer) -> None:
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, service.stop.set)
    with contextlib.suppress(Stopped):
        await service.run(_feed(service))


def _feed(service: Scorer) -> BarFeed:
    """The venue's stream where there is one (the sandbox's, except for live data); else straight from the lake."""
    dataset = service.dataset
    if dataset.venue not in VENUES_WITH_A_STREAM:
        return LakeFeed(service.lake, service.dataset_id, start=dataset.replay_from)
    live = dataset.kind == "venue"
    return VenueFeed(
        dataset_id=service.dataset_id,
        symbols=tradable_symbols(dataset),
        interval_seconds=dataset.interval_seconds,
        base_url=None if live else service.databases.settings.sandbox_url,
        start=dataset.replay_from,
    )
