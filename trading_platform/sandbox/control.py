"""The sandbox's own routes, beside the venue's: replay clock, accounts, and the books to compare with one's own."""

import hmac
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import orjson
from aiohttp import web

from trading_platform.sandbox.books import Account, Order, Trade
from trading_platform.sandbox.clock import Clock
from trading_platform.sandbox.exchange import Exchange

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Control:
    """Handlers behind the bearer token `TP_SANDBOX_ADMIN_TOKEN`. Times are ISO 8601, UTC."""

    def __init__(self, exchange: Exchange, clock: Clock, token: str) -> None:
        self.exchange, self.clock, self.token = exchange, clock, token

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/sandbox/status", self._guarded(self.status)),
            web.post("/sandbox/replay/start", self._guarded(self.start)),
            web.post("/sandbox/clock/ack", self._guarded(self.ack)),
            web.post("/sandbox/accounts", self._guarded(self.open_account)),
            web.get("/sandbox/books/orders", self._guarded(self.orders)),
            web.get("/sandbox/books/fills", self._guarded(self.fills)),
        ]

    async def status(self, _: web.Request) -> web.Response:
        return _json(self.clock.status())

    async def start(self, request: web.Request) -> web.Response:
        """{participants: [names], speed: "max" | steps per second, beyond_tail: bool}"""
        body = await _body(request, "participants")
        speed = body.get("speed", "max")
        await self.clock.start(
            [str(name) for name in body["participants"]],
            "max" if speed == "max" else float(speed),
            bool(body.get("beyond_tail", False)),
        )
        return _json(self.clock.status())

    async def ack(self, request: web.Request) -> web.Response:
        """{participant, market_time}: everything up to that time is done."""
        body = await _body(request, "participant", "market_time")
        try:
            market_time = datetime.fromisoformat(str(body["market_time"]))
        except ValueError as error:
            raise _bad(f"market_time must be ISO 8601 with a time zone, got {body['market_time']!r}") from error
        if market_time.tzinfo is None:
            raise _bad(f"market_time needs a time zone, got {body['market_time']!r}")
        self.clock.ack(str(body["participant"]), market_time)
        return _json({"market_time": self.clock.status()["market_time"]})

    async def open_account(self, request: web.Request) -> web.Response:
        """{account_id, api_key, api_secret, balances {asset: "amount"}}; again: a new key, the same balances."""
        body = await _body(request, "account_id", "api_key", "api_secret", "balances")
        account = await self.exchange.open_account(
            body["account_id"], body["api_key"], body["api_secret"], body["balances"]
        )
        return _json({"account_id": account.account_id, "balances": _balances(account)})

    async def orders(self, request: web.Request) -> web.Response:
        return _json([_order(order) for order in self._account(request).orders.values()])

    async def fills(self, request: web.Request) -> web.Response:
        return _json([_fill(trade) for trade in self._account(request).trades])

    def _account(self, request: web.Request) -> Account:
        account = self.exchange.books.accounts.get(request.query.get("account_id", ""))
        if account is None:
            raise web.HTTPNotFound(
                text=f"no account {request.query.get('account_id')!r}; open it with POST /sandbox/accounts"
            )
        return account

    def _guarded(self, handler: Handler) -> Handler:
        async def guarded(request: web.Request) -> web.StreamResponse:
            given = request.headers.get("Authorization", "").removeprefix("Bearer ")
            if not hmac.compare_digest(given.encode(), self.token.encode()):
                raise web.HTTPUnauthorized(text="the sandbox's control routes need its admin token as a bearer token")
            return await handler(request)

        return guarded


async def _body(request: web.Request, *needed: str) -> dict[str, Any]:
    try:
        body = orjson.loads(await request.read())
    except orjson.JSONDecodeError as error:
        raise _bad(f"the body must be JSON: {error}") from error
    missing = [name for name in needed if not isinstance(body, dict) or name not in body]
    if missing:
        raise _bad(f"the body lacks {missing}; needed are {list(needed)}")
    return dict(body)


def _bad(message: str) -> web.HTTPBadRequest:
    return web.HTTPBadRequest(text=message)


def _json(body: object) -> web.Response:
    return web.Response(body=orjson.dumps(body, default=str), content_type="application/json")


def _balances(account: Account) -> dict[str, dict[str, str]]:
    return {
        asset: {"free": str(balance.free), "locked": str(balance.locked)} for asset, balance in account.balances.items()
    }


def _order(order: Order) -> dict[str, Any]:
    return {
        "order_id": str(order.order_id),
        "client_order_id": order.client_order_id,
        "symbol": order.symbol,
        "side": order.side.lower(),
        "type": order.kind,
        "state": order.state,
        "quantity": str(order.quantity),
        "filled": str(order.filled),
        "quote_filled": str(order.quote_filled),
        "time": order.time,
    }


def _fill(trade: Trade) -> dict[str, Any]:
    return {
        "trade_id": str(trade.trade_id),
        "order_id": str(trade.order_id),
        "symbol": trade.symbol,
        "side": trade.side.lower(),
        "price": str(trade.price),
        "quantity": str(trade.quantity),
        "fee": str(trade.fee),
        "fee_asset": trade.fee_asset,
        "time": trade.time,
    }
