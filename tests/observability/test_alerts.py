"""Alerts: one row while it lasts, told once, told again when it gets worse, and never lost to a broken notifier."""

import http.server
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import SecretStr
from sqlalchemy import select

from trading_platform.observability import metrics
from trading_platform.observability.alerts import (
    Severity,
    WebhookNotifier,
    deliver,
    fingerprint,
    notifier,
    raise_alert,
    raise_alert_async,
    resolve_alert,
)
from trading_platform.observability.heartbeat import beat
from trading_platform.storage.control import Alert, ServiceStatus
from trading_platform.storage.databases import Databases


class Pager(http.server.ThreadingHTTPServer):
    """A webhook on a real socket; answers `status` and keeps what it was told when that is 200."""

    def __init__(self) -> None:
        self.status = 200
        self.told: list[dict[str, object]] = []
        super().__init__(("127.0.0.1", 0), _Webhook)

    @property
    def url(self) -> SecretStr:
        return SecretStr(f"http://127.0.0.1:{self.server_port}/hook")


class _Webhook(http.server.BaseHTTPRequestHandler):
    server: Pager

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.server.status == 200:
            self.server.told.append(body)
        self.send_response(self.server.status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def pager() -> Iterator[Pager]:
    with Pager() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def sound(databases: Databases, severity: Severity = "warning", detail: str = "") -> int:
    with databases.control() as session:
        return raise_alert(session, severity=severity, source="engine:g1", title="Books differ", detail=detail)


def rows(databases: Databases) -> list[Alert]:
    with databases.control() as session:
        return list(session.scalars(select(Alert).order_by(Alert.alert_id)))


async def test_life_of_an_alert(platform: Databases, pager: Pager) -> None:
    webhook = WebhookNotifier(pager.url)
    before = metrics.ALERTS.labels("engine", "warning")._value.get()
    with ThreadPoolExecutor(8) as pool:  # raised by eight at once: one row
        assert len(set(pool.map(lambda number: sound(platform, detail=f"seen by {number}"), range(8)))) == 1
    assert [(row.count, row.severity) for row in rows(platform)] == [(8, "warning")]
    assert metrics.ALERTS.labels("engine", "warning")._value.get() == before + 8

    pager.status = 500  # not taken: not lost
    assert deliver(platform, webhook) == 0
    pager.status = 200
    with ThreadPoolExecutor(4) as pool:  # told by four at once: told once
        assert sum(pool.map(lambda _: deliver(platform, webhook), range(4))) == 1
    assert [(notice["title"], notice["count"], notice["environment"]) for notice in pager.told] == [
        ("Books differ", 8, "test")
    ]

    sound(platform)  # the same again: counted, not told
    assert deliver(platform, webhook) == 0
    sound(platform, "critical")  # worse: told again
    assert deliver(platform, webhook) == 1
    assert pager.told[-1]["severity"] == "critical"

    with platform.control() as session:
        assert resolve_alert(session, source="engine:g1", title="Books differ")
    with platform.control() as session:
        assert not resolve_alert(session, source="engine:g1", title="Books differ")
    async with platform.control_async() as session:
        again = await raise_alert_async(session, severity="warning", source="engine:g1", title="Books differ")
    await platform.aclose()
    found = rows(platform)
    assert [(row.count, row.resolved_at is None) for row in found] == [(10, False), (1, True)]
    assert found[1].alert_id == again

    first, second = found[0].raised_at, found[0].last_seen_at
    assert first < second
    assert notifier(platform) is None

    with platform.control() as session:
        session.add(ServiceStatus(service="engine:g1", state="DEAD", started_at=first, beat_at=first))
    for state in ("STARTING", "RUNNING"):  # heartbeats are rows too: the newest state of the newest process
        with platform.control() as session:
            beat(session, "engine:g1", state, {"epoch": 2})
    with platform.control() as session:
        status = session.scalars(select(ServiceStatus)).one()
    assert (status.state, status.detail) == ("RUNNING", {"epoch": 2})
    assert status.started_at > first or status.beat_at > first


def test_an_alert_rolls_back_with_its_transaction(platform: Databases) -> None:
    def fail() -> None:
        with platform.control() as session:
            raise_alert(session, severity="info", source="x", title="y")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert rows(platform) == []


def test_labels_tell_alerts_apart_and_their_order_does_not() -> None:
    one = fingerprint("engine:g1", "Late", {"symbol": "A", "user_id": "u"})
    assert one == fingerprint("engine:g1", "Late", {"user_id": "u", "symbol": "A"})
    assert one != fingerprint("engine:g1", "Late", {"user_id": "v", "symbol": "A"})
    assert one != fingerprint("engine:g2", "Late", {"symbol": "A", "user_id": "u"})
