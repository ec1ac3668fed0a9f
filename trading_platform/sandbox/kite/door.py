"""The way of every Kite request: rate limits, whose session, the handler, the books on disk, the answer's envelope.

    request -> limits -> `Authorization: token key:access` -> handler -> durable -> {"status": "success", "data": …}

Limits count as the broker's do, in seconds of the wall clock and per API key. In a replay, whose days are shorter than the
wall's, they are off unless asked for.
"""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

from trading_platform.sandbox.books import Account
from trading_platform.sandbox.exchange import Exchange
from trading_platform.sandbox.kite.errors import KiteError
from trading_platform.sandbox.kite.sessions import Sessions
from trading_platform.sandbox.rules import Refusal, RefusedError

ORDERS_A_SECOND, ORDERS_A_MINUTE = 10, 400
LIMITS = {"quote": 1, "historical": 3, "other": 10}
WRITES = frozenset({"POST", "PUT", "DELETE"})


@dataclass(frozen=True, slots=True)
class Call:
    """A request that has been let in: its account, path values, and fields of query and form together."""

    account: Account
    path: Mapping[str, str]
    fields: Mapping[str, str]
    every: Callable[[str], list[str]]
    json: Any = None


Handler = Callable[[Call], Any]


@dataclass
class Limiter:
    """Requests of each key in the current second, and orders in the current minute."""

    on: bool = True
    _seconds: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    _minutes: dict[str, tuple[int, int]] = field(default_factory=dict)

    def count(self, key: str, bucket: str) -> None:
        """Raises `KiteError` (429) above the limit."""
        if not self.on:
            return
        now = int(time.time())
        limit = ORDERS_A_SECOND if bucket == "order" else LIMITS[bucket]
        second, used = self._seconds.get((key, bucket), (now, 0))
        used = used + 1 if second == now else 1
        self._seconds[key, bucket] = (now, used)
        if bucket == "order":
            minute, orders = self._minutes.get(key, (now // 60, 0))
            orders = orders + 1 if minute == now // 60 else 1
            self._minutes[key] = (now // 60, orders)
            used = ORDERS_A_SECOND + 1 if orders > ORDERS_A_MINUTE else used
        if used > limit:
            raise KiteError(429, "NetworkException", "Too many requests")


@dataclass
class Door:
    """Makes routes out of handlers."""

    exchange: Exchange
    sessions: Sessions
    limiter: Limiter
    on_write: Callable[[], None] = lambda: None
    """Called after every order call, to tell the stream."""

    def route(self, method: str, path: str, handler: Handler, bucket: str = "other") -> web.RouteDef:
        return web.route(method, path, self._way(handler, bucket))

    def _way(self, handler: Handler, bucket: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def way(request: web.Request) -> web.StreamResponse:
            try:
                key, account = self._who(request)
                self.limiter.count(key, bucket)
                found = handler(await _call(request, account))
                await self.exchange.durable()
                if request.method in WRITES:
                    self.on_write()
                return found if isinstance(found, web.StreamResponse) else envelope(found)
            except KiteError as error:
                return refusal(error)
            except RefusedError as error:
                return refusal(_in_words(error))

        return way

    def _who(self, request: web.Request) -> tuple[str, Account]:
        scheme, _, pair = request.headers.get("Authorization", "").partition(" ")
        key, _, token = pair.partition(":")
        if scheme != "token":
            raise KiteError(403, "TokenException", "Incorrect `api_key` or `access_token`.")
        return key, self.sessions.account(key, token)


def envelope(data: Any) -> web.Response:
    return web.Response(body=orjson.dumps({"status": "success", "data": data}), content_type="application/json")


def refusal(error: KiteError) -> web.Response:
    body = {"status": "error", "message": error.message, "error_type": error.error_type, "data": None}
    return web.Response(status=error.status, body=orjson.dumps(body), content_type="application/json")


async def _call(request: web.Request, account: Account) -> Call:
    form: Mapping[str, Any] = {}
    json: Any = None
    if request.method in WRITES and request.can_read_body:
        if request.content_type == "application/json":
            try:
                json = orjson.loads(await request.read())
            except orjson.JSONDecodeError as problem:
                raise KiteError(400, "InputException", "The body is not JSON.") from problem
        else:
            form = await request.post()
    fields = {**request.query, **{name: value for name, value in form.items() if isinstance(value, str)}}
    return Call(account, dict(request.match_info), fields, lambda name: request.query.getall(name, []), json)


def _in_words(error: RefusedError) -> KiteError:
    words = {
        Refusal.NO_MARKET: "The instrument has not traded yet.",
        Refusal.UNKNOWN_SYMBOL: "The instrument is invalid or has expired.",
        Refusal.LOT_SIZE: "Invalid `quantity`: it must be a multiple of the lot size.",
        Refusal.PRICE_FILTER: "Tick size for this script does not allow this price. Kindly enter price in the multiple "
        "of tick size for this script.",
        Refusal.MAX_NUM_ORDERS: "Too many open orders in this instrument.",
        Refusal.WOULD_TRIGGER: "Trigger price for stoploss orders should be beyond the last traded price.",
        Refusal.UNKNOWN_ORDER: "Order cannot be changed or cancelled as it is not open.",
    }
    if error.reason is Refusal.BALANCE:
        return KiteError(
            400, "MarginException", "Insufficient funds. Required margin is more than the available margin."
        )
    kind = "OrderException" if error.reason is Refusal.UNKNOWN_ORDER else "InputException"
    return KiteError(400, kind, words.get(error.reason, error.reason.value))
