"""Binance's REST surface by hand: signatures of the official example, codes and messages of the official list."""

import time
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox.served import Served, serving
from trading_platform.sandbox.binance import gateway

# github.com/binance/binance-spot-api-docs, rest-api.md, "SIGNED Endpoint Examples": keys, payloads, signatures.
OFFICIAL_KEY = "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A"
OFFICIAL_SECRET = "NhqPtmdSJYdKjVHjA7PZj4Mge3R5YNiP1e3UZjInClVN65XAbvqqM6A7H5fATj0j"
OFFICIAL_ASCII = (
    "symbol=LTCBTC&side=BUY&type=LIMIT&timeInForce=GTC&quantity=1&price=0.1&recvWindow=5000&timestamp=1499827319559",
    "c8db56825ae71d6d79447849e617115f4a920fa2acdcab2b053c4b2838bd6b71",
)
OFFICIAL_ENCODED = (
    "symbol=%EF%BC%91%EF%BC%92%EF%BC%93%EF%BC%94%EF%BC%95%EF%BC%96&side=BUY&type=LIMIT&timeInForce=GTC&quantity=1"
    "&price=0.1&recvWindow=5000&timestamp=1499827319559",
    "e1353ec6b14d888f1164ae9af8228a3dbd508bc82eb867db8ab6046442f33ef3",
)


async def _post(served: Served, query: str, body: str = "", key: str | None = OFFICIAL_KEY) -> dict:
    from yarl import URL

    headers = {} if key is None else {"X-MBX-APIKEY": key}
    if body:
        headers["Content-Type"] = "application/x-www-form-urlencoded"
    url = URL(f"{served.url}/api/v3/order?{query}", encoded=True)
    async with served.session.post(url, data=body or None, headers=headers) as answer:
        return {"status": answer.status, **await answer.json()}


@pytest.mark.parametrize(("payload", "signature"), [OFFICIAL_ASCII, OFFICIAL_ENCODED], ids=["ascii", "encoded"])
async def test_the_official_examples_are_signed_rightly(tmp_path: Path, payload: str, signature: str) -> None:
    """A right signature of 2017 is refused for its age, a wrong one for being wrong."""
    async with serving(tmp_path) as served:
        body = {"account_id": "o", "api_key": OFFICIAL_KEY, "api_secret": OFFICIAL_SECRET, "balances": {}}
        await served.control("POST", "accounts", body)
        head, _, tail = payload.partition("&timeInForce")
        for query, form in (
            (f"{payload}&signature={signature}", ""),
            (f"{payload}&signature={signature.upper()}", ""),
            ("", f"{payload}&signature={signature}"),
        ):
            assert (await _post(served, query, form))["code"] == -1021
        assert (await _post(served, head, f"timeInForce{tail}&signature={signature}"))["code"] == -1022
        wrong = await _post(served, f"{payload}&signature={signature[:-1]}0")
        assert (wrong["status"], wrong["code"]) == (400, -1022)
        unsigned = await _post(served, payload)
        assert unsigned["code"] == -1102
        assert (await _post(served, payload, key=None))["code"] == -2014
        unknown = await _post(served, payload, key="x" * 64)
        assert (unknown["status"], unknown["code"]) == (401, -2015)


@pytest.mark.parametrize(
    ("age_ms", "window", "code"),
    [(0, None, None), (4_000, None, None), (6_000, None, -1021), (6_000, 10_000, None), (-2_000, None, -1021), (0, 70_000, -1131)],
)  # fmt: skip
async def test_the_receive_window_is_wall_time(
    tmp_path: Path, age_ms: int, window: int | None, code: int | None
) -> None:
    async with serving(tmp_path) as served:
        await served.open_account()
        more = {} if window is None else {"recvWindow": window}
        _, body = await served.signed("GET", "account", timestamp=int(time.time() * 1_000) - age_ms, **more)
        assert body.get("code") == code


ORDER = {
    "symbol": "BTCUSDT",
    "side": "BUY",
    "type": "LIMIT",
    "timeInForce": "GTC",
    "quantity": "0.01",
    "price": "39000",
}
MARKET: dict[str, Any] = {"symbol": "BTCUSDT", "side": "BUY", "type": "MARKET", "quantity": "0.01"}


@pytest.mark.parametrize(
    ("order", "code", "message"),
    [
        (ORDER | {"symbol": "NOPE"}, -1121, "Invalid symbol."),
        (ORDER | {"quantity": "0.0000015"}, -1013, "Filter failure: LOT_SIZE"),
        (ORDER | {"quantity": "0.0001", "price": "1"}, -1013, "Filter failure: NOTIONAL"),
        (ORDER | {"price": "39000.001"}, -1013, "Filter failure: PRICE_FILTER"),
        (ORDER | {"quantity": "0.0100000001"}, -1111, "Parameter 'quantity' has too much precision."),
        (ORDER | {"quantity": "-1"}, -1100, "Illegal characters found in parameter 'quantity'"),
        (ORDER | {"quantity": "50"}, -2010, "Account has insufficient balance for requested action."),
        (MARKET | {"quantity": "50"}, -2010, "Account has insufficient balance for requested action."),
        (ORDER | {"side": "HOLD"}, -1117, "Invalid side."),
        (ORDER | {"type": "PEGGED"}, -1116, "Invalid orderType."),
        (ORDER | {"timeInForce": "GTX"}, -1115, "Invalid timeInForce."),
        (MARKET | {"price": "1"}, -1106, "Parameter 'price' sent when not required."),
        ({**ORDER, "type": "LIMIT_MAKER", "price": "60000", "timeInForce": ""}, -2010, "Order would immediately match"),
        (ORDER | {"newClientOrderId": "no spaces"}, -1100, "Illegal characters found in parameter 'newClientOrderId'"),
        (ORDER | {"icebergQty": "0.001"}, -1013, "Iceberg orders are not supported for this symbol."),
        (ORDER | {"newOrderRespType": "ALL"}, -1102, "Mandatory parameter 'newOrderRespType'"),
        ({key: value for key, value in ORDER.items() if key != "price"}, -1102, "Mandatory parameter 'price'"),
    ],
)
async def test_refusals_carry_the_official_codes(tmp_path: Path, order: dict, code: int, message: str) -> None:
    async with serving(tmp_path) as served:
        await served.open_account()
        status, body = await served.signed("POST", "order", **{k: v for k, v in order.items() if v != ""})
        assert (status, body["code"]) == (400, code)
        assert body["msg"].startswith(message)
        assert (await served.signed("GET", "allOrders", symbol="BTCUSDT"))[1] == []


async def test_an_order_from_its_placing_to_its_end(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        await served.open_account()
        _, placed = await served.signed("POST", "order", newClientOrderId="mine", **ORDER)
        assert (placed["status"], placed["fills"]) == ("NEW", [])
        _, again = await served.signed("POST", "order", newClientOrderId="mine", **ORDER)
        assert (again["code"], again["msg"]) == (-2010, "Duplicate order sent.")
        _, account = await served.signed("GET", "account")
        assert {"asset": "USDT", "free": "99610.00000000", "locked": "390.00000000"} in account["balances"]
        _, found = await served.signed("GET", "order", symbol="BTCUSDT", origClientOrderId="mine")
        assert (found["orderId"], found["status"], found["isWorking"]) == (placed["orderId"], "NEW", True)
        _, unknown = await served.signed("GET", "order", symbol="BTCUSDT", origClientOrderId="nobodys")
        assert unknown["code"] == -2013
        _, kept = await served.signed("DELETE", "order", symbol="BTCUSDT", orderId=1, cancelRestrictions="ONLY_PARTIALLY_FILLED")  # fmt: skip
        assert (kept["code"], kept["msg"]) == (-2011, "Order was not canceled due to cancel restrictions.")
        _, cancelled = await served.signed("DELETE", "order", symbol="BTCUSDT", origClientOrderId="mine")
        assert (cancelled["status"], cancelled["origClientOrderId"]) == ("CANCELED", "mine")
        _, gone = await served.signed("DELETE", "order", symbol="BTCUSDT", origClientOrderId="mine")
        assert (gone["code"], gone["msg"]) == (-2011, "Unknown order sent.")

        _, bought = await served.signed("POST", "order", newClientOrderId="mine", **MARKET)
        assert bought["status"] == "FILLED"
        fills = bought["fills"]
        assert sum(float(fill["qty"]) for fill in fills) == pytest.approx(0.01)
        assert {fill["commissionAsset"] for fill in fills} == {"BTC"}
        assert sum(float(fill["commission"]) for fill in fills) == pytest.approx(0.01 * 0.001)
        _, trades = await served.signed("GET", "myTrades", symbol="BTCUSDT")
        assert [(t["id"], t["qty"], t["price"]) for t in trades] == [
            (f["tradeId"], f["qty"], f["price"]) for f in fills
        ]
        books = await served.control("GET", "books/fills?account_id=alice")
        assert [(fill["trade_id"], float(fill["quantity"])) for fill in books] == [(str(t["id"]), float(t["qty"])) for t in trades]  # fmt: skip
        states = [order["state"] for order in await served.control("GET", "books/orders?account_id=alice")]
        assert states == ["CANCELED", "FILLED"]


async def test_one_order_cancels_the_other_in_both_ways_of_asking(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        await served.open_account(BTC="1", USDT="0")
        old = {"symbol": "BTCUSDT", "side": "SELL", "quantity": "1", "price": "45000", "stopPrice": "38000"}
        _, placed = await served.signed("POST", "order/oco", listClientOrderId="pair", **old)
        assert [(r["type"], r["status"], r.get("stopPrice")) for r in placed["orderReports"]] == [
            ("LIMIT_MAKER", "NEW", None), ("STOP_LOSS", "NEW", "38000.00000000"),
        ]  # fmt: skip
        _, listed = await served.signed("GET", "orderList", origClientOrderId="pair")
        assert (listed["listOrderStatus"], len(listed["orders"])) == ("EXECUTING", 2)
        _, twice = await served.signed("POST", "order/oco", **old)
        assert twice["code"] == -2010, "the coin is locked once, and only once"
        _, cancelled = await served.signed("DELETE", "orderList", symbol="BTCUSDT", listClientOrderId="pair")
        assert {report["status"] for report in cancelled["orderReports"]} == {"CANCELED"}
        assert (await served.signed("GET", "openOrderList"))[1] == []

        new = {
            "symbol": "BTCUSDT", "side": "SELL", "quantity": "1", "aboveType": "LIMIT_MAKER", "abovePrice": "45000",
            "belowType": "STOP_LOSS_LIMIT", "belowStopPrice": "38000", "belowPrice": "37900", "belowTimeInForce": "GTC",
        }  # fmt: skip
        _, placed = await served.signed("POST", "orderList/oco", **new)
        assert [report["type"] for report in placed["orderReports"]] == ["LIMIT_MAKER", "STOP_LOSS_LIMIT"]
        _, wrong = await served.signed("POST", "orderList/oco", **(new | {"belowStopPrice": "44000"}))
        assert wrong["msg"] == "The relationship of the prices for the orders is not correct."
        _, swapped = await served.signed("POST", "orderList/oco", **(new | {"side": "BUY"}))
        assert swapped["code"] == -1196


async def test_cancel_replace_tells_which_half_went_wrong(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        await served.open_account()
        _, first = await served.signed("POST", "order", newClientOrderId="a", **ORDER)
        both = ORDER | {"price": "38000", "cancelReplaceMode": "STOP_ON_FAILURE"}
        status, done = await served.signed("POST", "order/cancelReplace", cancelOrderId=first["orderId"], **both)
        assert (status, done["cancelResult"], done["newOrderResult"]) == (200, "SUCCESS", "SUCCESS")
        status, failed = await served.signed("POST", "order/cancelReplace", cancelOrderId=first["orderId"], **both)
        assert (status, failed["code"]) == (400, -2022)
        assert failed["data"]["newOrderResult"] == "NOT_ATTEMPTED"
        assert failed["data"]["cancelResponse"] == {"code": -2011, "msg": "Unknown order sent."}
        allowing = both | {"cancelReplaceMode": "ALLOW_FAILURE"}
        status, half = await served.signed("POST", "order/cancelReplace", cancelOrderId=first["orderId"], **allowing)
        assert (status, half["code"], half["data"]["newOrderResult"]) == (409, -2021, "SUCCESS")
        too_large = both | {"quantity": "9", "cancelOrderId": half["data"]["newOrderResponse"]["orderId"]}
        status, half = await served.signed("POST", "order/cancelReplace", **too_large)
        assert (status, half["data"]["cancelResult"], half["data"]["newOrderResponse"]["code"]) == (
            409,
            "SUCCESS",
            -2010,
        )


async def test_who_asks_too_much_is_slowed_and_then_banned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway.time, "time", lambda: 1_700_000_010.0)  # so that no minute begins on the way
    async with serving(tmp_path, weight_limit=100) as served:
        used = []
        for _ in range(5):
            async with served.session.get(f"{served.url}/api/v3/exchangeInfo") as answer:
                assert answer.status == 200
                used.append(int(answer.headers["X-MBX-USED-WEIGHT-1M"]))
        assert used[-1] - used[0] == 80, "Binance counts 20 for exchangeInfo"
        async with served.session.get(f"{served.url}/api/v3/exchangeInfo") as answer:
            assert (answer.status, (await answer.json())["code"]) == (429, -1003)
            assert 0 < int(answer.headers["Retry-After"]) <= 61
        for _ in range(2):
            await served.public("exchangeInfo")
        async with served.session.get(f"{served.url}/api/v3/ping") as answer:
            assert (answer.status, (await answer.json())["code"]) == (418, -1003)
            assert 60 < int(answer.headers["Retry-After"]) <= 121
        assert (await served.control("GET", "status"))["state"] == "waiting", "control routes are not Binance's"


async def test_too_many_orders(tmp_path: Path) -> None:
    async with serving(tmp_path, weight_limit=gateway.ORDERS_OF_WEIGHT * 3) as served:
        await served.open_account()
        answers = [(await served.signed("POST", "order", **ORDER))[1] for _ in range(4)]
        assert [answer.get("code") for answer in answers] == [None, None, None, -1015]


async def test_klines_end_with_the_market_time_and_page_like_binances(tmp_path: Path) -> None:
    async with serving(tmp_path, count=60, replay_from=30) as served:
        _, rows = await served.public("klines", symbol="BTCUSDT", interval="1h", limit=1000)
        assert len(rows) == 30, "nothing of the tail is known before it has happened"
        assert all(len(row) == 12 and row[6] == row[0] + 3_599_999 for row in rows)
        _, page = await served.public("klines", symbol="BTCUSDT", interval="1h", startTime=rows[10][0], limit=5)
        assert page == rows[10:15]
        _, page = await served.public("klines", symbol="BTCUSDT", interval="1h", endTime=rows[10][0], limit=5)
        assert page == rows[6:11]
        await served.steps(2)
        _, later = await served.public("klines", symbol="BTCUSDT", interval="1h", limit=1000)
        assert later[:30] == rows
        assert len(later) == 32
        assert (await served.public("klines", symbol="BTCUSDT", interval="7m"))[1]["code"] == -1120


async def test_public_routes_agree_with_each_other(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        await served.steps(1)
        _, price = await served.public("ticker/price", symbol="BTCUSDT")
        _, best = await served.public("ticker/bookTicker", symbol="BTCUSDT")
        _, depth = await served.public("depth", symbol="BTCUSDT", limit=5)
        _, day = await served.public("ticker/24hr", symbol="BTCUSDT")
        _, trades = await served.public("trades", symbol="BTCUSDT", limit=4)
        _, aggregates = await served.public("aggTrades", symbol="BTCUSDT", fromId=trades[0]["id"])
        _, rows = await served.public("klines", symbol="BTCUSDT", interval="1h", limit=24)
        last = rows[-1]
        assert float(best["bidPrice"]) < float(price["price"]) < float(best["askPrice"])
        assert [best["bidPrice"], best["bidQty"]] == depth["bids"][0]
        assert [best["askPrice"], best["askQty"]] == depth["asks"][0]
        assert (len(depth["bids"]), len(depth["asks"])) == (5, 5)
        assert day["lastPrice"] == price["price"] == last[4] == trades[-1]["price"]
        assert float(day["highPrice"]) == max(float(row[2]) for row in rows)
        assert float(day["volume"]) == pytest.approx(sum(float(row[5]) for row in rows))
        assert sorted(float(trade["price"]) for trade in trades)[::3] == [float(last[3]), float(last[2])]
        assert [(a["a"], a["p"]) for a in aggregates] == [(t["id"], t["price"]) for t in trades]
        _, listed = await served.public("ticker/price", symbols='["BTCUSDT","ETHUSDT"]')
        assert [row["symbol"] for row in listed] == ["BTCUSDT", "ETHUSDT"]


async def test_the_network_can_be_slow(tmp_path: Path) -> None:
    async with serving(tmp_path, latency_seconds=0.1) as served:
        began = time.monotonic()
        await served.public("ping")
        assert time.monotonic() - began >= 0.1
