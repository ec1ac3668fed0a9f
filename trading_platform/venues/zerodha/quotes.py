"""Prices by request: quotes in batches, last prices, candles in pieces that the broker gives at once.

    quotes = await Quotes(transport).full(["NSE:INFY", "NFO:NIFTY26NOVFUT"])     # what has no data is not in it

Names are EXCHANGE:TRADINGSYMBOL. Circuit limits are here alone, not in the stream; bands move during the day, so read them
again before an order near one. Limits: 500 names a quote, 1,000 a last price, and spans of candles by interval (Kite
Connect documentation; forum 3105).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Literal

from trading_platform.markets.price_bands import CircuitLimits, locked
from trading_platform.venues.port import QueryFailedError, TopOfBook
from trading_platform.venues.zerodha.books import ist
from trading_platform.venues.zerodha.packets import Level
from trading_platform.venues.zerodha.questions import ask
from trading_platform.venues.zerodha.transport import Fields, KiteTransport

Interval = Literal["minute", "3minute", "5minute", "10minute", "15minute", "30minute", "60minute", "day"]
MOST_DAYS: dict[Interval, int] = {
    "minute": 60, "3minute": 100, "5minute": 100, "10minute": 100, "15minute": 200, "30minute": 200, "60minute": 400,
    "day": 2000,
}  # fmt: skip
QUOTES_AT_ONCE, PRICES_AT_ONCE = 500, 1_000
NOBODY = Level(Decimal(0), 0, 0)


@dataclass(frozen=True, slots=True)
class Quote:
    """One instrument now. Rupees; times aware UTC; five levels a side, empty ones left out."""

    instrument_token: int
    last_price: Decimal
    close: Decimal
    """Of the previous day."""
    volume: int
    oi: int
    limits: CircuitLimits
    bids: tuple[Level, ...]
    offers: tuple[Level, ...]
    at: datetime | None
    last_trade_at: datetime | None

    @property
    def locked(self) -> str | None:
        """`upper` where nobody sells at the upper limit, `lower` where nobody buys at the lower one."""
        return locked(self.limits, self.last_price, sellers=bool(self.offers), buyers=bool(self.bids))

    @property
    def top(self) -> TopOfBook:
        bid, offer = (side[0] if side else NOBODY for side in (self.bids, self.offers))
        return TopOfBook(bid.price, offer.price, Decimal(bid.quantity), Decimal(offer.quantity))


@dataclass(frozen=True, slots=True)
class Candle:
    """A bar, known by its opening time in UTC. `oi` where it was asked for."""

    opened_at: datetime
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: int
    oi: int | None = None


@dataclass
class Quotes:
    """Prices through one account's session. All raise `QueryFailedError`."""

    transport: KiteTransport

    async def full(self, names: Sequence[str]) -> dict[str, Quote]:
        """{name: quote}; names that the broker has no data for are not in it."""
        found: dict[str, Quote] = {}
        for some in _pieces(names, QUOTES_AT_ONCE):
            for name, row in (await self._ask("/quote", some)).items():
                found[name] = quote_of(name, row)
        return found

    async def last_prices(self, names: Sequence[str]) -> dict[str, Decimal]:
        found: dict[str, Decimal] = {}
        for some in _pieces(names, PRICES_AT_ONCE):
            for name, row in (await self._ask("/quote/ltp", some)).items():
                found[name] = Decimal(str(row["last_price"]))
        return found

    async def candles(
        self, token: int, interval: Interval, first: date, last: date, *, continuous: bool = False, oi: bool = False
    ) -> list[Candle]:
        """All candles of the days `first` to `last`, both included, oldest first and each once.

        `continuous`: of a futures contract through its predecessors (NFO and MCX, daily candles alone).
        """
        if continuous and interval != "day":
            raise ValueError(f"continuous candles are daily ones, not {interval}")
        found: dict[datetime, Candle] = {}
        for begins, ends in spans(first, last, MOST_DAYS[interval]):
            query: Fields = {
                "from": f"{begins:%Y-%m-%d} {time.min:%H:%M:%S}", "to": f"{ends:%Y-%m-%d} {time.max:%H:%M:%S}",
                "continuous": int(continuous), "oi": int(oi),
            }  # fmt: skip
            path = f"/instruments/historical/{token}/{interval}"
            data = await ask(self.transport, path, query=query, where="historical")
            try:
                found |= {candle.opened_at: candle for candle in map(_candle, data["candles"])}
            except (KeyError, TypeError, ValueError, IndexError, ArithmeticError) as error:
                raise QueryFailedError(f"candles of {token} cannot be read: {error!r}") from error
        return [found[at] for at in sorted(found)]

    async def trigger_range(self, side: Literal["buy", "sell"], names: Sequence[str]) -> dict[str, CircuitLimits]:
        """Where the trigger of a cover order may be."""
        rows = await self._ask(f"/instruments/trigger_range/{side}", names)
        return {
            name: CircuitLimits(Decimal(str(row["lower"])), Decimal(str(row["upper"]))) for name, row in rows.items()
        }

    async def _ask(self, path: str, names: Sequence[str]) -> Mapping[str, Any]:
        found = await ask(self.transport, path, query={"i": list(names)}, where="quote")
        if not isinstance(found, dict):
            raise QueryFailedError(f"{path} gave a {type(found).__name__} where an object was expected")
        return found


def spans(first: date, last: date, most_days: int) -> Iterator[tuple[date, date]]:
    """Stretches of days, both ends included, none longer than `most_days`, together `first` to `last`."""
    begins = first
    while begins <= last:
        ends = min(begins + timedelta(days=most_days - 1), last)
        yield begins, ends
        begins = ends + timedelta(days=1)


def _pieces(names: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    unique = list(dict.fromkeys(names))
    return (unique[at : at + size] for at in range(0, len(unique), size))


def quote_of(name: str, row: Mapping[str, Any]) -> Quote:
    """A row of GET /quote. Raises `QueryFailedError` for one that cannot be read."""
    try:
        return Quote(
            int(row["instrument_token"]), Decimal(str(row["last_price"])), Decimal(str(row["ohlc"]["close"])),
            int(row.get("volume") or 0), int(row.get("oi") or 0),
            CircuitLimits(
                Decimal(str(row.get("lower_circuit_limit") or 0)), Decimal(str(row.get("upper_circuit_limit") or 0))
            ),
            _levels(row.get("depth", {}).get("buy", ())), _levels(row.get("depth", {}).get("sell", ())),
            ist(row.get("timestamp")), ist(row.get("last_trade_time")),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise QueryFailedError(f"the quote of {name} cannot be read: {error!r}") from error


def _levels(rows: Iterable[Mapping[str, Any]]) -> tuple[Level, ...]:
    return tuple(
        Level(Decimal(str(row["price"])), int(row["quantity"]), int(row["orders"])) for row in rows if row["quantity"]
    )


def _candle(row: Sequence[Any]) -> Candle:
    opened = datetime.strptime(row[0], "%Y-%m-%dT%H:%M:%S%z")
    first, high, low, last = (Decimal(str(value)) for value in row[1:5])
    return Candle(opened.astimezone(UTC), first, high, low, last, int(row[5]), int(row[6]) if len(row) > 6 else None)
