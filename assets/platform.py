"""The resource behind every asset: databases, lake, and which dataset the platform is working on."""

from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
from sqlalchemy import select

from trading_platform.identifiers import DatasetId
from trading_platform.settings import Settings, settings
from trading_platform.storage.control import Dataset, MarketProgress
from trading_platform.storage.databases import Databases

if TYPE_CHECKING:
    from trading_platform.market_data.lake import Lake


class Platform(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The running deployment. `home_dir` empty: whatever the process's settings say."""

    home_dir: str = ""

    @cached_property
    def settings(self) -> Settings:
        return Settings(home_dir=Path(self.home_dir)) if self.home_dir else settings()

    @cached_property
    def databases(self) -> Databases:
        return Databases(self.settings, pool_size=2)

    @cached_property
    def lake(self) -> "Lake":
        from trading_platform.market_data.lake import Lake  # not when the code location loads: polars and Delta

        return Lake(self.settings.lake_dir)

    def dataset_id(self, asked: str = "") -> DatasetId:
        """The dataset a run works on: the one asked for, else the one that was collected last."""
        if asked:
            return DatasetId(asked)
        with self.databases.control() as session:
            newest = session.scalars(
                select(Dataset.dataset_id).order_by(Dataset.updated_at.desc(), Dataset.dataset_id).limit(1)
            ).one_or_none()
        if newest is None:
            raise dg.Failure(
                "No dataset has been collected yet. Materialize `bars` with a source "
                '(config {"source": "path, binance or synthetic"}) or run `trading-platform ingest`.'
            )
        return DatasetId(newest)

    def market_time(self, dataset_id: DatasetId, asked: str = "") -> datetime:
        """What a run may know: the time asked for, else as far as the platform has scored, else the end of history."""
        if asked:
            return datetime.fromisoformat(asked)
        with self.databases.control() as session:
            progress = session.get(MarketProgress, dataset_id)
        return self.history_end(dataset_id) if progress is None else progress.scored_through

    def history_end(self, dataset_id: DatasetId, asked: str = "") -> datetime:
        """Where history ends and the replay begins; first models learn nothing after it. Live data: the last bar."""
        if asked:
            return datetime.fromisoformat(asked)
        with self.databases.control() as session:
            dataset = session.get_one(Dataset, dataset_id)
        if dataset.replay_from is not None:
            return dataset.replay_from
        return max(datetime.fromisoformat(entry["last"]) for entry in dataset.symbols.values())


class OnDataset(dg.Config):
    """Run configuration of assets that work on one dataset."""

    dataset_id: str = ""
    """Empty: the dataset that was collected last."""
    as_of: str = ""
    """Market time as ISO 8601 UTC; rows that became available later do not exist for the run. Empty: all rows that
    the platform has seen, which in a replay means up to the replay's clock."""
