"""Two deployments with an API of their own, one at work for five days and one on its first minute; and browsers.

`Browser` stands for a person with a page open: Streamlit's own test runner on dashboard/app.py, with the session of a
real log-in.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import streamlit as st
from pydantic import SecretStr
from sqlalchemy import make_url
from streamlit.testing.v1 import AppTest

from dashboard import sources
from tests.conftest import drop_databases
from tests.dashboard.marts import build_marts
from tests.dashboard.seeding import PASSWORD, Work, add_people, add_work, email
from trading_platform.settings import Settings, settings
from trading_platform.stack.processes import die_with_parent
from trading_platform.stack.servers import free_port
from trading_platform.storage.databases import Databases
from trading_platform.storage.migrate import migrate

APP = Path(__file__).resolve().parents[2] / "dashboard" / "app.py"
PAGES = ("overview", "signals", "orders", "models", "drift", "conditions", "risk", "health")
STARTS_WITHIN_SECONDS = 60.0


@dataclass
class Platform:
    """A deployment, the address of its API, and what was written into it."""

    databases: Databases
    api_url: str
    works: list[Work] = field(default_factory=list)
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        given = self.databases.settings
        assert given.database_url is not None
        assert given.redis_url is not None
        return {
            "TP_HOME_DIR": str(given.home),
            "TP_DATABASE_URL": given.database_url.get_secret_value(),
            "TP_REDIS_URL": given.redis_url.get_secret_value(),
            "TP_API_URL": self.api_url,
        }

    def log_in(self, user_id: str) -> str:
        """A session token of that person, from a real log-in."""
        answer = httpx.post(f"{self.api_url}/api/session", json={"email": email(user_id), "password": PASSWORD})
        answer.raise_for_status()
        token: str = answer.json()["token"]
        return token

    def token(self, user_id: str) -> str:
        if user_id not in self.tokens:
            self.tokens[user_id] = self.log_in(user_id)
        return self.tokens[user_id]

    def ask(self, user_id: str, path: str, **parameters: object) -> Any:
        """What the API tells that person."""
        headers = {"Authorization": f"Bearer {self.token(user_id)}"}
        answer = httpx.get(f"{self.api_url}{path}", params={k: str(v) for k, v in parameters.items()}, headers=headers)
        answer.raise_for_status()
        return answer.json()


def serve(postgres_url: str, redis_url: str, home: Path, name: str) -> Iterator[Platform]:
    given = Settings(
        home_dir=home,
        database_url=SecretStr(make_url(postgres_url).set(database=name).render_as_string(hide_password=False)),
        redis_url=SecretStr(redis_url),
        environment="test",
    )
    databases = Databases(given)
    migrate(databases)
    add_people(databases)
    port = free_port()
    platform = Platform(databases, f"http://127.0.0.1:{port}")
    home.mkdir(parents=True, exist_ok=True)
    with (home / "api.log").open("wb") as log:
        api = subprocess.Popen(
            [sys.executable, "-m", "trading_platform.cli", "api", "--port", str(port)],
            env=os.environ | platform.environment, stdout=log, stderr=log, preexec_fn=die_with_parent,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + STARTS_WITHIN_SECONDS
        while not _answers(platform.api_url):
            assert api.poll() is None, (home / "api.log").read_text()[-2000:]
            assert time.monotonic() < deadline, "the API does not answer"
            time.sleep(0.1)
        yield platform
    finally:
        api.terminate()
        api.wait(10)
        databases.close()
        drop_databases(given)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/api/health/live", timeout=2).is_success
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="session")
def working(postgres_url: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Synthetic data are traded now; replayed files were before. The marts are built."""
    home = tmp_path_factory.mktemp("working")
    for platform in serve(postgres_url, redis_url, home, f"dashboard_{os.getpid()}"):
        platform.works.append(add_work(platform.databases, kind="files", bars=60, seed=3))
        platform.works.append(add_work(platform.databases, bars=120))
        build_marts(platform.databases)
        yield platform


@pytest.fixture(scope="session")
def starting(postgres_url: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Migrated, with people in it, and nothing else."""
    yield from serve(postgres_url, redis_url, tmp_path_factory.mktemp("starting"), f"starting_{os.getpid()}")


class Browser:
    """A page that a person has open."""

    def __init__(self) -> None:
        self.at = AppTest.from_file(str(APP), default_timeout=60)
        self.at.run()

    def open(self, page: str) -> "Browser":
        self.at.switch_page(f"screens/{page}.py")
        return self.look()

    def look(self) -> "Browser":
        """Draw the page anew, with numbers of this moment."""
        st.cache_data.clear()
        self.at.run()
        assert not self.at.exception, self.at.exception
        return self

    @property
    def title(self) -> str:
        return " ".join(title.value for title in self.at.title)

    @property
    def text(self) -> str:
        """All that is to be read, without tables and charts."""
        parts = [*self.at.markdown, *self.at.caption, *self.banners, *self.at.subheader, *self.at.title]
        metrics = [f"{metric.label}: {metric.value}" for metric in self.at.metric]
        return "\n".join([*(str(part.value) for part in parts), *metrics])

    @property
    def banners(self) -> list[Any]:
        return [*self.at.error, *self.at.warning, *self.at.info, *self.at.success]

    def table(self, *columns: str) -> Any:
        """The first table that has these columns."""
        for element in self.at.dataframe:
            if set(columns) <= set(element.value.columns):
                return element.value
        raise AssertionError(f"no table with {columns}; there are {[list(e.value.columns) for e in self.at.dataframe]}")

    def specifications(self) -> list[str]:
        """The Vega-Lite specification of every chart, JSON."""
        return [chart.proto.spec for chart in self.at.get("vega_lite_chart")]

    def select(self, label: str) -> Any:
        return next(box for box in self.at.selectbox if box.label == label)

    def button(self, label: str) -> Any:
        return next(button for button in self.at.button if button.label == label)

    def field(self, label: str) -> Any:
        return next(field for field in self.at.text_input if re.match(label, field.label))


Enter = Callable[[Platform, str | None], Browser]


@pytest.fixture
def enter(monkeypatch: pytest.MonkeyPatch) -> Iterator[Enter]:
    """enter(platform, user id) opens the dashboard with that person's session; None has none."""

    def enter(platform: Platform, user_id: str | None) -> Browser:
        use(platform)
        token = platform.token(user_id) if user_id else None
        monkeypatch.setattr(sources, "session_token", lambda: token)
        return Browser()

    def use(platform: Platform) -> None:
        for name, value in platform.environment.items():
            monkeypatch.setenv(name, value)
        forget()

    yield enter
    forget()


def forget() -> None:
    settings.cache_clear()
    st.cache_data.clear()
    st.cache_resource.clear()
