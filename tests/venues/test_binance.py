"""What the venue and the network can answer to an order, and what each answer means."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from trading_platform.identifiers import ClientOrderId, Symbol
from trading_platform.venues.binance import BinanceVenue, NotArmedError
from trading_platform.venues.port import Accepted, Ambiguous, AuthLost, QueryFailedError, Refused, Throttled

Conversation = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
PLACED = (
    b'{"symbol":"BTCUSDT","orderId":28,"orderListId":-1,"clientOrderId":"tp_1","transactTime":1507725176595,'
    b'"price":"0.00000000","origQty":"10.00000000","executedQty":"10.00000000","cummulativeQuoteQty":"40000.5",'
    b'"status":"FILLED","timeInForce":"GTC","type":"MARKET","side":"SELL","fills":['
    b'{"price":"4000.00000000","qty":"1.00000000","commission":"4.00000000","commissionAsset":"USDT","tradeId":56},'
    b'{"price":"4000.05555555","qty":"9.00000000","commission":"0.1","commissionAsset":"USDT","tradeId":57}]}'
)
"""The shape of the official documentation's example of a FULL answer."""


def says(status: int, body: bytes, content_type: str = "application/json", extra: str = "") -> Conversation:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 {status} X\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
        writer.write(head.encode() + body)
        await writer.drain()

    return talk


async def resets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.transport.abort()


async def stalls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(30)


@asynccontextmanager
async def venue(talk: Conversation) -> AsyncIterator[BinanceVenue]:
    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    made = BinanceVenue(f"http://127.0.0.1:{port}", "key", "secret")
    made.client.timeout = 700
    made.wire.timeout_seconds = 0.7
    try:
        yield made
    finally:
        await made.close()
        server.close()


async def place(talk: Conversation) -> object:
    async with venue(talk) as made:
        return await made.place_market(
            ClientOrderId("tp_1"), Symbol("BTC/USDT"), "sell", Decimal(10), datetime.now(UTC)
        )


def error(code: int, text: str) -> bytes:
    return f'{{"code": {code}, "msg": "{text}"}}'.encode()


async def test_a_full_answer_becomes_exact_fills() -> None:
    result = await place(says(200, PLACED))
    assert isinstance(result, Accepted)
    assert (result.venue_order_id, result.state, result.complete) == ("28", "FILLED", True)
    assert [fill.price for fill in result.fills] == [Decimal("4000.00000000"), Decimal("4000.05555555")]
    assert sum(fill.quantity for fill in result.fills) == Decimal(10)
    assert result.fills[0].time.isoformat() == "2017-10-11T12:32:56.595000+00:00"


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, error(-2010, "Account has insufficient balance for requested action."), Refused),
        (400, error(-1013, "Filter failure: LOT_SIZE"), Refused),
        (400, error(-1121, "Invalid symbol."), Refused),
        (400, error(-1021, "Timestamp for this request is outside of the recvWindow."), Refused),
        (401, error(-2015, "Invalid API-key, IP, or permissions for action."), AuthLost),
        (401, error(-2014, "API-key format invalid."), AuthLost),
        (429, error(-1003, "Too many requests"), Throttled),
        (418, error(-1003, "Way too many requests; IP banned"), Throttled),
        (503, error(-1001, "Internal error; unable to process your request."), Ambiguous),
        (500, error(-1007, "Timeout waiting for response from backend server."), Ambiguous),
        (400, error(-2010, "Duplicate order sent."), Ambiguous),
        (400, error(-1006, "An unexpected response was received. Execution status unknown."), Ambiguous),
        (429, b"<html>slow down</html>", Throttled),
        (403, b"<html>WAF</html>", Ambiguous),
        (504, b"<html><body>504 Gateway Time-out</body></html>", Ambiguous),
        (502, b"<html>bad gateway</html>", Ambiguous),
        (200, b"", Ambiguous),
        (200, b"[]", Ambiguous),
        (200, b'{"orderId": 3}', Ambiguous),
    ],
)
async def test_what_an_answer_means(status: int, body: bytes, kind: type) -> None:
    assert isinstance(await place(says(status, body)), kind)


@pytest.mark.parametrize("talk", [resets, stalls])
async def test_no_answer_after_sending_is_ambiguous(talk: Conversation) -> None:
    assert isinstance(await place(talk), Ambiguous)


async def test_an_order_is_made_out_by_the_call_and_sent_once_when_it_is_awaited() -> None:
    asked = list[bytes]()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(PLACED), PLACED))

    async with venue(talk) as made:
        order = made.place_market(ClientOrderId("tp_1"), Symbol("BTC/USDT"), "sell", Decimal(10), datetime.now(UTC))
        await asyncio.sleep(0.05)
        assert asked == []
        assert isinstance(await order, Accepted)
        with pytest.raises(RuntimeError, match="sent already"):
            await order
        assert len(asked) == 1


async def test_a_key_that_no_request_can_carry_sends_nothing_and_is_no_refusal() -> None:
    asked = list[bool]()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(True)

    async with venue(talk) as made:
        made.client.apiKey = "key\r\nX-Other: 1"
        order = made.place_market(ClientOrderId("tp_1"), Symbol("BTC/USDT"), "sell", Decimal(10), datetime.now(UTC))
        result = await order
    assert isinstance(result, Ambiguous)
    assert "X-Other" not in result.cause
    assert asked == []


async def test_a_failed_question_is_not_an_absent_order() -> None:
    async with venue(says(503, b"<html>down</html>")) as made:
        with pytest.raises(QueryFailedError):
            await made.find_order(ClientOrderId("tp_1"), Symbol("BTC/USDT"))
        with pytest.raises(QueryFailedError):
            await made.balances()


async def test_only_the_venues_own_word_is_an_absent_order() -> None:
    async with venue(says(400, error(-2013, "Order does not exist."))) as made:
        assert await made.find_order(ClientOrderId("tp_1"), Symbol("BTC/USDT")) is None


def test_the_real_exchange_is_closed_to_an_account_that_is_not_armed() -> None:
    with pytest.raises(NotArmedError, match="armed"):
        BinanceVenue(None, "key", "secret")
