"""What the market streams say of a step, and of a book that orders have changed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from trading_platform.sandbox.binance import shapes
from trading_platform.sandbox.candles import MINUTE_MS, Row
from trading_platform.sandbox.events import BarClosed
from trading_platform.sandbox.exchange import Exchange
from trading_platform.sandbox.matching import Market
from trading_platform.sandbox.orders import ZERO

PARTIAL_DEPTHS = (5, 10, 20)
Event = dict[str, Any]
Made = tuple[str, Callable[[], list[Event]]]
"""A stream's name, and its events, made only if somebody listens."""


@dataclass
class Published:
    """The book as listeners of a diff-depth stream know it."""

    version: int
    sides: dict[str, dict[Decimal, Decimal]]


class MarketEvents:
    """Events of the market streams of one exchange."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.interval = shapes.INTERVALS.get(exchange.genesis.interval_seconds, "")
        self.published: dict[str, Published] = {}
        self.by_name = {shapes.venue_symbol(symbol).lower(): symbol for symbol in exchange.instruments if "/" in symbol}

    def of_bar(self, bar: BarClosed, time: int) -> Iterator[Made]:
        """A closed bar, in the streams of its symbol."""
        name = shapes.venue_symbol(bar.symbol)
        market, candles = self.exchange.markets[bar.symbol], self.exchange.candles[bar.symbol]
        row: Row = candles.row(len(candles) - 1)  # where bars are formed of parts: all of it up to now
        stream, milliseconds = name.lower(), candles.interval_ms
        closed = milliseconds > MINUTE_MS or time % milliseconds == 0

        def trades() -> list[Event]:
            return [trade_event(name, trade, time) for trade in shapes.bar_trades(row, milliseconds)]

        def aggregates() -> list[Event]:
            found = map(shapes.aggregate, shapes.bar_trades(row, milliseconds))
            return [{"e": "aggTrade", "E": time, "s": name} | trade for trade in found]

        yield f"{stream}@kline_{self.interval}", lambda: [self.kline(name, row, time, closed=closed)]
        yield f"{stream}@trade", trades
        yield f"{stream}@aggTrade", aggregates
        yield f"{stream}@miniTicker", lambda: [mini_ticker(shapes.day(market, candles), time)]
        yield f"{stream}@ticker", lambda: [ticker(shapes.day(market, candles), time)]

    def of_book(self, symbol: str, time: int) -> Iterator[Made]:
        """The book of a symbol, after a bar or after an order."""
        stream, market = shapes.venue_symbol(symbol).lower(), self.exchange.markets[symbol]
        yield f"{stream}@bookTicker", lambda: [book_ticker(market)]
        for levels in PARTIAL_DEPTHS:
            for name in (f"{stream}@depth{levels}", f"{stream}@depth{levels}@100ms"):
                yield name, lambda levels=levels: [partial_depth(market, levels)]  # type: ignore[misc]
        if symbol in self.published:
            update = self._update(symbol, time)
            for name in (f"{stream}@depth", f"{stream}@depth@100ms"):
                yield name, lambda: update

    def subscribed(self, stream: str) -> None:
        """Somebody listens to a stream from now on: the changes of a book are told from here on."""
        symbol, _, what = stream.partition("@")
        if what in ("depth", "depth@100ms") and symbol in self.by_name:
            name = self.by_name[symbol]
            self.published.setdefault(name, self._present(self.exchange.markets[name]))

    def unsubscribed(self, stream: str, still_heard: Callable[[str], bool]) -> None:
        """Nobody listens to a stream any more."""
        symbol, _, what = stream.partition("@")
        others = (f"{symbol}@depth", f"{symbol}@depth@100ms")
        if what.startswith("depth") and symbol in self.by_name and not any(map(still_heard, others)):
            self.published.pop(self.by_name[symbol], None)

    def kline(self, name: str, row: Row, time: int, *, closed: bool = True) -> Event:
        """A bar as it stands; `closed`: it is its last event."""
        opened, o, h, low, c, v = row
        milliseconds = self.exchange.genesis.interval_seconds * 1_000
        first = opened // milliseconds * shapes.TRADES_A_BAR
        value = shapes.turnover(row)
        return {
            "e": "kline", "E": time, "s": name,
            "k": {
                "t": opened, "T": opened + milliseconds - 1, "s": name, "i": self.interval, "f": first,
                "L": first + shapes.TRADES_A_BAR - 1, "o": shapes.number(o), "c": shapes.number(c),
                "h": shapes.number(h), "l": shapes.number(low), "v": shapes.number(v), "n": shapes.TRADES_A_BAR,
                "x": closed, "q": shapes.number(value), "V": shapes.number(v / 2), "Q": shapes.number(value / 2), "B": "0",
            },
        }  # fmt: skip

    def _present(self, market: Market) -> Published:
        sides = {side: {level.price: level.quantity for level in market.depth(side)} for side in ("BUY", "SELL")}  # type: ignore[arg-type]
        return Published(market.liquidity.version, sides)

    def _update(self, symbol: str, time: int) -> list[Event]:
        """What changed in the book since the last update."""
        before, now = self.published[symbol], self._present(self.exchange.markets[symbol])
        if now.version == before.version:
            return []
        self.published[symbol] = now
        changes = {
            name: [
                [shapes.number(price), shapes.number(now.sides[side].get(price, ZERO))]
                for price in {**before.sides[side], **now.sides[side]}
                if before.sides[side].get(price) != now.sides[side].get(price)
            ]
            for name, side in (("b", "BUY"), ("a", "SELL"))
        }
        head = {"e": "depthUpdate", "E": time, "s": shapes.venue_symbol(symbol)}
        return [{**head, "U": before.version + 1, "u": now.version, **changes}]


def trade_event(name: str, trade: dict[str, Any], time: int) -> Event:
    return {
        "e": "trade", "E": time, "s": name, "t": trade["id"], "p": trade["price"], "q": trade["qty"],
        "T": trade["time"], "m": trade["isBuyerMaker"], "M": True,
    }  # fmt: skip


def book_ticker(market: Market) -> Event:
    best = shapes.book_ticker(market)
    return {
        "u": market.liquidity.version, "s": best["symbol"], "b": best["bidPrice"], "B": best["bidQty"],
        "a": best["askPrice"], "A": best["askQty"],
    }  # fmt: skip


def partial_depth(market: Market, levels: int) -> Event:
    return {
        "lastUpdateId": market.liquidity.version,
        "bids": shapes.levels(market.depth("BUY")[:levels]),
        "asks": shapes.levels(market.depth("SELL")[:levels]),
    }


def mini_ticker(day: dict[str, Any], time: int) -> Event:
    return {
        "e": "24hrMiniTicker", "E": time, "s": day["symbol"], "c": day["lastPrice"], "o": day["openPrice"],
        "h": day["highPrice"], "l": day["lowPrice"], "v": day["volume"], "q": day["quoteVolume"],
    }  # fmt: skip


def ticker(day: dict[str, Any], time: int) -> Event:
    return {
        "e": "24hrTicker", "E": time, "s": day["symbol"], "p": day["priceChange"], "P": day["priceChangePercent"],
        "w": day["weightedAvgPrice"], "x": day["prevClosePrice"], "c": day["lastPrice"], "Q": day["lastQty"],
        "b": day["bidPrice"], "B": day["bidQty"], "a": day["askPrice"], "A": day["askQty"], "o": day["openPrice"],
        "h": day["highPrice"], "l": day["lowPrice"], "v": day["volume"], "q": day["quoteVolume"],
        "O": day["openTime"], "C": day["closeTime"], "F": day["firstId"], "L": day["lastId"], "n": day["count"],
    }  # fmt: skip
