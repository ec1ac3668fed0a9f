"""What surrounds every request: a span, a line in the log, metrics, and the headers that browsers obey.

A plain ASGI wrapper: Starlette's BaseHTTPMiddleware would put a task and a queue between server and route.
"""

import time

import structlog
from opentelemetry import propagate, trace
from opentelemetry.trace import SpanKind, Status, StatusCode
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trading_platform.observability import metrics
from trading_platform.observability.traces import tracer

QUIET_ROUTES = {"/api/health/live", "/api/health/ready", "/auth/check", "/metrics"}
"""Asked every second by machines: counted, not logged."""
SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"SAMEORIGIN"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
STRICT_TRANSPORT = (b"strict-transport-security", b"max-age=31536000")
log = structlog.get_logger("trading_platform.api.access")
_tracer = tracer(__name__)


class AccessLog:
    """Wraps the application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        encrypted = headers.get("x-forwarded-proto", scope["scheme"]) == "https"
        started, status = time.perf_counter(), 500
        scope.setdefault("state", {})

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = _with_security(message["headers"], encrypted)
            await send(message)

        parent = propagate.extract(headers)
        with _tracer.start_as_current_span(scope["method"], parent, SpanKind.SERVER) as span:
            try:
                await self._app(scope, receive, answer)
            finally:
                seconds = time.perf_counter() - started
                route = getattr(scope.get("route"), "path", "unmatched")
                metrics.API_REQUESTS.labels(route, scope["method"], str(status)).inc()
                metrics.API_SECONDS.labels(route).observe(seconds)
                _describe(span, scope, route, status)
                if route not in QUIET_ROUTES or status >= 500:
                    log.info(
                        "request", method=scope["method"], route=route, path=scope["path"], status=status,
                        milliseconds=round(seconds * 1000, 2), user_id=scope["state"].get("user_id"),
                        client=(scope.get("client") or ("",))[0],
                    )  # fmt: skip


def _describe(span: trace.Span, scope: Scope, route: str, status: int) -> None:
    """Attributes by OpenTelemetry's HTTP conventions."""
    if not span.is_recording():
        return
    span.update_name(f"{scope['method']} {route}")
    span.set_attribute("http.request.method", scope["method"])
    span.set_attribute("http.route", route)
    span.set_attribute("http.response.status_code", status)
    if user_id := scope["state"].get("user_id"):
        span.set_attribute("user.id", user_id)
    if status >= 500:
        span.set_status(Status(StatusCode.ERROR))


def _with_security(headers: list[tuple[bytes, bytes]], encrypted: bool) -> list[tuple[bytes, bytes]]:
    added = [*SECURITY_HEADERS, *([STRICT_TRANSPORT] if encrypted else [])]
    present = {name.lower() for name, _ in headers}
    if b"cache-control" not in present:
        added.append((b"cache-control", b"no-store"))
    if b"content-security-policy" not in present:
        added.append((b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"))
    return [*headers, *added]
