"""Reading an account from the official samples, and from answers that are broken."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kiteconnect import KiteConnect

from tests.venues.zerodha.replayed import Replayed, error, sample, success
from trading_platform.markets.kite_orders import KiteOrder
from trading_platform.venues.port import QueryFailedError
from trading_platform.venues.zerodha import questions
from trading_platform.venues.zerodha.books import Books, lapse_of, order_of
from trading_platform.venues.zerodha.costs import Costs
from trading_platform.venues.zerodha.quotes import MOST_DAYS, Quotes, quote_of, spans
from trading_platform.venues.zerodha.statuses import Lifecycle, lifecycle_of, state_of

D = Decimal


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "PAUSES", (0.01, 0.01))


async def test_the_order_book(kite: Replayed) -> None:
    transport = kite.transport()
    rows = await Books(transport).orders()
    official = KiteConnect("key", "token", root=kite.root)._format_response(sample("orders"))
    assert [row.order_id for row in rows] == [each["order_id"] for each in official]
    for row, theirs in zip(rows, official, strict=True):
        assert (row.filled, row.side, row.product) == (
            theirs["filled_quantity"],
            theirs["transaction_type"],
            theirs["product"],
        )
        # The official client leaves times naive: they are Indian.
        assert row.placed_at == theirs["order_timestamp"].replace(tzinfo=UTC) - timedelta(hours=5, minutes=30)
    assert rows[8].order_id == "1953341975595868160", "more digits than a float holds"
    assert [row.lifecycle.value for row in rows] == [
        "CANCELLED", "FILLED", "FILLED", "REJECTED", "FILLED", "FILLED", "CANCELLED", "CANCELLED", "FILLED", "FILLED",
    ]  # fmt: skip
    assert rows[3].exchange_order_id is None
    assert rows[9].tags == {"autoslice", "autoslice:1953367517640548352"}
    await transport.close()


async def test_a_protected_market_order_is_known_though_it_shows_as_a_limit(kite: Replayed) -> None:
    row = sample("orders")[8]
    assert (row["order_type"], row["market_protection"], row["tags"]) == ("LIMIT", 0, ["mktp", "mktp:2.00"])
    sent = KiteOrder("NSE", row["tradingsymbol"], "BUY", 1, "CNC", "MARKET", market_protection=D(2), tag="TPOURS")
    shown = order_of(row | {"tag": "TPOURS", "tags": ["TPOURS", "mktp", "mktp:2.00"]})
    assert shown.was_protected_market
    assert shown.is_of(sent)
    for other in (
        replace(sent, tag="TPOTHER"),
        replace(sent, quantity=2),
        replace(sent, side="SELL"),
        replace(sent, product="MIS"),
    ):
        assert not shown.is_of(other)


@pytest.mark.parametrize(
    ("status", "filled", "lifecycle", "state"),
    [
        ("PUT ORDER REQ RECEIVED", 0, "SUBMITTED", "WORKING"), ("VALIDATION PENDING", 0, "SUBMITTED", "WORKING"),
        ("OPEN PENDING", 0, "SUBMITTED", "WORKING"), ("AMO REQ RECEIVED", 0, "QUEUED_AMO", "WORKING"),
        ("TRIGGER PENDING", 0, "ARMED", "WORKING"), ("OPEN", 0, "WORKING", "WORKING"),
        ("OPEN", 4, "PARTIALLY_FILLED", "PARTIALLY_FILLED"), ("MODIFIED", 0, "WORKING", "WORKING"),
        ("MODIFY PENDING", 4, "MODIFY_PENDING", "PARTIALLY_FILLED"), ("CANCEL PENDING", 0, "CANCEL_PENDING", "WORKING"),
        ("COMPLETE", 10, "FILLED", "FILLED"), ("CANCELLED", 0, "CANCELLED", "CANCELLED"),
        ("CANCELLED", 4, "CANCELLED_PARTIAL", "CANCELLED"), ("REJECTED", 0, "REJECTED", "REJECTED"),
        ("UPDATE", 0, "UNKNOWN_BROKER_STATUS", "WORKING"), ("SOMETHING NEW", 10, "UNKNOWN_BROKER_STATUS", "PARTIALLY_FILLED"),
    ],
)  # fmt: skip
def test_statuses(status: str, filled: int, lifecycle: str, state: str) -> None:
    row = {"status": status, "filled_quantity": filled, "order_id": "1"}
    assert (lifecycle_of(row), state_of(row)) == (lifecycle, state)
    assert lifecycle_of(row).ended == (state in ("FILLED", "CANCELLED", "REJECTED"))


@pytest.mark.parametrize(
    ("stamp", "auction", "cause"),
    [
        ("2026-11-20 15:30:05", False, "the day ended"), ("2026-11-20 15:31:00", True, "the closing auction did not match it"),
        ("2026-11-20 15:15:01", True, "the closing auction does not take it"),
        ("2026-11-20 11:00:00", False, "a price band moved, or the broker acted"),
    ],
)  # fmt: skip
def test_a_cancellation_that_nobody_asked_for_has_its_cause(stamp: str, auction: bool, cause: str) -> None:
    order = order_of(sample("orders")[0] | {"exchange": "NSE", "exchange_update_timestamp": stamp})
    assert lapse_of(order, cancelled_by_us=False, closing_auction=auction) == f"ORDER_LAPSED: {cause}"
    assert lapse_of(order, cancelled_by_us=True) is None
    assert lapse_of(order_of(sample("orders")[1]), cancelled_by_us=False) is None


async def test_the_history_of_an_order_is_in_the_broker_s_order(kite: Replayed) -> None:
    transport = kite.transport()
    steps = await Books(transport).history("171229000724687")  # type: ignore[arg-type]
    assert [step.status for step in steps] == [row["status"] for row in sample("order_info")]
    assert steps[-1].lifecycle in set(Lifecycle)
    await transport.close()


async def test_trades_positions_holdings_and_money(kite: Replayed) -> None:
    transport = kite.transport()
    books = Books(transport)
    (trade,) = await books.trades("200000000000000")  # type: ignore[arg-type]
    assert (trade.price, trade.filled_at) == (D(4852), datetime(2021, 5, 31, 10, 30, 36, tzinfo=UTC))
    assert len(await books.trades()) == len(sample("trades"))
    net, day = await books.positions(), await books.positions(of_day=True)
    assert (net[0].tradingsymbol, net[0].quantity, net[0].multiplier) == ("LEADMINI17DECFUT", 1, 1000)
    assert len(day) == len(sample("positions")["day"])
    funds = await books.funds()
    assert (funds["equity"].usable, funds["equity"].span) == (D("99725.05000000002"), D(101989))
    holding = (await books.holdings())[1]
    assert (holding.sellable(standing_authority=True), holding.sellable(standing_authority=False)) == (16, 0)
    pledged = replace(holding, collateral_quantity=6, used_quantity=4, t1_quantity=3, authorised_quantity=5)
    assert pledged.sellable(standing_authority=True) == 6
    assert pledged.sellable(standing_authority=False) == 5
    assert pledged.sellable(standing_authority=True, before_delivery=True) == 9
    assert set(await books.auctions()) == {"20", "34", "7529"}
    await transport.close()


async def test_what_orders_cost(kite: Replayed) -> None:
    transport = kite.transport()
    costs = Costs(transport)
    order = KiteOrder("NSE", "INFY", "BUY", 1, "CNC", "LIMIT", price=D(1498))
    (margin,) = await costs.order_margins([order])
    assert (margin.total, margin.var) == (D(1498), D(1498))
    assert margin.charges is not None
    assert margin.charges.total == D("1.79255122")
    assert kite.asked[-1].json == [
        {
            "exchange": "NSE", "tradingsymbol": "INFY", "transaction_type": "BUY", "variety": "regular", "product": "CNC",
            "order_type": "LIMIT", "quantity": 1, "price": 1498.0, "trigger_price": 0.0,
        }
    ]  # fmt: skip
    basket = await costs.basket_margin([order, order])
    assert (basket.initial, basket.final, len(basket.orders)) == (D("96504.975"), D("34786.725000000006"), 2)
    assert kite.asked[-1].query == [("consider_positions", "true")]
    traded = (await Books(transport).orders())[1]
    charges = await costs.charges([(traded, D(560))])
    assert charges[0].total == D("0.5826968")
    assert kite.asked[-1].json[0]["average_price"] == 560.0
    await transport.close()


async def test_questions_are_repeated_and_refusals_are_not(kite: Replayed) -> None:
    transport = kite.transport()
    key = ("GET", "/orders")
    kite.answers[key] = [(504, b"<html>504</html>"), error(429, "NetworkException", "Too many requests"), success([])]
    assert await Books(transport).orders() == []
    kite.answers[key] = [error(403, "TokenException", "Incorrect `api_key` or `access_token`."), success([])]
    with pytest.raises(QueryFailedError, match="AUTH_REQUIRED"):
        await Books(transport).orders()
    assert kite.answers[key] == [success([])], "a lost session is not asked again"
    kite.answers[key] = [(502, b"")] * 3
    with pytest.raises(QueryFailedError, match="502"):
        await Books(transport).orders()
    for broken in ({}, [1], [{"order_id": "1"}], [None], "text"):
        kite.answers[key] = success(broken)
        with pytest.raises(QueryFailedError):
            await Books(transport).orders()
    await transport.close()


async def test_quotes_in_batches(kite: Replayed) -> None:
    transport = kite.transport()
    quotes = Quotes(transport)
    found = (await quotes.full(["NSE:INFY"]))["NSE:INFY"]
    assert (found.limits.lower, found.limits.upper, found.close) == (D("1250.7"), D("1528.6"), D("1389.65"))
    assert (found.bids, found.offers[0].quantity, found.locked) == ((), 5191, None)
    assert found.at == datetime(2021, 6, 8, 10, 15, 56, tzinfo=UTC)
    kite.asked.clear()
    await quotes.full([f"NSE:S{number}" for number in range(1001)])
    assert [len(asked.query) for asked in kite.asked] == [500, 500, 1]
    assert await quotes.last_prices(["NSE:INFY", "NSE:NONE"]) == {"NSE:INFY": D("1074.35")}
    ranges = await quotes.trigger_range("buy", ["NSE:INFY", "NSE:RELIANCE"])
    assert ranges["NSE:INFY"].upper == D("1138.2")
    await transport.close()


def test_a_locked_circuit_is_seen() -> None:
    row = sample("quote")["NSE:INFY"]
    assert quote_of("x", row | {"last_price": 1250.7}).locked == "lower"
    assert quote_of("x", row | {"last_price": 1528.6}).locked is None, "somebody still sells"
    none = row | {"last_price": 1528.6, "lower_circuit_limit": 0, "upper_circuit_limit": 0, "depth": {}}
    assert quote_of("x", none).locked is None


async def test_candles_come_in_pieces_and_each_once(kite: Replayed) -> None:
    transport = kite.transport()
    path = "/instruments/historical/408065/minute"
    kite.answers["GET", path] = success(sample("historical_oi"))
    first = date(2019, 10, 1)
    found = await Quotes(transport).candles(408065, "minute", first, first + timedelta(days=120), oi=True)
    asked = [dict(each.query) for each in kite.asked]
    assert [each["from"] for each in asked] == ["2019-10-01 00:00:00", "2019-11-30 00:00:00", "2020-01-29 00:00:00"]
    assert [each["to"] for each in asked] == ["2019-11-29 23:59:59", "2020-01-28 23:59:59", "2020-01-29 23:59:59"]
    assert len(found) == 6
    assert (found[0].opened_at, found[0].close, found[0].oi) == (
        datetime(2019, 12, 4, 3, 45, tzinfo=UTC), D("12001.5"), 13667775,
    )  # fmt: skip
    with pytest.raises(ValueError, match="daily"):
        await Quotes(transport).candles(1, "minute", first, first, continuous=True)
    for broken in ({}, {"candles": [[1]]}, {"candles": [["x", 1, 2, 3, 4, 5]]}, None):
        kite.answers["GET", path] = success(broken)
        with pytest.raises(QueryFailedError):
            await Quotes(transport).candles(408065, "minute", first, first)
    await transport.close()


@settings(max_examples=60, deadline=None)
@given(st.dates(date(2000, 1, 1), date(2030, 1, 1)), st.integers(0, 5000), st.sampled_from(sorted(MOST_DAYS.values())))
def test_spans_cover_every_day_once(first: date, days: int, most: int) -> None:
    last = first + timedelta(days=days)
    covered = [
        begins + timedelta(days=offset)
        for begins, ends in spans(first, last, most)
        for offset in range((ends - begins).days + 1)
        if (ends - begins).days < most
    ]
    assert covered == [first + timedelta(days=offset) for offset in range(days + 1)]
