"""Triggers: the official client's request beside ours, the official samples, and every rule at its edge."""

import asyncio
import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from kiteconnect import KiteConnect

from tests.venues.zerodha.replayed import Replayed, success
from tests.venues.zerodha.test_orders import INFY
from trading_platform.venues.port import Ambiguous, QueryFailedError
from trading_platform.venues.zerodha.gtt import Leg, Trigger, Triggers, check_trigger, unprotected

D = Decimal
ONE = Trigger("NSE", "INFY", (D(702),), (Leg("BUY", 1, D("702.5")),))
TWO = Trigger("NSE", "INFY", (D(750), D(850)), (Leg("SELL", 5, D("749.5")), Leg("SELL", 5, D(850))))
LAST = D(798)


async def test_a_trigger_goes_out_as_the_official_client_sends_it(kite: Replayed) -> None:
    transport = kite.transport()
    assert await Triggers(transport).place(TWO, LAST) == 123
    official = KiteConnect("key", "token", root=kite.root)
    legs = [
        {"transaction_type": "SELL", "quantity": 5, "price": price, "order_type": "LIMIT", "product": "CNC"}
        for price in (749.5, 850)
    ]
    await asyncio.to_thread(official.place_gtt, "two-leg", "INFY", "NSE", [750, 850], 798, legs)
    ours, theirs = (asked.form for asked in kite.asked)
    assert ours["type"] == theirs["type"]
    for name in ("condition", "orders"):
        assert json.loads(ours[name]) == json.loads(theirs[name])
    await transport.close()


async def test_changing_deleting_and_an_answer_without_a_number(kite: Replayed) -> None:
    transport = kite.transport()
    triggers = Triggers(transport)
    assert await triggers.change(123, ONE, LAST) == 123
    assert await triggers.delete(123) == 123
    kite.answers["POST", "/gtt/triggers"] = success({})
    assert isinstance(await triggers.place(ONE, LAST), Ambiguous)
    await transport.close()


async def test_triggered_is_not_filled(kite: Replayed) -> None:
    transport = kite.transport()
    active, fired = await Triggers(transport).all()
    assert (active.status, active.trigger, active.failures) == ("active", ONE, ())
    assert active.expires_at == datetime(2020, 9, 12, 7, 55, 16, tzinfo=UTC)
    assert (fired.status, fired.order_ids) == ("triggered", ())
    ((which, why),) = unprotected([active, fired])
    assert which is fired
    assert "POSITION_UNPROTECTED" in why
    assert "lower circuit limit of 70.65" in why
    assert (await Triggers(transport).get(123)).trigger.tradingsymbol == "RAIN"
    kite.answers["GET", "/gtt/triggers"] = success([{"id": 1}])
    with pytest.raises(QueryFailedError):
        await Triggers(transport).all()
    await transport.close()


@pytest.mark.parametrize(
    ("trigger", "last", "active", "code", "nearest"),
    [
        (ONE, LAST, 0, None, None),
        (TWO, LAST, 249, None, None),
        (TWO, LAST, 250, "GTT_TOO_MANY", D(250)),
        (TWO, D(750), 0, "GTT_ORDER", None),
        (Trigger("MCX", "GOLD", (D(702),), ONE.legs), LAST, 0, "GTT_EXCHANGE", None),
        (Trigger("NSE", "INFY", (D(702),), TWO.legs), LAST, 0, "GTT_LEGS", None),
        (Trigger("NSE", "INFY", (D("997.5"),), ONE.legs), D(1000), 0, None, None),
        (Trigger("NSE", "INFY", (D("997.55"),), ONE.legs), D(1000), 0, "GTT_DISTANCE", D("997.5")),
        (Trigger("NSE", "INFY", (D("1002.45"),), ONE.legs), D(1000), 0, "GTT_DISTANCE", D("1002.5")),
        (Trigger("NSE", "INFY", (D("702.01"),), ONE.legs), LAST, 0, "PRICE_TICK", D("702.00")),
        (Trigger("NSE", "INFY", (D(702),), (Leg("BUY", 0, D(702)),)), LAST, 0, "QUANTITY_LOT", D(1)),
    ],
)  # fmt: skip
def test_rules_of_triggers(trigger: Trigger, last: D, active: int, code: str | None, nearest: D | None) -> None:
    denial = check_trigger(trigger, INFY, last, active)
    assert (denial.code if denial else None, denial.nearest if denial else None) == (code, nearest)
