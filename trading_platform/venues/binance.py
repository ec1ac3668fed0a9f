"""Binance spot behind the order door: the ccxt client, its answers as types, amounts as exact decimals.

ccxt signs, paces and maps errors; its implicit methods give the raw answer, whose strings become decimals without ever
being floats. The catalogue of codes is Binance's "Errors" page of the spot API documentation.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from trading_platform.identifiers import ClientOrderId, Symbol, TradeId, Venue, VenueOrderId
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
    VenueFill,
)

if TYPE_CHECKING:
    from ccxt.async_support import binance

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
UNKNOWN_OUTCOME_CODES = frozenset({"-1000", "-1001", "-1006", "-1007", "-1016"})
"""Binance: "execution status unknown", time-outs, disconnected: the order may have been placed."""
LONGEST_BAN = timedelta(minutes=5)


class NotArmedError(PermissionError):
    """A real exchange was asked for, for an account that its owner has not armed."""


class BinanceVenue:
    """One account. `base_url` None is the real exchange, which `armed` must allow."""

    proves_absence_after: timedelta | None = RECV_WINDOW + ABSENCE_MARGIN

    def __init__(
        self,
        base_url: str | None,
        api_key: str,
        secret: str,
        *,
        armed: bool = False,
        markets_from: "binance | None" = None,
    ) -> None:
        if base_url is None and not armed:
            raise NotArmedError(
                "this account is not armed for live trading: its owner arms it by typed confirmation. Paper accounts "
                "trade on the sandbox (TP_SANDBOX_URL)."
            )
        self.client = binance_client(
            base_url, api_key, secret, rate_limit=base_url is None, timeout_seconds=CALL_TIMEOUT_SECONDS,
            markets_from=markets_from,
        )  # fmt: skip
        self.client.options["recvWindow"] = int(RECV_WINDOW.total_seconds() * 1_000)

    async def instruments(self) -> Mapping[Symbol, Instrument]:
        markets = await self._ask(self.client.load_markets())
        return {Symbol(name): Instrument.from_ccxt(Venue("binance"), market) for name, market in markets.items()}

    async def place_market(
        self, client_order_id: ClientOrderId, symbol: Symbol, side: Side, quantity: Decimal
    ) -> Result:
        import ccxt

        request = {
            "symbol": _venue_symbol(symbol),
            "side": side.upper(),
            "type": "MARKET",
            "quantity": f"{quantity:f}",
            "newClientOrderId": client_order_id,
            "newOrderRespType": "FULL",
        }
        try:
            answer = await self.client.private_post_order(request)
        except ccxt.BaseError as error:
            return outcome(error)
        except Exception as error:  # whatever went wrong after sending, the order may be there
            return Ambiguous(f"{type(error).__name__}: {error}")
        try:
            return _placed(answer)
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:
            return Ambiguous(f"the answer cannot be read: {error!r}")

    async def find_order(self, client_order_id: ClientOrderId, symbol: Symbol) -> Accepted | None:
        import ccxt

        request = {"symbol": _venue_symbol(symbol), "origClientOrderId": client_order_id}
        try:
            order = await self._ask(self.client.private_get_order(request))
        except QueryFailedError as error:
            if isinstance(error.__cause__, ccxt.OrderNotFound) and NO_SUCH_ORDER in str(error.__cause__):
                return None
            raise
        number = order["orderId"]
        trades = await self._ask(self.client.private_get_mytrades({"symbol": request["symbol"], "orderId": number}))
        return Accepted(
            VenueOrderId(str(number)),
            STATES[order["status"]],
            Decimal(order["executedQty"]),
            [_fill(trade, "id", trade["time"]) for trade in trades],
            complete=True,
        )

    async def balances(self) -> Mapping[str, Decimal]:
        account = await self._ask(self.client.private_get_account({"omitZeroBalances": "true"}))
        return {row["asset"]: Decimal(row["free"]) + Decimal(row["locked"]) for row in account["balances"]}

    async def open_client_order_ids(self) -> set[str]:
        orders = await self._ask(self.client.private_get_openorders())
        return {order["clientOrderId"] for order in orders}

    async def close(self) -> None:
        await self.client.close()

    async def _ask(self, call: Any) -> Any:
        import ccxt

        try:
            return await call
        except ccxt.BaseError as error:
            raise QueryFailedError(f"Binance did not answer: {type(error).__name__}: {error}") from error


def outcome(error: Exception) -> Result:
    """What a failed order call means. Anything not known to be a refusal is ambiguous."""
    import ccxt

    code = _code(error)
    text = str(error)
    if code in UNKNOWN_OUTCOME_CODES:
        return Ambiguous(text)
    if isinstance(error, (ccxt.RateLimitExceeded, ccxt.DDoSProtection)):
        return Throttled(LONGEST_BAN if " 418 " in text else timedelta(seconds=1))
    if isinstance(error, ccxt.AuthenticationError):
        return IpNotAllowed(text) if code == "-2015" and "IP" in text and "API-key" not in text else AuthLost(text)
    if isinstance(error, ccxt.NetworkError) and code is None:
        return Ambiguous(text)
    if code is not None:
        return Refused(code, text)
    return Ambiguous(text)


def _code(error: Exception) -> str | None:
    """Binance's own code, where ccxt's message holds one."""
    import re

    found = re.search(r'"code":\s*(-\d+)', str(error))
    return found.group(1) if found else None


def _placed(answer: Mapping[str, Any]) -> Accepted:
    fills = [_fill(fill, "tradeId", answer["transactTime"]) for fill in answer["fills"]]
    filled = Decimal(answer["executedQty"])
    return Accepted(
        VenueOrderId(str(answer["orderId"])),
        STATES[answer["status"]],
        filled,
        fills,
        complete=sum((fill.quantity for fill in fills), Decimal(0)) == filled,
    )


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
