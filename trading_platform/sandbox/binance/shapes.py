"""What Binance's answers look like: field for field after the official REST documentation of the spot API."""

from decimal import Decimal
from typing import Any

from trading_platform.markets.instruments import Instrument
from trading_platform.sandbox.books import Account, Order, Trade
from trading_platform.sandbox.candles import Row
from trading_platform.sandbox.exchange import Exchange

INTERVALS = {
    60: "1m", 180: "3m", 300: "5m", 900: "15m", 1800: "30m", 3600: "1h", 7200: "2h", 14400: "4h", 21600: "6h",
    28800: "8h", 43200: "12h", 86400: "1d", 259200: "3d", 604800: "1w",
}  # fmt: skip
LARGEST_QUANTITY = "9000000000.00000000"
EIGHT = Decimal("1e-8")


def venue_symbol(symbol: str) -> str:
    """`BTC/USDT` as Binance writes it."""
    return symbol.replace("/", "")


def number(value: Decimal | float) -> str:
    """Amounts are strings of eight decimals."""
    exact = value if isinstance(value, Decimal) else Decimal(repr(value))
    return f"{exact.quantize(EIGHT):f}"


def plain(value: Decimal) -> str:
    return f"{value.normalize():f}"


def symbol_info(instrument: Instrument) -> dict[str, Any]:
    """One entry of exchangeInfo, with the filters that orders are held against."""
    return {
        "symbol": venue_symbol(instrument.symbol),
        "status": "TRADING",
        "baseAsset": instrument.base,
        "baseAssetPrecision": 8,
        "quoteAsset": instrument.quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET"],
        "icebergAllowed": False,
        "ocoAllowed": False,
        "otoAllowed": False,
        "quoteOrderQtyMarketAllowed": False,
        "allowTrailingStop": False,
        "cancelReplaceAllowed": False,
        "amendAllowed": False,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "filters": [
            {
                "filterType": "PRICE_FILTER",
                "minPrice": plain(instrument.tick),
                "maxPrice": LARGEST_QUANTITY,
                "tickSize": plain(instrument.tick),
            },
            {
                "filterType": "LOT_SIZE",
                "minQty": plain(instrument.step),
                "maxQty": LARGEST_QUANTITY,
                "stepSize": plain(instrument.step),
            },
            {
                "filterType": "NOTIONAL",
                "minNotional": plain(instrument.minimum_notional),
                "applyMinToMarket": True,
                "maxNotional": LARGEST_QUANTITY,
                "applyMaxToMarket": False,
                "avgPriceMins": 0,
            },
        ],
        "permissions": [],
        "permissionSets": [["SPOT"]],
        "defaultSelfTradePreventionMode": "NONE",
        "allowedSelfTradePreventionModes": ["NONE"],
    }


def exchange_info(exchange: Exchange, symbols: list[str], now_ms: int) -> dict[str, Any]:
    return {
        "timezone": "UTC",
        "serverTime": now_ms,
        "rateLimits": [
            {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 6000},
            {"rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": 100},
        ],
        "exchangeFilters": [],
        "symbols": [symbol_info(exchange.instruments[symbol]) for symbol in symbols],
    }


def kline(row: Row, interval_ms: int) -> list[Any]:
    """A row of /klines: twelve columns, prices as strings."""
    opened, o, h, low, c, v = row
    return [
        opened, number(o), number(h), number(low), number(c), number(v), opened + interval_ms - 1, number(v * c), 0,
        "0.00000000", "0.00000000", "0",
    ]  # fmt: skip


def kline_event(symbol: str, row: Row, interval_seconds: int, market_ms: int) -> dict[str, Any]:
    """The stream's event for a closed bar."""
    opened, o, h, low, c, v = row
    name = venue_symbol(symbol)
    return {
        "e": "kline",
        "E": market_ms,
        "s": name,
        "k": {
            "t": opened, "T": opened + interval_seconds * 1_000 - 1, "s": name, "i": INTERVALS[interval_seconds],
            "f": 0, "L": 0, "o": number(o), "c": number(c), "h": number(h), "l": number(low), "v": number(v), "n": 0,
            "x": True, "q": number(v * c), "V": "0.00000000", "Q": "0.00000000", "B": "0",
        },
    }  # fmt: skip


def order(found: Order) -> dict[str, Any]:
    """An order as GET /order and the lists show it."""
    return {
        "symbol": venue_symbol(found.symbol),
        "orderId": found.order_id,
        "orderListId": -1,
        "clientOrderId": found.client_order_id,
        "price": number(found.price),
        "origQty": number(found.quantity),
        "executedQty": number(found.filled),
        "origQuoteOrderQty": "0.00000000",
        "cummulativeQuoteQty": number(found.quote_filled),
        "status": found.state,
        "timeInForce": found.time_in_force,
        "type": found.kind,
        "side": found.side,
        "stopPrice": "0.00000000",
        "icebergQty": "0.00000000",
        "time": found.time,
        "updateTime": found.updated,
        "isWorking": True,
        "workingTime": found.time,
        "selfTradePreventionMode": "NONE",
    }


def placed(found: Order) -> dict[str, Any]:
    """The FULL answer to a new order: the order with its fills."""
    answer = order(found)
    for name in ("time", "updateTime", "isWorking", "stopPrice", "icebergQty"):
        del answer[name]
    return answer | {
        "transactTime": found.updated,
        "fills": [
            {
                "price": number(trade.price),
                "qty": number(trade.quantity),
                "commission": number(trade.fee),
                "commissionAsset": trade.fee_asset,
                "tradeId": trade.trade_id,
            }
            for trade in found.trades
        ],
    }


def my_trade(trade: Trade) -> dict[str, Any]:
    return {
        "symbol": venue_symbol(trade.symbol),
        "id": trade.trade_id,
        "orderId": trade.order_id,
        "orderListId": -1,
        "price": number(trade.price),
        "qty": number(trade.quantity),
        "quoteQty": number(trade.quote_quantity),
        "commission": number(trade.fee),
        "commissionAsset": trade.fee_asset,
        "time": trade.time,
        "isBuyer": trade.side == "BUY",
        "isMaker": trade.maker,
        "isBestMatch": True,
    }


def account(found: Account, updated: int) -> dict[str, Any]:
    return {
        "makerCommission": 10,
        "takerCommission": 10,
        "buyerCommission": 0,
        "sellerCommission": 0,
        "commissionRates": {
            "maker": "0.00100000",
            "taker": "0.00100000",
            "buyer": "0.00000000",
            "seller": "0.00000000",
        },
        "canTrade": True,
        "canWithdraw": False,
        "canDeposit": False,
        "brokered": False,
        "requireSelfTradePrevention": False,
        "preventSor": False,
        "updateTime": updated,
        "accountType": "SPOT",
        "balances": [
            {"asset": asset, "free": number(balance.free), "locked": number(balance.locked)}
            for asset, balance in sorted(found.balances.items())
        ],
        "permissions": ["SPOT"],
        "uid": int.from_bytes(found.account_id.encode()[-6:], "big"),
    }
