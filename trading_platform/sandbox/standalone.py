"""A sandbox by itself: files in, both doors open, one line of JSON that says where, and no database.

Indian data are behind Kite's door, pairs behind Binance's; whichever the data do not have is invented from the seed, so that
both doors always have a market. All of it is one exchange with one clock.
"""

import asyncio
import contextlib
import hashlib
import secrets
import shutil
import signal
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import orjson
import polars as pl
from aiohttp import web

from trading_platform.identifiers import Symbol
from trading_platform.market_data.quality import judge
from trading_platform.market_data.reading import ReadOptions, read
from trading_platform.markets.calendars import DAY_SECONDS
from trading_platform.markets.instruments import is_index
from trading_platform.sandbox.admin import Admin
from trading_platform.sandbox.binance.gateway import WEIGHT_A_MINUTE, WEIGHT_A_MINUTE_IN_REPLAY, Gateway
from trading_platform.sandbox.binance.market_data import MarketData, Symbols
from trading_platform.sandbox.binance.streams import Streams
from trading_platform.sandbox.binance.trading import Trading
from trading_platform.sandbox.candles import Row
from trading_platform.sandbox.clock import Clock, Tail
from trading_platform.sandbox.control import Control
from trading_platform.sandbox.exchange import Exchange, Genesis
from trading_platform.sandbox.faults import Faults, faulty
from trading_platform.sandbox.kite.listing import DerivedSource, instruments, listing
from trading_platform.sandbox.kite.margins import margins_by
from trading_platform.sandbox.kite.surface import REDIRECT, Kite, surface
from trading_platform.sandbox.paths import IST, PathSource, Prices, prices_of
from trading_platform.sandbox.server import Sandbox, instrument
from trading_platform.sandbox.sources import Step

HOST = "127.0.0.1"
LARGEST_BODY = 1 << 16
MINUTE, FINE = 60, 5
FINE_BELOW = 60.0
"""Slower than so many times real time, a step is five seconds: a minute would look like a market that stands still."""
WARM_UP_STEPS = 15
PACE_AT_MAX = 1.0
"""Steps a second at `max` while no participant has been named who says when he is done."""
REPLAYED_DAYS, MINUTES_BEFORE = 30, 3
BALANCES = {"kite": {"INR": Decimal(1_000_000)}, "binance": {"USDT": Decimal(100_000), "BTC": Decimal(2), "ETH": Decimal(20)}}  # fmt: skip
INVENTED_PAIRS = {"BTC/USDT": (60_000.0, 0.01, 500.0), "ETH/USDT": (3_000.0, 0.01, 5_000.0)}
INVENTED_SHARES = {
    "HDFCBANK": 1_700.0, "INFY": 1_500.0, "RELIANCE": 2_900.0, "SBIN": 800.0, "TCS": 4_000.0, "NIFTY 50": 24_000.0,
}  # fmt: skip
INVENTED_VOLUME = 2_000_000.0
SHARE_TICK = 0.05
REQUEST_TOKEN_SECONDS = 3_600.0
LISTED_AHEAD = timedelta(days=60)


@dataclass(frozen=True)
class Wishes:
    """How a sandbox by itself is to be. `speed`: times real time, or as fast as its participants allow."""

    data: Path | None = None
    speed: float | Literal["max"] = 1.0
    seed: int = 7
    faults: Path | None = None
    kite_port: int = 0
    binance_port: int = 0
    journal: Path | None = None
    limits: bool = True
    redirect: str = REDIRECT
    postback: str | None = None
    start: datetime | None = None
    token: str | None = None
    """The secret part of the admin address; a new one at every start where none is given."""


@dataclass(frozen=True)
class Market:
    """Series, where they begin to be replayed, and what was before."""

    name: str
    prices: list[Prices]
    indian: frozenset[str]
    first: datetime
    interval: int
    nights: bool = False


async def serve(wishes: Wishes) -> None:
    """Open both doors, print where they are, and serve until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    own = Path(tempfile.mkdtemp(prefix="sandbox-")) if wishes.journal is None else None
    try:
        made, token = build(wishes, wishes.journal or own or Path())
        async with made.running(HOST, wishes.binance_port) as ticking:
            await _warm_up(made)
            sys.stdout.buffer.write(orjson.dumps(addresses(made, wishes, token)) + b"\n")
            sys.stdout.buffer.flush()
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait({stopping, ticking}, return_when=asyncio.FIRST_COMPLETED)
            if ticking.done():
                ticking.result()
            await stopping
    finally:
        if own is not None:
            shutil.rmtree(own, ignore_errors=True)


def build(wishes: Wishes, journal: Path) -> tuple[Sandbox, str]:
    """(the sandbox, the secret part of its admin address). Raises `UnreadableFileError`, `BadFaultError`."""
    faults = Faults.load(wishes.faults, wishes.seed)
    market = _market(wishes)
    slow = wishes.speed != "max" and wishes.speed < FINE_BELOW
    step = min(FINE if slow else MINUTE, market.interval)
    shares = {each.symbol: each for each in market.prices if each.symbol in market.indian}
    first = market.first.astimezone(IST).date()
    last = max((_day(each.last_time) for each in shares.values() if each.times), default=first)
    spots = {name: _price_at(each, market.first) for name, each in shares.items() if is_index(Symbol(name))}
    book = listing(list(shares), first, max(last, first + LISTED_AHEAD), spots)
    pairs = [instrument(each.symbol, Decimal(repr(each.start))) for each in market.prices if each.symbol not in shares]
    genesis = Genesis(
        market.name, step, wishes.seed, [*instruments(book), *pairs],
        watched=[each.tradingsymbol for each in book if each.is_index], on_margin=True,
    )  # fmt: skip
    exchange = Exchange.open(journal, genesis, margin_of=margins_by(book))
    _show_past(exchange, market, step)
    source = DerivedSource(
        PathSource(market.prices, market.indian, market.first, step, wishes.seed, market.nights), book
    )
    kite = surface(exchange, book, limits=wishes.limits, redirect=wishes.redirect, faults=faults, days=_days(market))
    pace = PACE_AT_MAX if wishes.speed == "max" else wishes.speed / step
    clock = Clock(exchange, "synthetic", Tail(None, None, 0), "max" if wishes.speed == "max" else pace, pace, on_step=kite.after_step)  # fmt: skip
    clock.alone = pace
    streams = Streams(exchange, faults)
    token = wishes.token or secrets.token_urlsafe(18)
    app = _binance_door(exchange, clock, streams, kite, faults, wishes, token)
    made = Sandbox(exchange, clock, source, streams, app, _silent, kite, wishes.kite_port)
    _open_accounts(made, wishes)
    return made, token


def addresses(made: Sandbox, wishes: Wishes, token: str) -> dict[str, Any]:
    """What a client needs to know; a request token spares it the browser."""
    kite_key, kite_secret = keys(wishes.seed, "kite")
    binance_key, binance_secret = keys(wishes.seed, "binance")
    root, rest = f"http://{HOST}:{made.kite_port}", f"http://{HOST}:{made.port}"
    assert made.kite is not None
    return {
        "kite": {
            "root": root, "ws": f"ws://{HOST}:{made.kite_port}",
            "login_url": f"{root}/connect/login?v=3&api_key={kite_key}", "api_key": kite_key, "api_secret": kite_secret,
            "request_token": made.kite.sessions.request_token(kite_key, REQUEST_TOKEN_SECONDS),
        },
        "binance": {"rest": rest, "ws": f"ws://{HOST}:{made.port}", "api_key": binance_key, "api_secret": binance_secret},
        "admin": f"{rest}/admin/{token}",
    }  # fmt: skip


def keys(seed: int, door: str) -> tuple[str, str]:
    """Key and secret of the account behind a door: of the seed, so that scripts may know them."""
    text = hashlib.sha256(f"sandbox:{seed}:{door}".encode()).hexdigest()
    return text[:16], text[16:48]


# --- the market -------------------------------------------------------------------------------------------------------


def _market(wishes: Wishes) -> Market:
    invented = not wishes.data
    if wishes.data is None:
        first = wishes.start or datetime(2026, 7, 1, 3, 45, tzinfo=UTC)
        return _with_inventions(Market(f"invented-{wishes.seed}", [], frozenset(), first, DAY_SECONDS), invented)
    batches, _ = read(wishes.data, ReadOptions())
    judged = judge(batches, wishes.data.name, accept_loss=True)
    bars, interval = judged.bars, batches[0].interval_seconds
    indian = batches[0].venue == "nse"
    tick = SHARE_TICK if indian else 0.01
    prices = prices_of(bars, interval, tick)
    if not indian:
        prices = [_on_tick(each) for each in prices]
    names = frozenset(each.symbol for each in prices) if indian else frozenset()
    first = wishes.start or _start_of_replay(bars)
    name = f"{wishes.data.name}-{len(bars)}-{wishes.seed}"
    return _with_inventions(Market(name, prices, names, first, interval), invented)


def _with_inventions(market: Market, invented: bool) -> Market:
    """Add the side of the world that the data do not have."""
    prices, indian = list(market.prices), set(market.indian)
    if invented or not market.indian:
        interval = DAY_SECONDS if invented else market.interval
        prices += [
            Prices(name, SHARE_TICK, interval, start=price, volume=INVENTED_VOLUME * interval / DAY_SECONDS)
            for name, price in INVENTED_SHARES.items()
        ]
        indian |= INVENTED_SHARES.keys()
    if invented or market.indian:
        prices += [
            Prices(name, tick, 3_600, start=price, volume=volume)
            for name, (price, tick, volume) in INVENTED_PAIRS.items()
        ]
    return Market(
        market.name, prices, frozenset(indian), market.first, market.interval, nights=not (invented or market.indian)
    )


def _start_of_replay(bars: pl.DataFrame) -> datetime:
    """The first moment of the last `REPLAYED_DAYS` days of the data, or of their last half where there are fewer."""
    days = bars["session_date"].unique().sort()
    first = days[-min(REPLAYED_DAYS, max(len(days) // 2, 1))]
    found: datetime = bars.filter(pl.col("session_date") == first)["open_time"].min()  # type: ignore[assignment]
    return found


def _on_tick(prices: Prices) -> Prices:
    """A pair's tick as the exchange will have it."""
    prices.tick = float(instrument(prices.symbol, Decimal(repr(prices.start))).tick)
    return prices


def _price_at(prices: Prices, moment: datetime) -> float:
    before = [bar for opened, bar in zip(prices.times, prices.bars, strict=True) if opened < moment.timestamp() * 1_000]
    return before[-1].close if before else prices.bars[0].open if prices.bars else prices.start


def _day(milliseconds: int) -> Any:
    return datetime.fromtimestamp(milliseconds / 1_000, IST).date()


def _show_past(exchange: Exchange, market: Market, step: int) -> None:
    """Minutes of the last days before the replay, so that charts do not begin empty, and a first price for everything."""
    start = (market.first - timedelta(days=MINUTES_BEFORE)).astimezone(IST).date()
    past = PathSource(market.prices, market.indian, market.first - timedelta(days=MINUTES_BEFORE + 1), MINUTE, exchange.genesis.seed, market.nights)  # fmt: skip
    if exchange.market_time is not None:
        return
    until = int(market.first.timestamp() * 1_000)
    day = start
    while day <= market.first.astimezone(IST).date():
        for each in past.of_day(day):
            if each.time <= until:
                _remember(exchange, each)
        day += timedelta(days=1)
    for prices in market.prices:
        found = exchange.markets.get(prices.symbol)
        if found is None:
            continue
        candles = exchange.candles[prices.symbol]
        close, volume = (
            candles.row(len(candles) - 1)[4:] if candles else (_price_at(prices, market.first), prices.volume)
        )
        found.liquidity.refresh(Decimal(repr(close)), Decimal(repr(volume)), until)


def _remember(exchange: Exchange, step: Step) -> None:
    for bar in step.bars:
        if bar.symbol in exchange.candles:
            exchange.candles[bar.symbol].add(bar)


def _days(market: Market) -> dict[str, list[Row]]:
    """Daily bars from before the replay, for charts by the day."""
    if market.interval < DAY_SECONDS:
        return {}
    until = market.first.timestamp() * 1_000
    return {
        each.symbol: [
            (opened, bar.open, bar.high, bar.low, bar.close, bar.volume)
            for opened, bar in zip(each.times, each.bars, strict=True)
            if opened < until
        ]
        for each in market.prices
        if each.symbol in market.indian
    }


# --- the doors --------------------------------------------------------------------------------------------------------


def _binance_door(
    exchange: Exchange, clock: Clock, streams: Streams, kite: Kite, faults: Faults, wishes: Wishes, token: str
) -> web.Application:
    symbols = Symbols(exchange)
    gateway = Gateway(exchange, WEIGHT_A_MINUTE if wishes.limits else WEIGHT_A_MINUTE_IN_REPLAY)
    app = web.Application(client_max_size=LARGEST_BODY, middlewares=[_not_for_admin(faulty(faults, "binance"))])
    control = Control(exchange, clock, token, kite.sessions)
    app.add_routes(
        [
            *MarketData(exchange, gateway, symbols).routes(),
            *Trading(exchange, gateway, symbols, streams).routes(),
            *streams.routes(),
            *control.routes(),
            *Admin(exchange, clock, kite, faults, control, token).routes(),
        ]
    )
    return app


def _not_for_admin(middleware: Any) -> Any:
    """Faults strike the exchange's routes, never those that mend them."""

    @web.middleware
    async def chosen(request: web.Request, handler: Any) -> web.StreamResponse:
        if request.path.startswith(("/admin/", "/sandbox/")):
            return await handler(request)  # type: ignore[no-any-return]
        return await middleware(request, handler)  # type: ignore[no-any-return]

    return chosen


def _open_accounts(made: Sandbox, wishes: Wishes) -> None:
    for door, balances in BALANCES.items():
        key, secret = keys(wishes.seed, door)
        made.exchange.open_account(f"{door}-trader", key, secret, balances)
    if wishes.postback is not None and made.kite is not None:
        made.kite.postbacks.urls[keys(wishes.seed, "kite")[0]] = wishes.postback


async def _warm_up(made: Sandbox) -> None:
    """The first minutes of the market at once, so that it is open when the doors are."""
    if made.exchange.market_time is None:
        await made.clock.advance(steps=WARM_UP_STEPS * max(MINUTE // made.exchange.genesis.interval_seconds, 1))
    made.clock.start([], None)


async def _silent(state: str, detail: dict[str, object]) -> None:
    """Nobody to tell."""


def run(wishes: Wishes) -> None:
    """`serve`, in a loop of its own."""
    import uvloop

    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(serve(wishes))
