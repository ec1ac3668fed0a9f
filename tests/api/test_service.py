"""The service as a whole: a real process on a real socket, limits, headers, health, and servers that are away."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import delete, select, update

from tests.api.conftest import PASSWORD, Api
from trading_platform.accounts.limits import READS, WRITES
from trading_platform.api.application import create_app
from trading_platform.identifiers import GroupId
from trading_platform.observability import metrics
from trading_platform.observability.alerts import raise_alert
from trading_platform.observability.heartbeat import beat
from trading_platform.settings import Settings
from trading_platform.stack.servers import Valkey, free_port, running
from trading_platform.storage.control import ServiceStatus
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import Account, EngineLease


@pytest.fixture(scope="module")
def served(deployment: Settings) -> Iterator[tuple[str, Path, subprocess.Popen[bytes]]]:
    """`trading-platform api` as its own process: (URL, its log, the process)."""
    assert deployment.database_url is not None
    assert deployment.redis_url is not None
    port, log = free_port(), deployment.home / "api.log"
    environment = os.environ | {
        "TP_HOME_DIR": str(deployment.home),
        "TP_DATABASE_URL": deployment.database_url.get_secret_value(),
        "TP_REDIS_URL": deployment.redis_url.get_secret_value(),
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "trading_platform.cli", "api", "--port", str(port)],
            env=environment, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 60
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        try:
            if httpx.get(f"{url}/api/health/ready", timeout=2).status_code == 200:
                break
        except httpx.TransportError:
            time.sleep(0.1)
    yield url, log, process
    if process.poll() is None:
        process.kill()
    process.wait()


def test_a_real_process_serves_logs_and_stops(
    served: tuple[str, Path, subprocess.Popen[bytes]], deployment: Settings
) -> None:
    url, log, process = served
    with httpx.Client(base_url=url, timeout=10) as client:
        body = {"email": "ann@example.com", "password": PASSWORD}
        token = client.post("/api/session", json=body).json()["token"]
        client.headers["Authorization"] = f"Bearer {token}"
        trace = "0af7651916cd43dd8448eb211c80319c"
        me = client.get("/api/me", headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"})
        assert me.json()["user_id"] == "ann"
        assert client.get("/api/nowhere").json()["title"] == "Not Found"
        scraped = client.get("/metrics").text
        assert 'tp_api_requests_total{method="GET",route="/api/me",status="200"} 1.0' in scraped
        assert client.get("/metrics", headers={"X-Forwarded-For": "127.0.0.1"}).status_code == 404
        assert metrics.targets(deployment)[f"api:{url.rpartition(':')[2]}"] == url.removeprefix("http://")
        with client.stream("GET", "/api/stream") as stream:
            lines = stream.iter_lines()
            snapshot = next(json.loads(line[6:]) for line in lines if line.startswith('data: {"equity"'))
            assert (snapshot["equity"], snapshot["open_positions"], snapshot["closed_trades"]) == ("10024", 1, 25)
            assert snapshot["realized_pnl"] == "12.08"  # net of fees
            assert snapshot["engine"] == {"state": "RUNNING", "alive": True, "market_time": None}
            process.send_signal(signal.SIGTERM)
            list(lines)  # the stream ends by itself
    assert process.wait(10) == 0
    text = log.read_text()
    assert PASSWORD not in text
    assert token not in text
    entries = [json.loads(line) for line in text.splitlines()]
    mine = next(entry for entry in entries if entry.get("route") == "/api/me")
    assert (mine["event"], mine["user_id"], mine["status"], mine["trace_id"]) == ("request", "ann", 200, trace)
    spans = [json.loads(line) for line in (deployment.logs_dir / "traces.jsonl").read_text().splitlines()]
    assert [span["name"] for span in spans if span["trace_id"] == trace] == ["GET /api/me"]


async def test_the_read_limit_is_met_exactly_and_is_each_users_own(api: Api) -> None:
    ann, ben = await api.log_in("ann"), await api.log_in("ben")
    for _ in range(READS.amount - 2):
        await api.services.limiter.count_read(READS, "ann")
    statuses = [(await api.client.get("/api/me", headers=ann)).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]
    refused = await api.client.get("/api/me", headers=ann)
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert (await api.client.get("/api/me", headers=ben)).status_code == 200


async def test_writes_have_a_limit_of_their_own(api: Api) -> None:
    ann = await api.log_in("ann")
    for _ in range(WRITES.amount):
        await api.services.limiter.count(WRITES, "ann")
    assert (await api.client.post("/api/halts", json={"reason": "test"}, headers=ann)).status_code == 429
    assert (await api.client.get("/api/me", headers=ann)).status_code == 200


async def test_a_write_by_cookie_must_come_from_our_own_pages(api: Api) -> None:
    token = (await api.log_in("ann"))["Authorization"].removeprefix("Bearer ")
    cookies, url = {"tp_session": token}, "/api/alerts/0/acknowledge"
    for headers in ({}, {"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "null"}):
        answer = await api.client.post(url, cookies=cookies, headers=headers)
        assert answer.json()["title"] == "Request from elsewhere"
    for headers in ({"Origin": "http://platform.test"}, {"Sec-Fetch-Site": "same-origin"}):
        assert (await api.client.post(url, cookies=cookies, headers=headers)).status_code == 404


async def test_every_answer_carries_the_security_headers(api: Api) -> None:
    for path in ("/login", "/api/me", "/api/health/live", "/nowhere", "/docs"):
        headers = (await api.client.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "default-src 'none'" in headers["content-security-policy"]


async def test_the_description_is_complete(api: Api) -> None:
    described = (await api.client.get("/openapi.json")).json()
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"], (method, path)
            good = next(answer for status, answer in operation["responses"].items() if status.startswith("2"))
            assert good.get("content") or "204" in operation["responses"], (method, path)
            if not path.startswith("/api/health"):
                assert "401" in operation["responses"], (method, path)
            wrong = operation["responses"].get("422", {}).get("content", {})
            assert "HTTPValidationError" not in json.dumps(wrong), (method, path)
    assert (await api.client.get("/docs")).text.count("/api/") >= len(described["paths"])


async def test_errors_say_what_was_wrong_and_what_to_do(api: Api) -> None:
    ann = await api.log_in("ann")
    answer = await api.client.get("/api/orders?limit=0", headers=ann)
    assert answer.status_code == 422
    assert "limit" in answer.json()["detail"]
    assert answer.json()["remedy"]
    answer = await api.client.post("/api/halts", content=b"{", headers=ann)
    assert answer.status_code == 422


async def test_health_shows_beats_and_leases_to_those_who_may_see_them(api: Api) -> None:
    with api.databases.control() as session:
        beat(session, "collector:d1", "streaming", {"bars": 3})
    ann, builder = await api.log_in("ann"), await api.log_in("builder")
    assert (await api.client.get("/api/health/live")).json() == {"status": "live"}
    assert (await api.client.get("/api/health/ready")).json()["postgres"] == "ok"
    assert (await api.client.get("/api/health/services")).status_code == 401
    seen = (await api.client.get("/api/health/services", headers=ann)).json()
    mine = next(service for service in seen["services"] if service["service"] == "collector:d1")
    assert (mine["state"], mine["detail"], mine["stale"]) == ("streaming", {"bars": 3}, False)
    assert [(lease["name"], lease["valid"]) for lease in seen["leases"]] == [("engine:g1", True)]
    everything = (await api.client.get("/api/health/services", headers=builder)).json()["leases"]
    assert {lease["name"] for lease in everything} == {"engine:g1", "engine:g2"}


async def test_traders_read_nothing_of_others_accounts_in_what_an_engine_shows(api: Api) -> None:
    with api.databases.group(GroupId("g1")) as session:
        accounts = dict(session.execute(select(Account.user_id, Account.account_id)).tuples().all())
        other = next(account for user, account in accounts.items() if user != "ann")
        own = accounts["ann"]
        lines = [f"{own}: 1 BTC held by the books, 0 at the venue", f"{other}: not compared, no answer"]
        halts = ["account:" + other, "platform:*", "user:ann", "user:ben"]
        detail = {"reconciliation": {"matches": False, "set_aside": 2, "differences": lines}, "halts": halts}
        session.execute(update(EngineLease).values(detail=detail))
    with api.databases.control() as session:
        beat(session, "engine:g1", "RUNNING", detail)
    for user, seen_lines, seen_halts in (
        ("ann", lines[:1], ["platform:*", "user:ann"]),
        ("builder", lines, halts),
    ):
        seen = (await api.client.get("/api/health/services", headers=await api.log_in(user))).json()
        engines = [row for row in seen["leases"] if row["name"] == "engine:g1"]
        engines += [row for row in seen["services"] if row["service"] == "engine:g1"]
        assert len(engines) == 2
        for engine in engines:
            assert engine["detail"]["reconciliation"]["differences"] == seen_lines
            assert engine["detail"]["reconciliation"]["set_aside"] == 2
            assert engine["detail"]["halts"] == seen_halts
    with api.databases.group(GroupId("g1")) as session:
        session.execute(update(EngineLease).values(detail={}))
    with api.databases.control() as session:
        session.execute(delete(ServiceStatus).where(ServiceStatus.service == "engine:g1"))


async def test_traders_see_and_acknowledge_alerts_about_themselves_alone(api: Api) -> None:
    with api.databases.control() as session:
        about_ann = raise_alert(session, severity="warning", source="engine:g1", title="x", labels={"user_id": "ann"})
        about_ben = raise_alert(session, severity="critical", source="engine:g2", title="y", labels={"user_id": "ben"})
    ann, builder = await api.log_in("ann"), await api.log_in("builder")
    assert [row["alert_id"] for row in (await api.client.get("/api/alerts", headers=ann)).json()["items"]] == [
        about_ann
    ]
    every = (await api.client.get("/api/alerts", headers=builder)).json()["items"]
    assert {row["alert_id"] for row in every} >= {about_ann, about_ben}
    assert (await api.client.post(f"/api/alerts/{about_ben}/acknowledge", headers=ann)).status_code == 404
    answer = await api.client.post(f"/api/alerts/{about_ann}/acknowledge", headers=ann)
    assert answer.json()["acknowledged_by"] == "ann"


async def test_without_valkey_health_answers_and_everything_else_says_why(deployment: Settings) -> None:
    nobody_there = f"redis://127.0.0.1:{free_port()}/0"
    databases = Databases(deployment.model_copy(update={"redis_url": SecretStr(nobody_there)}))
    transport = httpx.ASGITransport(create_app(databases))
    async with httpx.AsyncClient(transport=transport, base_url="http://platform.test") as client:
        assert (await client.get("/api/health/live")).status_code == 200
        ready = await client.get("/api/health/ready")
        assert (ready.status_code, ready.json()["postgres"]) == (503, "ok")
        body = {"email": "ann@example.com", "password": PASSWORD}
        for answer in (
            await client.post("/api/session", json=body),
            await client.get("/api/me", headers={"Authorization": "Bearer x"}),
        ):
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
            assert "TP_REDIS_URL" in answer.json()["expected"]
        page = await client.post("/login", data=body, headers={"Origin": "http://platform.test"})
        assert "session store is away" in page.text
    await databases.aclose()


async def test_when_valkey_goes_away_reads_go_on_and_changes_fail_closed(deployment: Settings, tmp_path: Path) -> None:
    with running(Valkey(tmp_path)) as url:
        databases = Databases(deployment.model_copy(update={"redis_url": SecretStr(url)}))
        app = create_app(databases)
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://platform.test")
        ann = await Api(client, app, databases).log_in("ann")
        assert (await client.get("/api/orders", headers=ann)).status_code == 200
    assert (await client.get("/api/orders", headers=ann)).status_code == 200
    answer = await client.post("/api/halts", json={"reason": "stop it"}, headers=ann)
    assert answer.status_code == 503
    assert "nothing was changed" in answer.json()["detail"]
    stranger = await client.get("/api/orders", headers={"Authorization": "Bearer somebody else"})
    assert stranger.status_code == 503
    await client.aclose()
    await databases.aclose()
