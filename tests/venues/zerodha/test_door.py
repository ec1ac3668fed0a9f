"""The order door when the broker does not answer, answers late or answers oddly: never two orders, never a lost one."""

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.venues.zerodha.replayed import MOCKS, Replayed, error, sample, success
from tests.venues.zerodha.test_orders import OPEN
from trading_platform.identifiers import ClientOrderId, Symbol
from trading_platform.venues.port import (
    Accepted,
    Ambiguous,
    AuthLost,
    IpNotAllowed,
    QueryFailedError,
    Refused,
    Throttled,
)
from trading_platform.venues.zerodha.venue import IST, ZerodhaVenue, tag_of

D = Decimal
OURS = ClientOrderId("tp_0123456789abcdef0123")
SYMBOL = Symbol("ADANIPORTS")
PLACE = ("POST", "/orders/regular")
BOOK = ("GET", "/orders")
HEADER = "instrument_token,exchange_token,tradingsymbol,name,last_price,expiry,strike,tick_size,lot_size,instrument_type,segment,exchange"
FUTURES = "\n9604354,37517,NIFTY26NOVFUT,NIFTY,0,2026-11-23,0,0.1,65,FUT,NFO-FUT,NFO"


def row(**given: Any) -> dict[str, Any]:
    """An order of the official book that was a protected market order, as one of ours."""
    found: dict[str, Any] = sample("orders")[8]
    return found | {"tradingsymbol": SYMBOL, "tag": tag_of(OURS), "tags": [tag_of(OURS), "mktp", "mktp:2.00"], **given}


def trade(order_id: str, quantity: int) -> dict[str, Any]:
    found: dict[str, Any] = sample("order_trades")[0]
    return found | {
        "order_id": order_id,
        "tradingsymbol": SYMBOL,
        "exchange": "NSE",
        "quantity": quantity,
        "average_price": 700,
    }


@pytest.fixture
async def venue(kite: Replayed) -> ZerodhaVenue:
    dump = (MOCKS / "instruments_nse.csv").read_bytes() + FUTURES.encode()
    kite.answers["GET", "/instruments"] = (200, dump)
    found = ZerodhaVenue(kite.transport(timeout_seconds=1.0), lambda: OPEN)
    await found.instruments()
    kite.asked.clear()
    return found


async def place(venue: ZerodhaVenue, quantity: str = "1", symbol: Symbol = SYMBOL) -> Any:
    return await venue.place_market(OURS, symbol, "buy", D(quantity), datetime.now(UTC))


async def test_a_protected_market_order_goes_out_with_its_tag(kite: Replayed, venue: ZerodhaVenue) -> None:
    order_id = "1953341975595868160"
    kite.answers[PLACE] = success({"order_id": order_id})
    kite.answers["GET", f"/orders/{order_id}"] = success([row(status="OPEN PENDING", filled_quantity=0), row()])
    kite.answers["GET", f"/orders/{order_id}/trades"] = success([trade(order_id, 1)])
    placed = await place(venue)
    assert isinstance(placed, Accepted)
    assert (placed.venue_order_id, placed.state, placed.filled, placed.complete) == (order_id, "FILLED", D(1), True)
    assert kite.asked[0].form == {
        "exchange": "NSE", "tradingsymbol": "ADANIPORTS", "transaction_type": "BUY", "quantity": "1", "product": "CNC",
        "order_type": "MARKET", "validity": "DAY", "market_protection": "-1", "tag": tag_of(OURS),
    }  # fmt: skip
    await venue.close()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (error(400, "OrderException", "Order request timed out. Please check the order book and confirm before placing again."), Ambiguous),
        ((504, b"<html>504</html>"), Ambiguous), ((500, b""), Ambiguous), ((200, b"[]"), Ambiguous),
        (success(None), Ambiguous), ((200, b'{"status": "success"}'), Ambiguous),
        (error(503, "NetworkException", "Request failed (kitetrade-oms)"), Ambiguous),
        (error(429, "NetworkException", "Too many requests"), Throttled),
        (error(403, "TokenException", "Incorrect `api_key` or `access_token`."), AuthLost),
        (error(403, "PermissionException", "No IPs configured for this app. Add allowed IPs on the Kite developer console."), IpNotAllowed),
        (error(400, "MarginException", "Insufficient funds. Required margin is 2.00 but available margin is 1.00."), Refused),
    ],
)  # fmt: skip
async def test_one_request_whatever_comes_back(
    kite: Replayed, venue: ZerodhaVenue, answer: tuple[int, Any], expected: type
) -> None:
    kite.answers[PLACE] = answer
    assert isinstance(await place(venue), expected)
    assert [asked.method for asked in kite.asked] == ["POST"], "nothing is sent twice by itself"
    await venue.close()


async def test_an_order_that_was_taken_but_not_answered_is_found_however_it_ended(
    kite: Replayed, venue: ZerodhaVenue
) -> None:
    kite.answers[PLACE] = (504, b"")
    assert isinstance(await place(venue), Ambiguous)
    kite.answers[BOOK] = success(sample("orders"))
    assert await venue.find_order(OURS, SYMBOL) is None, "not visible yet: that proves nothing"
    friday = datetime(2026, 11, 20, 10, 0, tzinfo=IST)
    for clock, proven in (
        (friday, False), (friday.replace(hour=16, minute=4), False), (friday.replace(hour=16, minute=5), True),
        (friday.replace(hour=23), True), (friday + timedelta(days=1), False),
    ):  # fmt: skip
        venue.now = lambda clock=clock: clock
        assert venue.proves_absence(SYMBOL, datetime.now(UTC), friday) is proven, (
            "only the whole book of its own day does"
        )
    for status, filled, state in (
        ("COMPLETE", 1, "FILLED"), ("REJECTED", 0, "REJECTED"), ("CANCELLED", 0, "CANCELLED"), ("OPEN", 0, "WORKING"),
    ):  # fmt: skip
        mine = row(status=status, filled_quantity=filled)
        kite.answers[BOOK] = success([*sample("orders"), mine])
        kite.answers["GET", f"/orders/{mine['order_id']}/trades"] = success([trade(mine["order_id"], 1)])
        found = await venue.find_order(OURS, SYMBOL)
        assert isinstance(found, Accepted)
        assert (found.state, found.filled, found.complete) == (state, D(filled), True)
    kite.answers[BOOK] = success([row(tag=None, status="OPEN", filled_quantity=0)])
    assert await venue.find_order(OURS, SYMBOL) is not None, "the tag may be in the list of tags alone"
    kite.answers[BOOK] = (502, b"")
    with pytest.raises(QueryFailedError):
        await venue.find_order(OURS, SYMBOL)
    await venue.close()


FUTURE = Symbol("NIFTY26NOVFUT")
MONDAY_CLOSE = "2026-11-23 16:05"


@pytest.mark.parametrize(
    ("contract", "sent", "proven_from"),
    [
        (SYMBOL, "2026-11-20 08:57", "2026-11-20 16:05"), (SYMBOL, "2026-11-20 15:45", "2026-11-20 16:05"),
        (SYMBOL, "2026-11-20 15:59", "2026-11-20 16:05"), (SYMBOL, "2026-11-20 16:00", MONDAY_CLOSE),
        (SYMBOL, "2026-11-22 12:00", MONDAY_CLOSE), (FUTURE, "2026-11-20 09:05", "2026-11-20 15:45"),
        (FUTURE, "2026-11-20 15:44", "2026-11-20 15:49"), (FUTURE, "2026-11-20 15:45", "2026-11-23 15:45"),
    ],
)  # fmt: skip
async def test_an_order_is_proven_absent_by_the_session_that_it_was_sent_in_or_for(
    venue: ZerodhaVenue, contract: Symbol, sent: str, proven_from: str
) -> None:
    """After-market orders are taken from 16:00 for shares and from 15:45 for derivatives: those are tomorrow's."""
    sent_at, proven_at = (datetime.fromisoformat(each).replace(tzinfo=IST) for each in (sent, proven_from))
    for clock, proven in (
        (sent_at, False), (proven_at - timedelta(seconds=1), False), (proven_at, True),
        (proven_at + timedelta(hours=13), False),
    ):  # fmt: skip
        venue.now = lambda clock=clock: clock
        assert venue.proves_absence(contract, datetime.now(UTC), sent_at) is proven, clock
    assert not venue.proves_absence(Symbol("NEVERLISTED"), datetime.now(UTC), sent_at)
    await venue.close()


@pytest.mark.parametrize(
    ("clock", "share", "future"),
    [
        ("08:57", True, True), ("08:59", False, True), ("09:01", False, True), ("09:12", False, False),
        ("09:15", True, True), ("15:29", True, True), ("15:35", False, True), ("15:41", False, False),
        ("15:45", False, True), ("16:00", True, True), ("23:00", True, True),
    ],
)  # fmt: skip
async def test_stops_are_taken_in_continuous_trading_and_overnight(
    venue: ZerodhaVenue, clock: str, share: bool, future: bool
) -> None:
    venue.now = lambda: datetime.fromisoformat(f"2026-11-20 {clock}").replace(tzinfo=IST)
    assert (venue.takes_stops(SYMBOL), venue.takes_stops(FUTURE)) == (share, future)
    await venue.close()


async def test_of_two_orders_with_one_tag_the_filled_one_counts_and_it_is_said(
    kite: Replayed, venue: ZerodhaVenue, capsys: pytest.CaptureFixture[str]
) -> None:
    filled, open_ = row(order_id="1"), row(order_id="2", status="OPEN", filled_quantity=0)
    kite.answers["GET", "/orders/1/trades"] = success([trade("1", 1)])
    kite.answers[BOOK] = success([filled, open_])
    found = await venue.find_order(OURS, SYMBOL)
    assert found is not None
    assert found.venue_order_id == "1"
    assert "two_orders_of_one_tag" in capsys.readouterr().out
    await venue.close()


async def test_what_the_rules_forbid_is_not_sent(kite: Replayed, venue: ZerodhaVenue) -> None:
    future = Symbol("NIFTY26NOVFUT")
    for quantity, symbol, code in (
        ("0.5", SYMBOL, "QUANTITY_LOT"), ("10.5", SYMBOL, "QUANTITY_LOT"), ("0", SYMBOL, "QUANTITY_LOT"),
        ("66", future, "QUANTITY_LOT"), ("1820", future, "QUANTITY_FREEZE"), ("1", Symbol("NOBODY"), "INSTRUMENT_UNKNOWN"),
    ):  # fmt: skip
        refused = await place(venue, quantity, symbol)
        assert isinstance(refused, Refused)
        assert refused.code == code
    assert kite.asked == []
    await venue.close()


async def test_a_freeze_quantity_is_learnt_from_its_refusal(kite: Replayed, venue: ZerodhaVenue) -> None:
    future = Symbol("NIFTY26NOVFUT")
    told = "The order quantity 1755 (27 lots) is higher than the maximum quantity of 1300 (20 lots) allowed by the exchanges."
    kite.answers[PLACE] = error(400, "InputException", told)
    assert (await place(venue, "1755", future)).code == "QUANTITY_FREEZE"
    kite.asked.clear()
    refused = await place(venue, "1365", future)
    assert isinstance(refused, Refused)
    assert "1300" in refused.text
    assert kite.asked == [], "the second one is known before the wire"
    await venue.close()


async def test_a_connection_that_ends_in_the_middle_is_ambiguous() -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.transport.abort()

    from trading_platform.venues.zerodha.transport import KiteTransport

    server = await asyncio.start_server(cut, "127.0.0.1", 0)
    root = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    transport = KiteTransport("key", "token", root=root, timeout_seconds=1.0)
    found = ZerodhaVenue(transport, lambda: OPEN)
    from trading_platform.markets.contracts import ContractBook

    found._book = ContractBook.from_csv((HEADER + FUTURES).encode(), OPEN.date())
    assert isinstance(await place(found, "65", Symbol("NIFTY26NOVFUT")), Ambiguous)
    await found.close()
    server.close()
