"""The whole adapter against the sandbox's Kite over real sockets: what the samples cannot show, that answers fit together."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox.kite.broker import FRIDAY, Broker, broker
from tests.venues.zerodha.test_venue import venue_at
from trading_platform.markets.kite_orders import KiteOrder, Surroundings
from trading_platform.venues.port import Refused
from trading_platform.venues.zerodha.books import Books
from trading_platform.venues.zerodha.gtt import Leg, Trigger, Triggers
from trading_platform.venues.zerodha.login import IST
from trading_platform.venues.zerodha.orders import Acknowledged, Change
from trading_platform.venues.zerodha.packets import values
from trading_platform.venues.zerodha.quotes import Quotes
from trading_platform.venues.zerodha.statuses import Lifecycle
from trading_platform.venues.zerodha.ticker import KiteStream
from trading_platform.venues.zerodha.venue import ZerodhaVenue

D = Decimal
LIMIT = KiteOrder("NSE", "INFY", "BUY", 10, "CNC", "LIMIT", price=D("1400.00"), tag="TPFAR")


@dataclass
class Account:
    """A logged-in account, and what it stands in."""

    made: Broker
    venue: ZerodhaVenue
    seen: list[Any] = field(default_factory=list)

    @property
    def books(self) -> Books:
        return Books(self.venue.transport)

    def around(self) -> Surroundings:
        return Surroundings(self.venue._contract("INFY"), self.venue.now())  # type: ignore[arg-type]


@pytest.fixture
async def account(tmp_path: Path) -> AsyncIterator[Account]:
    async with broker(tmp_path) as made:
        found = Account(made, await venue_at(made))
        yield found
        await found.venue.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not condition():
            await asyncio.sleep(0.02)


async def test_an_order_lives_is_changed_and_is_cancelled(account: Account) -> None:
    desk = account.venue.desk
    placed = await desk.place(LIMIT)
    assert isinstance(placed, Acknowledged)
    (row,) = await account.books.orders()
    assert (row.lifecycle, row.price, row.tags) == (Lifecycle.WORKING, D(1400), {"TPFAR"})
    assert row.is_of(LIMIT)
    assert row.placed_at is not None
    assert row.placed_at.astimezone(IST).date() == FRIDAY
    change = Change(quantity=20, price=D("1401.00"))
    assert await desk.change(placed.order_id, LIMIT, change, account.around(), done_before=0) == placed
    (row,) = await account.books.orders()
    assert (row.quantity, row.price) == (20, D(1401))
    assert await desk.cancel(placed.order_id, "regular") == placed
    steps = [step.status for step in await account.books.history(placed.order_id)]
    assert steps[0] == "PUT ORDER REQ RECEIVED"
    assert steps[-1] == "CANCELLED"
    again = await desk.cancel(placed.order_id, "regular")
    assert isinstance(again, Refused)


async def test_what_it_refuses_is_known_by_name(account: Account) -> None:
    desk = account.venue.desk
    for order, code in (
        (replace(LIMIT, quantity=100_000), "MARGIN_SHORT"),
        (replace(LIMIT, quantity=100_001), "QUANTITY_FREEZE"),
        (replace(LIMIT, price=D("1400.01")), "PRICE_TICK"),
        (replace(LIMIT, order_type="MARKET", price=None), "MARKET_UNPROTECTED"),
    ):
        refused = await desk.place(order)
        assert isinstance(refused, Refused)
        assert refused.code == code, refused


async def test_money_positions_quotes_and_candles(account: Account) -> None:
    placed = await account.venue.desk.place(replace(LIMIT, price=D("1510.00"), tag="TPNEAR"))
    assert isinstance(placed, Acknowledged)
    (trade,) = await account.books.trades(placed.order_id)
    assert (trade.quantity, trade.side) == (10, "BUY")
    assert [each.quantity for each in await account.books.positions()] == [10]
    assert (await account.books.funds())["equity"].usable < 10_000_000
    quotes = Quotes(account.venue.transport)
    full = await quotes.full(["NSE:INFY", "NSE:NOBODY"])
    assert set(full) == {"NSE:INFY"}
    assert full["NSE:INFY"].last_price > 0
    assert await quotes.last_prices(["NSE:INFY"]) == {"NSE:INFY": full["NSE:INFY"].last_price}
    token = full["NSE:INFY"].instrument_token
    candles = await quotes.candles(token, "minute", FRIDAY, FRIDAY)
    assert candles
    assert [each.opened_at for each in candles] == sorted({each.opened_at for each in candles})


async def test_triggers(account: Account) -> None:
    triggers = Triggers(account.venue.transport)
    wanted = Trigger("NSE", "INFY", (D("1400.00"),), (Leg("BUY", 5, D("1401.00")),))
    number = await triggers.place(wanted, D("1500.00"))
    assert isinstance(number, int)
    found = await triggers.get(number)
    assert (found.status, found.trigger) == ("active", wanted)
    assert await triggers.delete(number) == number
    assert (await triggers.get(number)).status == "deleted"


async def test_the_stream_tells_prices_and_orders(account: Account) -> None:
    token = account.venue._contract("INFY").instrument_token  # type: ignore[arg-type]
    prices: list[float] = []
    orders: list[tuple[str, str]] = []
    synced = asyncio.Event()

    async def resync() -> None:
        await account.books.orders()
        synced.set()

    async def alive() -> bool:
        return True

    stream = KiteStream(
        account.made.kite_url.replace("http://", "ws://"), "key_bob", lambda: account.venue.transport._access_token or "",
        on_rows=lambda rows: prices.extend(price for each in rows.values() for price in values(each)["last"].tolist()),
        on_order=lambda row: orders.append((row["order_id"], row["status"])), resync=resync, session_alive=alive,
        now=account.venue.now,
    )  # fmt: skip
    await stream.subscribe([token], "full")
    running = asyncio.create_task(stream.run())
    try:
        await asyncio.wait_for(synced.wait(), 15)
        await account.made.steps(1)
        await until(lambda: bool(prices))
        last = (await Quotes(account.venue.transport).last_prices(["NSE:INFY"]))["NSE:INFY"]
        assert D(str(prices[-1])) == last
        placed = await account.venue.desk.place(replace(LIMIT, price=D("1510.00")))
        assert isinstance(placed, Acknowledged)
        await until(lambda: (placed.order_id, "COMPLETE") in orders)
        assert stream.health.bad_frames == 0
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
