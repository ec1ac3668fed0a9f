"""The WebSocket side by hand: names, wrapping, subscribing, user data, and clients that do not read."""

import asyncio
import hashlib
import hmac
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.sandbox.markets import START_MS
from tests.sandbox.served import Served, serving
from trading_platform.sandbox.binance import streams as streams_module

HOUR_MS = 3_600_000


async def receive(socket: aiohttp.ClientWebSocketResponse, count: int = 1) -> list[Any]:
    async with asyncio.timeout(5):
        return [await socket.receive_json() for _ in range(count)]


async def test_raw_and_combined_streams(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        raw = await served.session.ws_connect(f"{served.url}/ws/btcusdt@kline_1h")
        both = await served.session.ws_connect(f"{served.url}/stream?streams=btcusdt@kline_1h/ethusdt@bookTicker")
        await served.steps(1)
        [kline] = await receive(raw)
        _, [row] = await served.public("klines", symbol="BTCUSDT", interval="1h", limit=1)
        k = kline["k"]
        assert (kline["e"], kline["s"], k["i"], k["x"]) == ("kline", "BTCUSDT", "1h", True)
        assert [k["t"], k["o"], k["h"], k["l"], k["c"], k["v"], k["T"], k["q"], k["n"]] == row[:9]
        assert kline["E"] == START_MS + 31 * HOUR_MS
        wrapped = await receive(both, 2)
        assert {event["stream"] for event in wrapped} == {"btcusdt@kline_1h", "ethusdt@bookTicker"}
        assert wrapped[0]["data"] == kline
        assert set(wrapped[1]["data"]) == {"u", "s", "b", "B", "a", "A"}


async def test_subscribing_on_an_open_connection(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        socket = await served.session.ws_connect(f"{served.url}/ws")
        names = ["btcusdt@trade", "btcusdt@miniTicker", "btcusdt@depth5"]
        await socket.send_json({"method": "SUBSCRIBE", "params": names, "id": 1})
        await socket.send_json({"method": "LIST_SUBSCRIPTIONS", "id": 2})
        assert await receive(socket, 2) == [{"result": None, "id": 1}, {"result": sorted(names), "id": 2}]
        await served.steps(1)
        events = await receive(socket, 6)
        assert [event.get("e") for event in events] == ["trade"] * 4 + ["24hrMiniTicker", None]
        assert len(events[-1]["bids"]) == len(events[-1]["asks"]) == 5
        await socket.send_json({"method": "UNSUBSCRIBE", "params": names[:2], "id": "three"})
        await receive(socket)
        await served.steps(1)
        assert "lastUpdateId" in (await receive(socket))[0]
        for sent, code in (("nonsense", 3), ('{"method": "DANCE", "id": 4}', 2)):
            await socket.send_str(sent)
            assert (await receive(socket))[0]["code"] == code


async def test_a_book_kept_from_updates_equals_the_book(tmp_path: Path) -> None:
    """Binance's own recipe: subscribe, take a snapshot, apply every update after it."""
    async with serving(tmp_path) as served:
        await served.open_account()
        socket = await served.session.ws_connect(f"{served.url}/ws/btcusdt@depth")
        while not served.sandbox.streams.market.published:
            await asyncio.sleep(0.005)
        _, snapshot = await served.public("depth", symbol="BTCUSDT", limit=5000)
        book = {"b": dict(map(tuple, snapshot["bids"])), "a": dict(map(tuple, snapshot["asks"]))}
        last = snapshot["lastUpdateId"]
        for action in range(6):
            if action % 2:
                await served.steps(1)
            else:
                order = {
                    "side": "BUY",
                    "type": "LIMIT",
                    "timeInForce": "GTC",
                    "quantity": "0.3",
                    "price": str(38_500 + action),
                }
                await served.signed("POST", "order", symbol="BTCUSDT", **order)
            [update] = await receive(socket)
            assert update["U"] == last + 1 <= update["u"]
            last = update["u"]
            for side in ("b", "a"):
                for price, quantity in update[side]:
                    if float(quantity):
                        book[side][price] = quantity
                    else:
                        del book[side][price]
        _, now = await served.public("depth", symbol="BTCUSDT", limit=5000)
        assert book["b"] == dict(map(tuple, now["bids"]))
        assert book["a"] == dict(map(tuple, now["asks"]))
        assert now["lastUpdateId"] == last


async def _listen_key(served: Served, method: str, **parameters: str) -> tuple[int, dict]:
    headers = {"X-MBX-APIKEY": "key-alice"}
    url = f"{served.url}/api/v3/userDataStream"
    async with served.session.request(method, url, params=parameters, headers=headers) as answer:
        return answer.status, await answer.json()


async def test_user_data_by_listen_key_and_by_signature(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        await served.open_account()
        await served.open_account("bob")
        _, opened = await _listen_key(served, "POST")
        by_key = await served.session.ws_connect(f"{served.url}/ws/{opened['listenKey']}")
        by_signature = await served.session.ws_connect(f"{served.url}/ws-api/v3")
        params = {"apiKey": "key-alice", "timestamp": int(time.time() * 1_000)}
        payload = f"apiKey={params['apiKey']}&timestamp={params['timestamp']}"
        signature = hmac.new(b"secret-alice", payload.encode(), hashlib.sha256).hexdigest()
        method = "userDataStream.subscribe.signature"
        await by_signature.send_json({"id": 1, "method": method, "params": params | {"signature": "0" * 64}})
        [refused] = await receive(by_signature)
        assert (refused["status"], refused["error"]["code"]) == (400, -1022)
        await by_signature.send_json({"id": 2, "method": method, "params": params | {"signature": signature}})
        assert await receive(by_signature) == [{"id": 2, "status": 200, "result": {"subscriptionId": 0}}]

        order = {"symbol": "BTCUSDT", "side": "BUY", "type": "MARKET", "quantity": "0.01"}
        await served.signed("POST", "order", name="bob", **order)
        _, placed = await served.signed("POST", "order", newClientOrderId="mine", **order)
        events = await receive(by_key, 2 + len(placed["fills"]))
        assert [(event["e"], event.get("x")) for event in events] == [
            ("executionReport", "NEW"), *[("executionReport", "TRADE")] * len(placed["fills"]),
            ("outboundAccountPosition", None),
        ]  # fmt: skip
        assert {event["c"] for event in events[:-1]} == {"mine"}, "bob's order is bob's business"
        assert (events[0]["X"], events[0]["z"]) == ("NEW", "0.00000000")
        assert (events[-2]["X"], events[-2]["z"], events[-2]["Z"]) == ("FILLED", placed["executedQty"], placed["cummulativeQuoteQty"])  # fmt: skip
        assert [event["L"] for event in events[1:-1]] == [fill["price"] for fill in placed["fills"]]
        _, account = await served.signed("GET", "account")
        assert [{"asset": b["a"], "free": b["f"], "locked": b["l"]} for b in events[-1]["B"]] == account["balances"]
        assert [each["event"] for each in await receive(by_signature, len(events))] == events

        _, resting = await served.signed(
            "POST", "order", **order | {"type": "LIMIT", "timeInForce": "GTC", "price": "39000"}
        )
        await served.signed("DELETE", "order", symbol="BTCUSDT", orderId=resting["orderId"])
        seen = [event["x"] for event in await receive(by_key, 4) if event["e"] == "executionReport"]
        assert seen == ["NEW", "CANCELED"]
        assert (await _listen_key(served, "PUT", listenKey="nobodys"))[1]["code"] == -1125
        assert (await _listen_key(served, "DELETE", listenKey=opened["listenKey"]))[0] == 200
        assert (await by_key.receive()).type in (
            aiohttp.WSMsgType.CLOSED,
            aiohttp.WSMsgType.ERROR,
            aiohttp.WSMsgType.CLOSE,
        )


async def test_a_client_that_does_not_read_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams_module, "LONGEST_QUEUE", 5)
    async with serving(tmp_path) as served:
        deaf = await served.session.ws_connect(f"{served.url}/ws/btcusdt@trade/ethusdt@trade")
        served.sandbox.exchange.step(await anext(served._steps()))
        await served.sandbox.exchange.durable()
        async with asyncio.timeout(5):
            while served.sandbox.streams.connections:
                await asyncio.sleep(0.01)
        assert not served.sandbox.streams.listening
        await deaf.close()
