"""The admin address of a sandbox by itself: faults, time, books and the market's moods, for whoever knows the address."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

import orjson
from aiohttp import web

from trading_platform.markets.price_bands import CircuitLimits
from trading_platform.sandbox.clock import Clock, iso
from trading_platform.sandbox.control import Control, bad, body_of, json_answer, milliseconds
from trading_platform.sandbox.events import Kept
from trading_platform.sandbox.exchange import Exchange
from trading_platform.sandbox.faults import BadFaultError, Faults
from trading_platform.sandbox.kite.surface import Kite

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
MOST_STEPS = 1_000_000


class Admin:
    """Routes under /admin/{token}. Bodies and answers are JSON; times ISO 8601 with a zone, amounts decimal strings."""

    def __init__(
        self, exchange: Exchange, clock: Clock, kite: Kite, faults: Faults, control: Control, token: str
    ) -> None:
        self.exchange, self.clock, self.kite, self.faults, self.control = exchange, clock, kite, faults, control
        self.prefix = f"/admin/{token}"

    def routes(self) -> list[web.RouteDef]:
        at = self.prefix
        return [
            web.get(at, self.overview),
            web.get(f"{at}/faults", self.show_faults),
            web.post(f"{at}/faults", self.inject),
            web.delete(f"{at}/faults", self.clear),
            web.get(f"{at}/clock", self.show_clock),
            web.post(f"{at}/clock", self.move),
            web.get(f"{at}/books", self.books),
            web.post(f"{at}/accounts", self.control.open_account),
            web.post(f"{at}/kite/request_token", self.control.request_token),
            web.post(f"{at}/kite/band", self.band),
            web.post(f"{at}/kite/halt", self.halt),
            web.post(f"{at}/kite/auctions", self.auction),
            web.post(f"{at}/kite/consent", self.consent),
            web.post(f"{at}/kite/postback", self.postback),
        ]

    async def overview(self, _: web.Request) -> web.Response:
        """What there is to do here."""
        found = [
            {
                "method": route.method,
                "path": route.path.removeprefix(self.prefix),
                "does": (route.handler.__doc__ or "").strip(),
            }
            for route in self.routes()
        ]
        return json_answer({"clock": self._clock(), "routes": found})

    # --- faults ------------------------------------------------------------------------------------------------------

    async def show_faults(self, _: web.Request) -> web.Response:
        """Every fault, how often it was asked for and how often it struck."""
        return json_answer(self.faults.shown())

    async def inject(self, request: web.Request) -> web.Response:
        """One fault, or a list of them: {kind, door, route, after, times, probability, seconds, status, accepted}."""
        try:
            given = orjson.loads(await request.read())
            self.faults.inject(given if isinstance(given, list) else [given])
        except orjson.JSONDecodeError as error:
            raise bad(f"the body must be JSON: {error}") from error
        except BadFaultError as error:
            raise bad(str(error)) from error
        return json_answer(self.faults.shown())

    async def clear(self, _: web.Request) -> web.Response:
        """No faults any more."""
        self.faults.clear()
        return json_answer([])

    # --- time --------------------------------------------------------------------------------------------------------

    async def show_clock(self, _: web.Request) -> web.Response:
        """Market time, and how it runs."""
        return json_answer(self._clock())

    async def move(self, request: web.Request) -> web.Response:
        """{run: bool}, {steps: n}, {seconds: n} or {to: time}: time stands or runs; it moves at once by steps, seconds, or to a time."""
        body = await body_of(request)
        if "run" in body:
            if not isinstance(body["run"], bool):
                raise bad(f"run must be true or false, got {body['run']!r}")
            self.clock.hold(still=not body["run"])
        until: int | None = None
        if "to" in body:
            until = milliseconds("to", body["to"])
        elif "seconds" in body:
            until = self.exchange.now + _whole("seconds", body["seconds"]) * 1_000
        steps = _whole("steps", body.get("steps", 0))
        if until is not None and until < self.exchange.now:
            raise bad(f"time goes forward only: it is {iso(self.exchange.now)} there")
        await self.clock.advance(steps=steps, until=until)
        if self.kite.mischief.due():
            await self.exchange.durable()
        return json_answer(self._clock())

    def _clock(self) -> dict[str, Any]:
        return self.clock.status() | {"stands": self.clock.stopped}

    # --- books -------------------------------------------------------------------------------------------------------

    async def books(self, request: web.Request) -> web.Response:
        """Accounts with balances, positions, orders and fills; ?account_id= for one of them."""
        await self.exchange.durable()
        wanted = request.query.get("account_id")
        accounts = self.exchange.books.accounts.values()
        found = {each.account_id: self.control.shown(each) for each in accounts if wanted in (None, each.account_id)}
        if wanted is not None and not found:
            raise web.HTTPNotFound(text=f"no account {wanted!r}; there are {sorted(self.exchange.books.accounts)}")
        return json_answer(found)

    # --- the Indian market -------------------------------------------------------------------------------------------

    async def band(self, request: web.Request) -> web.Response:
        """{symbol, lower, upper}: a price band by hand (a market at its edge is locked); without edges the rule's own again."""
        body = await body_of(request, "symbol")
        bands = self.kite.desk.bands
        symbol = str(body["symbol"])
        if symbol not in self.kite.desk.contracts:
            raise web.HTTPNotFound(text=f"no contract {symbol!r}")
        if "lower" in body or "upper" in body:
            lower, upper = _amount("lower", body.get("lower")), _amount("upper", body.get("upper"))
            if not 0 < lower < upper:
                raise bad(f"0 < lower < upper must hold, got {lower} and {upper}")
            bands.by_hand[symbol] = CircuitLimits(lower, upper)
        else:
            bands.by_hand.pop(symbol, None)
        bands.impose()
        limits = bands.limits(self.kite.desk.contracts[symbol])
        return json_answer({"symbol": symbol, "lower": limits.lower, "upper": limits.upper})

    async def halt(self, request: web.Request) -> web.Response:
        """{minutes}: trading stands for so long by market time; 0 ends it."""
        body = await body_of(request, "minutes")
        minutes = _whole("minutes", body["minutes"])
        now = datetime.fromtimestamp(self.exchange.now / 1_000, UTC)
        self.kite.schedule.halted_by_hand = now + timedelta(minutes=minutes) if minutes else None
        self.kite.schedule.look_at_halt()
        return json_answer({"halted": self.kite.desk.halted})

    async def auction(self, request: web.Request) -> web.Response:
        """{symbol, number}: shares that the exchange auctions today, for offers of variety auction."""
        body = await body_of(request, "symbol", "number")
        self.kite.desk.auctions[str(body["number"])] = str(body["symbol"])
        return json_answer(self.kite.desk.auctions)

    async def consent(self, request: web.Request) -> web.Response:
        """{api_key, consent}: "physical" makes every day's sale of holdings need an authorisation, "consent" none."""
        body = await body_of(request, "api_key", "consent")
        account = self.exchange.books.by_key.get(str(body["api_key"]))
        if account is None or body["consent"] not in ("physical", "consent"):
            raise bad("api_key must be an account's, consent `physical` or `consent`")
        self.exchange.record(Kept(account.account_id, "demat", "consent", {"is": body["consent"]}))
        await self.exchange.durable()
        return json_answer({"consent": body["consent"]})

    async def postback(self, request: web.Request) -> web.Response:
        """{api_key, url}: where an app wants its orders' updates posted; an empty url ends it."""
        body = await body_of(request, "api_key", "url")
        if body["url"]:
            self.kite.postbacks.urls[str(body["api_key"])] = str(body["url"])
        else:
            self.kite.postbacks.urls.pop(str(body["api_key"]), None)
        return json_answer(self.kite.postbacks.urls)


def _whole(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MOST_STEPS:
        raise bad(f"{name} must be a whole number from 0 to {MOST_STEPS}, got {value!r}")
    return value


def _amount(name: str, value: object) -> Decimal:
    try:
        found = Decimal(str(value))
    except InvalidOperation as error:
        raise bad(f"{name} must be a price, got {value!r}") from error
    if not found.is_finite():
        raise bad(f"{name} must be a price, got {value!r}")
    return found
