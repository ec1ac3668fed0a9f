"""Public routes: what the market is and was, up to the market time."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from aiohttp import web

from trading_platform.sandbox.binance import shapes
from trading_platform.sandbox.binance.errors import BinanceError
from trading_platform.sandbox.binance.gateway import Call, Gateway, wall_ms
from trading_platform.sandbox.binance.parameters import Parameters
from trading_platform.sandbox.candles import Candles, Row
from trading_platform.sandbox.exchange import Exchange

API = "/api/v3"
MOST_ROWS = 1_000
MOST_LEVELS = 5_000
BARS_OF_TRADES = MOST_ROWS // shapes.TRADES_A_BAR


class Symbols:
    """The exchange's symbols by Binance's names."""

    def __init__(self, exchange: Exchange) -> None:
        self.by_name = {shapes.venue_symbol(symbol): symbol for symbol in exchange.instruments if "/" in symbol}

    def one(self, parameters: Parameters) -> str:
        """The platform's symbol that a request names. Raises -1121."""
        return self._known(parameters.required("symbol"))

    def asked_for(self, parameters: Parameters) -> list[str]:
        """The one asked for, the list asked for, or all."""
        if "symbol" in parameters and "symbols" in parameters:
            raise BinanceError(-1128, "Combination of optional parameters invalid.")
        if "symbol" in parameters:
            return [self.one(parameters)]
        if "symbols" in parameters:
            return [self._known(name) for name in parameters.names("symbols")]
        return list(self.by_name.values())

    def _known(self, name: str) -> str:
        if name not in self.by_name:
            raise BinanceError(-1121, "Invalid symbol.")
        return self.by_name[name]


class MarketData:
    """Handlers of the public routes."""

    def __init__(self, exchange: Exchange, gateway: Gateway, symbols: Symbols) -> None:
        self.exchange, self.gateway, self.symbols = exchange, gateway, symbols

    def routes(self) -> list[web.RouteDef]:
        get = self._get
        return [
            get("ping", lambda _: {}),
            get("time", lambda _: {"serverTime": wall_ms()}),
            get("exchangeInfo", self.exchange_info, 20),
            get("klines", self.klines, 2),
            get("uiKlines", self.klines, 2),
            get("depth", self.depth, _depth_weight),
            get("trades", self.trades, 25),
            get("historicalTrades", self.historical_trades, 25),
            get("aggTrades", self.aggregate_trades, 4),
            get("avgPrice", self.average_price, 2),
            get("ticker/price", self.price, _per_symbol(2, 4)),
            get("ticker/bookTicker", self.book_ticker, _per_symbol(2, 4)),
            get("ticker/24hr", self.day, _per_symbol(2, 80)),
            *self._elsewhere(),
        ]

    def exchange_info(self, call: Call) -> object:
        instruments = [self.exchange.instruments[symbol] for symbol in self.symbols.asked_for(call.parameters)]
        return shapes.exchange_info(instruments, self.gateway.weight_limit, self.gateway.order_limit, wall_ms())

    def klines(self, call: Call) -> object:
        candles = self.exchange.candles[self.symbols.one(call.parameters)]
        own, asked = self.exchange.genesis.interval_seconds, call.parameters.required("interval")
        seconds = next((each for each, name in shapes.INTERVALS.items() if name == asked), 0)
        if not seconds or seconds % own:
            finest = shapes.INTERVALS.get(own)
            raise BinanceError(
                -1120, f"Invalid interval. This market is made of bars of {finest}, and has multiples of it."
            )
        since, until, limit = call.parameters.integer("startTime"), call.parameters.integer("endTime"), _limit(call)
        if seconds == own:
            return [shapes.kline(row, candles.interval_ms) for row in candles.between(since, until, limit)]
        if since is not None:
            since += -since % (seconds * 1_000)  # a bar that began before is not asked for
        rows = joined(candles.between(since, until, (limit + 1) * (seconds // own)), seconds * 1_000)
        chosen = rows[:limit] if since is not None else rows[-limit:]
        return [shapes.kline(row, seconds * 1_000) for row in chosen]

    def depth(self, call: Call) -> object:
        market = self.exchange.markets[self.symbols.one(call.parameters)]
        limit = _limit(call, 100, MOST_LEVELS)
        return {
            "lastUpdateId": market.liquidity.version,
            "bids": shapes.levels(market.depth("BUY")[:limit]),
            "asks": shapes.levels(market.depth("SELL")[:limit]),
        }

    def trades(self, call: Call) -> object:
        return self._latest_trades(call)

    def historical_trades(self, call: Call) -> object:
        first = call.parameters.integer("fromId")
        if first is None:
            return self._latest_trades(call)
        candles = self._candles(call)
        since = first // shapes.TRADES_A_BAR * candles.interval_ms
        return self._trades_from(candles, since, None, lambda trade: trade["id"] >= first)[: _limit(call)]

    def aggregate_trades(self, call: Call) -> object:
        candles, parameters = self._candles(call), call.parameters
        first, since, until = parameters.integer("fromId"), parameters.integer("startTime"), parameters.integer("endTime")  # fmt: skip
        if first is None and since is None and until is None:
            return [shapes.aggregate(trade) for trade in self._latest_trades(call)]
        if first is not None:
            since = first // shapes.TRADES_A_BAR * candles.interval_ms
        found = self._trades_from(
            candles,
            None if since is None else since - candles.interval_ms,
            until,
            lambda trade: trade["id"] >= (first or 0) and (since is None or trade["time"] >= since),
        )
        kept = [trade for trade in found if until is None or trade["time"] <= until]
        limit = _limit(call)
        return [shapes.aggregate(trade) for trade in (kept[:limit] if since is not None else kept[-limit:])]

    def average_price(self, call: Call) -> object:
        candles = self._candles(call)
        row = candles.row(len(candles) - 1)
        price = shapes.turnover(row) / row[5] if row[5] else row[4]
        return {
            "mins": max(candles.interval_ms // 60_000, 1),
            "price": shapes.number(price),
            "closeTime": row[0] + candles.interval_ms - 1,
        }

    def price(self, call: Call) -> object:
        def row(symbol: str) -> dict[str, Any]:
            last = self.exchange.markets[symbol].last
            return {"symbol": shapes.venue_symbol(symbol), "price": shapes.number(last or Decimal(0))}

        return self._each(call, row)

    def book_ticker(self, call: Call) -> object:
        return self._each(call, lambda symbol: shapes.book_ticker(self.exchange.markets[symbol]))

    def day(self, call: Call) -> object:
        def row(symbol: str) -> dict[str, Any]:
            if not len(self.exchange.candles[symbol]):
                raise BinanceError(-1013, "Market is closed.")
            return shapes.day(self.exchange.markets[symbol], self.exchange.candles[symbol])

        return self._each(call, row)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _get(
        self, path: str, handler: Callable[[Call], object], weight: int | Callable[[Parameters], int] = 1
    ) -> web.RouteDef:
        return self.gateway.route("GET", f"{API}/{path}", handler, weight)

    def _elsewhere(self) -> list[web.RouteDef]:
        """Products that this exchange does not have: clients that ask for them all the same find none."""
        nothing = {"timezone": "UTC", "serverTime": 0, "rateLimits": [], "exchangeFilters": [], "symbols": []}
        empty_lists = ("sapi/v1/capital/config/getall", "sapi/v1/margin/allPairs", "sapi/v1/margin/isolated/allPairs")
        return [
            *(self.gateway.route("GET", f"/{path}/exchangeInfo", lambda _: nothing) for path in ("fapi/v1", "dapi/v1")),
            *(self.gateway.route("GET", f"/{path}", lambda _: []) for path in empty_lists),
        ]

    def _candles(self, call: Call) -> Candles:
        """The bars of the symbol asked for; -1013 before the first."""
        candles = self.exchange.candles[self.symbols.one(call.parameters)]
        if not len(candles):
            raise BinanceError(-1013, "Market is closed.")
        return candles

    def _latest_trades(self, call: Call) -> list[dict[str, Any]]:
        candles = self._candles(call)
        rows = candles.last(BARS_OF_TRADES)
        return [trade for row in rows for trade in shapes.bar_trades(row, candles.interval_ms)][-_limit(call) :]

    def _trades_from(
        self, candles: Candles, since: int | None, until: int | None, wanted: Callable[[dict[str, Any]], bool]
    ) -> list[dict[str, Any]]:
        rows = candles.between(since, until, BARS_OF_TRADES + 2)
        return [trade for row in rows for trade in shapes.bar_trades(row, candles.interval_ms) if wanted(trade)]

    def _each(self, call: Call, row: Callable[[str], dict[str, Any]]) -> object:
        rows = [row(symbol) for symbol in self.symbols.asked_for(call.parameters)]
        return rows[0] if "symbol" in call.parameters else rows


def joined(rows: list[Row], milliseconds: int) -> list[Row]:
    """Bars made of shorter ones, by the epoch's multiples of their length."""
    found: dict[int, Row] = {}
    for row in rows:
        time, opened, high, low, close, volume = row
        start = time - time % milliseconds
        before = found.get(start)
        found[start] = (
            (start, opened, high, low, close, volume) if before is None
            else (start, before[1], max(before[2], high), min(before[3], low), close, before[5] + volume)
        )  # fmt: skip
    return list(found.values())


def _limit(call: Call, otherwise: int = 500, most: int = MOST_ROWS) -> int:
    limit = call.parameters.integer("limit")
    return otherwise if limit is None else max(min(limit, most), 1)


def _per_symbol(one: int, all_of_them: int) -> Callable[[Parameters], int]:
    return lambda parameters: one if "symbol" in parameters else all_of_them


def _depth_weight(parameters: Parameters) -> int:
    limit = parameters.integer("limit") or 100
    return 5 if limit <= 100 else 25 if limit <= 500 else 50 if limit <= 1_000 else 250
