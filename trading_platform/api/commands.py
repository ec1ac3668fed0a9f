"""The service `trading-platform api`."""

import asyncio
import signal
from typing import Annotated

import structlog
import typer

from trading_platform.settings import settings

log = structlog.get_logger(__name__)


def api(
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8401,
    host: Annotated[
        str, typer.Option(help="Address to listen on; the load balancer is what others should reach.")
    ] = "127.0.0.1",
) -> None:
    """Serve the HTTP API, the log-in page and the live streams on one port, in one process.

    Run as many as you like behind the load balancer: they share nothing but PostgreSQL and Valkey. The description
    is at /docs and /openapi.json, metrics (for this machine only) at /metrics. SIGTERM ends open streams and lets
    requests in flight finish.
    """
    import uvloop

    from trading_platform.observability import logs, metrics, traces

    instance = f"api:{port}"
    logs.configure(instance, settings())
    provider = traces.configure_tracing(instance, settings())
    metrics.announce(instance, port, settings())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(host, port, instance))
    provider.shutdown()


async def _serve(host: str, port: int, instance: str) -> None:
    from granian.constants import Interfaces
    from granian.server.embed import Server

    from trading_platform.api.application import create_app
    from trading_platform.storage.databases import Databases

    app = create_app(Databases(settings(), pool_size=10, max_overflow=10), instance)
    server = Server(
        app, address=host, port=port, interface=Interfaces.ASGI, backlog=2048, backpressure=2048,
        websockets=False, log_enabled=False,
    )  # fmt: skip

    async def stop() -> None:
        await app.state.services.live.close()
        server.stop()  # type: ignore[no-untyped-call]

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: loop.create_task(stop()))
    log.info("api_started", host=host, port=port)
    await server.serve()
    log.info("api_stopped")
