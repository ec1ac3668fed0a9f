"""A small market for tests: bars of two pairs whose numbers a reader can follow, and exchanges made of them."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl

from trading_platform.markets.instruments import Instrument
from trading_platform.sandbox.books import Account
from trading_platform.sandbox.events import BarClosed
from trading_platform.sandbox.exchange import Exchange, Genesis
from trading_platform.sandbox.orders import OrderRequest
from trading_platform.sandbox.server import instrument
from trading_platform.sandbox.sources import Step
from trading_platform.storage.control import Dataset

START = datetime(2024, 1, 1, tzinfo=UTC)
START_MS = int(START.timestamp() * 1_000)
HOUR_MS = 3_600_000
BTC, ETH = "BTC/USDT", "ETH/USDT"
TOKEN = "token-of-the-tests"
DATASET = "files_of_the_tests"


def prices(symbol: str, index: int) -> tuple[float, float, float, float, float]:
    """Open, high, low, close, volume of bar `index`: a saw that rises 1 % in ten bars and falls back."""
    base = 40_000.0 if symbol == BTC else 2_000.0
    close = round(base * (1 + 0.001 * (index % 20 if index % 20 <= 10 else 20 - index % 20)), 2)
    opened = round(base * (1 + 0.001 * ((index - 1) % 20 if (index - 1) % 20 <= 10 else 20 - (index - 1) % 20)), 2)
    return opened, round(max(opened, close) * 1.001, 2), round(min(opened, close) * 0.999, 2), close, 1_000.0


def bars(count: int, symbols: Sequence[str] = (BTC, ETH)) -> pl.DataFrame:
    """A bar frame of `count` hours."""
    rows = []
    for symbol in symbols:
        for index in range(count):
            o, h, low, c, v = prices(symbol, index)
            opened = START + timedelta(hours=index)
            rows.append((symbol, opened, o, h, low, c, v, opened + timedelta(hours=1)))
    time = pl.Datetime("us", "UTC")
    schema = {
        "symbol": pl.String, "open_time": time, "open": pl.Float64, "high": pl.Float64, "low": pl.Float64,
        "close": pl.Float64, "volume": pl.Float64, "available_at": time,
    }  # fmt: skip
    return pl.DataFrame(rows, schema=schema, orient="row")


def dataset(replay_from_bar: int, kind: str = "files", details: dict | None = None, name: str = DATASET) -> Dataset:
    replay_from = None if kind == "venue" else START + timedelta(hours=replay_from_bar)
    return Dataset(
        dataset_id=name, kind=kind, venue="binance", source="test", interval_seconds=3600, symbols={},
        replay_from=replay_from, details=details or {},
    )  # fmt: skip


def instruments() -> list[Instrument]:
    return [instrument(symbol, Decimal(repr(prices(symbol, 0)[3]))) for symbol in (BTC, ETH)]


def exchange(folder: Path, seed: int = 7) -> Exchange:
    """An exchange before its first step."""
    return Exchange.open(folder, Genesis(DATASET, 3600, seed, instruments()))


def step(index: int, *changed: BarClosed) -> Step:
    """Step `index`: both symbols' bars, some of them replaced."""
    given = {bar.symbol: bar for bar in changed}
    time = START_MS + index * HOUR_MS
    found = [given.get(symbol, BarClosed(symbol, time, *prices(symbol, index))) for symbol in (BTC, ETH)]
    return Step(time + HOUR_MS, found)


def bar(index: int, opened: float, high: float, low: float, close: float, volume: float = 1_000.0) -> BarClosed:
    """A bar of BTC/USDT."""
    return BarClosed(BTC, START_MS + index * HOUR_MS, opened, high, low, close, volume)


def funded(exchange: Exchange, name: str = "alice", usdt: str = "1000000", btc: str = "100") -> Account:
    return exchange.open_account(name, f"key-{name}", f"secret-{name}", {"USDT": Decimal(usdt), "BTC": Decimal(btc)})


def buy(quantity: str, limit: str | None = None, client_id: str = "", **more: object) -> OrderRequest:
    return _request("BUY", quantity, limit, client_id, **more)


def sell(quantity: str, limit: str | None = None, client_id: str = "", **more: object) -> OrderRequest:
    return _request("SELL", quantity, limit, client_id, **more)


def _request(side, quantity, limit, client_id, stop=None, **more):  # type: ignore[no-untyped-def]
    return OrderRequest(
        BTC, side, Decimal(quantity), client_id or f"{side}{quantity}@{limit}/{stop}",
        None if limit is None else Decimal(limit), None if stop is None else Decimal(stop), **more,
    )  # fmt: skip
