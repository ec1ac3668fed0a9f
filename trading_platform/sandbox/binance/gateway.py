"""The way of every REST request: limits, the network's latency, who asks, the handler, and the answer's head.

    request -> weight and bans -> latency -> API key and signature -> handler -> durable -> answer

Signatures, `recvWindow` and limits go by the wall clock, as the real exchange's do; what handlers answer carries market
time. Limits count by address. In a replay, whose minutes are shorter than the wall's, they are wider by default.
"""

import asyncio
import hashlib
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

import orjson
from aiohttp import web

from trading_platform.sandbox.binance.errors import BinanceError, refused
from trading_platform.sandbox.binance.parameters import Parameters
from trading_platform.sandbox.books import Account, Books
from trading_platform.sandbox.exchange import Exchange
from trading_platform.sandbox.rules import RefusedError

RECV_WINDOW_MS = Decimal(5_000)
LONGEST_RECV_WINDOW_MS = Decimal(60_000)
AHEAD_MS = 1_000
WEIGHT_A_MINUTE = 6_000
WEIGHT_A_MINUTE_IN_REPLAY = 600_000
ORDERS_OF_WEIGHT = 60
"""Unfilled orders that an account may send in 10 s: a sixtieth of the weight a minute, 100 on the real exchange."""
BANNED_BEYOND = 1.5
FIRST_BAN_SECONDS = 120

Security = Literal["none", "key", "signed"]


@dataclass(frozen=True, slots=True)
class Call:
    """A request that has been let in. `account` is None for public routes."""

    parameters: Parameters
    account: Account | None
    address: str

    @property
    def customer(self) -> Account:
        assert self.account is not None, "only routes with security `key` or `signed` have a customer"
        return self.account


Handler = Callable[[Call], object]
"""Answers a call with what is sent as JSON; may raise `BinanceError` and `RefusedError`."""


@dataclass
class Usage:
    """What one address used up in the current minute."""

    minute: int = 0
    weight: int = 0
    bans: int = 0
    banned_until: float = 0.0


@dataclass
class Gateway:
    """The pipeline over one exchange."""

    exchange: Exchange
    weight_limit: int = WEIGHT_A_MINUTE
    latency_seconds: float = 0.0
    usage: dict[str, Usage] = field(default_factory=dict)
    order_times: dict[str, list[float]] = field(default_factory=dict)
    """Wall times of each account's orders of the last 10 s."""

    def route(
        self, method: str, path: str, handler: Handler, weight: int | Callable[[Parameters], int] = 1,
        security: Security = "none",
    ) -> web.RouteDef:  # fmt: skip
        """A route through the pipeline."""

        async def answer(request: web.Request) -> web.StreamResponse:
            headers: dict[str, str] = {}
            try:
                body = await self._pass(request, handler, weight, security, headers)
                return _json(body, 200, headers)
            except BinanceError as error:
                return _json(error.body, error.status, headers | error.headers)

        return web.route(method, path, answer)

    @property
    def order_limit(self) -> int:
        return max(self.weight_limit // ORDERS_OF_WEIGHT, 1)

    def count_orders(self, account: Account, count: int) -> None:
        """Let an account send more orders, or refuse with -1015."""
        now = time.monotonic()
        recent = [moment for moment in self.order_times.get(account.account_id, []) if moment > now - 10]
        if len(recent) + count > self.order_limit:
            wait = int(recent[0] + 10 - now) + 1 if recent else 10
            raise BinanceError(
                -1015, f"Too many new orders; current limit is {self.order_limit} orders per 10 SECOND.", 429,
                headers={"Retry-After": str(wait)},
            )  # fmt: skip
        self.order_times[account.account_id] = recent + [now] * count

    # --- the stations of a request -----------------------------------------------------------------------------------

    async def _pass(
        self, request: web.Request, handler: Handler, weight: int | Callable[[Parameters], int], security: Security,
        headers: dict[str, str],
    ) -> object:  # fmt: skip
        query = request.raw_path.partition("?")[2]
        body = (await request.text()) if request.can_read_body else ""
        parameters = Parameters(query, body)
        address = request.remote or ""
        self._use(address, weight if isinstance(weight, int) else weight(parameters), headers)
        if self.latency_seconds:
            await asyncio.sleep(self.latency_seconds)
        account = None
        if security != "none":
            account = customer(self.exchange.books, request.headers.get("X-MBX-APIKEY", ""))
        if security == "signed" and account is not None:
            check_signature(account, *without_signature(query, body))
            check_time(parameters)
        try:
            answer = handler(Call(parameters, account, address))
        except RefusedError as refusal:
            await self.exchange.durable()  # a refusal tells of the books too
            raise refused(refusal) from refusal
        except BinanceError:
            await self.exchange.durable()
            raise
        await self.exchange.durable()
        if account is not None and account.account_id in self.order_times:
            headers["X-MBX-ORDER-COUNT-10S"] = str(len(self.order_times[account.account_id]))
        return answer

    def _use(self, address: str, weight: int, headers: dict[str, str]) -> None:
        """Count a request's weight; refuse with 429 beyond the limit, with 418 who goes on nevertheless."""
        now, usage = time.time(), self.usage.setdefault(address, Usage())
        if now < usage.banned_until:
            until = int(usage.banned_until * 1_000)
            raise BinanceError(
                -1003, f"Way too much request weight used; IP banned until {until}. Please use WebSocket Streams for "
                "live updates to avoid bans.", 418, headers={"Retry-After": str(int(usage.banned_until - now) + 1)},
            )  # fmt: skip
        minute = int(now // 60)
        if minute != usage.minute:
            usage.minute, usage.weight = minute, 0
        usage.weight += weight
        headers["X-MBX-USED-WEIGHT"] = headers["X-MBX-USED-WEIGHT-1M"] = str(usage.weight)
        if usage.weight <= self.weight_limit:
            return
        if usage.weight > self.weight_limit * BANNED_BEYOND:
            usage.banned_until = now + FIRST_BAN_SECONDS * 2**usage.bans
            usage.bans += 1
        raise BinanceError(
            -1003, f"Too much request weight used; current limit is {self.weight_limit} request weight per 1 MINUTE. "
            "Please use WebSocket Streams for live updates to avoid polling the API.", 429,
            headers={"Retry-After": str(int((minute + 1) * 60 - now) + 1)},
        )  # fmt: skip


def customer(books: Books, api_key: str) -> Account:
    """The account of an API key. Raises -2014 where that can be no key, -2015 where it is nobody's."""
    if not api_key or not api_key.isascii() or not api_key.isprintable() or " " in api_key:
        raise BinanceError(-2014, "API-key format invalid.", 401)
    account = books.by_key.get(api_key)
    if account is None:
        raise BinanceError(-2015, "Invalid API-key, IP, or permissions for action.", 401)
    return account


def without_signature(query: str, body: str) -> tuple[str, str]:
    """(what was signed: query and body as they were sent, joined without a mark; the signature)."""
    signature, kept = "", []
    for part in (query, body):
        pieces = []
        for piece in part.split("&"):
            if piece.startswith("signature="):
                signature = piece.removeprefix("signature=")
            elif piece:
                pieces.append(piece)
        kept.append("&".join(pieces))
    return "".join(kept), signature


def check_signature(account: Account, signed: str, signature: str) -> None:
    """HMAC-SHA256 with the account's secret, in hexadecimal of either case."""
    if not signature:
        raise BinanceError(-1102, "Mandatory parameter 'signature' was not sent, was empty/null, or malformed.")
    expected = hmac.new(account.api_secret.encode(), signed.encode(), hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected.encode(), signature.lower().encode()):
        raise BinanceError(-1022, "Signature for this request is not valid.")


def check_time(parameters: Parameters) -> None:
    """`timestamp` within `recvWindow` of the wall clock, and not more than a second ahead of it."""
    parameters.required("timestamp")
    stamp = parameters.integer("timestamp")
    assert stamp is not None
    if stamp >= 10**15:  # microseconds are allowed too
        stamp //= 1_000
    window = parameters.number("recvWindow", RECV_WINDOW_MS)
    if not 0 < window <= LONGEST_RECV_WINDOW_MS:
        raise BinanceError(-1131, "recvWindow must be less than 60000.")
    now = wall_ms()
    if stamp >= now + AHEAD_MS:
        raise BinanceError(-1021, "Timestamp for this request was 1000ms ahead of the server's time.")
    if now - stamp > window:
        raise BinanceError(-1021, "Timestamp for this request is outside of the recvWindow.")


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _json(body: object, status: int, headers: dict[str, str]) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=status, content_type="application/json", headers=headers)
