"""The application: what it is made of and how it starts and stops.

    app = create_app(Databases(settings()))

Routes are by topic in `routes/`; who may call them is in `identity.py`.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse

from trading_platform.accounts.limits import Limiter
from trading_platform.accounts.login import Login
from trading_platform.accounts.sessions import Sessions, valkey
from trading_platform.api import pages, problems
from trading_platform.api.access_log import TELEMETRY, AccessLog
from trading_platform.api.identity import Services
from trading_platform.api.live import LiveHub
from trading_platform.api.routes import (
    books,
    breakers,
    configuration,
    halts,
    health,
    kite,
    learning,
    live_accounts,
    login,
    stream,
)
from trading_platform.observability import alerts
from trading_platform.observability.heartbeat import BEAT_EVERY_SECONDS, beat_async
from trading_platform.storage.databases import Databases

ABOUT = (
    "Signals, orders, positions, limits and the kill switch. Log in with POST /api/session and send the token as "
    "`Authorization: Bearer <token>`; browsers use the cookie from /login. Amounts are decimal strings, times UTC. "
    "Errors are application/problem+json: what was wrong, what was expected, what to do."
)
DELIVER_ALERTS_EVERY_SECONDS = 5.0
log = structlog.get_logger(__name__)


def create_app(databases: Databases, instance: str = "api") -> FastAPI:
    """The API on these databases and the Valkey of their settings. Connections are made on first use."""
    redis = valkey(databases.settings)
    sessions, limiter = Sessions(redis), Limiter(redis)
    services = Services(databases, sessions, limiter, Login(databases, sessions, limiter), LiveHub(databases))

    @asynccontextmanager
    async def running(_: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(_beat(databases, instance)), asyncio.create_task(_deliver_alerts(databases))]
        try:
            yield
        finally:
            await services.live.close()
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            await redis.aclose()
            await databases.aclose()

    app = FastAPI(
        title="Trading platform", version=version("trading-platform"), description=ABOUT, lifespan=running, docs_url=None,
        redoc_url=None, openapi_url="/openapi.json",
        telemetry=TELEMETRY,
    )  # fmt: skip
    app.state.services = services
    app.add_middleware(AccessLog)
    problems.install(app)
    for topic in (login, books, live_accounts, learning, configuration, halts, breakers, kite, health, stream):
        app.include_router(topic.router)

    @app.get("/docs", include_in_schema=False, response_class=HTMLResponse)
    async def reference(request: Request) -> HTMLResponse:
        """The API for people; it loads nothing from elsewhere."""
        description = request.app.openapi()
        return pages.page("reference.html", {"api": description, "topics": _by_topic(description)})

    return app


def _by_topic(description: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    topics: dict[str, list[dict[str, Any]]] = {}
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            entry = {"description": "", "parameters": [], **operation, "path": path, "method": method.upper()}
            topics.setdefault(operation["tags"][0], []).append(entry)
    return topics


async def _beat(databases: Databases, instance: str) -> None:
    while True:
        try:
            async with databases.control_async() as session:
                await beat_async(session, instance, "serving")
        except Exception as error:
            log.warning("heartbeat_failed", error=f"{type(error).__name__}: {error}")
        await asyncio.sleep(BEAT_EVERY_SECONDS)


async def _deliver_alerts(databases: Databases) -> None:
    """Tell new alerts to the notifier of the settings; several instances share the work."""
    if (notifier := alerts.notifier(databases)) is None:
        return
    while True:
        try:
            await asyncio.to_thread(alerts.deliver, databases, notifier)
        except Exception as error:
            log.warning("alert_delivery_failed", error=f"{type(error).__name__}: {error}")
        await asyncio.sleep(DELIVER_ALERTS_EVERY_SECONDS)
