"""Every route answers in the shape of the official samples: same keys, same types, all the way down."""

import json
from collections.abc import AsyncIterator
from datetime import time
from pathlib import Path
from typing import Any

import pytest
from kiteconnect import KiteConnect

from tests.conftest import SHARED
from tests.sandbox.kite.broker import FRIDAY, MONDAY, Broker, broker, call

MOCKS = SHARED / "kite-mocks"
BUY = {"exchange": "NSE", "tradingsymbol": "INFY", "transaction_type": "BUY", "quantity": 10, "product": "CNC"}
LIMIT = BUY | {"order_type": "LIMIT", "price": 1400}
MARKET = BUY | {"order_type": "MARKET", "market_protection": -1}
ASKED = MARKET | {"variety": "regular", "price": 0, "trigger_price": 0}
ALERT = {
    "name": "above", "lhs_exchange": "NSE", "lhs_tradingsymbol": "INFY", "lhs_attribute": "LastTradedPrice",
    "operator": ">=", "rhs_type": "constant", "rhs_constant": 100, "type": "simple",
}  # fmt: skip
PARAMS = {name: value for name, value in LIMIT.items() if name not in ("exchange", "tradingsymbol")}
ITEM = {"exchange": "NSE", "tradingsymbol": "INFY", "weight": 1, "params": PARAMS | {"variety": "regular"}}
ICEBERG = LIMIT | {"iceberg_legs": 5, "iceberg_quantity": 2, "validity": "TTL", "validity_ttl": 2, "tag": "icebergord"}


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[Broker]:
    if not MOCKS.exists():
        pytest.skip("the folder ../shared/kite-mocks is not here")
    async with broker(tmp_path) as found:
        yield found


def differences(ours: Any, theirs: Any, path: str = "data") -> list[str]:
    """Keys that only one side has, and values of another type. Null stands for any type; 1 and 1.0 are one type."""
    if theirs is None or ours is None:
        return []
    if isinstance(theirs, dict) and isinstance(ours, dict):
        if theirs.keys() and all(":" in name for name in theirs):  # keyed by instrument
            return differences(next(iter(ours.values())), next(iter(theirs.values())), f"{path}.*")
        lines = [f"{path}.{name} is absent" for name in sorted(theirs.keys() - ours.keys())]
        lines += [f"{path}.{name} is of ours alone" for name in sorted(ours.keys() - theirs.keys())]
        return lines + [line for name in theirs.keys() & ours.keys() for line in differences(ours[name], theirs[name], f"{path}.{name}")]  # fmt: skip
    if isinstance(theirs, list) and isinstance(ours, list):
        return differences(ours[0], theirs[0], f"{path}[]") if ours and theirs else []
    if kind_of(ours) == kind_of(theirs):
        return []
    return [f"{path} is {type(ours).__name__}, not {type(theirs).__name__}"]


def kind_of(value: Any) -> type:
    """What a client in a typed language would make of it: JSON has one kind of number."""
    return float if type(value) is int else type(value)


def sample(name: str, pick: str = "") -> Any:
    found = json.loads((MOCKS / name).read_text())["data"]
    return next(each for each in found if pick in json.dumps(each)) if pick else found


async def ask(made: Broker, kite: KiteConnect, method: str, path: str, form: Any = None, body: Any = None) -> Any:
    headers = {"Authorization": f"token {kite.api_key}:{kite.access_token}", "X-Kite-Version": "3"}
    async with made.session.request(method, made.kite_url + path, data=form, json=body, headers=headers) as answer:
        found = await answer.json()
        assert (answer.status, found["status"]) == (200, "success"), found
        return found["data"]


async def test_every_route_has_the_shape_of_its_sample(made: Broker) -> None:
    kite = await made.client()
    await call(kite.place_order, "regular", **MARKET)
    lot = {"exchange": "NFO", "tradingsymbol": "NIFTY26DECFUT", "quantity": 65, "product": "NRML"}
    await call(kite.place_order, "regular", **MARKET | lot)
    await made.until(MONDAY, time(9, 16))
    made.sandbox.kite.desk.auctions["7"] = "INFY"  # type: ignore[union-attr]
    number = (await ask(made, kite, "POST", "/orders/regular", LIMIT))["order_id"]
    token = made.sandbox.kite.desk.contracts["INFY"].instrument_token  # type: ignore[union-attr]
    span = f"from={FRIDAY}&to={MONDAY} 15:30:00"
    trigger = {
        "type": "single",
        "condition": json.dumps(
            {"exchange": "NSE", "tradingsymbol": "INFY", "trigger_values": [1400], "last_price": 1500}
        ),
        "orders": json.dumps([LIMIT]),
    }
    gtt = await ask(made, kite, "POST", "/gtt/triggers", trigger)
    alert = await ask(made, kite, "POST", "/alerts", ALERT)
    ato = await ask(made, kite, "POST", "/alerts", ALERT | {"type": "ato", "basket": json.dumps({"items": [ITEM]})})
    await call(kite.place_order, "regular", **MARKET)
    await ask(made, kite, "POST", "/orders/iceberg", ICEBERG)
    icebergs = [each for each in await ask(made, kite, "GET", "/orders") if each["variety"] == "iceberg"]
    await made.steps(1)  # the alerts fire
    sent: list[tuple[str, Any, Any]] = [
        ("profile.json", None, await ask(made, kite, "GET", "/user/profile")),
        ("full_profile.json", None, await ask(made, kite, "GET", "/user/profile/full")),
        ("margins.json", None, await ask(made, kite, "GET", "/user/margins")),
        ("margins_equity.json", None, await ask(made, kite, "GET", "/user/margins/equity")),
        ("margin_commodity.json", None, await ask(made, kite, "GET", "/user/margins/commodity")),
        ("order_response.json", None, {"order_id": number}),
        ("order_modify.json", None, await ask(made, kite, "PUT", f"/orders/regular/{number}", {"price": 1401})),
        ("orders.json", None, await ask(made, kite, "GET", "/orders")),
        ("orders.json", "icebergord", icebergs),
        ("order_info.json", None, await ask(made, kite, "GET", f"/orders/{number}")),
        ("order_cancel.json", None, await ask(made, kite, "DELETE", f"/orders/regular/{number}")),
        ("trades.json", None, await ask(made, kite, "GET", "/trades")),
        ("positions.json", None, await ask(made, kite, "GET", "/portfolio/positions")),
        ("holdings.json", None, await ask(made, kite, "GET", "/portfolio/holdings")),
        ("holdings_summary.json", None, await ask(made, kite, "GET", "/portfolio/holdings/summary")),
        ("holdings_compact.json", None, await ask(made, kite, "GET", "/portfolio/holdings/compact")),
        ("auctions_list.json", None, await ask(made, kite, "GET", "/portfolio/holdings/auctions")),
        ("holdings_auth.json", None, await ask(made, kite, "POST", "/portfolio/holdings/authorise", {"isin": "x"})),
        ("quote.json", None, await ask(made, kite, "GET", "/quote?i=NSE:INFY")),
        ("ohlc.json", None, await ask(made, kite, "GET", "/quote/ohlc?i=NSE:INFY")),
        ("ltp.json", None, await ask(made, kite, "GET", "/quote/ltp?i=NSE:INFY")),
        ("trigger_range.json", None, await ask(made, kite, "GET", "/instruments/trigger_range/buy?i=NSE:INFY")),
        ("historical_minute.json", None, await ask(made, kite, "GET", f"/instruments/historical/{token}/minute?{span}")),
        ("historical_oi.json", None, await ask(made, kite, "GET", f"/instruments/historical/{token}/minute?{span}&oi=1")),
        ("order_margins.json", None, await ask(made, kite, "POST", "/margins/orders", body=[ASKED])),
        ("basket_margins.json", None, await ask(made, kite, "POST", "/margins/basket", body=[ASKED])),
        ("virtual_contract_note.json", None, await ask(made, kite, "POST", "/charges/orders", body=[ASKED | {"average_price": 1500}])),
        ("gtt_place_order.json", None, gtt),
        ("gtt_get_orders.json", None, await ask(made, kite, "GET", "/gtt/triggers")),
        ("gtt_get_order.json", None, await ask(made, kite, "GET", f"/gtt/triggers/{gtt['trigger_id']}")),
        ("gtt_modify_order.json", None, await ask(made, kite, "PUT", f"/gtt/triggers/{gtt['trigger_id']}", trigger)),
        ("gtt_delete_order.json", None, await ask(made, kite, "DELETE", f"/gtt/triggers/{gtt['trigger_id']}")),
        ("alerts_create.json", None, alert),
        ("alerts_get.json", '"basket"', [ato]),
        ("alerts_get_one.json", None, await ask(made, kite, "GET", f"/alerts/{alert['uuid']}")),
        ("alerts_modify.json", None, await ask(made, kite, "PUT", f"/alerts/{alert['uuid']}", ALERT)),
        ("alerts_history.json", None, await ask(made, kite, "GET", f"/alerts/{alert['uuid']}/history")),
        ("alerts_delete.json", None, await ask(made, kite, "DELETE", f"/alerts?uuid={alert['uuid']}")),
        ("session_logout.json", None, await ask(made, kite, "DELETE", f"/session/token?api_key={kite.api_key}&access_token={kite.access_token}")),
    ]  # fmt: skip
    found = {}
    for name, pick, ours in sent:
        theirs = [sample(name, pick)] if pick else sample(name)
        lines = [line for line in differences(ours, theirs) if not _known(name, line)]
        if lines:
            found[name] = lines
    assert found == {}


def _known(name: str, line: str) -> bool:
    """What differs between the samples themselves: fields that came with later versions of the broker's API."""
    newer = {
        "orders.json": {"tags", "validity_ttl"},
        "order_info.json": {"status_message_raw", "exchange_update_timestamp", "validity_ttl", "market_protection", "meta", "tags", "guid"},
        "alerts_get.json": {"stoploss", "squareoff", "trailing_stoploss", "gtt", "tags", "id", "validity", "validity_ttl", "disclosed_quantity", "trigger_price"},
    }  # fmt: skip
    return any(line.startswith(("data[].", "data[].basket")) and f".{field} " in line for field in newer.get(name, ()))


async def test_a_session_has_the_shape_of_its_sample(made: Broker) -> None:
    kite = await made.client()
    token = (await made.control("kite/request_token", {"api_key": kite.api_key}))["request_token"]
    session = await call(kite.generate_session, token, api_secret="secret_alice")
    session["login_time"] = str(session["login_time"])
    assert differences(session, sample("generate_session.json")) == []


async def test_the_dump_has_the_columns_of_its_sample_in_their_order(made: Broker) -> None:
    kite = await made.client()
    headers = {"Authorization": f"token {kite.api_key}:{kite.access_token}"}
    async with made.session.get(f"{made.kite_url}/instruments", headers=headers) as answer:
        ours = (await answer.text()).splitlines()[0]
    assert ours == (MOCKS / "instruments_all.csv").read_text().splitlines()[0]
