"""Where absent bars are asked for: an exchange's REST interface through ccxt."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol
from urllib.parse import urlsplit

import polars as pl
import structlog

from trading_platform.market_data.lake import BAR_SCHEMA
from trading_platform.market_data.quality import with_availability
from trading_platform.markets.calendars import calendar
from trading_platform.venues.binance_client import binance_client

log = structlog.get_logger(__name__)

ANSWER_WITHIN_SECONDS = 3.0
LISTING_WITHIN_SECONDS = 15.0
PAGE = 1000


class BarSource(Protocol):
    """Somebody who may have bars that we lack."""

    name: str

    async def bars(self, symbol: str, first: datetime, last: datetime, interval_seconds: int) -> pl.DataFrame | None:
        """open_time, open, high, low, close, volume of bars opened from `first` to `last`; None: no answer."""
        ...

    async def close(self) -> None: ...


class ExchangeSource:
    """Any exchange that ccxt knows. One that does not answer within 3 s is not asked again."""

    def __init__(self, name: str, host: str, base_url: str | None = None) -> None:
        self.name = name
        self._host = host
        self._base_url = base_url
        self._client: Any = None
        self._answers: bool | None = None

    async def bars(self, symbol: str, first: datetime, last: datetime, interval_seconds: int) -> pl.DataFrame | None:
        if not await self.answers() or symbol not in self._client.markets:
            return None
        rows: list[list[float]] = []
        since = first
        while since <= last:
            page = await self._page(symbol, since, interval_seconds)
            if page is None:
                return None
            rows += [row for row in page if row[0] <= last.timestamp() * 1000]
            if not page or page[-1][0] > last.timestamp() * 1000 or len(page) < PAGE:
                break
            since = datetime.fromtimestamp(page[-1][0] / 1000, UTC) + timedelta(seconds=interval_seconds)
        return candles(rows)

    async def answers(self) -> bool:
        """Whether the exchange can be reached and says what it lists; asked once.

        A bare connection is tried first: importing ccxt for an exchange out of reach would cost 6 s.
        """
        if self._answers is None:
            self._answers = await _connects(self._host, self._base_url) and await self._load()
            if not self._answers:
                log.info("source_does_not_answer", source=self.name)
        return self._answers

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()

    async def _load(self) -> bool:
        self._client = _client(self.name, self._base_url)
        try:
            async with asyncio.timeout(LISTING_WITHIN_SECONDS):
                await self._client.load_markets()
        except _failures() as error:
            log.info("source_lists_nothing", source=self.name, error=type(error).__name__)
            return False
        return True

    async def _page(self, symbol: str, since: datetime, interval_seconds: int) -> list[list[float]] | None:
        from trading_platform.market_data.reading import interval_name

        try:
            found: list[list[float]] = await self._client.fetch_ohlcv(
                symbol, interval_name(interval_seconds), since=int(since.timestamp() * 1000), limit=PAGE
            )
        except _failures() as error:
            log.warning("source_failed", source=self.name, symbol=symbol, error=type(error).__name__)
            return None
        return found


def candles(rows: list[list[float]]) -> pl.DataFrame:
    """ccxt's rows [ms, open, high, low, close, volume] as a frame, opening times aware UTC."""
    schema = {"ms": pl.Float64(), **{name: pl.Float64() for name in ("open", "high", "low", "close", "volume")}}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    time = (pl.col("ms").cast(pl.Int64) * 1000).cast(pl.Datetime("us", "UTC"))
    return frame.select(time.alias("open_time"), pl.exclude("ms"))


def as_bars(
    rows: pl.DataFrame, *, dataset_id: str, venue: str, symbol: str, interval_seconds: int, source: str
) -> pl.DataFrame:
    """Candles of one symbol as a bar frame; those outside the venue's sessions have no session date and are left out."""
    located = calendar(venue).locate(rows["open_time"], interval_seconds)
    return (
        with_availability(pl.concat([rows, located], how="horizontal"), venue, interval_seconds)
        .drop_nulls("session_date")
        .with_columns(
            dataset_id=pl.lit(dataset_id),
            venue=pl.lit(venue),
            symbol=pl.lit(symbol),
            interval_seconds=interval_seconds,
            revision=0,
            source=pl.lit(source),
        )
        .select(pl.col(name).cast(dtype) for name, dtype in BAR_SCHEMA.items())
    )


def venue_sources(venue: str, base_url: str | None = None) -> list[BarSource]:
    """The sources that `markets/data/venues.toml` names for a venue; `base_url` is the venue's own address."""
    return [ExchangeSource(name, host, base_url if name == venue else None) for name, host in calendar(venue).sources]


def venue_source(venue: str, base_url: str | None = None) -> ExchangeSource:
    """The venue itself. Raises LookupError for one that no client reaches."""
    hosts = dict(calendar(venue).sources)
    if venue not in hosts:
        raise LookupError(f"no client reaches venue {venue!r}; venues with one are named in markets/data/venues.toml")
    return ExchangeSource(venue, hosts[venue], base_url)


async def is_reachable(base_url: str | None = None) -> bool:
    """Whether Binance's public REST answers: a connection within 3 s, and its list of markets."""
    source = venue_source("binance", base_url)
    try:
        return await source.answers()
    finally:
        await source.close()


async def _connects(host: str, base_url: str | None) -> bool:
    address = urlsplit(base_url or f"https://{host}")
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        async with asyncio.timeout(ANSWER_WITHIN_SECONDS):
            _, writer = await asyncio.open_connection(address.hostname, port)
    except (TimeoutError, OSError):
        return False
    writer.close()
    return True


def _client(name: str, base_url: str | None) -> Any:
    if name == "binance":
        return binance_client(base_url, rate_limit=base_url is None)
    from ccxt import async_support

    return getattr(async_support, name)({"enableRateLimit": True})


def _failures() -> tuple[type[BaseException], ...]:
    from ccxt.base.errors import BaseError

    return BaseError, TimeoutError, OSError
