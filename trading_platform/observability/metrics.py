"""Metrics: all of them declared here, with unit and meaning, so that a dashboard's author has one place to look.

    metrics.serve("engine:g1", settings)      # a worker: /metrics on a free loopback port, announced to Prometheus
    metrics.ORDERS.labels(group="g1", result="filled").inc()

Labels have few values: groups, datasets, states. Never a user, an order or a symbol list that grows.
"""

import atexit
import json
import os
from pathlib import Path

from prometheus_client import Counter, Gauge, Histogram, start_http_server

from trading_platform.settings import Settings
from trading_platform.settings import settings as process_settings

_MILLISECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_MICROSECONDS = (2e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 5e-2, 0.1, 0.5)

BARS_COLLECTED = Counter("tp_bars_collected_total", "Bars written to the lake.", ["dataset", "source"])
BARS_QUARANTINED = Counter("tp_bars_quarantined_total", "Rows that broke a rule.", ["dataset", "reason"])
FEED_RECONNECTS = Counter("tp_feed_reconnects_total", "Reconnections of a market data stream.", ["venue"])
MARKET_TIME = Gauge("tp_market_time_seconds", "Market time reached, as seconds since 1970 UTC.", ["dataset"])

SCORING_SECONDS = Histogram(
    "tp_scoring_seconds", "Closed bar to calibrated signal, one symbol and version.", ["dataset"], buckets=_MICROSECONDS
)
SCORER_STEP_SECONDS = Histogram(
    "tp_scorer_step_seconds", "Closed bars of one market time to committed signals.", ["dataset"], buckets=_MILLISECONDS
)
SIGNALS = Counter("tp_signals_total", "Signals written.", ["dataset", "role", "state"])

ORDERS = Counter(
    "tp_orders_total", "Orders by result: sent, filled, rejected, cancelled, unknown, denied.", ["group", "result"]
)
ORDER_SECONDS = Histogram(
    "tp_order_seconds", "Intent committed to the venue's acknowledgement.", ["venue"], buckets=_MILLISECONDS
)
LEASE_AGE = Gauge("tp_lease_age_seconds", "Seconds since the lease was renewed.", ["name"])
ENGINE_STATE = Gauge("tp_engine_running", "1 while the group's engine trades, else 0.", ["group"])
BREAKER_OPEN = Gauge("tp_venue_breaker_open", "1 while calls to the venue are held back.", ["venue"])

API_REQUESTS = Counter("tp_api_requests_total", "Requests answered.", ["route", "method", "status"])
API_SECONDS = Histogram(
    "tp_api_request_seconds", "Time to the first byte of an answer.", ["route"], buckets=_MILLISECONDS
)
API_STREAMS = Gauge("tp_api_streams", "Open event streams.")
LOGINS = Counter("tp_logins_total", "Log-ins by result: ok, refused, throttled.", ["result"])

ALERTS = Counter("tp_alerts_total", "Alerts raised, repetitions counted.", ["source", "severity"])


def serve(service: str, settings: Settings | None = None, port: int = 0) -> int:
    """Serve this process's metrics on 127.0.0.1 and announce the port; 0 takes a free one. Returns the port."""
    server, _ = start_http_server(port, addr="127.0.0.1")
    chosen = int(server.server_port)
    announce(service, chosen, settings)
    return chosen


def announce(service: str, port: int, settings: Settings | None = None) -> None:
    """Write `<home>/run/metrics/<service>.json` for Prometheus' file_sd_configs; removed at the process's end."""
    chosen = settings or process_settings()
    path = targets_dir(chosen) / f"{service.replace(':', '_').replace('/', '_')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    target = {"targets": [f"127.0.0.1:{port}"], "labels": {"service": service, "environment": chosen.environment}}
    written = path.with_suffix(f".{os.getpid()}.tmp")
    written.write_text(json.dumps([target]))
    written.replace(path)
    atexit.register(path.unlink, missing_ok=True)


def targets_dir(settings: Settings) -> Path:
    """Where the processes of this deployment say on which ports their metrics are."""
    return settings.run_dir / "metrics"


def targets(settings: Settings) -> dict[str, str]:
    """{service: host:port} of every process that announced itself."""
    found: dict[str, str] = {}
    for path in sorted(targets_dir(settings).glob("*.json")):
        for entry in json.loads(path.read_text()):
            found[entry["labels"]["service"]] = entry["targets"][0]
    return found
