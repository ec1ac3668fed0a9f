"""ccxt's own clients, REST and WebSocket, take the sandbox for Binance."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox.clients import credentials, pointed_at
from tests.sandbox.markets import START_MS
from tests.sandbox.served import Served, serving

HOUR_MS = 3_600_000
SYMBOL = "BTC/USDT"


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(tmp_path) as found:
        await found.open_account()
        yield found


@pytest.fixture
async def client(served: Served) -> AsyncIterator[Any]:
    import ccxt.async_support as ccxt

    found = pointed_at(ccxt.binance(credentials()), served.url)
    yield found
    await found.close()


@pytest.fixture
async def streaming(served: Served) -> AsyncIterator[Any]:
    import ccxt.pro as ccxt

    found = pointed_at(ccxt.binance(credentials()), served.url)
    yield found
    await found.close()


async def test_markets_and_prices(served: Served, client: Any) -> None:
    markets = await client.load_markets()
    assert set(markets) == {"BTC/USDT", "ETH/USDT"}
    assert (markets[SYMBOL]["precision"]["price"], markets[SYMBOL]["precision"]["amount"]) == (0.01, 0.00001)
    assert markets[SYMBOL]["limits"]["cost"]["min"] == 5
    paged, since = [], START_MS
    while page := await client.fetch_ohlcv(SYMBOL, "1h", since=since, limit=7):
        paged += page
        since = page[-1][0] + 1
    assert [row[0] for row in paged] == [START_MS + index * HOUR_MS for index in range(30)]
    assert paged == await client.fetch_ohlcv(SYMBOL, "1h", limit=1000)
    ticker, book = await client.fetch_ticker(SYMBOL), await client.fetch_order_book(SYMBOL, 10)
    assert ticker["last"] == paged[-1][4]
    assert book["bids"][0][0] == ticker["bid"] < ticker["last"] < ticker["ask"] == book["asks"][0][0]
    assert len(await client.fetch_trades(SYMBOL, limit=20)) == 20
    assert await client.fetch_time() > START_MS


async def test_orders_from_placing_to_filled(served: Served, client: Any) -> None:
    import ccxt.async_support as ccxt

    await client.load_markets()
    bought = await client.create_order(SYMBOL, "market", "buy", 0.05, None, {"newClientOrderId": "entry-1"})
    assert (bought["status"], bought["filled"], bought["clientOrderId"]) == ("closed", 0.05, "entry-1")
    balance = await client.fetch_balance()
    assert balance["BTC"]["free"] == pytest.approx(2 + 0.05 * 0.999)
    assert balance["USDT"]["total"] == pytest.approx(100_000 - bought["cost"])

    resting = await client.create_order(SYMBOL, "limit", "buy", 0.1, 39_000, {"newClientOrderId": "rest-1"})
    assert (resting["status"], resting["remaining"]) == ("open", 0.1)
    found = await client.fetch_order(None, SYMBOL, {"origClientOrderId": "rest-1"})
    assert (found["id"], found["status"], found["price"]) == (resting["id"], "open", 39_000)
    assert [order["id"] for order in await client.fetch_open_orders(SYMBOL)] == [resting["id"]]
    cancelled = await client.cancel_order(resting["id"], SYMBOL)
    assert cancelled["status"] == "canceled"
    assert (await client.fetch_order(resting["id"], SYMBOL))["status"] == "canceled"
    assert await client.fetch_open_orders(SYMBOL) == []

    trades = await client.fetch_my_trades(SYMBOL)
    assert sum(trade["amount"] for trade in trades) == pytest.approx(0.05)
    assert {trade["order"] for trade in trades} == {bought["id"]}
    assert {trade["fee"]["currency"] for trade in trades} == {"BTC"}

    with pytest.raises(ccxt.InsufficientFunds):
        await client.create_order(SYMBOL, "market", "buy", 1_000)
    with pytest.raises(ccxt.OrderNotFound):
        await client.fetch_order("999", SYMBOL)
    with pytest.raises(ccxt.OrderNotFound):
        await client.cancel_order("999", SYMBOL)
    with pytest.raises(ccxt.BadRequest, match="NOTIONAL"):
        await client.create_order(SYMBOL, "limit", "buy", 0.00001, 10_000)
    client.secret = "another"
    with pytest.raises(ccxt.AuthenticationError):
        await client.fetch_balance()


async def test_stop_orders_replacing_and_lists(served: Served, client: Any) -> None:
    await client.load_markets()
    stop = await client.create_order(SYMBOL, "limit", "sell", 0.5, 37_900, {"stopLossPrice": 38_000})
    found = await client.fetch_order(stop["id"], SYMBOL)
    assert (found["status"], found["stopPrice"], found["info"]["type"]) == ("open", 38_000, "STOP_LOSS_LIMIT")
    replaced = await client.edit_order(stop["id"], SYMBOL, "limit", "sell", 0.5, 45_000)
    assert (await client.fetch_order(stop["id"], SYMBOL))["status"] == "canceled"
    assert [order["id"] for order in await client.fetch_open_orders(SYMBOL)] == [replaced["id"]]
    assert len(await client.fetch_orders(SYMBOL)) == 2
    await client.cancel_all_orders(SYMBOL)
    assert await client.fetch_open_orders(SYMBOL) == []


async def test_bars_and_books_are_streamed(served: Served, streaming: Any) -> None:
    watching = asyncio.create_task(streaming.watch_ohlcv(SYMBOL, "1h"))
    book = asyncio.create_task(streaming.watch_order_book(SYMBOL))
    async with asyncio.timeout(20):
        while len(served.sandbox.streams.listening) < 2:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        await served.steps(1)
        assert (await watching)[-1][0] == START_MS + 30 * HOUR_MS
        while not book.done():
            await served.steps(1)
            await asyncio.sleep(0.2)
        _, depth = await served.public("depth", symbol="BTCUSDT")
        seen = await book
        assert [seen["bids"][0][0], seen["asks"][0][0]] == [float(depth["bids"][0][0]), float(depth["asks"][0][0])]


async def test_ones_own_orders_are_streamed(served: Served, streaming: Any) -> None:
    async with asyncio.timeout(20):
        await streaming.load_markets()
        orders: asyncio.Queue[dict] = asyncio.Queue()

        async def watch() -> None:
            while True:
                for order in await streaming.watch_orders(SYMBOL):
                    orders.put_nowait(dict(order))

        task = asyncio.create_task(watch())
        while not any(connection.accounts for connection in served.sandbox.streams.connections):
            await asyncio.sleep(0.01)
        await streaming.create_order(SYMBOL, "limit", "buy", 0.1, 39_000, {"newClientOrderId": "watched"})
        placed = await orders.get()
        assert (placed["clientOrderId"], placed["status"], placed["filled"]) == ("watched", "open", 0)
        await streaming.create_order(SYMBOL, "market", "sell", 0.2, None, {"newClientOrderId": "at-once"})
        seen = [await orders.get()]
        while seen[-1]["status"] != "closed":
            seen.append(await orders.get())
        assert {order["clientOrderId"] for order in seen} == {"at-once"}
        assert seen[-1]["filled"] == 0.2
        task.cancel()
