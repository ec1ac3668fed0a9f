"""Varieties, products and validities of orders, by the official client, as the broker's documentation tells of them."""

from collections.abc import AsyncIterator
from datetime import datetime, time
from pathlib import Path
from typing import Any

import pytest
from kiteconnect import KiteConnect
from kiteconnect import exceptions as refused

from tests.sandbox.kite.broker import FRIDAY, IST, MONDAY, Broker, broker, call
from trading_platform.markets.price_bands import CircuitLimits

CASH = 1_000_000


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[Broker]:
    async with broker(tmp_path) as found:
        yield found


@pytest.fixture
async def kite(made: Broker) -> KiteConnect:
    return await made.client()


async def place(kite: KiteConnect, **changes: Any) -> str:
    order = {
        "variety": "regular", "exchange": "NSE", "tradingsymbol": "INFY", "transaction_type": "BUY", "quantity": 10,
        "product": "CNC", "order_type": "LIMIT", "price": 1400, "validity": "DAY",
    } | changes  # fmt: skip
    if order["order_type"] in ("MARKET", "SL-M"):
        order = {"market_protection": -1, **order, "price": changes.get("price")}
    return str(await call(kite.place_order, **order))


async def row(kite: KiteConnect, number: str) -> dict[str, Any]:
    return next(each for each in await call(kite.orders) if each["order_id"] == number)


async def net(kite: KiteConnect) -> float:
    return float((await call(kite.margins))["equity"]["net"])


def clock(made: Broker, at: time) -> None:
    made.sandbox.exchange.market_time = int(datetime.combine(FRIDAY, at, IST).timestamp() * 1_000)


# --- intraday ---------------------------------------------------------------------------------------------------------


async def test_an_intraday_short_blocks_a_fifth_and_is_squared_off(made: Broker, kite: KiteConnect) -> None:
    number = await place(kite, product="MIS", transaction_type="SELL", quantity=100, order_type="MARKET")
    sold = (await row(kite, number))["average_price"] * 100
    assert await net(kite) == pytest.approx(CASH - sold / 5, abs=0.01), "leverage of five: SEBI's peak margin"
    (position,) = (await call(kite.positions))["net"]
    assert (position["quantity"], position["product"]) == (-100, "MIS")
    assert position["average_price"] == pytest.approx(sold / 100)
    await made.until(FRIDAY, time(15, 26))
    (position,) = (await call(kite.positions))["net"]
    assert position["quantity"] == 0
    last = (await call(kite.orders))[-1]
    assert (last["transaction_type"], last["placed_by"], last["status"]) == ("BUY", "RMS", "COMPLETE")
    with pytest.raises(refused.InputException, match="squared off"):
        await place(kite, product="MIS", order_type="MARKET")
    gained = sold - last["average_price"] * 100
    fee = 50 * 1.18
    assert await net(kite) == pytest.approx(CASH + gained - fee, abs=0.01)


async def test_what_closes_a_position_needs_no_money(made: Broker, kite: KiteConnect) -> None:
    lots = {"exchange": "NFO", "tradingsymbol": "NIFTY26DECFUT", "product": "NRML", "quantity": 65 * 4}
    await place(kite, **lots, order_type="MARKET")
    assert await net(kite) < CASH * 0.25
    number = await place(kite, **lots, transaction_type="SELL", order_type="MARKET")
    assert (await row(kite, number))["status"] == "COMPLETE"
    trades = await call(kite.trades)
    paid = sum((1 if t["transaction_type"] == "SELL" else -1) * t["quantity"] * t["average_price"] for t in trades)
    assert await net(kite) == pytest.approx(CASH + paid, abs=0.01)


async def test_charges_are_billed_at_the_days_end(made: Broker, kite: KiteConnect) -> None:
    for side in ("BUY", "SELL"):
        await place(kite, product="MIS", transaction_type=side, quantity=400, order_type="MARKET")
    trades = await call(kite.trades)
    value = {
        s: sum(t["quantity"] * t["average_price"] for t in trades if t["transaction_type"] == s)
        for s in ("BUY", "SELL")
    }
    before = await net(kite)
    assert before == pytest.approx(CASH + value["SELL"] - value["BUY"], abs=0.01), "nothing is taken during the day"
    await made.until(MONDAY, time(9, 16))
    # zerodha.md 6.1: 20 + 20 brokerage, STT on the sale, exchange 0.00307 %, SEBI 10 a crore, stamp on the purchase, GST
    turnover = value["BUY"] + value["SELL"]
    exchange, sebi = round(turnover * 0.0000307, 2), round(turnover * 0.000001, 2)
    expected = (
        40
        + round(value["SELL"] * 0.00025)
        + exchange
        + sebi
        + round(value["BUY"] * 0.00003)
        + (40 + exchange + sebi) * 0.18
    )
    assert before - await net(kite) == pytest.approx(expected, abs=0.06)


# --- varieties --------------------------------------------------------------------------------------------------------


async def test_an_iceberg_shows_one_leg_at_a_time(made: Broker, kite: KiteConnect) -> None:
    await place(kite, variety="iceberg", quantity=50, iceberg_legs=5, iceberg_quantity=10, price=1515, tag="ice")
    rows = await call(kite.orders)
    assert [each["quantity"] for each in rows] == [10] * 5
    assert rows[0]["meta"]["iceberg"] == {
        "leg": 1, "legs": 5, "leg_quantity": 10, "total_quantity": 50, "remaining_quantity": 40,
    }  # fmt: skip
    assert rows[-1]["meta"]["iceberg"]["remaining_quantity"] == 0
    assert {(each["status"], each["tag"]) for each in rows} == {("COMPLETE", "ice")}
    await place(kite, variety="iceberg", quantity=20, iceberg_legs=2, iceberg_quantity=10, price=1400)
    assert len(await call(kite.orders)) == 6, "the second leg waits for the first"


@pytest.mark.parametrize("legs", [1, 51])
async def test_icebergs_have_two_to_fifty_legs(kite: KiteConnect, legs: int) -> None:
    with pytest.raises(refused.InputException, match="iceberg_legs"):
        await place(kite, variety="iceberg", quantity=102, iceberg_legs=legs, price=1400)


async def test_a_cover_order_has_its_stop_at_once(made: Broker, kite: KiteConnect) -> None:
    number = await place(kite, variety="co", product="MIS", order_type="MARKET", trigger_price=1480)
    entry, stop = await call(kite.orders)
    assert (entry["status"], entry["product"]) == ("COMPLETE", "CO")
    assert (stop["parent_order_id"], stop["status"], stop["transaction_type"]) == (number, "TRIGGER PENDING", "SELL")
    assert (stop["trigger_price"], stop["quantity"]) == (1480, 10)
    await call(kite.exit_order, "co", stop["order_id"], parent_order_id=number)
    rows = await call(kite.orders)
    assert [each["status"] for each in rows] == ["COMPLETE", "CANCELLED", "COMPLETE"]
    assert [each["quantity"] for each in (await call(kite.positions))["net"]] == [0]


async def test_a_cover_order_wants_its_stop_on_the_losing_side(kite: KiteConnect) -> None:
    with pytest.raises(refused.InputException, match="should be lower"):
        await place(kite, variety="co", product="MIS", order_type="MARKET", trigger_price=1600)


async def test_an_order_above_the_freeze_is_sliced_and_slices_may_fail(made: Broker, kite: KiteConnect) -> None:
    lots = {"variety": "regular", "exchange": "NFO", "tradingsymbol": "NIFTY26DECFUT", "transaction_type": "BUY"}
    wanted = {**lots, "quantity": 3_510, "product": "NRML", "order_type": "LIMIT", "price": 23_800}
    with pytest.raises(
        refused.InputException, match=r"3510 \(54 lots\) is higher than the maximum quantity of 1755 \(27 lots\)"
    ):
        await call(kite.place_order, **wanted)
    found = await call(kite.place_autoslice_order, **wanted)
    assert len(found["children"]) == 2
    assert all(child["error"]["error_type"] == "MarginException" for child in found["children"])
    body = {"account_id": "rich", "api_key": "key_rich", "api_secret": "secret_rich", "balances": {"INR": "6000000"}}
    await made.control("accounts", body)
    token = (await made.control("kite/request_token", {"api_key": "key_rich"}))["request_token"]
    rich = KiteConnect("key_rich", root=made.kite_url)
    rich.set_access_token((await call(rich.generate_session, token, api_secret="secret_rich"))["access_token"])
    found = await call(rich.place_autoslice_order, **wanted)
    placed, failed = found["children"]
    assert failed["error"]["message"].startswith("Insufficient funds. Required margin is")
    slice_row = await row(rich, placed["order_id"])
    assert (slice_row["quantity"], slice_row["tags"]) == (1_755, ["autoslice", f"autoslice:{found['order_id']}"])


async def test_an_auction_is_offered_what_is_held(made: Broker, kite: KiteConnect) -> None:
    await place(kite, order_type="MARKET")
    await made.until(MONDAY, time(9, 16))
    made.sandbox.kite.desk.auctions["20"] = "INFY"  # type: ignore[union-attr]
    (offered,) = await call(kite.get_auction_instruments)
    assert (offered["auction_number"], offered["quantity"]) == ("20", 10)
    offer = {"variety": "auction", "transaction_type": "SELL", "price": 1495}
    with pytest.raises(refused.InputException, match="auction_number"):
        await place(kite, **offer, auction_number="21")
    number = await place(kite, **offer, auction_number="20")
    assert (await row(kite, number))["status"] == "OPEN", "it waits for the auction"
    made.sandbox.exchange.market_time = int(datetime.combine(MONDAY, time(15, 0), IST).timestamp() * 1_000)
    made.sandbox.clock.on_step()
    assert (await row(kite, number))["status"] == "COMPLETE"


async def test_a_released_after_market_order_is_a_regular_one(made: Broker, kite: KiteConnect) -> None:
    await made.until(FRIDAY, time(15, 30))
    clock(made, time(18))
    number = await place(kite, variety="amo", price=1400)
    assert (await row(kite, number))["status"] == "AMO REQ RECEIVED"
    await call(kite.modify_order, "amo", number, price=1401)
    await made.until(MONDAY, time(9, 20))
    assert (await row(kite, number))["status"] == "OPEN"
    with pytest.raises(refused.NetworkException, match="timed out"):
        await call(kite.cancel_order, "amo", number)
    await call(kite.cancel_order, "regular", number)
    assert (await row(kite, number))["status"] == "CANCELLED"


# --- validities -------------------------------------------------------------------------------------------------------


async def test_an_order_lives_as_many_minutes_as_it_was_given(made: Broker, kite: KiteConnect) -> None:
    number = await place(kite, validity="TTL", validity_ttl=2)
    await made.steps(1)
    assert (await row(kite, number))["status"] == "OPEN"
    await made.steps(1)
    assert (await row(kite, number))["status"] == "CANCELLED"


async def test_immediate_or_cancel_leaves_nothing(kite: KiteConnect) -> None:
    number = await place(kite, validity="IOC")
    found = await row(kite, number)
    assert (found["status"], found["filled_quantity"], found["cancelled_quantity"]) == ("CANCELLED", 0, 10)


async def test_orders_of_the_day_end_with_it_stops_too(made: Broker, kite: KiteConnect) -> None:
    numbers = [
        await place(kite),
        await place(kite, order_type="SL", trigger_price=1590, price=1590),
    ]
    await made.until(FRIDAY, time(15, 30))
    await made.steps(1)
    found = [(await call(kite.order_history, number))[-1]["status"] for number in numbers]
    assert found == ["CANCELLED", "CANCELLED"]


# --- what the exchange refuses ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"exchange": "NFO", "tradingsymbol": "NIFTY26DECFUT", "product": "NRML", "quantity": 65, "order_type": "SL",
          "trigger_price": 26_500, "price": 27_900}, "16448"),
        ({"price": 1420, "transaction_type": "SELL", "product": "MIS"}, "17071"),
    ],
)  # fmt: skip
async def test_what_the_exchange_refuses_is_a_rejected_row(made: Broker, kite: KiteConnect, changes: dict[str, Any], code: str) -> None:  # fmt: skip
    await place(kite, price=1420, product="MIS")
    number = await place(kite, **changes)
    found = await row(kite, number)
    assert found["status"] == "REJECTED"
    assert found["status_message_raw"].startswith(f"{code} : ")
    assert found["exchange_order_id"] is None
    hops = [each["status"] for each in await call(kite.order_history, number)]
    assert hops == ["PUT ORDER REQ RECEIVED", "VALIDATION PENDING", "REJECTED"]


async def test_prices_stay_inside_the_circuit(made: Broker, kite: KiteConnect) -> None:
    quote = (await call(kite.quote, "NSE:INFY"))["NSE:INFY"]
    lower, upper = quote["lower_circuit_limit"], quote["upper_circuit_limit"]
    assert (lower, upper) == (1350, 1650)
    await place(kite, price=lower)
    with pytest.raises(refused.InputException, match=f"lower than the current lower circuit limit of {lower:.0f}"):
        await place(kite, price=lower - 0.05)
    with pytest.raises(refused.InputException, match="higher than the current upper circuit limit"):
        await place(kite, price=upper + 0.05, quantity=1)
    with pytest.raises(refused.InputException, match="stoploss buy orders cannot be above the upper circuit price"):
        await place(kite, order_type="SL", trigger_price=upper + 0.05, price=upper + 0.05, quantity=1)


async def test_at_its_limit_a_market_is_locked(made: Broker, kite: KiteConnect) -> None:
    last = (await call(kite.ltp, "NSE:INFY"))["NSE:INFY"]["last_price"]
    desk = made.sandbox.kite.desk  # type: ignore[union-attr]
    from decimal import Decimal

    desk.bands.by_hand["INFY"] = CircuitLimits(Decimal("1300"), Decimal(str(last)))
    desk.bands.impose()
    quote = (await call(kite.quote, "NSE:INFY"))["NSE:INFY"]
    assert quote["depth"]["sell"][0] == {"price": 0, "quantity": 0, "orders": 0}
    assert quote["depth"]["buy"][0]["quantity"] > 0
    number = await place(kite, order_type="MARKET")
    assert (await row(kite, number))["status"] == "OPEN", "nobody sells"


async def test_a_halt_refuses_orders_and_stands_until_its_end(made: Broker, kite: KiteConnect) -> None:
    resting = await place(kite, price=1499.9)
    schedule = made.sandbox.kite.schedule  # type: ignore[union-attr]
    schedule.halted_by_hand = datetime.fromtimestamp(made.sandbox.exchange.now / 1_000 + 180, IST)
    schedule.look_at_halt()
    number = await place(kite, order_type="MARKET")
    assert (await row(kite, number))["status"] == "REJECTED"
    await made.steps(2)
    assert (await row(kite, resting))["status"] == "OPEN", "its price was traded through, but the market stands"
    await made.steps(2)
    assert (await row(kite, resting))["status"] == "COMPLETE"


# --- positions --------------------------------------------------------------------------------------------------------


async def test_positions_are_converted_at_their_cost(made: Broker, kite: KiteConnect) -> None:
    number = await place(kite, product="MIS", quantity=100, order_type="MARKET")
    cost = (await row(kite, number))["average_price"] * 100
    change = {
        "exchange": "NSE", "tradingsymbol": "INFY", "transaction_type": "BUY", "position_type": "day", "quantity": 60,
        "old_product": "MIS", "new_product": "CNC",
    }  # fmt: skip
    assert await call(kite.convert_position, **change) is True
    assert await net(kite) == pytest.approx(CASH - cost * 0.6 - cost * 0.4 / 5, abs=0.02)
    rows = {each["product"]: each for each in (await call(kite.positions))["net"]}
    assert {name: each["quantity"] for name, each in rows.items()} == {"MIS": 40, "CNC": 60}
    with pytest.raises(refused.InputException, match="Only 40"):
        await call(kite.convert_position, **change)
    assert await call(kite.convert_position, **change | {"old_product": "CNC", "new_product": "MIS", "quantity": 60})
    assert await net(kite) == pytest.approx(CASH - cost / 5, abs=0.02)


async def test_a_future_that_expires_ends_at_the_index(made: Broker, kite: KiteConnect) -> None:
    nfo = {"exchange": "NFO", "tradingsymbol": "NIFTY26NOVFUT", "product": "NRML", "quantity": 65}
    number = await place(kite, **nfo, order_type="MARKET")
    paid = (await row(kite, number))["average_price"]
    await made.until(MONDAY, time(9, 20))
    before = (await call(kite.margins))["equity"]
    index = (await call(kite.ltp, "NSE:NIFTY 50"))["NSE:NIFTY 50"]["last_price"]
    made.sandbox.exchange.market_time = int(datetime.combine(MONDAY, time(15, 45), IST).timestamp() * 1_000)
    made.sandbox.clock.on_step()
    after = (await call(kite.margins))["equity"]
    blocked = before["utilised"]["span"] + before["utilised"]["exposure"]
    assert after["net"] - before["net"] == pytest.approx(blocked + (index - paid) * 65, abs=0.01)


async def test_sales_of_holdings_want_the_holder_s_consent_of_the_day(made: Broker, kite: KiteConnect) -> None:
    await place(kite, order_type="MARKET")
    await made.until(MONDAY, time(9, 16))
    account = made.sandbox.exchange.books.accounts["alice"]
    from trading_platform.sandbox.events import Kept

    made.sandbox.exchange.record(Kept(account.account_id, "demat", "consent", {"is": "physical"}))
    sale = {"transaction_type": "SELL", "order_type": "MARKET", "quantity": 5}
    with pytest.raises(refused.GeneralException, match="CDSL"):
        await place(kite, **sale)
    headers = {"Authorization": f"token {kite.api_key}:{kite.access_token}"}
    form = [("isin", "XS0000000000"), ("quantity", "5")]
    async with made.session.post(f"{made.kite_url}/portfolio/holdings/authorise", headers=headers, data=form) as answer:
        number = (await answer.json())["data"]["request_id"]
    page = f"{made.kite_url}/connect/portfolio/authorize/holdings/{kite.api_key}/{number}"
    async with made.session.get(page) as answer:
        assert "Authorise" in await answer.text()
    async with made.session.post(page) as answer:
        assert answer.status == 200
    assert (await row(kite, await place(kite, **sale)))["status"] == "COMPLETE"


# --- the closing auction ----------------------------------------------------------------------------------------------


async def test_the_closing_auction_matches_all_at_one_price(made: Broker, kite: KiteConnect) -> None:
    """NSE/CMTR/74466: reference 15:15, entry 15:20, limit orders alone from 15:25, one price at 15:30."""
    bands = made.sandbox.kite.desk.bands  # type: ignore[union-attr]
    bands._auctioned["INFY"] = True  # as if INFY had derivatives here: shares that have some close by auction
    await made.until(FRIDAY, time(10, 15))
    stop = await place(kite, order_type="SL", trigger_price=1590, price=1590)
    clock(made, time(15, 16))
    made.sandbox.clock.on_step()
    assert (await row(kite, stop))["status"] == "CANCELLED", "an auction carries no stops"
    with pytest.raises(refused.InputException, match="AMO"):
        await place(kite, price=1500)
    clock(made, time(15, 21))
    quote = (await call(kite.quote, "NSE:INFY"))["NSE:INFY"]
    reference = quote["last_price"]  # nothing was traded from 15:00 to 15:15 here
    assert quote["upper_circuit_limit"] == pytest.approx(reference * 1.03, abs=0.05)
    high = await place(kite, price=round(reference * 1.02, 0))
    low = await place(kite, price=round(reference * 0.98, 0))
    market = await place(kite, order_type="MARKET")
    clock(made, time(15, 25, 30))
    with pytest.raises(refused.InputException, match="Market orders are currently not allowed"):
        await place(kite, order_type="MARKET")
    await made.until(FRIDAY, time(15, 30))
    found = {number: (await row(kite, number)) for number in (high, low, market)}
    close = (await call(kite.ltp, "NSE:INFY"))["NSE:INFY"]["last_price"]
    assert [found[number]["status"] for number in (high, low, market)] == ["COMPLETE", "CANCELLED", "COMPLETE"]
    assert {found[number]["average_price"] for number in (high, market)} == {close}


# --- triggers that the broker keeps -----------------------------------------------------------------------------------


def leg(price: float, side: str = "BUY", quantity: int = 1) -> dict[str, Any]:
    return {
        "exchange": "NSE", "tradingsymbol": "INFY", "transaction_type": side, "quantity": quantity, "order_type": "LIMIT",
        "product": "CNC", "price": price,
    }  # fmt: skip


async def test_a_trigger_fires_once_and_places_its_order(made: Broker, kite: KiteConnect) -> None:
    last = (await call(kite.ltp, "NSE:INFY"))["NSE:INFY"]["last_price"]
    placed = await call(kite.place_gtt, "single", "INFY", "NSE", [1504.5], last, [leg(1510)])
    number = placed["trigger_id"]
    await made.steps(3)
    assert (await call(kite.get_gtt, number))["status"] == "active"
    await made.until(FRIDAY, time(10, 0))
    found = await call(kite.get_gtt, number)
    assert found["status"] == "triggered"
    outcome = found["orders"][0]["result"]["order_result"]
    assert outcome["status"] == "success"
    assert (await row(kite, outcome["order_id"]))["status"] == "COMPLETE"
    assert len(await call(kite.orders)) == 1


async def test_a_trigger_that_fired_may_have_failed(made: Broker, kite: KiteConnect) -> None:
    last = (await call(kite.ltp, "NSE:INFY"))["NSE:INFY"]["last_price"]
    placed = await call(
        kite.place_gtt, "two-leg", "INFY", "NSE", [1400, 1504.5], last, [leg(1390, "SELL"), leg(1500, "SELL")]
    )
    await made.until(FRIDAY, time(10, 0))
    found = await call(kite.get_gtt, placed["trigger_id"])
    assert (found["status"], found["orders"][0]["result"]) == ("triggered", None)
    outcome = found["orders"][1]["result"]["order_result"]
    assert outcome["status"] == "failed"
    assert "Insufficient holdings" in outcome["rejection_reason"]
    assert await call(kite.orders) == []


async def test_triggers_are_changed_deleted_and_checked(kite: KiteConnect) -> None:
    last = (await call(kite.ltp, "NSE:INFY"))["NSE:INFY"]["last_price"]
    number = (await call(kite.place_gtt, "single", "INFY", "NSE", [1400], last, [leg(1400)]))["trigger_id"]
    await call(kite.modify_gtt, number, "single", "INFY", "NSE", [1390], last, [leg(1390)])
    (found,) = await call(kite.get_gtts)
    assert found["condition"]["trigger_values"] == [1390]
    await call(kite.delete_gtt, number)
    assert (await call(kite.get_gtt, number))["status"] == "deleted"
    with pytest.raises(refused.InputException, match="deleted"):
        await call(kite.delete_gtt, number)
    with pytest.raises(refused.InputException, match=r"0\.25%"):
        await call(kite.place_gtt, "single", "INFY", "NSE", [round(last + 1, 0)], last, [leg(1400)])
    with pytest.raises(refused.InputException, match="LIMIT"):
        await call(kite.place_gtt, "single", "INFY", "NSE", [1400], last, [leg(1400) | {"product": "MIS"}])
