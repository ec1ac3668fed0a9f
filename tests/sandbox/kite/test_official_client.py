"""The official `kiteconnect` package against the sandbox, with nothing changed but its root."""

import asyncio
import json
import time as wall
from collections.abc import AsyncIterator
from datetime import datetime, time
from pathlib import Path
from typing import Any

import pytest
from kiteconnect import KiteConnect, KiteTicker
from kiteconnect import exceptions as refused

from tests.conftest import SHARED
from tests.sandbox.kite.broker import FRIDAY, IST, MONDAY, Broker, broker, call

MOCKS = SHARED / "kite-mocks"
DELIVERY = {"variety": "regular", "exchange": "NSE", "tradingsymbol": "INFY", "product": "CNC", "validity": "DAY"}


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[Broker]:
    async with broker(tmp_path) as found:
        yield found


@pytest.fixture
async def kite(made: Broker) -> KiteConnect:
    return await made.client()


def order(**changes: Any) -> dict[str, Any]:
    return {
        **DELIVERY,
        "transaction_type": "BUY",
        "quantity": 10,
        "order_type": "MARKET",
        "market_protection": -1,
    } | changes


# --- shapes ----------------------------------------------------------------------------------------------------------


def same_shape(ours: Any, theirs: Any, path: str = "") -> list[str]:
    """Where an answer of ours lacks a field of the official sample, or has it as another type."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        found = [f"{path}.{name} is absent" for name in theirs.keys() - ours.keys()]
        return found + [line for name in theirs.keys() & ours.keys() for line in same_shape(ours[name], theirs[name], f"{path}.{name}")]  # fmt: skip
    if isinstance(theirs, list) and isinstance(ours, list):
        return same_shape(ours[0], theirs[0], f"{path}[0]") if ours and theirs else []
    numbers = (int, float)
    if theirs is None or ours is None or (isinstance(ours, numbers) and isinstance(theirs, numbers)):
        return []
    return [] if type(ours) is type(theirs) else [f"{path} is {type(ours).__name__}, not {type(theirs).__name__}"]


@pytest.mark.parametrize(
    ("path", "sample", "query"),
    [
        ("/user/profile", "profile.json", ""), ("/user/margins", "margins.json", ""),
        ("/user/margins/equity", "margins_equity.json", ""), ("/orders", "orders.json", ""),
        ("/trades", "trades.json", ""), ("/portfolio/positions", "positions.json", ""),
        ("/portfolio/holdings", "holdings.json", ""), ("/quote", "quote.json", "?i=NSE:INFY"),
        ("/quote/ohlc", "ohlc.json", "?i=NSE:INFY"), ("/quote/ltp", "ltp.json", "?i=NSE:INFY"),
        ("/instruments/historical/{token}/minute", "historical_minute.json", "?from=2026-11-20 09:00:00&to=2026-11-20 15:30:00"),
    ],
)  # fmt: skip
async def test_answers_have_the_shape_of_the_official_samples(
    made: Broker, kite: KiteConnect, path: str, sample: str, query: str
) -> None:
    if not MOCKS.exists():
        pytest.skip("the folder ../shared/kite-mocks is not here")
    await call(kite.place_order, **order())
    await made.until(MONDAY, time(9, 16))  # what was bought on Friday is a holding
    await call(kite.place_order, **order(tradingsymbol="SBIN"))
    token = next(
        row["instrument_token"] for row in await call(kite.instruments, "NSE") if row["tradingsymbol"] == "INFY"
    )
    headers = {"Authorization": f"token {kite.api_key}:{kite.access_token}"}
    async with made.session.get(made.kite_url + path.format(token=token) + query, headers=headers) as answer:
        ours = await answer.json()
    theirs = json.loads((MOCKS / sample).read_text())
    assert same_shape(ours["data"], theirs["data"]) == []


async def test_the_dump_is_read_by_the_official_client(made: Broker, kite: KiteConnect) -> None:
    rows = await call(kite.instruments)
    by_symbol = {row["tradingsymbol"]: row for row in rows}
    assert {"INFY", "SBIN", "NIFTY 50", "NIFTY26NOVFUT", "NIFTY26DECFUT"} <= by_symbol.keys()
    future = by_symbol["NIFTY26NOVFUT"]
    assert (future["expiry"], future["lot_size"], future["segment"]) == (MONDAY, 65, "NFO-FUT")
    assert by_symbol["NIFTY 50"]["segment"] == "INDICES"


# --- sessions --------------------------------------------------------------------------------------------------------


async def test_a_browser_logs_in_and_comes_back_with_what_it_carried(made: Broker, kite: KiteConnect) -> None:
    url = f"{made.kite_url}/connect/login?v=3&api_key=key_alice&redirect_params=state%3Dabc"
    async with made.session.get(url) as page:
        assert "Log in" in await page.text()
    async with made.session.post(url, allow_redirects=False) as answer:
        assert answer.status == 302
        from yarl import URL

        query = URL(answer.headers["Location"]).query
    assert (query["status"], query["state"]) == ("success", "abc")
    session = await call(kite.generate_session, query["request_token"], api_secret="secret_alice")
    assert session["user_id"]
    with pytest.raises(refused.TokenException, match="invalid or has expired"):
        await call(kite.generate_session, query["request_token"], api_secret="secret_alice")


async def test_a_new_login_a_logout_and_a_wrong_secret_end_sessions(made: Broker, kite: KiteConnect) -> None:
    first = kite.access_token
    again = await made.client()
    kite.set_access_token(first)
    with pytest.raises(refused.TokenException):
        await call(kite.profile)
    assert (await call(again.profile))["broker"] == "ZERODHA"
    await call(again.invalidate_access_token)
    with pytest.raises(refused.TokenException):
        await call(again.profile)
    token = (await made.control("kite/request_token", {"api_key": "key_alice"}))["request_token"]
    with pytest.raises(refused.TokenException, match="checksum"):
        await call(kite.generate_session, token, api_secret="another")


async def test_a_session_outlives_a_restart_of_the_sandbox(tmp_path: Path) -> None:
    async with broker(tmp_path) as first:
        token = (await first.client()).access_token
    async with broker(tmp_path) as second:
        kite = KiteConnect("key_alice", access_token=token, root=second.kite_url)
        assert (await call(kite.margins))["equity"]["net"] == 1_000_000


# --- orders ----------------------------------------------------------------------------------------------------------


async def test_a_protected_market_order_is_shown_as_a_limit(made: Broker, kite: KiteConnect) -> None:
    number = await call(kite.place_order, **order(tag="TPABC"))
    hops = [row["status"] for row in await call(kite.order_history, number)]
    assert hops == ["PUT ORDER REQ RECEIVED", "VALIDATION PENDING", "OPEN PENDING", "OPEN", "COMPLETE"]
    (row,) = await call(kite.orders)
    assert (row["order_type"], row["market_protection"]) == ("LIMIT", 0)
    assert row["tags"] == ["TPABC", "mktp", "mktp:0.50"]
    assert (row["filled_quantity"], row["pending_quantity"]) == (10, 0)
    trades = await call(kite.order_trades, number)
    assert sum(trade["quantity"] for trade in trades) == 10
    spent = sum(trade["quantity"] * trade["average_price"] for trade in trades)
    assert (await call(kite.margins))["equity"]["net"] == pytest.approx(1_000_000 - spent)


async def test_bought_today_is_a_position_and_on_monday_a_holding(made: Broker, kite: KiteConnect) -> None:
    await call(kite.place_order, **order())
    (position,) = (await call(kite.positions))["net"]
    assert (position["tradingsymbol"], position["quantity"], position["product"]) == ("INFY", 10, "CNC")
    assert await call(kite.holdings) == []
    await made.until(MONDAY, time(9, 16))
    assert (await call(kite.positions))["net"] == []
    (holding,) = await call(kite.holdings)
    assert (holding["tradingsymbol"], holding["quantity"]) == ("INFY", 10)
    await call(kite.place_order, **order(transaction_type="SELL", quantity=4))
    (holding,) = await call(kite.holdings)
    (position,) = (await call(kite.positions))["net"]
    assert holding["quantity"] + position["quantity"] == 6


async def test_a_future_of_the_index_is_bought_by_the_lot(made: Broker, kite: KiteConnect) -> None:
    nfo = {"exchange": "NFO", "tradingsymbol": "NIFTY26DECFUT", "product": "NRML", "quantity": 65}
    with pytest.raises(refused.GeneralException, match="Insufficient funds"):  # 17 lakh a lot, 12 % of it blocked
        await call(kite.place_order, **order(**nfo | {"quantity": 65 * 6}))
    with pytest.raises(refused.InputException, match="lot"):
        await call(kite.place_order, **order(**nfo | {"quantity": 64}))
    rows = await call(kite.ltp, ["NFO:NIFTY26DECFUT", "NSE:NIFTY 50"])
    assert rows["NFO:NIFTY26DECFUT"]["last_price"] > rows["NSE:NIFTY 50"]["last_price"]


async def test_a_limit_order_rests_is_changed_and_cancelled(made: Broker, kite: KiteConnect) -> None:
    number = await call(kite.place_order, **order(order_type="LIMIT", price=1400, market_protection=None))
    assert (await call(kite.orders))[-1]["status"] == "OPEN"
    blocked = (await call(kite.margins))["equity"]
    assert blocked["net"] == 1_000_000 - 14_000
    assert await call(kite.modify_order, "regular", number, price=1410, quantity=20) == number
    assert (await call(kite.margins))["equity"]["net"] == 1_000_000 - 28_200
    assert "MODIFIED" in [row["status"] for row in await call(kite.order_history, number)]
    assert await call(kite.cancel_order, "regular", number) == number
    row = (await call(kite.orders))[-1]
    assert (row["status"], row["cancelled_quantity"]) == ("CANCELLED", 20)
    assert (await call(kite.margins))["equity"]["net"] == 1_000_000
    with pytest.raises(refused.OrderException):
        await call(kite.cancel_order, "regular", number)


async def test_an_order_is_changed_twenty_five_times(made: Broker, kite: KiteConnect) -> None:
    number = await call(kite.place_order, **order(order_type="LIMIT", price=1400, market_protection=None))
    for turn in range(25):
        await call(kite.modify_order, "regular", number, price=1400 + (turn % 2))
    with pytest.raises(refused.NetworkException, match="modifications exceeded"):
        await call(kite.modify_order, "regular", number, price=1402)


async def test_a_stop_waits_for_its_trigger(made: Broker, kite: KiteConnect) -> None:
    number = await call(
        kite.place_order, **order(order_type="SL", trigger_price=1503, price=1506, market_protection=None)
    )
    assert (await call(kite.orders))[-1]["status"] == "TRIGGER PENDING"
    await made.until(FRIDAY, time(9, 40))  # the price rises by 15 paise a minute
    assert (await call(kite.order_history, number))[-1]["status"] == "COMPLETE"


async def test_what_is_left_of_a_day_order_ends_with_the_session(made: Broker, kite: KiteConnect) -> None:
    await call(kite.place_order, **order(order_type="LIMIT", price=1400, market_protection=None))
    await made.until(FRIDAY, time(15, 30))
    assert (await call(kite.orders))[-1]["status"] == "CANCELLED"
    assert (await call(kite.margins))["equity"]["net"] == 1_000_000


async def test_an_after_market_order_goes_out_at_the_next_open(tmp_path: Path) -> None:
    async with broker(tmp_path) as made:
        kite = await made.client()
        await made.until(FRIDAY, time(15, 30))
        made.sandbox.exchange.market_time = int(datetime.combine(FRIDAY, time(18, 0), IST).timestamp() * 1_000)
        with pytest.raises(refused.InputException, match="After Market Order"):
            await call(kite.place_order, **order())
        number = await call(kite.place_order, **order(variety="amo"))
        assert (await call(kite.orders))[-1]["status"] == "AMO REQ RECEIVED"
    async with broker_again(tmp_path) as made:  # the queue is on disk
        kite.root = made.kite_url
        await made.steps(1)
        hops = [row["status"] for row in await call(kite.order_history, number)]
        assert hops[1] == "AMO REQ RECEIVED"
        assert hops[-1] == "COMPLETE"
        (trade,) = {trade["average_price"] for trade in await call(kite.order_trades, number)}
        assert trade == pytest.approx(1500, rel=0.002), "at the open of Monday"


def broker_again(folder: Path) -> Any:
    """The same sandbox after a restart, without further steps."""
    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def again() -> AsyncIterator[Broker]:
        original = Broker.steps

        async def nothing(self: Broker, count: int) -> None:
            Broker.steps = original  # type: ignore[method-assign]

        Broker.steps = nothing  # type: ignore[method-assign]
        async with broker(folder) as made:
            yield made

    return again()


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"market_protection": None}, refused.InputException, "market protection"),
        ({"tradingsymbol": "NOTHING"}, refused.InputException, "expired or does not exist"),
        ({"quantity": 0}, refused.InputException, "quantity"),
        ({"product": "NRML"}, refused.InputException, "NSE takes"),
        ({"order_type": "LIMIT", "price": 1500.03, "market_protection": None}, refused.InputException, "multiple of tick"),
        ({"tag": "x" * 21}, refused.InputException, "tag"),
        ({"quantity": 100_001, "order_type": "LIMIT", "price": 1, "market_protection": None}, refused.InputException, "maximum quantity"),
        ({"tradingsymbol": "NIFTY 50"}, refused.InputException, "index"),
        ({"variety": "amo"}, refused.InputException, "SESSION_NO_AMO"),
        ({"transaction_type": "SELL"}, refused.GeneralException, "Insufficient holdings"),
        ({"quantity": 5_000}, refused.GeneralException, "Insufficient funds"),
    ],
)  # fmt: skip
async def test_what_the_broker_refuses_leaves_no_row(
    made: Broker, kite: KiteConnect, changes: dict[str, Any], error: type, words: str
) -> None:
    """The official client makes a GeneralException of the error types that it does not know."""
    with pytest.raises(error, match=words):
        await call(kite.place_order, **order(**changes))
    assert await call(kite.orders) == []
    assert (await call(kite.margins))["equity"]["net"] == 1_000_000


async def test_limits_are_counted_by_the_second(tmp_path: Path) -> None:
    async with broker(tmp_path, kite_limits=True) as made:
        kite = await made.client()
        found = [await asyncio.gather(*(call(kite.ltp, "NSE:INFY") for _ in range(3)), return_exceptions=True)]
        texts = {str(each) for each in found[0] if isinstance(each, refused.NetworkException)}
        assert texts == {"Too many requests"}  # of three at once, not all are in seconds of their own


# --- what it costs ---------------------------------------------------------------------------------------------------


async def test_charges_and_margins_come_from_the_rule_tables(made: Broker, kite: KiteConnect) -> None:
    asked = {
        "exchange": "NSE", "tradingsymbol": "INFY", "transaction_type": "BUY", "variety": "regular", "product": "CNC",
        "order_type": "MARKET", "quantity": 400, "average_price": 1000, "order_id": "1",
    }  # fmt: skip
    (note,) = await call(kite.get_virtual_contract_note, [asked])
    assert note["charges"]["transaction_tax"] == 400
    assert note["charges"]["stamp_duty"] == 60
    (margin,) = await call(kite.order_margins, [asked | {"price": 1000}])
    assert margin["total"] == 400_000
    basket = await call(kite.basket_order_margins, [asked | {"price": 1000}] * 2)
    assert basket["initial"]["total"] == 800_000
    if MOCKS.exists():
        for ours, sample in ((note, "virtual_contract_note.json"), (margin, "order_margins.json")):
            theirs = json.loads((MOCKS / sample).read_text())["data"][0]
            assert same_shape(ours, theirs) == []


async def test_history_in_the_interval_asked_for(made: Broker, kite: KiteConnect) -> None:
    await made.until(FRIDAY, time(9, 25))
    token = next(
        row["instrument_token"] for row in await call(kite.instruments, "NSE") if row["tradingsymbol"] == "INFY"
    )
    start, end = (datetime.combine(FRIDAY, at) for at in (time(9), time(15, 30)))
    ones = await call(kite.historical_data, token, start, end, "minute")
    fives = await call(kite.historical_data, token, start, end, "5minute")
    assert (len(ones), len(fives)) == (10, 2)
    assert fives[0]["date"] == ones[0]["date"]
    assert fives[0]["high"] == max(bar["high"] for bar in ones[:5])
    assert fives[0]["volume"] == sum(bar["volume"] for bar in ones[:5])
    with pytest.raises(refused.InputException, match="exceeds max limit: 60 days"):
        await call(kite.historical_data, token, datetime(2026, 1, 1), end, "minute")  # noqa: DTZ001 - as its users do


# --- the stream ------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(60)
async def test_the_official_ticker_sees_ticks_and_orders(made: Broker, kite: KiteConnect) -> None:
    """In a process of its own: its reactor cannot be started twice in one."""
    rows = {row["tradingsymbol"]: row["instrument_token"] for row in await call(kite.instruments)}
    code = f"""
import json, sys
from kiteconnect import KiteTicker
ticker = KiteTicker({kite.api_key!r}, {kite.access_token!r}, root={made.kite_url.replace("http", "ws")!r})
tokens = [{rows["INFY"]}, {rows["NIFTY 50"]}]
def opened(socket, response):
    socket.subscribe(tokens); socket.set_mode(socket.MODE_FULL, tokens)
    print(json.dumps(["open"]), flush=True)
ticker.on_connect = opened
ticker.on_ticks = lambda socket, ticks: print(json.dumps(["ticks", ticks], default=str), flush=True)
ticker.on_order_update = lambda socket, row: print(json.dumps(["order", row]), flush=True)
ticker.connect()
"""
    import sys

    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        assert process.stdout is not None
        seen: list[list[Any]] = []
        deadline = wall.monotonic() + 40
        while not ({"order", "ticks"} <= {line[0] for line in seen} and _complete(seen)):
            assert wall.monotonic() < deadline, seen[-3:]
            seen.append(json.loads(await asyncio.wait_for(process.stdout.readline(), 20)))
            if seen[-1][0] == "open":
                await asyncio.sleep(0.3)
                await made.steps(1)
                await call(kite.place_order, **order())
    finally:
        process.kill()
        await process.wait()
    ticks = [tick for line in seen if line[0] == "ticks" for tick in line[1]]
    infy = [tick for tick in ticks if tick["instrument_token"] == rows["INFY"] and tick["mode"] == "full"][-1]
    quote = (await call(kite.quote, "NSE:INFY"))["NSE:INFY"]
    assert infy["last_price"] == quote["last_price"]
    assert infy["ohlc"] == quote["ohlc"]
    index = next(tick for tick in ticks if tick["instrument_token"] == rows["NIFTY 50"])
    assert not index["tradable"]
    assert KiteTicker.MODE_FULL == "full"


def _complete(seen: list[list[Any]]) -> bool:
    return any(line[0] == "order" and line[1]["status"] == "COMPLETE" for line in seen)


async def test_anything_that_is_no_request_is_refused_by_name(made: Broker, kite: KiteConnect) -> None:
    headers = {"Authorization": f"token {kite.api_key}:{kite.access_token}"}
    for method, path, body in [
        ("GET", "/nowhere", None), ("PATCH", "/orders/regular", None), ("POST", "/orders/regular", b"\xff\x00" * 50),
        ("POST", "/orders/nothing", b"a=b"), ("POST", "/margins/orders", b"{"), ("GET", "/orders/1", None),
        ("GET", "/orders/999999999999999999999", None), ("GET", "/quote?i=x&i=y:z", None),
        ("GET", "/instruments/historical/x/minute?from=a&to=b", None), ("PUT", "/orders/regular/x", b"quantity=1"),
        ("POST", "/charges/orders", b"[1]"), ("POST", "/session/token", b"x"), ("POST", "/orders/regular", b"quantity=1e999"),
    ]:  # fmt: skip
        kind = "application/json" if path.startswith(("/margins", "/charges")) else "application/x-www-form-urlencoded"
        sent = headers | {"Content-Type": kind}
        async with made.session.request(method, made.kite_url + path, data=body, headers=sent) as answer:
            found = await answer.json()
            assert answer.status < 500, (method, path, found)
            assert found["status"] == ("success" if path.startswith("/quote") else "error"), (method, path, found)
    assert (await call(kite.profile))["broker"] == "ZERODHA"
