"""Every row of the error catalogue, and every way in which an answer can be broken."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import pytest
from aiohttp import web

from trading_platform.venues.port import Ambiguous, AuthLost, IpNotAllowed, Refused, Throttled
from trading_platform.venues.zerodha.errors import (
    Meaning,
    as_result,
    catalogue,
    found_state,
    meaning_of,
    meaning_of_rejection,
    states,
)
from trading_platform.venues.zerodha.transport import Failure, KiteTransport, Success, read_answer

DOORS = {
    "refused": Refused, "throttled": Throttled, "ambiguous": Ambiguous, "auth": AuthLost, "ip": IpNotAllowed,
}  # fmt: skip


@pytest.mark.parametrize("row", catalogue(), ids=lambda row: f"{row.number}-{row.code}")
def test_each_text_of_the_catalogue_is_known_for_what_it_is(row: Meaning) -> None:
    where = {"any": "place", "write": "place"}.get(row.where, row.where)
    status = min(row.http) if row.http else 400
    failure = Failure(status, row.error_type or "InputException", row.example)
    found = meaning_of(failure, where)  # type: ignore[arg-type]
    assert (found.number, found.code, found.outcome) == (row.number, row.code, row.outcome)
    assert isinstance(as_result(failure, where), DOORS[row.outcome])  # type: ignore[arg-type]


def test_the_catalogue_is_complete() -> None:
    found = [row.number for row in catalogue()] + [state.number for state in states().values()]
    assert sorted(found) == list(range(1, 45))
    assert [found_state(name).code for name in ("cancelled_by_exchange", "gtt_failed", "autoslice_child_failed")] == [
        "ORDER_LAPSED", "POSITION_UNPROTECTED", "SLICE_REFUSED",
    ]  # fmt: skip
    with pytest.raises(KeyError):
        found_state("none")


@pytest.mark.parametrize(
    ("failure", "where", "expected"),
    [
        # The table of HTTP statuses, with texts that nobody has seen before.
        (Failure(400, "InputException", "something new"), "place", Refused),
        (Failure(403, "TokenException", "something new"), "place", AuthLost),
        (Failure(403, "PermissionException", "something new"), "place", Refused),
        (Failure(404, "GeneralException", "Route not found"), "place", Refused),
        (Failure(405, None, "Requested method not allowed"), "place", Refused),
        (Failure(429, "NetworkException", "something new"), "place", Throttled),
        (Failure(429, None, "<html>slow down</html>"), "place", Throttled),
        (Failure(500, "GeneralException", "something new"), "place", Ambiguous),
        (Failure(502, None, "<html>Bad Gateway</html>"), "place", Ambiguous),
        (Failure(503, "NetworkException", "request timed out"), "place", Ambiguous),
        (Failure(504, None, "<html></html>"), "modify", Ambiguous),
        (Failure(200, None, "not JSON"), "place", Ambiguous),
        (Failure(None, None, "TimeoutError"), "cancel", Ambiguous),
        (Failure(None, None, "no connection", sent=False), "place", Throttled),
        (
            Failure(
                400, "OrderException",
                "Order request timed out. Please check the order book and confirm before placing again.",
            ),
            "place", Ambiguous,
        ),
    ],
)  # fmt: skip
def test_what_an_unheard_of_failure_means(failure: Failure, where: str, expected: type) -> None:
    assert isinstance(as_result(failure, where), expected)  # type: ignore[arg-type]


def test_the_broker_s_own_words_survive() -> None:
    result = as_result(Failure(400, "MarginException", "Insufficient funds. Required margin is 1 but"), "place")
    assert isinstance(result, Refused)
    assert result.code == "MARGIN_SHORT"
    assert result.text.startswith("MarginException: Insufficient funds")


def test_a_throttle_waits_as_long_as_it_is_told() -> None:
    told = as_result(Failure(429, None, "Too many requests", retry_after_seconds=7), "place")
    assert told == Throttled(timedelta(seconds=7))
    assert as_result(Failure(429, None, "Too many requests"), "place") == Throttled(timedelta(seconds=1))


def test_not_every_403_wants_a_new_login() -> None:
    text = "IP (203.0.113.7) is not allowed to place orders for this app. Update allowed IPs on the Kite developer console."
    assert isinstance(as_result(Failure(403, "PermissionException", text), "place"), IpNotAllowed)


def test_an_exchange_s_code_in_the_raw_text_wins() -> None:
    meaning = meaning_of_rejection(
        "Your order was rejected", "17071 : The order could have resulted in self trade [EXCH]"
    )
    assert meaning.code == "SELF_TRADE"
    assert meaning_of_rejection("Something else", None).code == "UNCLASSIFIED"
    assert meaning_of_rejection(None, None).outcome == "refused"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b""), (200, b"<html></html>"), (200, b"[]"), (200, b"null"), (200, b'"text"'), (200, b"{}"),
        (200, b'{"status": "success"}'), (200, b'{"status": "error"}'), (400, b'{"status": "error", "message": null}'),
        (400, b'{"status": "error", "error_type": 7, "message": 8}'), (504, b"<html>504</html>"), (429, b"slow"),
        (200, b'{"status": "success", "data": {}'), (302, b'{"status": "success", "data": 1}'), (200, b"\xff\xfe\x00"),
    ],
)  # fmt: skip
def test_no_answer_makes_an_exception(status: int, body: bytes) -> None:
    answer = read_answer(status, body)
    assert isinstance(answer, Failure)
    assert answer.status == status
    assert answer.message


def test_success_may_hold_nothing() -> None:
    assert read_answer(200, b'{"status": "success", "data": null}') == Success(None)


# --- over a real socket ----------------------------------------------------------------------------------------------

Serve = Callable[[Callable[[web.Request], object]], object]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    runners: list[web.AppRunner] = []

    async def start(handler: Callable[[web.Request], object]) -> KiteTransport:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handler)  # type: ignore[arg-type]
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        runners.append(runner)
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        return KiteTransport("key", "token", root=f"http://127.0.0.1:{port}", timeout_seconds=0.5)

    yield start
    for runner in runners:
        await runner.cleanup()


async def test_what_is_sent(serve: Serve) -> None:
    seen: dict[str, object] = {}

    async def handler(request: web.Request) -> web.Response:
        seen.update(
            path=request.path, query=request.query.getall("i", []), form=dict(await request.post()),
            auth=request.headers.get("Authorization"), version=request.headers.get("X-Kite-Version"),
        )  # fmt: skip
        return web.json_response({"status": "success", "data": {"order_id": "1"}})

    transport = await serve(handler)  # type: ignore[misc]
    answer = await transport.call("POST", "/orders/regular", form={"tradingsymbol": "M&M", "quantity": 1})
    assert answer == Success({"order_id": "1"})
    assert seen["form"] == {"tradingsymbol": "M&M", "quantity": "1"}
    assert (seen["auth"], seen["version"]) == ("token key:token", "3")
    await transport.call("GET", "/quote", query={"i": ["NSE:NIFTY 50", "NSE:M&M"]})
    assert seen["query"] == ["NSE:NIFTY 50", "NSE:M&M"]
    await transport.close()


async def test_silence_and_a_broken_line_are_ambiguous(serve: Serve) -> None:
    async def silent(_: web.Request) -> web.Response:
        await asyncio.sleep(2)
        return web.Response()

    async def breaks_off(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    for handler in (silent, breaks_off):
        transport = await serve(handler)  # type: ignore[misc]
        answer = await transport.call("POST", "/orders/regular", form={})
        assert isinstance(answer, Failure)
        assert answer.sent
        assert isinstance(as_result(answer, "place"), Ambiguous)
        await transport.close()


async def test_a_connection_that_was_never_made_has_sent_nothing() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        transport = KiteTransport("key", "token", root=f"http://127.0.0.1:{taken.getsockname()[1]}")
        answer = await transport.call("POST", "/orders/regular", form={})
    assert isinstance(answer, Failure)
    assert not answer.sent
    await transport.close()
