"""A bar as the live path passes it around: one object, plain floats, no frame."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from trading_platform.identifiers import DatasetId, Symbol, Venue


@dataclass(frozen=True, slots=True)
class Bar:
    """One closed bar. Times are aware UTC; prices are in quote currency, volume in base currency (0 is allowed).

    `available_at` is the market time from which anybody may know the bar: `open_time + interval` for a regular one.
    """

    dataset_id: DatasetId
    venue: Venue
    symbol: Symbol
    interval_seconds: int
    open_time: datetime
    open: float
    high: float
    low: float
    close: float
    volume: float
    session_date: date
    available_at: datetime
    revision: int = 0
    source: str = ""

    @property
    def close_time(self) -> datetime:
        """The end of the bar's interval: the open time of the next regular bar."""
        return self.open_time + timedelta(seconds=self.interval_seconds)

    def as_row(self) -> dict[str, Any]:
        """The bar as a row of the bar frame (see `lake.BAR_SCHEMA`)."""
        return {name: getattr(self, name) for name in self.__slots__}
