"""Things that go wrong at exchanges, on purpose: which fault strikes what, how often, decided by a script or a seed.

A fault names its kind, and which requests or frames it strikes (`door`, `route`). It lets the first `after` of them pass and
strikes the next `times` (0: all); with `probability` it draws for each of them instead, from the seed and its place in the
list. So equal files, seeds and requests give equal faults. `faulty` is what does it to HTTP; streams and order desks ask
for theirs.
"""

import asyncio
import json
import random
import tomllib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

HTTP_KINDS = frozenset(
    {"timeout_after_acceptance", "timed_out_400", "too_many_requests", "server_error", "malformed_json", "disconnect", "token_rollover"}
)  # fmt: skip
STREAM_KINDS = frozenset({"drop_socket", "half_open", "duplicate_updates", "reorder_updates"})
ORDER_KINDS = frozenset({"hide_order", "late_fill"})
STANDING_KINDS = frozenset({"clock_skew"})
KINDS = HTTP_KINDS | STREAM_KINDS | ORDER_KINDS | STANDING_KINDS
DOORS = frozenset({"kite", "binance", "any"})
LONGEST_SECONDS = 3_600.0
HTML = "<html><head><title>{status}</title></head><body><center><h1>{status}</h1></center><hr>gateway</body></html>"
MAYBE_PLACED = {
    "kite": (400, {"status": "error", "message": "Order request timed out. Please check the order book and confirm before placing again.", "error_type": "OrderException", "data": None}),
    "binance": (400, {"code": -1007, "msg": "Timeout waiting for response from backend server. Send status unknown; execution status unknown."}),
}  # fmt: skip
TOO_MANY = {
    "kite": {"status": "error", "message": "Too many requests", "error_type": "NetworkException", "data": None},
    "binance": {"code": -1003, "msg": "Too many requests; current limit is exceeded."},
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class BadFaultError(ValueError):
    """A fault that cannot be; the message says which field, and what it may be."""


@dataclass(frozen=True)
class Fault:
    """`route`: "METHOD /path", or for streams "order" or "tick"; with * and ?. `seconds`: of a wait, or of a clock."""

    kind: str
    door: str = "any"
    route: str = "*"
    after: int = 0
    times: int = 1
    probability: float | None = None
    seconds: float = 10.0
    status: int = 502
    accepted: bool = True
    """Whether what was asked for was done before the answer was lost (server_error, disconnect)."""

    @classmethod
    def read(cls, values: object) -> "Fault":
        """Raises `BadFaultError`."""
        if not isinstance(values, dict) or not isinstance(values.get("kind"), str):
            raise BadFaultError(f"a fault is a table with a kind, one of {', '.join(sorted(KINDS))}; got {values!r}")
        known = {each.name: each.type for each in fields(cls)}
        if unknown := sorted(map(str, values.keys() - known.keys())):
            raise BadFaultError(f"a fault has no {', '.join(unknown)}; it has {', '.join(known)}")
        _must("kind", values["kind"] in KINDS, values["kind"], f"one of {', '.join(sorted(KINDS))}")
        _must("door", values.get("door", "any") in DOORS, values.get("door"), "kite, binance or any")
        _must("route", isinstance(values.get("route", ""), str), values.get("route"), 'text such as "POST /orders/*"')
        for name in ("after", "times", "status"):
            value = values.get(name, 0)
            whole = isinstance(value, int) and not isinstance(value, bool) and value >= 0
            _must(name, whole, value, "a whole number, 0 or more")
        _must("status", values.get("status", 502) in range(500, 600), values.get("status"), "500 to 599")
        chance, seconds = values.get("probability"), values.get("seconds", 0)
        _must("probability", chance is None or (_is_number(chance) and 0 <= chance <= 1), chance, "between 0 and 1")
        _must("seconds", _is_number(seconds) and abs(seconds) <= LONGEST_SECONDS, seconds, "a number, at most an hour")
        _must("accepted", isinstance(values.get("accepted", True), bool), values.get("accepted"), "true or false")
        return cls(**values)


@dataclass
class Armed:
    """A fault, and how often it was asked for and struck."""

    fault: Fault
    draw: random.Random
    seen: int = 0
    struck: int = 0

    def strikes(self) -> bool:
        self.seen += 1
        fault = self.fault
        if fault.probability is not None:
            hit = self.draw.random() < fault.probability
        else:
            hit = self.seen > fault.after and (fault.times == 0 or self.struck < fault.times)
        self.struck += hit
        return hit


@dataclass
class Faults:
    """All faults of an exchange, in the order in which they were given: the first that strikes is the one."""

    seed: int = 0
    armed: list[Armed] = field(default_factory=list)
    given: int = 0

    @classmethod
    def load(cls, path: Path | None, seed: int) -> "Faults":
        """From a TOML file ([[fault]] tables) or a JSON list. Raises `BadFaultError`."""
        faults = cls(seed)
        if path is None:
            return faults
        try:
            text = path.read_text()
            rows = json.loads(text) if path.suffix == ".json" else tomllib.loads(text).get("fault", [])
        except (OSError, ValueError) as problem:
            raise BadFaultError(f"{path}: cannot be read as faults: {problem}") from problem
        if not isinstance(rows, list):
            raise BadFaultError(f"{path}: expected a list of faults, or [[fault]] tables")
        faults.inject(rows)
        return faults

    def inject(self, rows: Iterable[object]) -> None:
        """All or, where one cannot be, none of them. Raises `BadFaultError`."""
        for fault in [Fault.read(row) for row in rows]:
            self.armed.append(Armed(fault, random.Random(f"{self.seed}:{self.given}")))  # noqa: S311
            self.given += 1

    def clear(self) -> None:
        self.armed.clear()

    def shown(self) -> list[dict[str, Any]]:
        return [asdict(each.fault) | {"seen": each.seen, "struck": each.struck} for each in self.armed]

    def strike(self, kinds: frozenset[str], door: str, route: str) -> Fault | None:
        """The fault that strikes a request, a frame or an order now."""
        for each in self.armed:
            fault = each.fault
            meant = fault.kind in kinds and fault.door in (door, "any") and fnmatchcase(route, fault.route)
            if meant and each.strikes():
                return fault
        return None

    def skew(self, door: str) -> float:
        """By how many seconds a door's clock is wrong."""
        return sum(
            each.fault.seconds
            for each in self.armed
            if each.fault.kind == "clock_skew" and each.fault.door in (door, "any")
        )


class Unsteady:
    """What a stream does to its frames: once each, unless a fault says otherwise."""

    def __init__(self, faults: Faults, door: str) -> None:
        self.faults, self.door = faults, door
        self.half_open = False
        self._kept: list[Any] = []

    def pass_on(self, what: str, frame: Any) -> list[Any] | None:
        """The frames to send instead of `frame` ("order" or "tick"); None: the socket is to be dropped."""
        if self.half_open:
            return []
        fault = self.faults.strike(STREAM_KINDS, self.door, what)
        kind = fault.kind if fault else ""
        if kind == "drop_socket":
            return None
        if kind == "half_open":
            self.half_open = True
            return []
        if kind == "reorder_updates":
            self._kept.append(frame)
            return []
        kept, self._kept = self._kept, []
        return [frame, *([frame] if kind == "duplicate_updates" else []), *kept]


def faulty(faults: Faults, door: str, roll_over: Callable[[], None] = lambda: None) -> Any:
    """A middleware that lets faults strike requests. `roll_over` ends all sessions of the door."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        fault = faults.strike(HTTP_KINDS, door, f"{request.method} {request.path}")
        answer = await (handler(request) if fault is None else _strike(fault, door, request, handler, roll_over))
        skew = faults.skew(door)
        if skew and not answer.prepared:
            answer.headers["Date"] = format_datetime(datetime.now(UTC) + timedelta(seconds=skew), usegmt=True)
            if request.path == "/api/v3/time" and isinstance(answer, web.Response):
                told = orjson.loads(answer.body)  # type: ignore[arg-type]
                return web.json_response({"serverTime": told["serverTime"] + int(skew * 1_000)}, headers={"Date": answer.headers["Date"]})  # fmt: skip
        return answer

    return middleware


async def _strike(
    fault: Fault, door: str, request: web.Request, handler: Handler, roll_over: Callable[[], None]
) -> web.StreamResponse:
    if fault.kind == "too_many_requests":
        return web.json_response(TOO_MANY[door], status=429)
    if fault.kind == "token_rollover":
        roll_over()
        return await handler(request)
    if fault.kind in ("server_error", "disconnect"):
        if fault.accepted:
            await handler(request)
        return _cut(request) if fault.kind == "disconnect" else _gateway(fault.status)
    return await _maybe_placed(fault, door, request, handler)


async def _maybe_placed(fault: Fault, door: str, request: web.Request, handler: Handler) -> web.StreamResponse:
    """What was asked for is done; the answer says otherwise, or comes late, or cannot be read."""
    answer = await handler(request)
    if fault.kind == "timeout_after_acceptance":
        await asyncio.sleep(fault.seconds)
        return answer
    if fault.kind == "timed_out_400":
        status, body = MAYBE_PLACED[door]
        return web.json_response(body, status=status)
    whole = answer.body if isinstance(answer, web.Response) and isinstance(answer.body, bytes) else b'{"status":'
    return web.Response(status=answer.status, body=whole[: max(len(whole) // 2, 1)], content_type="application/json")


def _gateway(status: int) -> web.Response:
    return web.Response(status=status, text=HTML.format(status=status), content_type="text/html")


def _cut(request: web.Request) -> web.StreamResponse:
    """End the connection without an answer."""
    if request.transport is not None:
        request.transport.abort()
    raise ConnectionResetError("the connection was cut by a fault")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _must(name: str, holds: bool, value: object, what: str) -> None:
    if not holds:
        raise BadFaultError(f"{name} is {what}; got {value!r}")
