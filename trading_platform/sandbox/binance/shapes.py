"""What Binance's answers look like: field for field after the official REST documentation of the spot API."""

from collections.abc import Iterable
from decimal import ROUND_DOWN, Decimal
from typing import Any

from trading_platform.markets.instruments import Instrument
from trading_platform.sandbox import rules
from trading_platform.sandbox.binance.order_types import TYPES, order_type
from trading_platform.sandbox.books import Account, Books
from trading_platform.sandbox.candles import Candles, Row
from trading_platform.sandbox.liquidity import Level
from trading_platform.sandbox.matching import Market
from trading_platform.sandbox.orders import Order, OrderList, Trade

INTERVALS = {
    1: "1s", 60: "1m", 180: "3m", 300: "5m", 900: "15m", 1800: "30m", 3600: "1h", 7200: "2h", 14400: "4h",
    21600: "6h", 28800: "8h", 43200: "12h", 86400: "1d", 259200: "3d", 604800: "1w",
}  # fmt: skip
EIGHT = Decimal("1e-8")
DAY_MS = 86_400_000
TRADES_A_BAR = 4


def venue_symbol(symbol: str) -> str:
    """`BTC/USDT` as Binance writes it."""
    return symbol.replace("/", "")


def number(value: Decimal | float) -> str:
    """Amounts are strings of eight decimals: those of the books cut, never rounded up; market data as floats have them."""
    if isinstance(value, Decimal):
        return f"{value.quantize(EIGHT, ROUND_DOWN):f}"
    return f"{value:.8f}"


# --- the exchange and its symbols --------------------------------------------------------------------------------------


def exchange_info(instruments: Iterable[Instrument], weight: int, orders: int, wall_ms: int) -> dict[str, Any]:
    return {
        "timezone": "UTC",
        "serverTime": wall_ms,
        "rateLimits": [
            {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": weight},
            {"rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": orders},
        ],
        "exchangeFilters": [],
        "symbols": [symbol_info(instrument) for instrument in instruments],
    }


def symbol_info(instrument: Instrument) -> dict[str, Any]:
    """One entry of exchangeInfo, with the filters that orders are held against."""
    tick, step = number(instrument.tick), number(instrument.step)
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
        "orderTypes": list(TYPES),
        "icebergAllowed": False,
        "ocoAllowed": True,
        "otoAllowed": False,
        "opoAllowed": False,
        "quoteOrderQtyMarketAllowed": True,
        "allowTrailingStop": False,
        "cancelReplaceAllowed": True,
        "amendAllowed": False,
        "pegInstructionsAllowed": False,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "filters": [
            {
                "filterType": "PRICE_FILTER",
                "minPrice": tick,
                "maxPrice": number(rules.LARGEST_PRICE),
                "tickSize": tick,
            },
            {
                "filterType": "LOT_SIZE",
                "minQty": step,
                "maxQty": number(rules.LARGEST_QUANTITY),
                "stepSize": step,
            },
            {
                "filterType": "NOTIONAL",
                "minNotional": number(instrument.minimum_notional),
                "applyMinToMarket": True,
                "maxNotional": "90000000000000.00000000",
                "applyMaxToMarket": False,
                "avgPriceMins": 0,
            },
            {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": rules.MOST_OPEN_ORDERS},
        ],
        "permissions": [],
        "permissionSets": [["SPOT"]],
        "defaultSelfTradePreventionMode": "NONE",
        "allowedSelfTradePreventionModes": ["NONE"],
    }


# --- market data -------------------------------------------------------------------------------------------------------


def levels(found: list[Level]) -> list[list[str]]:
    return [[number(level.price), number(level.quantity)] for level in found]


def book_ticker(market: Market) -> dict[str, str]:
    bid, ask = market.best("BUY"), market.best("SELL")
    return {
        "symbol": venue_symbol(market.instrument.symbol),
        "bidPrice": number(bid.price if bid else 0.0),
        "bidQty": number(bid.quantity if bid else 0.0),
        "askPrice": number(ask.price if ask else 0.0),
        "askQty": number(ask.quantity if ask else 0.0),
    }


def turnover(row: Row) -> float:
    """Quote volume of a bar, taken at its typical price: files seldom have the true one."""
    _, _, high, low, close, volume = row
    return volume * (high + low + close) / 3


def kline(row: Row, interval_ms: int) -> list[Any]:
    """A row of /klines: twelve columns, prices as strings."""
    opened, o, h, low, c, v = row
    return [
        opened, number(o), number(h), number(low), number(c), number(v), opened + interval_ms - 1,
        number(turnover(row)), TRADES_A_BAR, number(v / 2), number(turnover(row) / 2), "0",
    ]  # fmt: skip


def day(market: Market, candles: Candles) -> dict[str, Any]:
    """The 24-hour ticker, from the bars of the last day."""
    rows = candles.last(max(DAY_MS // candles.interval_ms, 1))
    volume, opened, last = sum(row[5] for row in rows), rows[0][1], rows[-1][4]
    value = sum(map(turnover, rows))
    first, final = rows[0][0] // candles.interval_ms, rows[-1][0] // candles.interval_ms
    return {
        **book_ticker(market),
        "priceChange": signed(last - opened),
        "priceChangePercent": f"{(last / opened - 1) * 100:.3f}",
        "weightedAvgPrice": number(value / volume if volume else last),
        "prevClosePrice": number(opened),
        "lastPrice": number(last),
        "lastQty": number(rows[-1][5] / TRADES_A_BAR),
        "openPrice": number(opened),
        "highPrice": number(max(row[2] for row in rows)),
        "lowPrice": number(min(row[3] for row in rows)),
        "volume": number(volume),
        "quoteVolume": number(value),
        "openTime": rows[0][0],
        "closeTime": rows[-1][0] + candles.interval_ms - 1,
        "firstId": first * TRADES_A_BAR,
        "lastId": (final + 1) * TRADES_A_BAR - 1,
        "count": (final - first + 1) * TRADES_A_BAR,
    }


def signed(value: float) -> str:
    return f"{value:.8f}"


def bar_trades(row: Row, interval_ms: int) -> list[dict[str, Any]]:
    """Four trades that make up a bar: its open, its extremes, its close, a quarter of the volume and of the time each.

    A rising bar visits its low first, a falling one its high. Their numbers follow from the bar's time.
    """
    opened, o, h, low, c, v = row
    path = (o, low, h, c) if c >= o else (o, h, low, c)
    first = opened // interval_ms * TRADES_A_BAR
    return [
        {
            "id": first + n,
            "price": number(price),
            "qty": number(v / TRADES_A_BAR),
            "quoteQty": number(price * v / TRADES_A_BAR),
            "time": opened + (n + 1) * interval_ms // TRADES_A_BAR - 1,
            "isBuyerMaker": n > 0 and price < path[n - 1],
            "isBestMatch": True,
        }
        for n, price in enumerate(path)
    ]


def aggregate(trade: dict[str, Any]) -> dict[str, Any]:
    """A trade as /aggTrades shows it: each is an aggregate of its own."""
    return {
        "a": trade["id"], "p": trade["price"], "q": trade["qty"], "f": trade["id"], "l": trade["id"],
        "T": trade["time"], "m": trade["isBuyerMaker"], "M": True,
    }  # fmt: skip


# --- orders and accounts -----------------------------------------------------------------------------------------------


def order(found: Order) -> dict[str, Any]:
    """An order as GET /order and the lists show it."""
    request = found.request
    answer = {
        "symbol": venue_symbol(found.symbol),
        "orderId": found.order_id,
        "orderListId": -1 if found.list_id is None else found.list_id,
        "clientOrderId": found.client_order_id,
        "price": number(request.limit_price or 0.0),
        "origQty": number(request.quantity),
        "executedQty": number(found.filled),
        "cummulativeQuoteQty": number(found.quote_filled),
        "status": found.state,
        "timeInForce": request.time_in_force,
        "type": order_type(request),
        "side": found.side,
        "stopPrice": number(request.stop_price or 0.0),
        "icebergQty": "0.00000000",
        "time": found.time,
        "updateTime": found.updated,
        "isWorking": found.working_since is not None,
        "workingTime": -1 if found.working_since is None else found.working_since,
        "origQuoteOrderQty": number(request.quote_quantity or 0.0),
        "selfTradePreventionMode": "NONE",
    }
    return answer | ({"expiryReason": found.reason} if found.state == "EXPIRED" else {})


def acknowledged(found: Order) -> dict[str, Any]:
    """The ACK answer to a new order."""
    full = order(found)
    names = ("symbol", "orderId", "orderListId", "clientOrderId")
    return {name: full[name] for name in names} | {"transactTime": found.time}


def result(found: Order) -> dict[str, Any]:
    """The RESULT answer: the order without what only queries show."""
    left_out = {"time", "updateTime", "isWorking", "icebergQty"} | ({"stopPrice"} if not found.request.stop_price else set())  # fmt: skip
    kept = {name: value for name, value in order(found).items() if name not in left_out}
    return kept | {"transactTime": found.time}


def full(found: Order) -> dict[str, Any]:
    """The FULL answer: the order with the fills it got at once."""
    return result(found) | {
        "fills": [
            {
                "price": number(trade.price),
                "qty": number(trade.quantity),
                "commission": number(trade.fee),
                "commissionAsset": trade.fee_asset,
                "tradeId": trade.trade_id,
            }
            for trade in found.trades
        ]
    }


def cancelled(found: Order, cancel_id: str) -> dict[str, Any]:
    """The answer to a cancel: `clientOrderId` names the cancel, `origClientOrderId` the order."""
    kept = {name: value for name, value in result(found).items() if name != "workingTime"}
    return kept | {
        "origClientOrderId": found.client_order_id,
        "clientOrderId": cancel_id,
        "transactTime": found.updated,
    }


def order_list(found: OrderList, books: Books, *, executing: bool) -> dict[str, Any]:
    """An order list as queries show it."""
    return {
        "orderListId": found.list_id,
        "contingencyType": "OCO",
        "listStatusType": "EXEC_STARTED" if executing else "ALL_DONE",
        "listOrderStatus": "EXECUTING" if executing else "ALL_DONE",
        "listClientOrderId": found.client_id,
        "transactionTime": found.time,
        "symbol": venue_symbol(found.symbol),
        "orders": [
            {
                "symbol": venue_symbol(found.symbol),
                "orderId": number_,
                "clientOrderId": books.orders[number_].client_order_id,
            }
            for number_ in found.order_ids
        ],
    }


def my_trade(trade: Trade, list_id: int | None) -> dict[str, Any]:
    return {
        "symbol": venue_symbol(trade.symbol),
        "id": trade.trade_id,
        "orderId": trade.order_id,
        "orderListId": -1 if list_id is None else list_id,
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


def account(found: Account, books: Books, *, omit_zero: bool) -> dict[str, Any]:
    rate = number(books.fee_rate)
    basis_points = int(books.fee_rate * 10_000)
    return {
        "makerCommission": basis_points,
        "takerCommission": basis_points,
        "buyerCommission": 0,
        "sellerCommission": 0,
        "commissionRates": {"maker": rate, "taker": rate, "buyer": "0.00000000", "seller": "0.00000000"},
        "canTrade": True,
        "canWithdraw": False,
        "canDeposit": False,
        "brokered": False,
        "requireSelfTradePrevention": False,
        "preventSor": False,
        "updateTime": found.updated,
        "accountType": "SPOT",
        "balances": [
            {"asset": asset, "free": number(balance.free), "locked": number(balance.locked)}
            for asset, balance in sorted(found.balances.items())
            if balance.free or balance.locked or not omit_zero
        ],
        "permissions": ["SPOT"],
        "uid": int.from_bytes(found.account_id.encode()[-6:], "big"),
    }
