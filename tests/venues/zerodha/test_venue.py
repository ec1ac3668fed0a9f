"""One account behind the order door, against the sandbox's Kite over a real socket."""

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path

import pytest

from tests.sandbox.kite.broker import FRIDAY, IST, MONDAY, Broker, broker
from trading_platform.identifiers import ClientOrderId, Symbol
from trading_platform.markets.contract_note import Leg, charges_of
from trading_platform.venues.port import Accepted, Refused
from trading_platform.venues.zerodha.login import LoginRefusedError, open_session
from trading_platform.venues.zerodha.transport import Fields, KiteTransport, Success
from trading_platform.venues.zerodha.venue import NotArmedError, ZerodhaVenue, tag_of

D = Decimal
OURS = ClientOrderId("tp_0123456789abcdef")
INFY = Symbol("INFY")


def ist(day: date, clock: time) -> datetime:
    return datetime.combine(day, clock, IST).astimezone(UTC)


async def venue_at(made: Broker) -> ZerodhaVenue:
    """Logged in, with the sandbox's market time as its clock."""
    body = {"account_id": "bob", "api_key": "key_bob", "api_secret": "secret_bob", "balances": {"INR": "10000000"}}
    await made.control("accounts", body)
    token = (await made.control("kite/request_token", {"api_key": "key_bob"}))["request_token"]
    transport = KiteTransport("key_bob", None, root=made.kite_url)
    session = await open_session(transport, token, "secret_bob")
    assert "token" not in repr(session)

    def now() -> datetime:
        return datetime.fromtimestamp(made.sandbox.exchange.now / 1_000, UTC)

    found = ZerodhaVenue(transport, now)
    await found.instruments()
    return found


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[Broker]:
    async with broker(tmp_path) as found:
        yield found


@pytest.fixture
async def venue(made: Broker) -> AsyncIterator[ZerodhaVenue]:
    found = await venue_at(made)
    yield found
    await found.close()


async def test_a_market_order_is_filled_and_found_again_by_its_tag(made: Broker, venue: ZerodhaVenue) -> None:
    placed = await venue.place_market(OURS, INFY, "buy", D(10), datetime.now(UTC))
    assert isinstance(placed, Accepted)
    assert (placed.state, placed.filled, placed.complete) == ("FILLED", D(10), True)
    assert await venue.find_order(OURS, INFY) == placed
    assert await venue.find_order(ClientOrderId("tp_another"), INFY) is None
    assert await venue.open_client_order_ids() == set()
    theirs = made.sandbox.exchange.books.accounts["bob"]
    assert [order.client_order_id for order in theirs.orders.values()] == [tag_of(OURS)]


async def test_fills_bear_the_charges_of_their_order(venue: ZerodhaVenue) -> None:
    placed = await venue.place_market(OURS, INFY, "buy", D(400), datetime.now(UTC))
    assert isinstance(placed, Accepted)
    spent = sum((fill.price * fill.quantity for fill in placed.fills), D(0))
    note = charges_of("NSE", "delivery", [Leg("buy", 400, spent / 400)], FRIDAY)
    assert sum((fill.fee for fill in placed.fills), D(0)) == note.total.quantize(D("0.000001"))
    assert {fill.fee_currency for fill in placed.fills} == {"INR"}
    assert all(fill.trade_id.startswith("20261120-") for fill in placed.fills), "numbers begin anew every day"


async def test_cash_and_holdings_add_up_to_the_account(venue: ZerodhaVenue) -> None:
    before = await venue.balances()
    future = venue.contract_for(Symbol("NIFTY 50"), ist(FRIDAY, time(10)))
    assert future == "NIFTY26NOVFUT"
    share = await venue.place_market(OURS, INFY, "buy", D(10), datetime.now(UTC))
    lot = await venue.place_market(ClientOrderId("tp_lot"), future, "buy", D(65), datetime.now(UTC))
    assert isinstance(share, Accepted)
    assert isinstance(lot, Accepted)
    after = await venue.balances()
    paid = sum((fill.price * fill.quantity for fill in (*share.fills, *lot.fills)), D(0))
    assert (after["INFY"], after[future]) == (D(10), D(65))
    assert abs(before["INR"] - paid - after["INR"]) < D("0.01")


async def test_books_are_told_while_trading_is_continuous(made: Broker, venue: ZerodhaVenue) -> None:
    future = venue.contract_for(Symbol("NIFTY 50"), ist(FRIDAY, time(10)))
    books = await venue.books([INFY, future])
    answer = await venue.transport.call("GET", "/quote", query={"i": ["NSE:INFY", f"NFO:{future}"]})
    assert isinstance(answer, Success)
    for name, symbol in (("NSE:INFY", INFY), (f"NFO:{future}", future)):
        best = [answer.data[name]["depth"][side][0] for side in ("buy", "sell")]
        assert [books[symbol].bid, books[symbol].ask] == [D(str(level["price"])) for level in best]
        assert [books[symbol].bid_quantity, books[symbol].ask_quantity] == [level["quantity"] for level in best]
    assert 0 < books[INFY].bid < books[INFY].ask
    await made.until(FRIDAY, time(15, 30))
    assert list(await venue.books([INFY, future])) == [future], "futures go on for ten minutes"
    made.sandbox.exchange.market_time = int(ist(FRIDAY, time(15, 40)).timestamp() * 1_000)
    assert await venue.books([INFY, future]) == {}


async def test_a_future_is_not_entered_on_its_last_day(venue: ZerodhaVenue) -> None:
    assert venue.contract_for(Symbol("NIFTY 50"), ist(MONDAY, time(10))) == "NIFTY26DECFUT"
    assert venue.contract_for(INFY, ist(MONDAY, time(10))) == INFY


async def test_what_the_rules_forbid_is_refused_before_the_wire(made: Broker, venue: ZerodhaVenue) -> None:
    orders = made.sandbox.exchange.books.last_order_id
    for contract, quantity, code in (
        (Symbol("NOTHING"), D(1), "INSTRUMENT_UNKNOWN"), (Symbol("NIFTY26DECFUT"), D(64), "QUANTITY_LOT"),
        (Symbol("NIFTY 50"), D(1), "INSTRUMENT_INDEX"),
    ):  # fmt: skip
        refused = await venue.place_market(OURS, contract, "buy", quantity, datetime.now(UTC))
        assert isinstance(refused, Refused)
        assert refused.code == code
    await made.until(FRIDAY, time(15, 30))
    closed = await venue.place_market(OURS, INFY, "buy", D(1), datetime.now(UTC))
    assert isinstance(closed, Refused)
    assert closed.code == "SESSION_CLOSED"
    assert made.sandbox.exchange.books.last_order_id == orders


async def test_after_the_market_an_order_waits_for_the_next_open(made: Broker, venue: ZerodhaVenue) -> None:
    await made.until(FRIDAY, time(15, 30))
    made.sandbox.exchange.market_time = int(ist(FRIDAY, time(16)).timestamp() * 1_000)
    placed = await venue.place_market(OURS, INFY, "buy", D(10), datetime.now(UTC))
    assert isinstance(placed, Accepted)
    assert (placed.state, placed.filled) == ("WORKING", D(0))
    assert await venue.open_client_order_ids() == {OURS}
    await made.steps(1)
    found = await venue.find_order(OURS, INFY)
    assert found is not None
    assert (found.state, found.filled) == ("FILLED", D(10))
    assert {fill.time for fill in found.fills} == {ist(MONDAY, time(9, 16))}


async def test_what_rests_is_ours_still(made: Broker, venue: ZerodhaVenue) -> None:
    before = (await venue.balances())["INR"]
    rest: Fields = {"transaction_type": "BUY", "order_type": "LIMIT", "validity": "DAY"}
    for fields in (
        {"exchange": "NSE", "tradingsymbol": "INFY", "quantity": 10, "product": "CNC", "price": "1400"},
        {"exchange": "NSE", "tradingsymbol": "INFY", "quantity": 10, "product": "MIS", "price": "1400"},
        {"exchange": "NFO", "tradingsymbol": "NIFTY26DECFUT", "quantity": 65, "product": "NRML", "price": "24000"},
    ):
        assert isinstance(await venue.transport.call("POST", "/orders/regular", form=rest | fields), Success)
    margins = await venue.transport.call("GET", "/user/margins")
    assert isinstance(margins, Success)
    assert D(str(margins.data["equity"]["available"]["live_balance"])) < before - 14_000, "it is blocked at the broker"
    assert abs((await venue.balances())["INR"] - before) < D("0.01")
    await made.until(FRIDAY, time(15, 30))
    made.sandbox.exchange.market_time = int(ist(FRIDAY, time(16)).timestamp() * 1_000)
    overnight = (await venue.balances())["INR"]
    assert isinstance(await venue.place_market(OURS, INFY, "buy", D(10), datetime.now(UTC)), Accepted)
    assert abs((await venue.balances())["INR"] - overnight) < D("0.01")


async def test_money_that_is_not_there_is_the_broker_s_own_refusal(venue: ZerodhaVenue) -> None:
    refused = await venue.place_market(OURS, INFY, "buy", D(50_000), datetime.now(UTC))
    assert isinstance(refused, Refused)
    assert refused.code == "MARGIN_SHORT"
    assert refused.text.startswith("MarginException: Insufficient funds")


async def test_the_route_is_measured(venue: ZerodhaVenue) -> None:
    await venue.measure_route()
    assert (venue.route.exchange, venue.route.source_ip) == ("zerodha", "127.0.0.1")
    assert venue.route.clock_offset_ms is not None
    assert abs(venue.route.clock_offset_ms) < 1_500, "the broker tells whole seconds"


async def test_a_used_request_token_is_refused_with_a_remedy(made: Broker, venue: ZerodhaVenue) -> None:
    with pytest.raises(LoginRefusedError, match=r"LOGIN_TOKEN_USED.*start the login anew"):
        await open_session(venue.transport, "no such token", "secret_bob")


def test_the_real_broker_is_closed_to_an_account_that_is_not_armed() -> None:
    with pytest.raises(NotArmedError):
        ZerodhaVenue(KiteTransport("key", "token"))
    ZerodhaVenue(KiteTransport("key", "token"), armed=True)


def test_tags_are_what_the_broker_takes() -> None:
    tags = {tag_of(f"tp_{number}") for number in range(1_000)}
    assert len(tags) == 1_000
    assert all(len(tag) == 20 and tag.isalnum() and tag.isupper() for tag in tags)
