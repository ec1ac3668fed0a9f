"""The sandbox's own routes, beside the venue's: replay clock, accounts, and the books to compare with one's own."""

import hmac
from collections.abc import Awaitable, Callable
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

import orjson
from aiohttp import web

from trading_platform.sandbox.books import Account
from trading_platform.sandbox.clock import Clock, Speed
from trading_platform.sandbox.exchange import Exchange
from trading_platform.sandbox.kite.errors import KiteError
from trading_platform.sandbox.kite.sessions import Sessions
from trading_platform.sandbox.orders import Order, Trade

LONGEST_WAIT_SECONDS = 60.0
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Control:
    """Handlers behind the bearer token `TP_SANDBOX_ADMIN_TOKEN`. Times are ISO 8601, UTC; amounts decimal strings."""

    def __init__(self, exchange: Exchange, clock: Clock, token: str, kite: Sessions | None = None) -> None:
        self.exchange, self.clock, self.kite = exchange, clock, kite
        self._expected = f"Bearer {token}".encode()

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/sandbox/status", self._guarded(self.status)),
            web.post("/sandbox/replay/start", self._guarded(self.start)),
            web.post("/sandbox/clock/ack", self._guarded(self.ack)),
            web.get("/sandbox/clock/wait", self._guarded(self.wait)),
            web.post("/sandbox/kite/request_token", self._guarded(self.request_token)),
            web.post("/sandbox/accounts", self._guarded(self.open_account)),
            web.get("/sandbox/books/orders", self._guarded(self.orders)),
            web.get("/sandbox/books/fills", self._guarded(self.fills)),
            web.get("/sandbox/books/balances", self._guarded(self.balances)),
        ]

    async def status(self, _: web.Request) -> web.Response:
        return json_answer(self.clock.status())

    async def start(self, request: web.Request) -> web.Response:
        """{participants: [names], speed: "max" | steps per second, beyond_tail: bool}; the last two may be left out."""
        body = await body_of(request, "participants")
        participants, beyond_tail = body["participants"], body.get("beyond_tail")
        if not isinstance(participants, list) or not all(isinstance(name, str) for name in participants):
            raise bad(f"participants must be a list of names, got {participants!r}")
        if beyond_tail is not None and not isinstance(beyond_tail, bool):
            raise bad(f"beyond_tail must be true or false, got {beyond_tail!r}")
        self.clock.start(participants, _speed(body.get("speed")), beyond_tail)
        await self.exchange.durable()
        return json_answer(self.clock.status())

    async def ack(self, request: web.Request) -> web.Response:
        """{participant, market_time}: everything up to that time is done."""
        body = await body_of(request, "participant", "market_time")
        self.clock.ack(str(body["participant"]), milliseconds("market_time", body["market_time"]))
        return json_answer({"state": self.clock.state})

    async def wait(self, request: web.Request) -> web.Response:
        """?until=ISO time&seconds=N: answers when market time is there, or after N seconds (at most a minute)."""
        until = milliseconds("until", request.query.get("until", ""))
        try:
            seconds = min(float(request.query.get("seconds", "10")), LONGEST_WAIT_SECONDS)
        except ValueError as error:
            raise bad(f"seconds must be a number, got {request.query['seconds']!r}") from error
        await self.clock.reached(until, seconds)
        return json_answer(self.clock.status())

    async def open_account(self, request: web.Request) -> web.Response:
        """{account_id, api_key, api_secret, balances {asset: "amount"}}; again: a new key, the same balances."""
        body = await body_of(request, "account_id", "api_key", "api_secret", "balances")
        account_id, key, secret = body["account_id"], body["api_key"], body["api_secret"]
        if not all(isinstance(text, str) and text for text in (account_id, key, secret)):
            raise bad("account_id, api_key and api_secret must be strings, and none of them empty")
        owner = self.exchange.books.by_key.get(key)
        if owner is not None and owner.account_id != account_id:
            raise web.HTTPConflict(text=f"this api_key belongs to another account than {account_id!r}")
        account = self.exchange.open_account(account_id, key, secret, _amounts(body["balances"]))
        await self.exchange.durable()
        return json_answer({"account_id": account.account_id, "balances": _balances(account)})

    async def request_token(self, request: web.Request) -> web.Response:
        """{api_key}: what the log-in page would put on its redirect, for programs without a browser."""
        body = await body_of(request, "api_key")
        if self.kite is None:
            raise bad("this dataset is not of an exchange that Kite Connect serves")
        try:
            return json_answer({"request_token": self.kite.request_token(str(body["api_key"]))})
        except KiteError as error:
            raise web.HTTPNotFound(text="no account has this api_key; open one with POST /sandbox/accounts") from error

    async def orders(self, request: web.Request) -> web.Response:
        """All orders of `account_id`, in the order they came."""
        account = await self._account(request)
        return json_answer([_order(order) for order in account.orders.values()])

    async def fills(self, request: web.Request) -> web.Response:
        """All fills of `account_id`, in the order they came."""
        account = await self._account(request)
        return json_answer([_fill(trade, account.orders[trade.order_id]) for trade in account.trades])

    async def balances(self, request: web.Request) -> web.Response:
        return json_answer(_balances(await self._account(request)))

    def shown(self, account: Account) -> dict[str, Any]:
        """All that is in the books about an account."""
        return {
            "balances": _balances(account),
            "positions": [
                {
                    "symbol": each.symbol, "product": each.product, "units": f"{each.units:f}", "cost": f"{each.cost:f}",
                    "margin": f"{each.margin:f}",
                }
                for each in account.positions.values() if each.units
            ],
            "billed": f"{account.billed:f}",
            "orders": [_order(order) for order in account.orders.values()],
            "fills": [_fill(trade, account.orders[trade.order_id]) for trade in account.trades],
        }  # fmt: skip

    async def _account(self, request: web.Request) -> Account:
        await self.exchange.durable()
        account = self.exchange.books.accounts.get(request.query.get("account_id", ""))
        if account is None:
            raise web.HTTPNotFound(
                text=f"no account {request.query.get('account_id')!r}; open it with POST /sandbox/accounts"
            )
        return account

    def _guarded(self, handler: Handler) -> Handler:
        async def guarded(request: web.Request) -> web.StreamResponse:
            if not hmac.compare_digest(request.headers.get("Authorization", "").encode(), self._expected):
                raise web.HTTPUnauthorized(text="the sandbox's control routes need its admin token as a bearer token")
            return await handler(request)

        return guarded


def milliseconds(name: str, text: object) -> int:
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError as error:
        raise bad(f"{name} must be ISO 8601 with a time zone, got {text!r}") from error
    if moment.tzinfo is None:
        raise bad(f"{name} needs a time zone, got {text!r}")
    return round(moment.timestamp() * 1_000)


async def body_of(request: web.Request, *needed: str) -> dict[str, Any]:
    try:
        body = orjson.loads(await request.read())
    except orjson.JSONDecodeError as error:
        raise bad(f"the body must be JSON: {error}") from error
    missing = [name for name in needed if not isinstance(body, dict) or name not in body]
    if missing:
        raise bad(f"the body lacks {missing}; needed are {list(needed)}")
    return dict(body)


def _speed(value: object) -> Speed | None:
    if value is None or value == "max":
        return "max" if value else None
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf"):
        return float(value)
    raise bad(f'speed must be "max" or a positive number of steps per second, got {value!r}')


def _amounts(value: object) -> dict[str, Decimal]:
    try:
        amounts = {str(asset): Decimal(str(amount)) for asset, amount in dict(value).items()}  # type: ignore[call-overload]
    except (TypeError, ValueError, InvalidOperation) as error:
        raise bad(f'balances must be {{asset: "amount"}}, got {value!r}') from error
    if not all(amount.is_finite() and amount >= 0 for amount in amounts.values()):
        raise bad(f"balances must be finite and not negative, got {value!r}")
    return amounts


def bad(message: str) -> web.HTTPBadRequest:
    return web.HTTPBadRequest(text=message)


def json_answer(body: object) -> web.Response:
    return web.Response(body=orjson.dumps(body, default=str), content_type="application/json")


def _balances(account: Account) -> dict[str, dict[str, str]]:
    return {
        asset: {"free": f"{balance.free:f}", "locked": f"{balance.locked:f}"}
        for asset, balance in sorted(account.balances.items())
    }


def _order(order: Order) -> dict[str, Any]:
    return {
        "order_id": str(order.order_id),
        "client_order_id": order.client_order_id,
        "symbol": order.symbol,
        "side": order.side.lower(),
        "type": order.request.kind,
        "state": order.state,
        "quantity": f"{order.request.quantity:f}",
        "filled": f"{order.filled:f}",
        "quote_filled": f"{order.quote_filled:f}",
        "time": order.time,
    }


def _fill(trade: Trade, order: Order) -> dict[str, Any]:
    return {
        "trade_id": str(trade.trade_id),
        "order_id": str(trade.order_id),
        "client_order_id": order.client_order_id,
        "symbol": trade.symbol,
        "side": trade.side.lower(),
        "price": f"{trade.price:f}",
        "quantity": f"{trade.quantity:f}",
        "fee": f"{trade.fee:f}",
        "fee_asset": trade.fee_asset,
        "time": trade.time,
    }
