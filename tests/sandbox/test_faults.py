"""Every fault, as a client of either door sees it; against the real process over sockets."""

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest
import requests
from kiteconnect import KiteConnect
from kiteconnect import exceptions as refused

from tests.sandbox.alone import Alone, alone
from trading_platform.sandbox.faults import KINDS, BadFaultError, Faults

SYMBOL = "INFY"
PLACE = "POST /orders/*"


@pytest.fixture(scope="module")
def made() -> Iterator[Alone]:
    with alone("--speed", "max", "--no-limits") as found:
        found.admin("/clock", {"run": False})
        yield found


@pytest.fixture
def kite(made: Alone) -> Iterator[KiteConnect]:
    made.faults()
    yield made.kite(timeout=2)
    made.faults()


def place(kite: KiteConnect, **changes: Any) -> str:
    order = {
        "variety": "regular", "exchange": "NSE", "tradingsymbol": SYMBOL, "transaction_type": "BUY", "quantity": 1,
        "product": "CNC", "order_type": "MARKET", "market_protection": -1,
    } | changes  # fmt: skip
    return str(kite.place_order(**order))


def tagged(kite: KiteConnect, tag: str) -> list[dict[str, Any]]:
    return [row for row in kite.orders() if row["tag"] == tag]


# --- writes whose fate is not told ------------------------------------------------------------------------------------


def test_a_time_out_after_acceptance_leaves_exactly_one_order(made: Alone, kite: KiteConnect) -> None:
    made.faults({"kind": "timeout_after_acceptance", "door": "kite", "route": PLACE, "seconds": 4})
    with pytest.raises(requests.exceptions.ReadTimeout):
        place(kite, tag="TIMEOUT")
    assert [row["status"] for row in tagged(kite, "TIMEOUT")] == ["COMPLETE"]


def test_a_400_that_was_accepted(made: Alone, kite: KiteConnect) -> None:
    made.faults({"kind": "timed_out_400", "door": "kite", "route": PLACE})
    with pytest.raises(refused.OrderException, match=r"^Order request timed out\. Please check the order book"):
        place(kite, tag="BAD400")
    assert len(tagged(kite, "BAD400")) == 1


@pytest.mark.parametrize(("accepted", "orders"), [(True, 1), (False, 0)])
def test_a_gateway_error_in_html(made: Alone, kite: KiteConnect, accepted: bool, orders: int) -> None:
    made.faults({"kind": "server_error", "door": "kite", "route": PLACE, "status": 504, "accepted": accepted})
    with pytest.raises(refused.DataException) as found:
        place(kite, tag=f"HTML{orders}")
    assert "<html>" in str(found.value)
    assert len(tagged(kite, f"HTML{orders}")) == orders


def test_json_that_ends_too_early(made: Alone, kite: KiteConnect) -> None:
    made.faults({"kind": "malformed_json", "door": "kite", "route": PLACE})
    with pytest.raises(refused.DataException):
        place(kite, tag="CUT")
    assert len(tagged(kite, "CUT")) == 1


@pytest.mark.parametrize(("accepted", "orders"), [(True, 1), (False, 0)])
def test_a_connection_that_is_cut(made: Alone, kite: KiteConnect, accepted: bool, orders: int) -> None:
    made.faults({"kind": "disconnect", "door": "kite", "route": PLACE, "accepted": accepted})
    with pytest.raises(requests.exceptions.ConnectionError):
        place(kite, tag=f"CUTOFF{orders}")
    assert len(tagged(kite, f"CUTOFF{orders}")) == orders


def test_too_many_requests_were_not_executed(made: Alone, kite: KiteConnect) -> None:
    made.faults({"kind": "too_many_requests", "door": "kite", "route": PLACE, "after": 1, "times": 2})
    place(kite, tag="FIRST")
    for _ in range(2):
        with pytest.raises(refused.NetworkException, match="Too many requests") as found:
            place(kite, tag="LATER")
        assert found.value.code == 429
    place(kite, tag="LAST")
    assert (len(tagged(kite, "FIRST")), len(tagged(kite, "LATER")), len(tagged(kite, "LAST"))) == (1, 0, 1)


def test_an_order_is_visible_only_after_a_while(made: Alone, kite: KiteConnect) -> None:
    made.faults({"kind": "hide_order", "door": "kite", "seconds": 1.5})
    number = place(kite, tag="HIDDEN")
    assert tagged(kite, "HIDDEN") == []
    assert [trade for trade in kite.trades() if trade["order_id"] == number] == []
    with pytest.raises(refused.GeneralException, match="Couldn't find"):
        kite.order_history(number)
    time.sleep(1.6)
    assert [row["status"] for row in tagged(kite, "HIDDEN")] == ["COMPLETE"]


def test_a_fill_comes_after_the_cancellation(made: Alone, kite: KiteConnect) -> None:
    last = kite.ltp(f"NSE:{SYMBOL}")[f"NSE:{SYMBOL}"]["last_price"]
    number = place(kite, order_type="LIMIT", price=round(last * 0.95), tag="LATE", market_protection=None)
    made.faults({"kind": "late_fill", "door": "kite", "seconds": 1})
    kite.cancel_order("regular", number)
    (row,) = tagged(kite, "LATE")
    assert (row["status"], row["filled_quantity"]) == ("CANCELLED", 0)
    time.sleep(1.1)
    made.admin("/clock", {"seconds": 0})
    (row,) = tagged(kite, "LATE")
    assert (row["status"], row["filled_quantity"]) == ("COMPLETE", 1)
    assert kite.order_trades(number)[0]["quantity"] == 1


def test_sessions_end_at_once(made: Alone, kite: KiteConnect) -> None:
    made.faults({"kind": "token_rollover", "door": "kite", "route": "GET /user/*"})
    with pytest.raises(refused.TokenException):
        kite.profile()
    with pytest.raises(refused.TokenException):
        kite.orders()
    assert made.kite().profile()["broker"] == "ZERODHA"


def test_a_clock_that_is_wrong(made: Alone, kite: KiteConnect) -> None:
    made.faults({"kind": "clock_skew", "seconds": -90})
    told = parsedate_to_datetime(requests.get(made.info["kite"]["root"], timeout=5).headers["Date"]).timestamp()
    assert told - time.time() == pytest.approx(-90, abs=2)
    answer = requests.get(f"{made.info['binance']['rest']}/api/v3/time", timeout=5).json()
    assert answer["serverTime"] / 1_000 - time.time() == pytest.approx(-90, abs=2)


# --- streams ----------------------------------------------------------------------------------------------------------


async def updates(
    made: Alone, kite: KiteConnect, orders: int, seconds: float = 3.0
) -> tuple[list[tuple[str, str]], bool]:
    """([(tag, status)] of the order updates on a stream while orders are placed, whether the server ended it)."""
    url = f"{made.info['kite']['ws']}?api_key={kite.api_key}&access_token={kite.access_token}"
    found: list[tuple[str, str]] = []
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
        for number in range(orders):
            await asyncio.to_thread(place, kite, tag=f"S{number}")
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                message = await socket.receive(left)
            except TimeoutError:
                break
            if message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSING):
                return found, True
            if message.type is aiohttp.WSMsgType.TEXT:
                data = json.loads(message.data)["data"]
                found.append((data["tag"], data["status"]))
            elif message.type is aiohttp.WSMsgType.BINARY:
                found.append(("", "heartbeat"))
    return found, False


async def test_an_update_comes_twice(made: Alone, kite: KiteConnect) -> None:
    made.faults({"kind": "duplicate_updates", "door": "kite", "route": "order"})
    found, _ = await updates(made, kite, 1)
    assert [each for each in found if each[0]] == [("S0", "COMPLETE")] * 2


async def test_updates_come_in_the_wrong_order(made: Alone, kite: KiteConnect) -> None:
    made.faults({"kind": "reorder_updates", "door": "kite", "route": "order"})
    found, _ = await updates(made, kite, 2)
    assert [tag for tag, _ in found if tag] == ["S1", "S0"]


async def test_a_socket_is_dropped(made: Alone, kite: KiteConnect) -> None:
    made.faults({"kind": "drop_socket", "door": "kite", "route": "order"})
    found, ended = await updates(made, kite, 1)
    assert ended
    assert [each for each in found if each[0]] == []


async def test_a_half_open_socket_says_nothing_any_more(made: Alone, kite: KiteConnect) -> None:
    found, ended = await updates(made, kite, 0, 2.5)
    assert ("", "heartbeat") in found, "a healthy stream beats"
    made.faults({"kind": "half_open", "door": "kite", "route": "order"})
    found, ended = await updates(made, kite, 1, 4)
    assert (found, ended) == ([], False)


# --- Binance's door ---------------------------------------------------------------------------------------------------


def order_at_binance(made: Alone, client_id: str) -> requests.Response:
    fields = {"symbol": "BTCUSDT", "side": "BUY", "type": "MARKET", "quantity": "0.001", "newClientOrderId": client_id}
    return signed(made, "POST", "order", fields)


def signed(made: Alone, method: str, path: str, fields: dict[str, str]) -> requests.Response:
    door = made.info["binance"]
    query = urlencode({**fields, "timestamp": int(time.time() * 1_000)})
    signature = hmac.new(door["api_secret"].encode(), query.encode(), hashlib.sha256).hexdigest()
    url = f"{door['rest']}/api/v3/{path}?{query}&signature={signature}"
    return requests.request(method, url, headers={"X-MBX-APIKEY": door["api_key"]}, timeout=2)


@pytest.mark.parametrize(
    ("fault", "status", "arrived"),
    [
        ({"kind": "timed_out_400"}, 400, True), ({"kind": "too_many_requests"}, 429, False),
        ({"kind": "server_error", "status": 503}, 503, True), ({"kind": "server_error", "accepted": False}, 502, False),
        ({"kind": "malformed_json"}, 200, True), ({"kind": "timeout_after_acceptance", "seconds": 4}, None, True),
        ({"kind": "disconnect"}, None, True),
    ],
)  # fmt: skip
def test_orders_at_binance_that_nobody_knows_of(
    made: Alone, kite: KiteConnect, fault: dict[str, Any], status: int | None, arrived: bool
) -> None:
    made.faults(fault | {"door": "binance", "route": "POST /api/v3/order"})
    name = f"x{int(time.time() * 1_000)}"
    if status is None:
        with pytest.raises((requests.exceptions.ReadTimeout, requests.exceptions.ConnectionError)):
            order_at_binance(made, name)
    else:
        assert order_at_binance(made, name).status_code == status
    found = signed(made, "GET", "order", {"symbol": "BTCUSDT", "origClientOrderId": name})
    assert (found.status_code == 200) == arrived


async def test_binance_streams_are_dropped_and_doubled(made: Alone, kite: KiteConnect) -> None:
    url = f"{made.info['binance']['ws']}/ws/btcusdt@kline_1m"
    for kind in ("duplicate_updates", "drop_socket"):
        made.faults({"kind": kind, "door": "binance", "route": "tick"})
        async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
            await asyncio.to_thread(made.admin, "/clock", {"steps": 1})
            first = await socket.receive(5)
            if kind == "drop_socket":
                assert first.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
            else:
                assert (await socket.receive(5)).data == first.data


# --- by script and by seed --------------------------------------------------------------------------------------------


def test_faults_by_a_seed_are_the_same_every_time() -> None:
    def struck(seed: int) -> list[bool]:
        faults = Faults(seed)
        faults.inject([{"kind": "too_many_requests", "probability": 0.3}])
        return [faults.strike(frozenset({"too_many_requests"}), "kite", "GET /orders") is not None for _ in range(200)]

    assert struck(1) == struck(1) != struck(2)
    assert 30 < sum(struck(1)) < 90


@pytest.mark.parametrize("suffix", [".toml", ".json"])
def test_a_file_of_faults(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"faults{suffix}"
    text = '[[fault]]\nkind = "server_error"\nroute = "POST /orders/*"\nafter = 1\n'
    path.write_text(text if suffix == ".toml" else '[{"kind": "server_error", "route": "POST /orders/*", "after": 1}]')
    faults = Faults.load(path, 7)
    kinds = frozenset(KINDS)
    seen = [faults.strike(kinds, "kite", route) is not None for route in ("POST /orders/regular", "GET /orders", "POST /orders/co", "POST /orders/co")]  # fmt: skip
    assert seen == [False, False, True, False]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({}, "kind"), ({"kind": "x"}, "kind is one of"), ({"kind": "half_open", "door": "nse"}, "door is"),
        ({"kind": "half_open", "times": -1}, "times is a whole number"), ({"kind": "half_open", "often": 1}, "no often"),
        ({"kind": "server_error", "status": 404}, "status is 500 to 599"), ({"kind": "late_fill", "seconds": 1e9}, "seconds"),
        ({"kind": "half_open", "probability": 2}, "probability is between"), ([], "a fault is a table"),
        ({"kind": "half_open", "accepted": 1}, "accepted is"), ({"kind": "half_open", "route": 5}, "route is text"),
    ],
)  # fmt: skip
def test_a_fault_that_cannot_be_is_refused_by_name(fault: Any, words: str) -> None:
    with pytest.raises(BadFaultError, match=words):
        Faults().inject([fault])
