"""The command `scorer`: the service behind the signals."""

import asyncio
import signal
from typing import Annotated

import typer
from rich.console import Console
from sqlalchemy.exc import NoResultFound

from trading_platform.identifiers import DatasetId, Symbol
from trading_platform.market_data.feed import BarFeed, LakeFeed, VenueFeed
from trading_platform.market_data.lake import Lake
from trading_platform.market_data.replay import ReplayFeed
from trading_platform.observability import logs, metrics, traces
from trading_platform.settings import Settings, settings
from trading_platform.storage.control import Dataset
from trading_platform.storage.databases import Databases
from trading_platform.storage.lease import TTL, LeaseLostError
from trading_platform.strategies.scorer import Scorer
from trading_platform.strategies.serving import LIVE, ServingRefusedError

VENUES_WITH_A_STREAM = frozenset({"binance"})
"""Venues that stream closed bars."""
VENUES_WITH_A_CLOCK = frozenset({"nse"})
"""Venues that stream no bars: in a replay the lake has them, and the sandbox says when each is known."""


class NoExchangeError(RuntimeError):
    """A replay needs the sandbox exchange, and nothing says where it is."""


def scorer(
    dataset: Annotated[str, typer.Option(help="The dataset to score, as `trading-platform ingest` printed it.")],
    from_lake: Annotated[
        bool,
        typer.Option("--from-lake", help="Read the replay straight from the lake, at full speed, without an exchange."),
    ] = False,
) -> None:
    """Score every closed bar of a dataset with the versions that serve it, and write the signals.

    Waits for a champion to be deployed, catches up, then follows the market: the sandbox's for replayed and synthetic
    datasets, Binance's for live ones, the lake for a dataset that no venue trades, such as an index. Deployments are
    picked up within a second. Runs until SIGTERM or Ctrl-C. A second one on the same dataset stands by until the first
    one's lease ends.

    Example:

        trading-platform scorer --dataset binance_1h
    """
    current = settings()
    service = f"scorer:{dataset}"
    logs.configure(service, current)
    traces.configure_tracing(service, current)
    metrics.serve(service, current)
    databases = Databases(current, pool_size=3, asleep_after=TTL)
    try:
        asyncio.run(_serve(databases, DatasetId(dataset), from_lake))
    except NoResultFound:
        _fail(f"no dataset {dataset!r}: `trading-platform ingest` prints the ids of what it reads")
    except (LeaseLostError, ServingRefusedError, NoExchangeError) as error:
        _fail(str(error))
    finally:
        databases.close()


async def _serve(databases: Databases, dataset_id: DatasetId, from_lake: bool) -> None:
    lake = Lake(databases.settings.lake_dir)
    service = Scorer(databases, lake, dataset_id)
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, service.stop.set)
    await service.run(feed_for(service.dataset, lake, databases.settings, from_lake=from_lake))


def feed_for(dataset: Dataset, lake: Lake, settings: Settings, *, from_lake: bool = False) -> BarFeed:
    """Where a dataset's bars come from. Raises `NoExchangeError` where a replay has no exchange to follow."""
    if from_lake or dataset.venue not in VENUES_WITH_A_STREAM | VENUES_WITH_A_CLOCK:
        return LakeFeed(lake, dataset.dataset_id, start=dataset.replay_from)
    if dataset.kind != LIVE and settings.sandbox_url is None:
        raise NoExchangeError(
            f"dataset {dataset.dataset_id} is replayed by the sandbox exchange, but TP_SANDBOX_URL is not set and no "
            "running stack left it. Start the platform (`trading-platform up`), or pass --from-lake"
        )
    if dataset.venue in VENUES_WITH_A_CLOCK:
        assert settings.sandbox_url is not None
        token = settings.sandbox_admin_token.get_secret_value() if settings.sandbox_admin_token else ""
        return ReplayFeed(LakeFeed(lake, dataset.dataset_id, start=dataset.replay_from), settings.sandbox_url, token)
    return VenueFeed(
        dataset_id=DatasetId(dataset.dataset_id),
        symbols=[Symbol(name) for name in sorted(dataset.symbols)],
        interval_seconds=dataset.interval_seconds,
        base_url=dataset.details.get("base_url") if dataset.kind == LIVE else settings.sandbox_url,
        start=dataset.replay_from,
    )


def _fail(message: str) -> None:
    Console(stderr=True).print(f"[red]scorer:[/red] {message}", highlight=False)
    raise typer.Exit(1)
