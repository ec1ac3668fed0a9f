"""Binance spot behind the order door: its answers as types, amounts as exact decimals.

ccxt signs and paces, and asks the questions; its implicit methods give the raw answer, whose strings become decimals
without ever being floats. What changes something at the exchange goes out on a wire of its own (`wire.py`), once, and is
judged by the exchange's own words: the catalogue of codes is Binance's "Errors" page of the spot API documentation.
"""

import asyncio
import json
import re
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import orjson

from trading_platform.identifiers import ClientOrderId, Symbol, TradeId, Venue, VenueOrderId
from trading_platform.markets.contracts import Contract
from trading_platform.markets.denials import Denial
from trading_platform.markets.instruments import Instrument
from trading_platform.venues.binance_client import binance_client
from trading_platform.venues.port import (
    Accepted,
    Ambiguous,
    AuthLost,
    IpNotAllowed,
    OrderState,
    QueryFailedError,
    Refused,
    Result,
    Sending,
    Side,
    Throttled,
    TopOfBook,
    VenueFill,
)
from trading_platform.venues.route import Route, local_address
from trading_platform.venues.wire import Reply, Wire

RECV_WINDOW = timedelta(seconds=5)
ABSENCE_MARGIN = timedelta(seconds=5)
CALL_TIMEOUT_SECONDS = 5.0
STATES: dict[str, OrderState] = {
    "NEW": "WORKING",
    "PENDING_NEW": "WORKING",
    "PARTIALLY_FILLED": "PARTIALLY_FILLED",
    "FILLED": "FILLED",
    "CANCELED": "CANCELLED",
    "PENDING_CANCEL": "WORKING",
    "REJECTED": "REJECTED",
    "EXPIRED": "EXPIRED",
    "EXPIRED_IN_MATCH": "EXPIRED",
}
NO_SUCH_ORDER = "-2013"
WEIGHT_OF_ONE, WEIGHT_OF_ALL = 6, 80
"""What asking for open orders takes of the 6,000 that an address has a minute: of one symbol, and of all."""
THROTTLED_CODES = frozenset({"-1003", "-1008", "-1015", "-1034"})
AUTHENTICATION_CODES = frozenset({"-1002", "-1022", "-2014", "-2015"})
REFUSING_CODES = frozenset({"-1010", "-1013", "-1014", "-1020", "-1021"})
"""Refusals outside of -11xx (request) and -2xxx (order); any other code leaves open whether the order was placed."""
DUPLICATE = "Duplicate order"
BANNED = 418
THROTTLING_STATUSES = frozenset({429, BANNED})
LONGEST_BAN = timedelta(minutes=5)


class NotArmedError(PermissionError):
    """A real exchange was asked for, for an account that its owner has not armed."""


class BinanceVenue:
    """One account. `base_url` None is the real exchange, which `armed` must allow."""

    needs_login: bool = False

    def __init__(
        self,
        base_url: str | None,
        api_key: str,
        secret: str,
        *,
        armed: bool = False,
    ) -> None:
        if base_url is None and not armed:
            raise NotArmedError(
                "this account is not armed for live trading: its owner arms it by typed confirmation. Paper accounts "
                "trade on the sandbox (TP_SANDBOX_URL)."
            )
        self.client = binance_client(
            base_url, api_key, secret, rate_limit=base_url is None, timeout_seconds=CALL_TIMEOUT_SECONDS
        )
        self.client.options["recvWindow"] = int(RECV_WINDOW.total_seconds() * 1_000)
        self.wire = Wire(self.client.urls["api"]["private"], self.client.ssl_context, CALL_TIMEOUT_SECONDS)
        self.route = Route("binance")

    def contract_for(self, symbol: Symbol, at: datetime) -> Symbol:
        return symbol

    def forbids(self, contract: Symbol, side: Side, quantity: Decimal, *, reducing: bool) -> Denial | None:
        """Nothing: the step and the smallest order are the instrument's, and the market never closes."""
        return None

    async def measure_route(self) -> None:
        asked = time.time()
        answer = await self._ask(self.client.public_get_time())
        answered = time.time()
        with _readable():
            offset = int(answer["serverTime"]) - (asked + answered) / 2 * 1_000
        address = urlsplit(self.client.urls["api"]["private"])
        source_ip = await asyncio.to_thread(local_address, address.hostname or "", address.port or 443)
        self.route = Route("binance", source_ip, round(offset, 3))

    async def instruments(self) -> Mapping[Symbol, Instrument]:
        markets = await self._ask(self.client.load_markets())
        return {Symbol(name): Instrument.from_ccxt(Venue("binance"), market) for name, market in markets.items()}

    def place_market(
        self, client_order_id: ClientOrderId, contract: Symbol, side: Side, quantity: Decimal, issued_at: datetime, *,
        reducing: bool = False,
    ) -> Sending:  # fmt: skip
        return self._place(client_order_id, contract, side, quantity, issued_at, {"type": "MARKET"})

    def place_stop(
        self, client_order_id: ClientOrderId, contract: Symbol, side: Side, quantity: Decimal, trigger: Decimal,
        limit: Decimal, issued_at: datetime,
    ) -> Sending:  # fmt: skip
        terms = {"type": "STOP_LOSS_LIMIT", "timeInForce": "GTC", "stopPrice": f"{trigger:f}", "price": f"{limit:f}"}
        return self._place(client_order_id, contract, side, quantity, issued_at, terms)

    async def cancel(self, client_order_id: ClientOrderId, contract: Symbol) -> Result:
        request = {"symbol": _venue_symbol(contract), "origClientOrderId": client_order_id}
        return await self._change("DELETE", request)

    def _place(
        self, client_order_id: ClientOrderId, contract: Symbol, side: Side, quantity: Decimal, issued_at: datetime,
        terms: Mapping[str, str],
    ) -> Sending:  # fmt: skip
        request = {
            "symbol": _venue_symbol(contract),
            "side": side.upper(),
            **terms,
            "quantity": f"{quantity:f}",
            "newClientOrderId": client_order_id,
            "newOrderRespType": "FULL",
            "timestamp": round(issued_at.timestamp() * 1_000),
        }
        return self._change("POST", request)

    def _change(self, method: str, request: Mapping[str, Any]) -> Sending:
        """An order, or its cancellation, signed."""
        try:
            signed = self.client.sign("order", "private", method, request)
            target = "/" + signed["url"].split("/", 3)[3]
            made_out = self.wire.request(method, target, signed["headers"], signed["body"] or "")
        except Exception as error:  # a key that cannot be signed with, or sent
            return Sending(partial(_not_sent, error))
        return Sending(partial(self._send, made_out))

    async def _send(self, made_out: bytes) -> Result:
        try:
            if self.client.enableRateLimit:
                await self.client.throttle(1)
            reply = await self.wire.ask(made_out)
        except Exception as error:  # whatever went wrong after sending, the order may be there
            return _unknown(error)
        return outcome(reply)

    async def find_order(self, client_order_id: ClientOrderId, contract: Symbol) -> Accepted | None:
        import ccxt

        request = {"symbol": _venue_symbol(contract), "origClientOrderId": client_order_id}
        try:
            order = await self._ask(self.client.private_get_order(request))
        except QueryFailedError as error:
            if isinstance(error.__cause__, ccxt.OrderNotFound) and NO_SUCH_ORDER in str(error.__cause__):
                return None
            raise
        with _readable():
            number = str(order["orderId"])
            request = {"symbol": request["symbol"], "orderId": number}
        trades = await self._ask(self.client.private_get_mytrades(request))
        with _readable():
            fills = [_fill(trade, "id", trade["time"]) for trade in trades]
            return _accepted(number, order, fills)

    def hedge_for(self, symbol: Symbol, at: datetime, level: Decimal) -> Symbol | None:
        return None

    def listed(self, contract: Symbol) -> Contract | None:
        return None

    def takes_stops(self, contract: Symbol) -> bool:
        return True

    def proves_absence(self, contract: Symbol, issued_at: datetime, market_sent_at: datetime) -> bool:
        """The exchange refuses what comes later than its receive window."""
        return datetime.now(UTC) - issued_at > RECV_WINDOW + ABSENCE_MARGIN

    async def balances(self) -> Mapping[str, Decimal]:
        account = await self._ask(self.client.private_get_account({"omitZeroBalances": "true"}))
        with _readable():
            return {row["asset"]: Decimal(row["free"]) + Decimal(row["locked"]) for row in account["balances"]}

    async def books(self, contracts: Collection[Symbol]) -> Mapping[Symbol, TopOfBook]:
        by_name = {_venue_symbol(contract): contract for contract in contracts}
        names = json.dumps(sorted(by_name), separators=(",", ":"))
        rows = await self._ask(self.client.public_get_ticker_bookticker({"symbols": names}))
        with _readable():
            return {
                by_name[row["symbol"]]: TopOfBook(
                    Decimal(row["bidPrice"]), Decimal(row["askPrice"]), Decimal(row["bidQty"]), Decimal(row["askQty"])
                )
                for row in rows
            }

    async def open_client_order_ids(self, contracts: Collection[Symbol] | None = None) -> set[str]:
        narrowed = contracts is not None and len(contracts) * WEIGHT_OF_ONE < WEIGHT_OF_ALL
        asked = [{"symbol": _venue_symbol(each)} for each in contracts or ()] if narrowed else [{}]
        answers = await asyncio.gather(*(self._ask(self.client.private_get_openorders(each)) for each in asked))
        with _readable():
            return {order["clientOrderId"] for orders in answers for order in orders}

    async def close(self) -> None:
        self.wire.close()
        await self.client.close()

    async def _ask(self, call: Any) -> Any:
        try:
            return await call
        except Exception as error:  # also what aiohttp raises and ccxt does not translate
            raise QueryFailedError(f"Binance did not answer: {type(error).__name__}: {error}") from error


async def _not_sent(error: Exception) -> Result:
    return _unknown(error)


def _unknown(error: Exception) -> Ambiguous:
    return Ambiguous(f"{type(error).__name__}: {error}")


def outcome(reply: Reply) -> Result:
    """What the answer to an order or its cancellation means. Anything not known to be a refusal is ambiguous.

    Binance: 4xx are malformed or refused requests; after 5xx "the execution status is unknown".
    """
    try:
        answer = orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        answer = None
    if reply.status == 200 and isinstance(answer, dict):
        try:
            return _placed(answer)
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:
            return Ambiguous(f"the answer cannot be read: {error!r}")
    if isinstance(answer, dict) and "code" in answer:
        return _refusal(reply, str(answer["code"]), str(answer.get("msg", "")))
    if reply.status in THROTTLING_STATUSES:
        return Throttled(_wait(reply))
    return Ambiguous(f"HTTP {reply.status}: {reply.body[:300].decode(errors='replace')}")


def _refusal(reply: Reply, code: str, text: str) -> Result:
    if code in AUTHENTICATION_CODES:
        return IpNotAllowed(text) if "IP" in text and "API-key" not in text else AuthLost(text)
    if code in THROTTLED_CODES:
        return Throttled(_wait(reply))
    if DUPLICATE in text:  # an order of that id is there: what became of it has to be asked
        return Ambiguous(f"{code} {text}")
    if code in REFUSING_CODES or re.fullmatch(r"-(2\d+|11\d\d)", code):
        return Refused(code, text)
    return Ambiguous(f"HTTP {reply.status}: {code} {text}")


def _wait(reply: Reply) -> timedelta:
    seconds = reply.headers.get("retry-after", "")
    if seconds.isdigit():
        return timedelta(seconds=int(seconds))
    return LONGEST_BAN if reply.status == BANNED else timedelta(seconds=1)


@contextmanager
def _readable() -> Iterator[None]:
    """An answer that cannot be read is a question without an answer."""
    try:
        yield
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise QueryFailedError(f"Binance's answer cannot be read: {error!r}") from error


def _placed(answer: Mapping[str, Any]) -> Accepted:
    fills = [_fill(fill, "tradeId", answer["transactTime"]) for fill in (answer["fills"] if "fills" in answer else ())]
    return _accepted(str(answer["orderId"]), answer, fills)


def _accepted(number: str, order: Mapping[str, Any], fills: list[VenueFill]) -> Accepted:
    """Complete only if the fills add up: the list of trades may lag behind the order at the real exchange."""
    filled = Decimal(order["executedQty"])
    complete = sum((fill.quantity for fill in fills), Decimal(0)) == filled
    return Accepted(VenueOrderId(number), STATES[order["status"]], filled, fills, complete)


def _fill(row: Mapping[str, Any], id_field: str, milliseconds: Any) -> VenueFill:
    return VenueFill(
        TradeId(str(row[id_field])),
        Decimal(row["price"]),
        Decimal(row["qty"]),
        Decimal(row["commission"]),
        row["commissionAsset"],
        datetime.fromtimestamp(int(milliseconds) / 1_000, UTC),
    )


def _venue_symbol(symbol: Symbol) -> str:
    return symbol.replace("/", "")
