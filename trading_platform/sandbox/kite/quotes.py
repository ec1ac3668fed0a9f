"""Market data as Kite shows it: the instruments dump, quotes with depth and circuit limits, historical candles."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from aiohttp import web

from trading_platform.markets.contracts import Contract, ContractBook, UnknownContractError
from trading_platform.sandbox.candles import Row
from trading_platform.sandbox.exchange import Exchange
from trading_platform.sandbox.kite.bands import Bands
from trading_platform.sandbox.kite.door import Call, Door
from trading_platform.sandbox.kite.errors import bad_input
from trading_platform.sandbox.liquidity import Level

IST = ZoneInfo("Asia/Kolkata")
MOST_QUOTES, MOST_PRICES = 500, 1_000
CO_RANGE = 0.1
DEPTH = 5
INTERVALS = {
    "minute": 60, "3minute": 180, "5minute": 300, "10minute": 600, "15minute": 900, "30minute": 1_800, "60minute": 3_600,
    "day": 86_400,
}  # fmt: skip
LONGEST_DAYS = {
    "minute": 60, "3minute": 100, "5minute": 100, "10minute": 100, "15minute": 200, "30minute": 200, "60minute": 400,
    "day": 2_000,
}  # fmt: skip


@dataclass
class Quotes:
    """Handlers of /instruments and /quote."""

    exchange: Exchange
    book: ContractBook
    bands: Bands
    door: Door
    days: Mapping[str, list[Row]] = field(default_factory=dict)
    """{symbol: daily bars from before the exchange's own bars begin}"""

    def routes(self) -> Iterator[Any]:
        route = self.door.route
        yield route("GET", "/instruments", self.instruments)
        yield route("GET", "/instruments/trigger_range/{side}", self.trigger_range)
        yield route("GET", "/instruments/{exchange}", self.instruments)
        yield route("GET", "/instruments/historical/{token}/{interval}", self.historical, "historical")
        yield route("GET", "/quote", self.quote, "quote")
        yield route("GET", "/quote/ohlc", self.ohlc, "quote")
        yield route("GET", "/quote/ltp", self.ltp, "quote")

    def instruments(self, call: Call) -> web.Response:
        """All that is listed and has not expired on the market's day."""
        today, wanted = self._now().date(), call.path.get("exchange")
        alive = [
            each for each in self.book
            if (each.expiry is None or each.expiry >= today) and wanted in (None, each.exchange)
        ]  # fmt: skip
        return web.Response(body=ContractBook(alive, today).to_csv(), content_type="text/csv")

    def trigger_range(self, call: Call) -> dict[str, Any]:
        """Between which prices the stop of a cover order may be: at most `CO_RANGE` on its side of the last price."""
        buys = call.path["side"].lower() == "buy"
        if call.path["side"].lower() not in ("buy", "sell"):
            raise bad_input("Invalid `transaction_type`.")
        found = {}
        for name, contract in self._asked(call, MOST_PRICES):
            last = self._last(contract)
            edges = (last * (1 - CO_RANGE), last) if buys else (last, last * (1 + CO_RANGE))
            found[name] = {"instrument_token": contract.instrument_token, "lower": edges[0], "upper": edges[1]}
        return found

    def quote(self, call: Call) -> dict[str, Any]:
        return {name: self.quote_of(contract) for name, contract in self._asked(call, MOST_QUOTES)}

    def ohlc(self, call: Call) -> dict[str, Any]:
        return {
            name: {
                "instrument_token": each.instrument_token,
                "last_price": self._last(each),
                "ohlc": self._day(each)[0],
            }
            for name, each in self._asked(call, MOST_PRICES)
        }

    def ltp(self, call: Call) -> dict[str, Any]:
        return {
            name: {"instrument_token": each.instrument_token, "last_price": self._last(each)}
            for name, each in self._asked(call, MOST_PRICES)
        }

    def historical(self, call: Call) -> dict[str, Any]:
        interval = call.path["interval"]
        if interval not in INTERVALS:
            raise bad_input("invalid interval")
        contract = self._by_token(call.path["token"])
        if call.fields.get("continuous") == "1" and (not contract.is_future or interval != "day"):
            raise bad_input("invalid interval: continuous data are of futures, by the day")
        start, end = (_moment(call, name) for name in ("from", "to"))
        if end - start > timedelta(days=LONGEST_DAYS[interval]):
            raise bad_input(f"interval exceeds max limit: {LONGEST_DAYS[interval]} days")
        rows = self._rows(contract, INTERVALS[interval], start, end)
        extra = [0] if call.fields.get("oi") == "1" else []
        return {"candles": [[_iso(t), *prices, int(volume), *extra] for t, *prices, volume in rows]}

    # --- inside ------------------------------------------------------------------------------------------------------

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.exchange.now / 1_000, IST)

    def _asked(self, call: Call, most: int) -> list[tuple[str, Contract]]:
        """(name as asked, contract); names that do not exist are left out of the answer, as the broker does."""
        names = call.every("i")
        if len(names) > most:
            raise bad_input(f"Too many tokens requested. Max permitted is {most}.")
        found = []
        for name in names:
            exchange, _, symbol = name.partition(":")
            try:
                contract = self._by_token(name) if name.isdigit() else self.book.get(exchange, symbol)
            except UnknownContractError:
                continue
            if self._candles(contract):
                found.append((name, contract))
        return found

    def _by_token(self, text: str) -> Contract:
        try:
            return self.book.by_token(int(text))
        except (ValueError, UnknownContractError) as problem:
            raise bad_input("invalid token") from problem

    def _candles(self, contract: Contract) -> Any:
        return self.exchange.candles.get(contract.tradingsymbol)

    def _last(self, contract: Contract) -> float:
        candles = self._candles(contract)
        return candles.row(len(candles) - 1)[4] if candles else 0.0

    def _day(self, contract: Contract) -> tuple[dict[str, float], int]:
        """({open, high, low, close of the day before}, volume) of the market's day."""
        candles, today = self._candles(contract), self._now().date()
        midnight = int(datetime.combine(today, datetime.min.time(), IST).timestamp() * 1_000)
        rows = candles.between(midnight, None, 2_000)
        before = candles.between(None, midnight - 1, 1)
        close = before[-1][4] if before else 0.0
        if not rows:
            return {"open": close, "high": close, "low": close, "close": close}, 0
        prices = {
            "open": rows[0][1],
            "high": max(row[2] for row in rows),
            "low": min(row[3] for row in rows),
            "close": close,
        }
        return prices, int(sum(row[5] for row in rows))

    def quote_of(self, contract: Contract) -> dict[str, Any]:
        day, volume = self._day(contract)
        last, stamp = self._last(contract), f"{self._now():%Y-%m-%d %H:%M:%S}"
        market = self.exchange.markets.get(contract.tradingsymbol)
        buy, sell = (market.depth("BUY"), market.depth("SELL")) if market else ([], [])
        limits = self.bands.limits(contract)
        lower, upper = float(limits.lower), float(limits.upper)
        return {
            "instrument_token": contract.instrument_token, "timestamp": stamp, "last_trade_time": stamp,
            "last_price": last, "last_quantity": 0, "buy_quantity": int(sum(level.quantity for level in buy)),
            "sell_quantity": int(sum(level.quantity for level in sell)), "volume": volume, "average_price": last,
            "oi": 0, "oi_day_high": 0, "oi_day_low": 0, "net_change": last - day["close"],
            "lower_circuit_limit": lower, "upper_circuit_limit": upper, "ohlc": day,
            "depth": {"buy": _levels(buy), "sell": _levels(sell)},
        }  # fmt: skip

    def _rows(self, contract: Contract, seconds: int, start: datetime, end: datetime) -> list[tuple[Any, ...]]:
        """Bars of the exchange joined into the interval asked for. Raises `KiteError` for a finer one than there is."""
        own = self.exchange.genesis.interval_seconds
        if seconds < own:
            raise bad_input("invalid interval: the sandbox replays longer bars")
        first, last = (int(moment.timestamp() * 1_000) for moment in (start, end))
        rows = [row for row in self._candles(contract).between(first, None, 100_000) if row[0] <= last]
        if seconds == own:
            return rows
        if seconds == INTERVALS["day"]:
            older = self.days.get(contract.tradingsymbol, [])
            rows = [row for row in older if first <= row[0] <= last and (not rows or row[0] < rows[0][0])] + rows
        joined: dict[int, list[Any]] = {}
        for opened, *prices, volume in rows:
            local = datetime.fromtimestamp(opened / 1_000, IST)
            into = (local.hour * 3_600 + local.minute * 60 - 33_300) // seconds * seconds + 33_300  # from 09:15
            day = local.replace(hour=0, minute=0, second=0)
            key = int((day if seconds >= 86_400 else day + timedelta(seconds=into)).timestamp() * 1_000)
            bar = joined.setdefault(key, [key, prices[0], prices[1], prices[2], prices[3], 0])
            bar[2], bar[3], bar[4] = max(bar[2], prices[1]), min(bar[3], prices[2]), prices[3]
            bar[5] += volume
        return [tuple(bar) for bar in joined.values()]


def _levels(levels: list[Level]) -> list[dict[str, Any]]:
    rows = [{"price": float(x.price), "quantity": int(x.quantity), "orders": 1} for x in levels[:DEPTH]]
    return rows + [{"price": 0, "quantity": 0, "orders": 0}] * (DEPTH - len(rows))


def _moment(call: Call, name: str) -> datetime:
    text = call.fields.get(name, "")
    for shape in ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d"):
        try:
            return datetime.strptime(text, shape).replace(tzinfo=IST)
        except ValueError:
            continue
    raise bad_input(f"Invalid `{name}` date.")


def _iso(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1_000, IST):%Y-%m-%dT%H:%M:%S%z}"
