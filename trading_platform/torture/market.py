"""Market time and signals: a minute a step, prices of the exchange, and every other symbol worth a trade."""

import json
import random
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import insert, select

from trading_platform.storage.control import MarketProgress, Signal
from trading_platform.storage.databases import Databases
from trading_platform.torture.deployment import STRATEGY, SYMBOLS, dataset_of, version_of
from trading_platform.torture.exchange import Exchange

IST = ZoneInfo("Asia/Kolkata")
HELD = timedelta(minutes=3)
STILL_GOOD = timedelta(minutes=30)
"""A minute of the market passes in a moment here: an engine that has just taken over still enters."""
BARRIER = Decimal("0.002")
LAST_ENTRY, AFTER_MARKET, AFTER_DAY = time(15, 25), time(16), time(16, 10)
WATCHER = {"account_id": "watcher", "api_key": "key-watcher", "api_secret": "secret-watcher"}


@dataclass
class Market:
    """Lets the market go on and writes what a scorer would write of it."""

    databases: Databases
    exchange: Exchange
    venues: tuple[str, ...]
    seed: int
    seq: int = 0
    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    _draw: random.Random = field(init=False)
    _session: str = ""

    def __post_init__(self) -> None:
        self._draw = random.Random(self.seed)

    def step(self) -> None:
        """One minute more. Raises OSError where the exchange is away, database errors where that is."""
        self.now = _moment(self.exchange.tell("/clock", {"steps": 1}))
        self._write({venue: self._prices(venue) for venue in self.venues})

    @property
    def day_is_over(self) -> bool:
        return self.now.astimezone(IST).time() >= LAST_ENTRY

    @property
    def after_market(self) -> datetime:
        """From when on this day's orders are for the next one."""
        return datetime.combine(self.now.astimezone(IST).date(), AFTER_MARKET, IST)

    def close_day(self) -> None:
        """On to the evening of the same day, where the day's book of orders is whole."""
        evening = datetime.combine(self.now.astimezone(IST).date(), AFTER_DAY, IST)
        if self.now < evening:
            self.now = _moment(self.exchange.tell("/clock", {"to": evening.isoformat()}))
        self._write({})

    def _write(self, prices: dict[str, dict[str, Decimal]]) -> None:
        with self.databases.control() as session:
            for venue in self.venues:
                rows = [self._signal(venue, symbol, price) for symbol, price in sorted(prices.get(venue, {}).items())]
                if rows:
                    session.execute(insert(Signal), rows)
                progress = session.scalars(
                    select(MarketProgress).where(MarketProgress.dataset_id == dataset_of(venue))
                ).one()
                progress.scored_through, progress.last_seq = self.now, self.seq

    def _signal(self, venue: str, symbol: str, price: Decimal) -> dict[str, Any]:
        self.seq += 1
        act = self._draw.random() < 0.5
        return {
            "dataset_id": dataset_of(venue), "seq": self.seq, "signal_id": f"s{self.seq}", "strategy_id": STRATEGY,
            "version_id": version_of(venue), "role": "champion", "symbol": symbol,
            "bar_open_time": self.now - timedelta(minutes=1), "available_at": self.now, "price": price,
            "state": "ok" if act else "abstain", "probability": 0.7, "confidence": 0.7, "threshold": 0.6,
            "certified": False, "direction": "long" if act else "flat", "target_price": price * (1 + BARRIER),
            "stop_price": price * (1 - BARRIER), "exit_by": self.now + HELD,
            "expires_at": self.now + STILL_GOOD, "volatility": "low", "trend": "up", "liquidity": "normal",
            "session": "us",
        }  # fmt: skip

    def _prices(self, venue: str) -> dict[str, Decimal]:
        if venue == "binance":
            rest = self.exchange.where["binance"]["rest"]
            found = {row["symbol"]: Decimal(row["price"]) for row in _get(f"{rest}/api/v3/ticker/price")}
            return {symbol: found[symbol.replace("/", "")] for symbol in SYMBOLS[venue]}
        root = self.exchange.where["kite"]["root"]
        query = urllib.parse.urlencode([("i", f"NSE:{symbol}") for symbol in SYMBOLS[venue]])
        try:
            found = _get(f"{root}/quote/ltp?{query}", self._authorization())["data"]
        except urllib.error.HTTPError:  # the session went with a process that was killed
            self._session = ""
            found = _get(f"{root}/quote/ltp?{query}", self._authorization())["data"]
        return {symbol: Decimal(repr(found[f"NSE:{symbol}"]["last_price"])) for symbol in SYMBOLS[venue]}

    def _authorization(self) -> str:
        if not self._session:
            import hashlib

            self.exchange.tell("/accounts", {**WATCHER, "balances": {"INR": "1"}})
            token = self.exchange.tell("/kite/request_token", {"api_key": WATCHER["api_key"]})["request_token"]
            proof = hashlib.sha256(f"{WATCHER['api_key']}{token}{WATCHER['api_secret']}".encode()).hexdigest()
            form = {"api_key": WATCHER["api_key"], "request_token": token, "checksum": proof}
            request = urllib.request.Request(
                self.exchange.where["kite"]["root"] + "/session/token", urllib.parse.urlencode(form).encode()
            )
            with urllib.request.urlopen(request, timeout=30) as answer:
                self._session = json.load(answer)["data"]["access_token"]
        return f"token {WATCHER['api_key']}:{self._session}"


def _get(url: str, authorization: str | None = None) -> Any:
    headers = {"Authorization": authorization, "X-Kite-Version": "3"} if authorization else {}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as answer:
        return json.load(answer)


def _moment(clock: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(str(clock["market_time"]))
