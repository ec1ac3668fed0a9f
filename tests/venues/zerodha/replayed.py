"""A server on a real socket that answers each route with an official sample, and keeps what it was asked."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from aiohttp import web

from tests.conftest import SHARED
from trading_platform.venues.zerodha.transport import KiteTransport

MOCKS = SHARED / "kite-mocks"
FILES = {
    ("POST", "/session/token"): "generate_session", ("DELETE", "/session/token"): "session_logout",
    ("GET", "/user/profile"): "profile", ("GET", "/user/margins"): "margins", ("GET", "/orders"): "orders",
    ("POST", "/orders/regular"): "order_response", ("PUT", "/orders/regular/151220000000000"): "order_modify",
    ("DELETE", "/orders/regular/151220000000000"): "order_cancel", ("DELETE", "/orders/co/2"): "order_cancel",
    ("GET", "/orders/171229000724687"): "order_info", ("GET", "/orders/200000000000000/trades"): "order_trades",
    ("GET", "/trades"): "trades", ("GET", "/portfolio/positions"): "positions",
    ("PUT", "/portfolio/positions"): "convert_position", ("GET", "/portfolio/holdings"): "holdings",
    ("GET", "/portfolio/holdings/auctions"): "auctions_list",
    ("POST", "/portfolio/holdings/authorise"): "holdings_auth", ("POST", "/margins/orders"): "order_margins",
    ("POST", "/margins/basket"): "basket_margins", ("POST", "/charges/orders"): "virtual_contract_note",
    ("GET", "/quote"): "quote", ("GET", "/quote/ltp"): "ltp", ("GET", "/quote/ohlc"): "ohlc",
    ("GET", "/instruments/trigger_range/buy"): "trigger_range", ("GET", "/gtt/triggers"): "gtt_get_orders",
    ("GET", "/gtt/triggers/123"): "gtt_get_order", ("POST", "/gtt/triggers"): "gtt_place_order",
    ("PUT", "/gtt/triggers/123"): "gtt_modify_order", ("DELETE", "/gtt/triggers/123"): "gtt_delete_order",
}  # fmt: skip


@dataclass
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    query: list[tuple[str, str]]
    form: dict[str, str]
    json: Any
    headers: Mapping[str, str]


@dataclass
class Replayed:
    """The server. `answers` replace samples: (method, path) -> (status, body); a list is used up first to last."""

    answers: dict[tuple[str, str], Any] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    root: str = ""

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        is_json = request.content_type == "application/json"
        self.asked.append(
            Asked(
                request.method, request.path, list(request.query.items()),
                {} if is_json else {name: str(value) for name, value in (await request.post()).items()},
                orjson.loads(body) if is_json and body else None, dict(request.headers),
            )
        )  # fmt: skip
        given = self.answers.get((request.method, request.path))
        if isinstance(given, list):
            given = given.pop(0)
        if given is not None:
            status, content = given
            return web.Response(status=status, body=content if isinstance(content, bytes) else orjson.dumps(content))
        name = FILES.get((request.method, request.path))
        if name is None:
            return web.json_response(
                {"status": "error", "message": "Route not found", "error_type": "GeneralException"}, status=404
            )
        return web.Response(body=(MOCKS / f"{name}.json").read_bytes(), content_type="application/json")

    def transport(self, **given: Any) -> KiteTransport:
        return KiteTransport("key", "token", root=self.root, **given)


def success(data: Any) -> tuple[int, Any]:
    return 200, {"status": "success", "data": data}


def error(status: int, kind: str, message: str) -> tuple[int, Any]:
    return status, {"status": "error", "message": message, "error_type": kind, "data": None}


def sample(name: str) -> Any:
    """`data` of an official sample. Skips the test that asks for it where they are absent."""
    if not MOCKS.exists():
        pytest.skip(f"the official samples are not at {MOCKS}")
    return orjson.loads((MOCKS / f"{name}.json").read_bytes())["data"]


@asynccontextmanager
async def replay() -> AsyncIterator[Replayed]:
    if not MOCKS.exists():
        pytest.skip("the folder ../shared/kite-mocks is not here")
    server = Replayed()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.root = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()
