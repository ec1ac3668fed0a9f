"""Binance spot behind the order door: the ccxt client, its answers as types, amounts as exact decimals.

ccxt signs, paces and maps errors; its implicit methods give the raw answer, whose strings become decimals without ever
being floats. The catalogue of codes is Binance's "Errors" page of the spot API documentation.
"""

import asyncio
import json
import re
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

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
    Side,
    Throttled,
    TopOfBook,
    VenueFill,
)
from trading_platform.venues.route import Route, local_address

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
THROTTLED_CODES = frozenset({"-1003", "-1008", "-1015", "-1034"})
AUTHENTICATION_CODES = frozenset({"-1002", "-1022", "-2014", "-2015"})
REFUSING_CODES = frozenset({"-1010", "-1013", "-1014", "-1020", "-1021"})
"""Refusals outside of -11xx (request) and -2xxx (order); any other code leaves open whether the order was placed."""
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

    async def place_market(
        self, client_order_id: ClientOrderId, contract: Symbol, side: Side, quantity: Decimal, issued_at: datetime, *,
        reducing: bool = False,
    ) -> Result:  # fmt: skip
        return await self._place(client_order_id, contract, side, quantity, issued_at, {"type": "MARKET"})

    async def place_stop(
        self, client_order_id: ClientOrderId, contract: Symbol, side: Side, quantity: Decimal, trigger: Decimal,
        limit: Decimal, issued_at: datetime,
    ) -> Result:  # fmt: skip
        terms = {"type": "STOP_LOSS_LIMIT", "timeInForce": "GTC", "stopPrice": f"{trigger:f}", "price": f"{limit:f}"}
        return await self._place(client_order_id, contract, side, quantity, issued_at, terms)

    async def cancel(self, client_order_id: ClientOrderId, contract: Symbol) -> Result:
        import ccxt

        request = {"symbol": _venue_symbol(contract), "origClientOrderId": client_order_id}
        try:
            answer = await self.client.private_delete_order(request)
            return _accepted(str(answer["orderId"]), answer, [])
        except ccxt.BaseError as error:
            return outcome(error, self._retry_after())
        except Exception as error:
            return Ambiguous(f"{type(error).__name__}: {error}")

    async def _place(
        self, client_order_id: ClientOrderId, contract: Symbol, side: Side, quantity: Decimal, issued_at: datetime,
        terms: Mapping[str, str],
    ) -> Result:  # fmt: skip
        import ccxt

        request = {
            "symbol": _venue_symbol(contract),
            "side": side.upper(),
            **terms,
            "quantity": f"{quantity:f}",
            "newClientOrderId": client_order_id,
            "newOrderRespType": "FULL",
            "timestamp": round(issued_at.timestamp() * 1_000),
        }
        try:
            answer = await self.client.private_post_order(request)
        except ccxt.BaseError as error:
            return outcome(error, self._retry_after())
        except Exception as error:  # whatever went wrong after sending, the order may be there
            return Ambiguous(f"{type(error).__name__}: {error}")
        try:
            return _placed(answer)
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:
            return Ambiguous(f"the answer cannot be read: {error!r}")

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

    async def open_client_order_ids(self) -> set[str]:
        orders = await self._ask(self.client.private_get_openorders())
        with _readable():
            return {order["clientOrderId"] for order in orders}

    async def close(self) -> None:
        await self.client.close()

    async def _ask(self, call: Any) -> Any:
        try:
            return await call
        except Exception as error:  # also what aiohttp raises and ccxt does not translate
            raise QueryFailedError(f"Binance did not answer: {type(error).__name__}: {error}") from error

    def _retry_after(self) -> timedelta | None:
        headers = self.client.last_response_headers or {}
        seconds = next((value for name, value in headers.items() if name.lower() == "retry-after"), "")
        return timedelta(seconds=int(seconds)) if str(seconds).isdigit() else None


def outcome(error: Exception, retry_after: timedelta | None = None) -> Result:
    """What a failed order call means. Anything not known to be a refusal is ambiguous."""
    import ccxt

    code = _code(error)
    text = str(error)
    if code in AUTHENTICATION_CODES:  # before ccxt's type: it takes a revoked key for a temporary ban
        return IpNotAllowed(text) if "IP" in text and "API-key" not in text else AuthLost(text)
    if code in THROTTLED_CODES or (code is None and isinstance(error, (ccxt.RateLimitExceeded, ccxt.DDoSProtection))):
        return Throttled(retry_after or (LONGEST_BAN if " 418 " in text else timedelta(seconds=1)))
    if code is not None and (code in REFUSING_CODES or code.startswith("-2") or -1200 < int(code) <= -1100):
        return Refused(code, text)
    refusals = (ccxt.InsufficientFunds, ccxt.InvalidOrder, ccxt.BadRequest, ccxt.BadSymbol, ccxt.PermissionDenied)
    if code is None and isinstance(error, refusals):  # for some codes ccxt keeps the text alone
        return Refused(type(error).__name__, text)
    return Ambiguous(text)


@contextmanager
def _readable() -> Iterator[None]:
    """An answer that cannot be read is a question without an answer."""
    try:
        yield
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise QueryFailedError(f"Binance's answer cannot be read: {error!r}") from error


def _code(error: Exception) -> str | None:
    """Binance's own code, where ccxt's message holds one."""
    found = re.search(r'"code":\s*(-\d+)', str(error))
    return found.group(1) if found else None


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
