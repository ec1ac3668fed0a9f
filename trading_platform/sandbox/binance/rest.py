"""The REST surface: routes, signatures, parameters, and Binance's codes for what it refuses.

Signatures and `recvWindow` go by the wall clock, as the real exchange's do; klines, orders and trades carry market time.
"""

import hashlib
import hmac
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

import orjson
from aiohttp import web

from trading_platform.sandbox import exchange as rules
from trading_platform.sandbox.binance import shapes
from trading_platform.sandbox.books import Account, Order
from trading_platform.sandbox.exchange import Exchange, RefusedError

RECV_WINDOW_MS = 5_000
LONGEST_RECV_WINDOW_MS = 60_000
AHEAD_MS = 1_000
CLIENT_ID = re.compile(r"^[\.A-Z\:/a-z0-9_-]{1,36}$")
KINDS = {"MARKET": "MARKET", "LIMIT": "LIMIT", "LIMIT_MAKER": "LIMIT_MAKER"}
REFUSALS = {
    rules.UNKNOWN_SYMBOL: (-1121, "Invalid symbol."),
    rules.NO_MARKET: (-1013, "Market is closed."),
    rules.LOT_SIZE: (-1013, "Filter failure: LOT_SIZE"),
    rules.PRICE_FILTER: (-1013, "Filter failure: PRICE_FILTER"),
    rules.NOTIONAL: (-1013, "Filter failure: NOTIONAL"),
    rules.BALANCE: (-2010, "Account has insufficient balance for requested action."),
    rules.DUPLICATE: (-2010, "Duplicate order sent."),
    rules.WOULD_TAKE: (-2010, "Order would immediately match and take."),
    rules.UNKNOWN_ORDER: (-2011, "Unknown order sent."),
}
Parameters = Mapping[str, str]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class BinanceError(Exception):
    """An answer of the form {"code": …, "msg": …}."""

    def __init__(self, code: int, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code, self.message, self.status = code, message, status


class Rest:
    """Handlers over one exchange."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.by_name = {shapes.venue_symbol(symbol): symbol for symbol in exchange.instruments}
        self.weight, self.minute = 0, 0

    def routes(self) -> list[web.RouteDef]:
        api = "/api/v3"
        return [
            web.get(f"{api}/ping", self.ping),
            web.get(f"{api}/time", self.time),
            web.get(f"{api}/exchangeInfo", self.exchange_info),
            web.get(f"{api}/klines", self.klines),
            web.get(f"{api}/uiKlines", self.klines),
            web.get(f"{api}/depth", self.depth),
            web.get(f"{api}/ticker/price", self.price),
            web.get(f"{api}/ticker/bookTicker", self.book_ticker),
            web.get(f"{api}/ticker/24hr", self.day_ticker),
            web.get(f"{api}/account", self.account),
            web.post(f"{api}/order", self.place),
            web.post(f"{api}/order/test", self.test_order),
            web.get(f"{api}/order", self.get_order),
            web.delete(f"{api}/order", self.cancel),
            web.get(f"{api}/openOrders", self.open_orders),
            web.get(f"{api}/allOrders", self.all_orders),
            web.get(f"{api}/myTrades", self.my_trades),
        ]

    # --- market data -------------------------------------------------------------------------------------------------

    async def ping(self, _: web.Request) -> web.Response:
        return self._answer({})

    async def time(self, _: web.Request) -> web.Response:
        return self._answer({"serverTime": _now_ms()})

    async def exchange_info(self, request: web.Request) -> web.Response:
        return self._answer(shapes.exchange_info(self.exchange, self._symbols(request.query), _now_ms()), 20)

    async def klines(self, request: web.Request) -> web.Response:
        query = request.query
        symbol = self._symbol(query)
        interval = shapes.INTERVALS.get(self.exchange.interval_seconds)
        if query.get("interval") != interval:
            raise BinanceError(-1120, f"Invalid interval. This market is replayed in bars of {interval}.")
        limit = min(_integer(query, "limit") or 500, 1000)
        candles = self.exchange.candles[symbol]
        rows = candles.between(_integer(query, "startTime"), _integer(query, "endTime"), limit)
        return self._answer([shapes.kline(row, candles.interval_ms) for row in rows], 2)

    async def depth(self, request: web.Request) -> web.Response:
        market = self.exchange.markets[self._symbol(request.query)]
        limit = _integer(request.query, "limit") or 100
        sides = {
            name: [[shapes.number(level.price), shapes.number(level.quantity)] for level in levels[:limit]]
            for name, levels in (("bids", market.bids), ("asks", market.asks))
        }
        return self._answer({"lastUpdateId": self.exchange.steps, **sides}, 5)

    async def price(self, request: web.Request) -> web.Response:
        rows = [
            {
                "symbol": shapes.venue_symbol(symbol),
                "price": shapes.number(self.exchange.markets[symbol].last or Decimal(0)),
            }
            for symbol in self._symbols(request.query)
        ]
        return self._answer(rows[0] if "symbol" in request.query else rows, 2)

    async def book_ticker(self, request: web.Request) -> web.Response:
        rows = [self._book(symbol) for symbol in self._symbols(request.query)]
        return self._answer(rows[0] if "symbol" in request.query else rows, 2)

    async def day_ticker(self, request: web.Request) -> web.Response:
        rows = [self._day(symbol) for symbol in self._symbols(request.query)]
        return self._answer(rows[0] if "symbol" in request.query else rows, 2)

    # --- account and orders ------------------------------------------------------------------------------------------

    async def account(self, request: web.Request) -> web.Response:
        account, _ = await self._signed(request)
        return self._answer(shapes.account(account, self.exchange.now_ms), 20)

    async def place(self, request: web.Request) -> web.Response:
        account, parameters = await self._signed(request)
        wanted = self._wanted(parameters)
        try:
            placed = await self.exchange.place_order(account, wanted)
        except RefusedError as refusal:
            raise BinanceError(*REFUSALS[refusal.reason]) from refusal
        return self._answer(shapes.placed(placed))

    async def test_order(self, request: web.Request) -> web.Response:
        _, parameters = await self._signed(request)
        self._wanted(parameters)
        return self._answer({})

    async def get_order(self, request: web.Request) -> web.Response:
        account, parameters = await self._signed(request)
        return self._answer(shapes.order(self._order(account, parameters, -2013, "Order does not exist.")), 4)

    async def cancel(self, request: web.Request) -> web.Response:
        account, parameters = await self._signed(request)
        found = self._order(account, parameters, -2011, "Unknown order sent.")
        try:
            cancelled = await self.exchange.cancel_order(account, found)
        except RefusedError as refusal:
            raise BinanceError(*REFUSALS[refusal.reason]) from refusal
        answer = shapes.order(cancelled)
        return self._answer(
            answer | {"origClientOrderId": cancelled.client_order_id, "transactTime": cancelled.updated}
        )

    async def open_orders(self, request: web.Request) -> web.Response:
        account, parameters = await self._signed(request)
        symbol = self._symbol(parameters) if "symbol" in parameters else None
        return self._answer([shapes.order(found) for found in account.open_orders(symbol)], 6)

    async def all_orders(self, request: web.Request) -> web.Response:
        account, parameters = await self._signed(request)
        symbol, first = self._symbol(parameters), _integer(parameters, "orderId")
        found = [o for o in account.orders.values() if o.symbol == symbol and o.order_id >= (first or 0)]
        since, until = _integer(parameters, "startTime"), _integer(parameters, "endTime")
        found = [o for o in found if (since is None or o.time >= since) and (until is None or o.time <= until)]
        limit = min(_integer(parameters, "limit") or 500, 1000)
        chosen = found[:limit] if first is not None or since is not None else found[-limit:]
        return self._answer([shapes.order(o) for o in chosen], 20)

    async def my_trades(self, request: web.Request) -> web.Response:
        account, parameters = await self._signed(request)
        symbol, order_id = self._symbol(parameters), _integer(parameters, "orderId")
        first = _integer(parameters, "fromId")
        since, until = _integer(parameters, "startTime"), _integer(parameters, "endTime")
        found = [
            trade
            for trade in account.trades
            if trade.symbol == symbol
            and order_id in (None, trade.order_id)
            and trade.trade_id >= (first or 0)
            and (since is None or trade.time >= since)
            and (until is None or trade.time <= until)
        ]
        limit = min(_integer(parameters, "limit") or 500, 1000)
        chosen = found[:limit] if first is not None or since is not None else found[-limit:]
        return self._answer([shapes.my_trade(trade) for trade in chosen], 20)

    # --- parameters --------------------------------------------------------------------------------------------------

    async def _signed(self, request: web.Request) -> tuple[Account, Parameters]:
        """Who asks and what: key, signature and time window are checked as Binance does."""
        account = self.exchange.books.by_key.get(request.headers.get("X-MBX-APIKEY", ""))
        if account is None:
            raise BinanceError(-2015, "Invalid API-key, IP, or permissions for action.", 401)
        body = await request.text()
        signed, signature = _without_signature(request.query_string, body)
        expected = hmac.new(account.api_secret.encode(), signed.encode(), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(expected, signature):
            raise BinanceError(-1022, "Signature for this request is not valid.")
        parameters = {**request.query, **(await request.post() if body else {})}
        _check_time(parameters)
        await self.exchange.journal.durable()
        return account, {name: str(value) for name, value in parameters.items()}

    def _wanted(self, parameters: Parameters) -> dict[str, Any]:
        """A new order's parameters, checked; the exchange's own rules come after."""
        kind = KINDS.get(_required(parameters, "type"))
        if kind is None:
            raise BinanceError(-1116, "Invalid orderType.")
        side = _required(parameters, "side")
        if side not in ("BUY", "SELL"):
            raise BinanceError(-1117, "Invalid side.")
        symbol = self._symbol(parameters)
        quantity = _decimal(parameters, "quantity")
        price = _decimal(parameters, "price") if kind != "MARKET" else Decimal(0)
        force = _required(parameters, "timeInForce") if kind == "LIMIT" else "GTC"
        if force not in ("GTC", "IOC", "FOK"):
            raise BinanceError(-1115, "Invalid timeInForce.")
        client_id = parameters.get("newClientOrderId") or f"sb{self.exchange.books.last_order_id + 1:020d}"
        if not CLIENT_ID.match(client_id):
            raise BinanceError(-1100, "Illegal characters found in parameter 'newClientOrderId'.")
        return {
            "symbol": symbol,
            "side": side,
            "kind": kind,
            "time_in_force": force,
            "quantity": str(quantity),
            "price": str(price),
            "client_order_id": client_id,
        }

    def _order(self, account: Account, parameters: Parameters, code: int, message: str) -> Order:
        symbol, number = self._symbol(parameters), _integer(parameters, "orderId")
        if number is not None:
            found = account.orders.get(number)
        elif "origClientOrderId" in parameters:
            found = account.by_client_id.get(parameters["origClientOrderId"])
        else:
            raise BinanceError(-1102, "Param 'origClientOrderId' or 'orderId' must be sent, but both were empty/null!")
        if found is None or found.symbol != symbol:
            raise BinanceError(code, message)
        return found

    def _symbol(self, parameters: Parameters) -> str:
        name = _required(parameters, "symbol")
        if name not in self.by_name:
            raise BinanceError(-1121, "Invalid symbol.")
        return self.by_name[name]

    def _symbols(self, parameters: Parameters) -> list[str]:
        """The one asked for, the list asked for, or all."""
        if "symbol" in parameters:
            return [self._symbol(parameters)]
        if "symbols" in parameters:
            return [self._symbol({"symbol": name}) for name in orjson.loads(parameters["symbols"])]
        return list(self.exchange.instruments)

    # --- answers -----------------------------------------------------------------------------------------------------

    def _book(self, symbol: str) -> dict[str, str]:
        market = self.exchange.markets[symbol]
        bid, ask = (levels[0] if levels else None for levels in (market.bids, market.asks))
        zero = Decimal(0)
        return {
            "symbol": shapes.venue_symbol(symbol),
            "bidPrice": shapes.number(bid.price if bid else zero),
            "bidQty": shapes.number(bid.quantity if bid else zero),
            "askPrice": shapes.number(ask.price if ask else zero),
            "askQty": shapes.number(ask.quantity if ask else zero),
        }

    def _day(self, symbol: str) -> dict[str, Any]:
        candles = self.exchange.candles[symbol]
        rows = list(candles.last(max(86_400_000 // candles.interval_ms, 1)))
        if not rows:
            raise BinanceError(-1013, "Market is closed.")
        volume, opened, last = sum(row[5] for row in rows), rows[0][1], rows[-1][4]
        turnover = sum(row[5] * row[4] for row in rows)
        return {
            **self._book(symbol),
            "priceChange": shapes.number(last - opened),
            "priceChangePercent": f"{(last / opened - 1) * 100:.3f}",
            "weightedAvgPrice": shapes.number(turnover / volume if volume else last),
            "prevClosePrice": shapes.number(opened),
            "lastPrice": shapes.number(last),
            "lastQty": "0.00000000",
            "openPrice": shapes.number(opened),
            "highPrice": shapes.number(max(row[2] for row in rows)),
            "lowPrice": shapes.number(min(row[3] for row in rows)),
            "volume": shapes.number(volume),
            "quoteVolume": shapes.number(turnover),
            "openTime": rows[0][0],
            "closeTime": rows[-1][0] + candles.interval_ms - 1,
            "firstId": 0,
            "lastId": 0,
            "count": 0,
        }

    def _answer(self, body: object, weight: int = 1) -> web.Response:
        minute = int(time.time() // 60)
        self.weight = weight + (self.weight if minute == self.minute else 0)
        self.minute = minute
        return web.Response(
            body=orjson.dumps(body),
            content_type="application/json",
            headers={"X-MBX-USED-WEIGHT": str(self.weight), "X-MBX-USED-WEIGHT-1M": str(self.weight)},
        )


@web.middleware
async def binance_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refusals in Binance's form."""
    try:
        return await handler(request)
    except BinanceError as error:
        body = orjson.dumps({"code": error.code, "msg": error.message})
        return web.Response(body=body, status=error.status, content_type="application/json")


def _without_signature(query: str, body: str) -> tuple[str, str]:
    """(what was signed, the signature): query string and body joined as they came, less the signature itself."""
    signature = ""
    kept: list[str] = []
    for part in (query, body):
        pieces = []
        for piece in part.split("&"):
            if piece.startswith("signature="):
                signature = piece.removeprefix("signature=")
            elif piece:
                pieces.append(piece)
        kept.append("&".join(pieces))
    return "".join(kept), signature


def _check_time(parameters: Mapping[str, Any]) -> None:
    stamp = _integer(parameters, "timestamp")
    if stamp is None:
        raise BinanceError(-1102, "Mandatory parameter 'timestamp' was not sent, was empty/null, or malformed.")
    window = _integer(parameters, "recvWindow") or RECV_WINDOW_MS
    if window > LONGEST_RECV_WINDOW_MS:
        raise BinanceError(-1131, "recvWindow must be less than 60000.")
    now = _now_ms()
    if not now - window <= stamp < now + AHEAD_MS:
        raise BinanceError(-1021, "Timestamp for this request is outside of the recvWindow.")


def _required(parameters: Parameters, name: str) -> str:
    value = parameters.get(name)
    if not value:
        raise BinanceError(-1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")
    return value


def _decimal(parameters: Parameters, name: str) -> Decimal:
    try:
        value = Decimal(_required(parameters, name))
    except InvalidOperation as error:
        raise BinanceError(-1100, f"Illegal characters found in parameter '{name}'.") from error
    if not value.is_finite():
        raise BinanceError(-1100, f"Illegal characters found in parameter '{name}'.")
    return value


def _integer(parameters: Mapping[str, Any], name: str) -> int | None:
    value = parameters.get(name)
    if value in (None, ""):
        return None
    if not re.fullmatch(r"\d{1,18}", str(value)):
        raise BinanceError(-1100, f"Illegal characters found in parameter '{name}'; legal range is '^[0-9]{{1,20}}$'.")
    return int(str(value))


def _now_ms() -> int:
    return int(time.time() * 1_000)
