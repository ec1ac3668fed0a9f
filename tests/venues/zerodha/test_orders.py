"""Orders as they are checked and as they go over the wire: the official client's own requests beside ours."""

import asyncio
from dataclasses import replace
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from kiteconnect import KiteConnect

from tests.venues.zerodha.replayed import Replayed, success
from trading_platform.identifiers import VenueOrderId
from trading_platform.markets.contracts import Contract
from trading_platform.markets.denials import Denial
from trading_platform.markets.kite_orders import KiteOrder, Surroundings
from trading_platform.markets.price_bands import CircuitLimits
from trading_platform.markets.quantities import FreezeTable
from trading_platform.venues.port import Ambiguous, Refused
from trading_platform.venues.zerodha.orders import (
    Acknowledged,
    Change,
    OrderDesk,
    Sliced,
    changed,
    check_autoslice,
    check_conversion,
    denied,
)

D = Decimal
IST = ZoneInfo("Asia/Kolkata")
INFY = Contract(408065, 1594, "INFY", "INFOSYS", D(0), None, D(0), D("0.05"), 1, "EQ", "NSE", "NSE")
NIFTY = Contract(
    9604354, 37517, "NIFTY26NOVFUT", "NIFTY", D(0), date(2026, 11, 23), D(0), D("0.1"), 65, "FUT", "NFO-FUT", "NFO"
)
OPEN = datetime(2026, 11, 20, 10, 30, tzinfo=IST).astimezone(UTC)
ORDER_ID = VenueOrderId("151220000000000")
LIMIT = KiteOrder("NSE", "INFY", "BUY", 10, "CNC", "LIMIT", price=D("1500.05"), tag="TPABC")
STOP = replace(LIMIT, side="SELL", order_type="SL", price=D(1440), trigger_price=D(1450))
FUTURE = KiteOrder("NFO", "NIFTY26NOVFUT", "BUY", 65, "NRML", "LIMIT", price=D(26000))


FUTURE_STOP = replace(
    FUTURE, side="SELL", order_type="SL", trigger_price=D(26000)
)  # 3 % of the trigger is 780: NSE/FAOP 54/2023


def ist(day: date, clock: time) -> datetime:
    return datetime.combine(day, clock, IST).astimezone(UTC)


def around(contract: Contract = INFY, now: datetime = OPEN, **given: Any) -> Surroundings:
    return Surroundings(contract, now, **given)


@pytest.mark.parametrize(
    ("order", "given", "code", "nearest"),
    [
        (LIMIT, {}, None, None),
        (replace(LIMIT, product="NRML"), {}, "ORDER_PRODUCT", None),
        (replace(FUTURE, product="CNC"), {"contract": NIFTY}, "ORDER_PRODUCT", None),
        (replace(LIMIT, variety="co", product="CNC"), {}, "ORDER_PRODUCT", None),
        (replace(LIMIT, variety="amo", validity="TTL", validity_ttl=2), {}, "ORDER_VALIDITY", None),
        (replace(LIMIT, variety="iceberg", iceberg_legs=2, order_type="SL", trigger_price=D(1)), {}, "ORDER_TYPE", None),
        (replace(LIMIT, variety="auction", auction_number="20"), {}, "ORDER_SIDE", None),
        (replace(LIMIT, order_type="MARKET", price=None), {}, "MARKET_UNPROTECTED", D(-1)),
        (replace(LIMIT, order_type="MARKET", price=None, market_protection=D(0)), {}, "MARKET_UNPROTECTED", D(-1)),
        (replace(LIMIT, order_type="MARKET", price=None, market_protection=D(100)), {}, None, None),
        (replace(LIMIT, order_type="MARKET", price=None, market_protection=D("100.01")), {}, "MARKET_PROTECTION", D(-1)),
        (replace(LIMIT, order_type="MARKET", price=None, market_protection=D(-1)), {}, None, None),
        (replace(LIMIT, order_type="SL-M", price=None, trigger_price=D(1600)), {}, "MARKET_UNPROTECTED", D(-1)),
        (replace(LIMIT, price=D("1500.02")), {}, "PRICE_TICK", D("1500.00")),
        (replace(LIMIT, price=None), {}, "ORDER_PRICE", None),
        (replace(LIMIT, trigger_price=D(1500)), {}, "ORDER_TRIGGER_PRICE", None),
        (replace(LIMIT, quantity=0), {}, "QUANTITY_LOT", D(1)),
        (replace(FUTURE, quantity=100), {"contract": NIFTY}, "QUANTITY_LOT", D(65)),
        (replace(FUTURE, quantity=1755), {"contract": NIFTY, "freeze": FreezeTable()}, None, None),
        (replace(FUTURE, quantity=1820), {"contract": NIFTY, "freeze": FreezeTable()}, "QUANTITY_FREEZE", D(1755)),
        (LIMIT, {"limits": CircuitLimits(D(1250), D("1500.05"))}, None, None),
        (LIMIT, {"limits": CircuitLimits(D(1250), D(1500))}, "PRICE_CIRCUIT", D(1500)),
        (LIMIT, {"limits": CircuitLimits(D(0), D(0))}, None, None),
        (STOP, {"limits": CircuitLimits(D("1440.05"), D(1700))}, "PRICE_CIRCUIT", D("1440.05")),
        (STOP, {"last_price": D(1450)}, None, None),
        (STOP, {"last_price": D("1449.95")}, "TRIGGER_PASSED", D("1449.95")),
        (replace(STOP, price=D("1450.05")), {}, "STOP_PRICE", D(1450)),
        (replace(FUTURE_STOP, price=D(25220)), {"contract": NIFTY}, None, None),
        (replace(FUTURE_STOP, price=D("25219.90")), {"contract": NIFTY}, "STOP_RANGE", D(25220)),
        (replace(LIMIT, tag="A" * 20), {}, None, None),
        (replace(LIMIT, tag="A" * 21), {}, "ORDER_TAG", None),
        (replace(LIMIT, tag="with blank"), {}, "ORDER_TAG", None),
        (replace(LIMIT, validity="TTL"), {}, "ORDER_TTL", None),
        (replace(LIMIT, validity="TTL", validity_ttl=1), {}, None, None),
        (replace(LIMIT, quantity=100, disclosed_quantity=10), {}, None, None),
        (replace(LIMIT, quantity=100, disclosed_quantity=9), {}, "DISCLOSED_QUANTITY", D(10)),
        (replace(LIMIT, quantity=100, disclosed_quantity=101), {}, "DISCLOSED_QUANTITY", D(100)),
        (replace(FUTURE, disclosed_quantity=65), {"contract": NIFTY}, "DISCLOSED_QUANTITY", None),
        (replace(LIMIT, variety="iceberg", iceberg_legs=1), {}, "ICEBERG_LEGS", D(2)),
        (replace(LIMIT, variety="iceberg", iceberg_legs=2), {}, None, None),
        (replace(LIMIT, quantity=500, variety="iceberg", iceberg_legs=51), {}, "ICEBERG_LEGS", D(50)),
        (LIMIT, {"now": ist(date(2026, 11, 20), time(15, 30))}, "SESSION_CLOSED", None),
        (LIMIT, {"now": ist(date(2026, 11, 20), time(15, 29, 59))}, None, None),
        (LIMIT, {"now": ist(date(2026, 11, 20), time(15, 17)), "closing_auction": True}, "SESSION_CLOSED", None),
        (replace(LIMIT, variety="amo"), {}, "SESSION_NO_AMO", None),
        (replace(LIMIT, variety="amo"), {"now": ist(date(2026, 11, 20), time(16, 0))}, None, None),
        (replace(LIMIT, variety="amo"), {"now": ist(date(2026, 11, 20), time(8, 57, 59))}, None, None),
        (replace(LIMIT, variety="amo"), {"now": ist(date(2026, 11, 20), time(8, 58))}, "SESSION_NO_AMO", None),
        (STOP, {"now": ist(date(2026, 11, 20), time(9, 2))}, "SESSION_ORDER_TYPE", None),
        (replace(LIMIT, tradingsymbol="CENTRALBK-BE", product="MIS"), {}, "ORDER_PRODUCT", None),
    ],
)  # fmt: skip
def test_what_the_rules_forbid_is_named(
    order: KiteOrder, given: dict[str, Any], code: str | None, nearest: D | None
) -> None:
    denial = denied(order, around(**given))
    assert (denial.code if denial else None, denial.nearest if denial else None) == (code, nearest), denial


async def test_an_order_goes_out_as_the_official_client_sends_it(kite: Replayed) -> None:
    transport = kite.transport()
    sent = await OrderDesk(transport).place(STOP)
    assert sent == Acknowledged(ORDER_ID)
    official = KiteConnect("key", "token", root=kite.root)
    await asyncio.to_thread(
        official.place_order, "regular", "NSE", "INFY", "SELL", 10, "CNC", "SL", price="1440", trigger_price="1450",
        validity="DAY", tag="TPABC",
    )  # fmt: skip
    ours, theirs = (asked for asked in kite.asked)
    assert ours.form == {name: value for name, value in theirs.form.items() if name != "variety"}
    for name in ("Authorization", "X-Kite-Version"):
        assert ours.headers[name] == theirs.headers[name]
    await transport.close()


async def test_success_without_an_order_is_ambiguous(kite: Replayed) -> None:
    transport = kite.transport()
    for data in (None, [], {}, {"order_id": None}, {"order_id": ""}):
        kite.answers["POST", "/orders/regular"] = success(data)
        assert isinstance(await OrderDesk(transport).place(LIMIT), Ambiguous)
    await transport.close()


async def test_a_change_restates_what_its_type_uses(kite: Replayed) -> None:
    transport = kite.transport()
    desk = OrderDesk(transport)
    assert await desk.change(ORDER_ID, STOP, Change(quantity=20), around(), done_before=24) == Acknowledged(ORDER_ID)
    assert kite.asked[-1].form == {"quantity": "20", "price": "1440", "trigger_price": "1450"}
    to_market = Change(order_type="MARKET", market_protection=D(2))
    assert await desk.change(ORDER_ID, LIMIT, to_market, around(), done_before=0) == Acknowledged(ORDER_ID)
    assert kite.asked[-1].form == {"order_type": "MARKET", "market_protection": "2"}
    asked = len(kite.asked)
    spent = await desk.change(ORDER_ID, STOP, Change(quantity=20), around(), done_before=25)
    assert isinstance(spent, Denial)
    assert spent.code == "MODIFICATIONS_SPENT"
    unprotected = await desk.change(ORDER_ID, LIMIT, Change(order_type="MARKET"), around(), done_before=0)
    assert isinstance(unprotected, Denial)
    assert (unprotected.code, len(kite.asked)) == ("MARKET_UNPROTECTED", asked)
    await transport.close()


def test_a_new_type_takes_its_prices_with_it() -> None:
    assert changed(STOP, Change(order_type="LIMIT")).trigger_price is None
    assert changed(STOP, Change(order_type="SL-M", market_protection=D(1))).price is None
    assert changed(STOP, Change(quantity=3)) == replace(STOP, quantity=3)


async def test_an_after_market_order_is_regular_once_it_is_released(kite: Replayed) -> None:
    transport = kite.transport()
    desk = OrderDesk(transport)
    queued = replace(LIMIT, variety="amo")
    morning = around(now=ist(date(2026, 11, 20), time(9, 20)))
    assert isinstance(await desk.change(ORDER_ID, queued, Change(quantity=5), morning, done_before=0), Acknowledged)
    assert kite.asked[-1].path == "/orders/regular/151220000000000"
    night = around(now=ist(date(2026, 11, 19), time(22, 0)))
    await desk.change(ORDER_ID, queued, Change(quantity=5), night, done_before=0)
    assert kite.asked[-1].path == "/orders/amo/151220000000000"
    await transport.close()


async def test_cancelling_and_leaving_a_cover_order(kite: Replayed) -> None:
    transport = kite.transport()
    desk = OrderDesk(transport)
    assert await desk.cancel(ORDER_ID, "regular") == Acknowledged(ORDER_ID)
    await desk.cancel(VenueOrderId("2"), "co", parent_id=VenueOrderId("1"))
    assert kite.asked[-1].query == [("parent_order_id", "1")]
    await desk.cancel(VenueOrderId("../session/token"), "regular")
    assert kite.asked[-1].path.startswith("/orders/regular/"), "a name is no way out of its route"
    await transport.close()


async def test_the_broker_s_slices_may_fail_one_by_one(kite: Replayed) -> None:
    kite.answers["POST", "/orders/regular"] = (200, (kite_file("autoslice_response")))
    transport = kite.transport()
    big = replace(FUTURE, quantity=65 * 100, tag="TP")
    found = await OrderDesk(transport).place_autosliced(big, around(NIFTY))
    assert isinstance(found, Sliced)
    assert kite.asked[-1].form["autoslice"] == "true"
    assert found.parent_id == "1914227164488687616"
    kinds = [type(child.answer).__name__ for child in found.children]
    assert kinds == ["Acknowledged", "Acknowledged", "Refused", "Acknowledged"]
    failed = found.children[2].answer
    assert isinstance(failed, Refused)
    assert (failed.code, found.complete) == ("MARGIN_SHORT", False)
    assert failed.text.startswith("MarginException: Insufficient funds")
    await transport.close()


def test_slicing_by_the_broker_only_above_the_freeze_quantity() -> None:
    for quantity, code in ((1755, "SLICE_NEEDLESS"), (1820, None), (17_550, None), (17_615, "QUANTITY_SLICES")):
        denial = check_autoslice(replace(FUTURE, quantity=quantity), around(NIFTY))
        assert (denial.code if denial else None) == code


async def test_conversion(kite: Replayed) -> None:
    transport = kite.transport()
    done = await OrderDesk(transport).convert(
        exchange="NSE", tradingsymbol="INFY", side="BUY", overnight=False, quantity=3, old="MIS", new="CNC"
    )
    assert done is None
    assert kite.asked[-1].form == {
        "exchange": "NSE", "tradingsymbol": "INFY", "transaction_type": "BUY", "quantity": "3", "position_type": "day",
        "old_product": "MIS", "new_product": "CNC",
    }  # fmt: skip
    for exchange, quantity, old, new, code in (
        ("NSE", 1, "MIS", "NRML", "CONVERT_PRODUCT"), ("NFO", 65, "MIS", "CNC", "CONVERT_PRODUCT"),
        ("NFO", 65, "MIS", "MIS", "CONVERT_SAME"), ("NFO", 0, "MIS", "NRML", "CONVERT_QUANTITY"),
    ):  # fmt: skip
        denial = check_conversion(exchange, quantity, old, new)
        assert denial is not None
        assert denial.code == code
    await transport.close()


def kite_file(name: str) -> bytes:
    from tests.venues.zerodha.replayed import MOCKS

    return (MOCKS / f"{name}.json").read_bytes()
