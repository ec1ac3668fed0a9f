"""deploy/Caddyfile in the real Caddy, before real servers."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import websockets

from tests.stack.conftest import until
from trading_platform.stack import caddy
from trading_platform.stack.readiness import listens
from trading_platform.stack.servers import free_port

pytestmark = pytest.mark.xdist_group("caddy")

BACKEND = Path(__file__).with_name("backend.py")
SESSION = {"session": "good"}


@dataclass
class Site:
    """A load balancer with two API and two dashboard instances."""

    folder: Path
    port: int
    processes: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    apis: list[int] = field(default_factory=list)
    dashboards: list[int] = field(default_factory=list)
    seen_healthy: bool = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, port: int) -> None:
        self.processes[port] = subprocess.Popen([sys.executable, str(BACKEND), str(port), str(self.folder)])

    def ensure_all(self) -> None:
        """Start again what a test has killed, and wait until the load balancer uses it."""
        dead = [port for port in [*self.apis, *self.dashboards] if self.processes[port].poll() is not None]
        if self.seen_healthy and not dead:
            return
        for port in dead:
            self.start(port)
        for port in [*self.apis, *self.dashboards]:
            until(listens(port), 20)
        with httpx.Client(base_url=self.url, cookies=SESSION, trust_env=False) as client:
            until(lambda: _served_by(client, "/api/who") == set(self.apis), 20)
            until(lambda: _served_by(client, "/app/") == set(self.dashboards), 20)
        self.seen_healthy = True


def _served_by(client: httpx.Client, path: str) -> set[int]:
    """The instances that serve ten visitors."""
    ports = set()
    for _ in range(10):
        client.cookies.pop("tp_dashboard", None)
        answer = client.get(path)
        ports |= {answer.json()["port"]} if answer.is_success else set()
    return ports


@pytest.fixture(scope="module")
def running_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    site = Site(folder, free_port())
    site.apis = [free_port(), free_port()]
    site.dashboards = [free_port(), free_port()]
    environment = caddy.environment(
        folder, host="127.0.0.1", port=site.port, apis=site.apis, dashboards=site.dashboards, dagster=site.apis[0]
    )
    for port in [*site.apis, *site.dashboards]:
        site.start(port)
    for port in [*site.apis, *site.dashboards]:
        until(listens(port), 20)
    with (folder / "caddy.log").open("wb") as log:
        balancer = subprocess.Popen(caddy.command(), env=os.environ | environment, stdout=log, stderr=log)
    until(listens(site.port))
    yield site
    for process in [balancer, *site.processes.values()]:
        process.kill()
        process.wait()


@pytest.fixture
def site(running_site: Site) -> Site:
    running_site.ensure_all()
    return running_site


async def test_no_request_fails_when_an_instance_is_killed_under_load(site: Site) -> None:
    served: Counter[int] = Counter()
    failed: list[str] = []
    loop = asyncio.get_running_loop()
    end = loop.time() + 2.5

    async def visit(client: httpx.AsyncClient) -> None:
        while loop.time() < end:
            try:
                answer = await client.get("/api/who")
                answer.raise_for_status()
                served[answer.json()["port"]] += 1
            except httpx.HTTPError as error:
                failed.append(repr(error))

    async with httpx.AsyncClient(base_url=site.url, timeout=10) as client:
        visitors = [asyncio.create_task(visit(client)) for _ in range(20)]
        await asyncio.sleep(0.8)
        assert set(served) == set(site.apis), "both instances must be in use before one is killed"
        before = served.copy()
        site.processes[site.apis[0]].send_signal(signal.SIGKILL)
        await asyncio.gather(*visitors)
    assert failed == []
    assert served[site.apis[1]] - before[site.apis[1]] > 50


def test_a_request_is_repeated_only_where_that_does_nothing_twice(site: Site) -> None:
    assert httpx.post(f"{site.url}/api/breaks-off", timeout=20).status_code == 502
    (called,) = (site.folder / "POST.calls").read_text().split()
    site.processes[int(called)].wait(10)  # its connection is gone a moment before the process is
    site.ensure_all()
    assert httpx.get(f"{site.url}/api/breaks-off", timeout=20).status_code == 200  # above the balancer's retries
    assert len((site.folder / "GET.calls").read_text().split()) == 2


def test_a_browser_stays_on_its_dashboard_until_that_dies(site: Site) -> None:
    with httpx.Client(base_url=site.url, cookies=SESSION, timeout=10) as browser:
        ports = [browser.get("/app/").json()["port"] for _ in range(10)]
        assert len(set(ports)) == 1
        site.processes[ports[0]].kill()
        assert browser.get("/app/").json()["port"] == next(port for port in site.dashboards if port != ports[0])
    site.ensure_all()
    with httpx.Client(base_url=site.url, cookies=SESSION) as strangers:
        assert _served_by(strangers, "/app/") == set(site.dashboards)


@pytest.mark.parametrize("path", ["/app/", "/dagster/", "/app/signals?symbol=BTC/USDT&next=http://evil.example"])
def test_a_page_without_a_session_leads_to_the_login(site: Site, path: str) -> None:
    answer = httpx.get(site.url + path, headers={"Accept": "text/html,*/*"})
    assert answer.status_code == 303
    login = httpx.URL(answer.headers["location"])
    assert login.path == "/login"
    assert dict(login.params) == {"next": path}


def test_what_is_not_a_page_gets_the_401(site: Site) -> None:
    assert httpx.get(f"{site.url}/app/data.json", headers={"Accept": "application/json"}).status_code == 401
    assert httpx.post(f"{site.url}/dagster/graphql", json={}).status_code == 401


async def test_websockets_need_a_session_too(site: Site) -> None:
    address = f"ws://127.0.0.1:{site.port}/app/_stcore/stream"
    with pytest.raises(websockets.InvalidStatus) as refused:
        await websockets.connect(address)
    assert refused.value.response.status_code == 401
    async with websockets.connect(address, additional_headers={"Cookie": "session=good"}) as socket:
        await socket.send("hello")
        assert await socket.recv() == "u1 hello"


def test_nobody_names_himself(site: Site) -> None:
    forged = {"X-Auth-User": "admin", "X-Auth-Role": "admin"}
    dashboard = httpx.get(f"{site.url}/app/", headers=forged, cookies=SESSION).json()["headers"]
    assert (dashboard["x-auth-user"], dashboard["x-auth-role"]) == ("u1", "trader")
    api = httpx.get(f"{site.url}/api/who", headers=forged).json()["headers"]
    assert "x-auth-user" not in api
    assert "x-auth-role" not in api


@pytest.mark.parametrize(
    "path", ["/metrics", "/api/metrics", "/METRICS", "//metrics", "/api/../metrics", "/server_info"]
)
def test_what_is_not_listed_is_not_there(site: Site, path: str) -> None:
    assert httpx.get(site.url + path).status_code == 404


def test_the_first_page_is_the_dashboard(site: Site) -> None:
    answer = httpx.get(site.url)
    assert (answer.status_code, answer.headers["location"]) == (302, "/app/")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "server" not in answer.headers


def test_a_body_above_the_limit_is_refused(site: Site) -> None:
    assert httpx.post(f"{site.url}/api/orders", content=bytes(900_000)).json()["bytes"] == 900_000
    assert httpx.post(f"{site.url}/api/orders", content=bytes(1_100_000)).status_code == 413


def test_the_access_log_holds_no_credentials(site: Site) -> None:
    secret = "do-not-write-me-down"
    httpx.get(
        f"{site.url}/api/who?token={secret}&request_token={secret}&plain=shown",
        headers={"Authorization": f"Bearer {secret}", "X-Api-Key": secret},
        cookies={"session": secret},
    )
    log = site.folder / "logs" / "access.log"
    until(lambda: "plain=shown" in log.read_text())
    text = log.read_text()
    assert secret not in text
    assert all(json.loads(line)["request"]["uri"] for line in text.splitlines())
