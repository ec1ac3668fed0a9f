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
from trading_platform.sandbox.rules import RefusedError

ORDERS_A_SECOND, ORDERS_A_MINUTE, ORDERS_A_DAY = 10, 400, 5_000
IST_SECONDS = 19_800
LIMITS = {"quote": 1, "historical": 3, "other": 10}
WRITES = frozenset({"POST", "PUT", "DELETE"})


@dataclass(frozen=True, slots=True)
class Call:
    """A request that has been let in: its account, path values, and fields of query and form together."""

    account: Account
    path: Mapping[str, str]
    fields: Mapping[str, str]
    every: Callable[[str], list[str]]
    """All values of a name in the query."""
    each: Callable[[str], list[str]]
    """All values of a name in the form."""
    json: Any = None


Handler = Callable[[Call], Any]


@dataclass
class Limiter:
    """Requests of each key in the current second, and orders in the current minute."""

    on: bool = True
    _used: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)

    def count(self, key: str, bucket: str) -> None:
        """Raises `KiteError` (429) above a limit. What is refused counts too."""
        if not self.on:
            return
        now = int(time.time())
        used = self._count(key, bucket, now)
        if bucket != "order":
            if used > LIMITS[bucket]:
                raise KiteError(429, "NetworkException", "Too many requests")
            return
        minute = self._count(key, "order/minute", now // 60)
        day = self._count(key, "order/day", (now + IST_SECONDS) // 86_400)
        if day > ORDERS_A_DAY:
            raise KiteError(429, "NetworkException", "Maximum allowed order requests exceeded.")
        if used > ORDERS_A_SECOND or minute > ORDERS_A_MINUTE:
            raise KiteError(429, "NetworkException", "Too many requests")

    def _count(self, key: str, span: str, number: int) -> int:
        current, used = self._used.get((key, span), (number, 0))
        used = used + 1 if current == number else 1
        self._used[key, span] = (number, used)
        return used


@dataclass
class Door:
    """Makes routes out of handlers."""

    exchange: Exchange
    sessions: Sessions
    limiter: Limiter
    in_words: Callable[[RefusedError], KiteError] = lambda error: KiteError(400, "InputException", error.reason.value)
    """The exchange's refusals as the broker words them."""

    def route(self, method: str, path: str, handler: Handler, bucket: str = "other") -> web.RouteDef:
        return web.route(method, path, self._way(handler, bucket))

    def _way(self, handler: Handler, bucket: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def way(request: web.Request) -> web.StreamResponse:
            try:
                key, account = self._who(request)
                self.limiter.count(key, bucket)
                found = handler(await _call(request, account))
                await self.exchange.durable()
                return found if isinstance(found, web.StreamResponse) else envelope(found)
            except KiteError as error:
                return refusal(error)
            except RefusedError as error:
                return refusal(self.in_words(error))

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
    form: Any = {}
    json: Any = None
    if request.method in WRITES and request.can_read_body:
        if request.content_type == "application/json":
            try:
                json = orjson.loads(await request.read())
            except orjson.JSONDecodeError as problem:
                raise KiteError(400, "InputException", "The body is not JSON.") from problem
        else:
            try:
                form = await request.post()
            except (ValueError, LookupError) as problem:  # no multipart, no UTF-8, a charset that does not exist
                raise KiteError(400, "InputException", "The body is no form.") from problem
    fields = {**request.query, **{name: value for name, value in form.items() if isinstance(value, str)}}

    def every(name: str) -> list[str]:
        return request.query.getall(name, [])

    def each(name: str) -> list[str]:
        return [value for value in form.getall(name, []) if isinstance(value, str)] if form else []

    return Call(account, dict(request.match_info), fields, every, each, json)
