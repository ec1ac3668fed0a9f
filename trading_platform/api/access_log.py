"""What surrounds every request besides its span: a line in the log, metrics, and the headers that browsers obey.

A plain ASGI wrapper: Starlette's BaseHTTPMiddleware would put a task and a queue between server and route. The span
is FastAPI's own (`TELEMETRY`), so the line carries its trace id.
"""

import time

import structlog
from fastapi.telemetry import TelemetryConfig
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trading_platform.observability import metrics

QUIET_PATHS = {"/api/health/live", "/api/health/ready", "/auth/check", "/metrics"}
"""Asked every second by machines: counted, neither logged nor traced unless they fail."""
SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"SAMEORIGIN"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
STRICT_TRANSPORT = (b"strict-transport-security", b"max-age=31536000")
TELEMETRY: TelemetryConfig = {
    "operation_spans": False,
    "metrics": False,
    "logs": False,
    "auto_configure": False,
    "exclude": lambda scope: scope["path"] in QUIET_PATHS,
}
"""One server span a request; exporters are `observability.traces`' business."""
log = structlog.get_logger("trading_platform.api.access")


class AccessLog:
    """Wraps the routes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status, seconds = time.perf_counter(), 500, None

        async def answer(message: Message) -> None:
            nonlocal status, seconds
            if message["type"] == "http.response.start":
                status, seconds = message["status"], time.perf_counter() - started
                message["headers"] = _with_security(scope, message["headers"])
            await send(message)

        try:
            await self._app(scope, receive, answer)
        finally:
            _observe(scope, status, time.perf_counter() - started if seconds is None else seconds)


def _observe(scope: Scope, status: int, seconds: float) -> None:
    """`seconds` are those to the first byte: a live stream goes on for hours."""
    route = getattr(scope.get("route"), "path", "unmatched")
    metrics.API_REQUESTS.labels(route, scope["method"], str(status)).inc()
    metrics.API_SECONDS.labels(route).observe(seconds)
    if scope["path"] in QUIET_PATHS and status < 500:
        return
    log.info(
        "request",
        method=scope["method"],
        route=route,
        path=scope["path"],
        status=status,
        milliseconds=round(seconds * 1000, 2),
        user_id=scope.get("state", {}).get("user_id"),
        client=(scope.get("client") or ("",))[0],
    )


def _with_security(scope: Scope, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    added = list(SECURITY_HEADERS)
    if dict(scope["headers"]).get(b"x-forwarded-proto", scope["scheme"].encode()) == b"https":
        added.append(STRICT_TRANSPORT)
    present = {name.lower() for name, _ in headers}
    if b"cache-control" not in present:
        added.append((b"cache-control", b"no-store"))
    if b"content-security-policy" not in present:
        added.append((b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"))
    return [*headers, *added]
