"""Every process of the platform: what it is called, how it is started, on what it depends, when it is ready.

A `Plan` is made once a start, from the settings and the number of instances. It decides ports and secrets, says in
`<home>/run/endpoints.json` where everything will be, and lists the services: `servers()` first, then, on migrated
databases, `platform()`, and `dataset(...)` once the pass has said which dataset is traded.
"""

import json
import os
import shutil
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import SecretStr

from trading_platform.settings import ENDPOINTS_FILE, Settings
from trading_platform.stack import caddy
from trading_platform.stack.ports import Ports
from trading_platform.stack.readiness import http_ok, listens
from trading_platform.stack.servers import Postgres, Valkey, secret_file
from trading_platform.stack.supervisor import Service
from trading_platform.storage.databases import Database, database_url

REPOSITORY = Path(__file__).resolve().parents[2]
DASHBOARD = REPOSITORY / "dashboard"
DAGSTER_YAML = REPOSITORY / "deploy" / "dagster.yaml"
DAGSTER_MODULE = "definitions"
HANGS_AFTER_SECONDS = 60.0
"""An HTTP server that gave no answer for so long is started again."""
SETTLED_AFTER_SECONDS = 5.0
"""A process without a port that has lived so long has got past its imports and its configuration."""


@dataclass(frozen=True)
class DatasetRequest:
    """What the pass asks for in `<home>/run/dataset.json`: the services of one dataset."""

    dataset_id: str
    groups: tuple[str, ...]
    venue: str | None
    """Where its orders go: `binance` or `zerodha`. None for a dataset that is scored and not traded: no sandbox."""

    @classmethod
    def read(cls, path: Path) -> "DatasetRequest | None":
        """The request in the file; None where there is none, or none yet that is complete."""
        try:
            found = json.loads(path.read_text())
            return cls(str(found["dataset_id"]), tuple(map(str, found["groups"])), found["venue"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None


@dataclass
class Plan:
    """Addresses, secrets and services of one start. `settings` must be free of an earlier run's endpoints."""

    settings: Settings
    scale: int = 1
    postgres: Postgres | None = field(init=False, default=None)
    valkey: Valkey | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        home = self.settings.home
        ports = Ports(home)
        if self.settings.database_url is None:
            self.postgres = Postgres(home / "postgres", port=ports.port("postgres"))
        if self.settings.redis_url is None:
            self.valkey = Valkey(home / "valkey", port=ports.port("valkey"))
        self.apis = [ports.port(f"api-{number}") for number in self._instances()]
        self.dashboards = [ports.port(f"dashboard-{number}") for number in self._instances()]
        self.code_port = ports.port("dagster-code")
        self.webserver_port = ports.port("dagster-webserver")
        self.readonly_port = ports.port("dagster-readonly")
        self.sandbox_port = ports.port("sandbox")
        self.sandbox_kite_port = ports.port("sandbox-kite")
        ports.save()

    @property
    def url(self) -> str:
        """Where a browser on this machine goes."""
        shown = _reachable(self.settings.public_host)
        return f"http://{f'[{shown}]' if ':' in shown else shown}:{self.settings.port}"

    @property
    def dagster_url(self) -> str:
        return self.settings.dagster_url or f"http://127.0.0.1:{self.webserver_port}"

    def endpoints(self) -> dict[str, object]:
        """Fields of `Settings` with the values that every process of this run is to see."""
        given = self.settings
        database = given.database_url.get_secret_value() if given.database_url else None
        redis = given.redis_url.get_secret_value() if given.redis_url else None
        token = given.sandbox_admin_token.get_secret_value() if given.sandbox_admin_token else None
        return {
            "database_url": self.postgres.url if self.postgres else database,
            "redis_url": self.valkey.url if self.valkey else redis,
            "sandbox_url": given.sandbox_url or f"http://127.0.0.1:{self.sandbox_port}",
            "sandbox_kite_url": given.sandbox_kite_url or f"http://127.0.0.1:{self.sandbox_kite_port}",
            "sandbox_admin_token": token or secret_file(given.secrets_dir / "sandbox_admin_token"),
            "api_url": given.api_url if "api_url" in given.model_fields_set else self.url,
            "dagster_url": self.dagster_url,
            "port": given.port,
        }

    def write_files(self) -> None:
        """Endpoints for every process and every second terminal, and DAGSTER_HOME. Call it before the first start."""
        home = self.settings.home
        _write_private(home / ENDPOINTS_FILE, json.dumps(self.endpoints(), indent=1))
        dagster_home = self.settings.dagster_home
        dagster_home.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(DAGSTER_YAML, dagster_home / "dagster.yaml")
        location = {"host": "127.0.0.1", "port": self.code_port, "location_name": "trading_platform"}
        (dagster_home / "workspace.yaml").write_text(
            json.dumps({"load_from": [{"grpc_server": location}]})
        )  # JSON is YAML

    def environment(self) -> dict[str, str]:
        """What every process of the platform gets on top of the environment of whoever started it."""
        database = SecretStr(str(self.endpoints()["database_url"]))
        with_addresses = self.settings.model_copy(update={"database_url": database})
        dagster_database = database_url(with_addresses, Database.DAGSTER).set(drivername="postgresql+psycopg2")
        return {
            "TP_HOME_DIR": str(self.settings.home),
            "TP_PORT": str(self.settings.port),
            "TP_DAGSTER_POSTGRES_URL": dagster_database.render_as_string(hide_password=False),
            "DAGSTER_HOME": str(self.settings.dagster_home),
            "PYTHONUNBUFFERED": "1",
            "TYPER_STANDARD_TRACEBACK": "1",  # in a log file, frames of source code around a traceback only hide it
        }

    # --- the services ------------------------------------------------------------------------------------------------

    def servers(self) -> list[Service]:
        """PostgreSQL and Valkey, each only where no address was given."""
        services = []
        if self.postgres is not None:
            services.append(
                Service(
                    "postgres", self.postgres.command(), ready=self.postgres.is_ready,
                    before_start=self.postgres.recover, stop_signal=signal.SIGINT, stop_timeout=3.5,
                )
            )  # fmt: skip
        if self.valkey is not None:
            services.append(Service("valkey", self.valkey.command(), ready=self.valkey.is_ready, stop_timeout=2.0))
        return services

    def prepare_servers(self) -> None:
        """Create what the embedded servers need on disk. Starts `initdb`, so call it before there is a supervisor."""
        for server in (self.postgres, self.valkey):
            if server is not None:
                server.folder.mkdir(parents=True, exist_ok=True)
                server.prepare()

    def platform(self) -> list[Service]:
        """What runs whatever the dataset is. The databases must have been migrated."""
        return [*self._apis(), *self._dashboards(), *self._dagster(), self._caddy()]

    def dataset(self, request: DatasetRequest) -> list[Service]:
        """What runs for one dataset: the exchange that replays it, the scorer, an engine a group."""
        dataset = request.dataset_id
        needs = self._server_names()
        services = []
        if request.venue is not None:
            services.append(
                self._own(
                    "sandbox", "sandbox", "serve", "--dataset", dataset, "--port", str(self.sandbox_port),
                    "--kite-port", str(self.sandbox_kite_port), needs=needs, ready_path=f":{self.sandbox_port}/api/v3/ping",
                )
            )  # fmt: skip
            needs = (*needs, "sandbox")
        if request.venue == "binance":  # Kite streams ticks, not bars: what is replayed there is in the lake already
            services.append(self._own("collector", "collector", "--dataset", dataset, needs=needs))
        services.append(self._own("scorer", "scorer", "--dataset", dataset, needs=needs))
        services += [
            self._own(f"engine-{group}", "engine", "--group", group, "--dataset", dataset, needs=needs)
            for group in request.groups
        ]
        return services

    def one_pass(self, *arguments: str) -> Service:
        """One pass of the loop, on our terminal, from the folder we were started in (-P: but without its modules)."""
        return Service(
            "pass", [sys.executable, "-P", "-m", "jobs.one_pass", *arguments], env=self.environment(), restart=False,
            on_terminal=True, stop_signal=signal.SIGINT, cwd=Path.cwd(),
        )  # fmt: skip

    def _apis(self) -> list[Service]:
        return [
            self._own(
                f"api-{number}", "api", "--port", str(port), needs=self._server_names(),
                ready_path=f":{port}/api/health/live",
            )
            for number, port in zip(self._instances(), self.apis, strict=True)
        ]  # fmt: skip

    def _dashboards(self) -> list[Service]:
        def command(port: int) -> list[str]:
            options = {
                "server.address": "127.0.0.1",
                "server.port": port,
                "server.baseUrlPath": "app",
                "server.headless": "true",
                "server.fileWatcherType": "none",
                "server.enableXsrfProtection": "true",
                "server.enableCORS": "true",  # with the load balancer it is one origin, which needs no exception
                "browser.gatherUsageStats": "false",
                "client.toolbarMode": "viewer",
            }
            flags = [part for name, value in options.items() for part in (f"--{name}", str(value))]
            return [sys.executable, "-P", "-m", "dashboard.serve", *flags]

        return [
            Service(
                f"dashboard-{number}", command(port), env=self.environment(), depends_on=self._server_names(),
                ready=http_ok(f"http://127.0.0.1:{port}/app/_stcore/health"), cwd=DASHBOARD,
                restart_if_unready_for=HANGS_AFTER_SECONDS,
            )
            for number, port in zip(self._instances(), self.dashboards, strict=True)
        ]  # fmt: skip

    def _dagster(self) -> list[Service]:
        """The code is loaded once, by the gRPC server; the webservers and the daemon ask it."""
        workspace = ["--workspace", str(self.settings.dagster_home / "workspace.yaml")]
        local = ["--host", "127.0.0.1", "--port"]
        webserver = [_script("dagster-webserver"), *workspace, *local]
        env = self.environment()
        code = Service(
            "dagster-code",
            [
                _script("dagster"), "api", "grpc", "--module-name", DAGSTER_MODULE, *local, str(self.code_port),
                "--location-name", "trading_platform", "--empty-working-directory",
            ],
            env=env, depends_on=self._server_names(), ready=listens(self.code_port), ready_within=180.0,
        )  # fmt: skip
        needs = (*self._server_names(), code.name)
        return [
            code,
            Service(
                "dagster-webserver", [*webserver, str(self.webserver_port)], env=env, depends_on=needs,
                ready=http_ok(f"http://127.0.0.1:{self.webserver_port}/server_info"),
                restart_if_unready_for=HANGS_AFTER_SECONDS,
            ),
            Service(
                "dagster-readonly",
                [*webserver, str(self.readonly_port), "--read-only", "--path-prefix", "/dagster"],
                env=env, depends_on=needs,
                ready=http_ok(f"http://127.0.0.1:{self.readonly_port}/dagster/server_info"),
                restart_if_unready_for=HANGS_AFTER_SECONDS,
            ),
            Service(
                "dagster-daemon", [_script("dagster-daemon"), "run", *workspace], env=env, depends_on=needs,
                settle=SETTLED_AFTER_SECONDS,
            ),
        ]  # fmt: skip

    def _caddy(self) -> Service:
        home, host, port = self.settings.home, self.settings.public_host, self.settings.port
        env = caddy.environment(
            home, host=host, port=port, apis=self.apis, dashboards=self.dashboards, dagster=self.readonly_port
        )
        return Service("caddy", caddy.command(), env=env, ready=listens(port, _reachable(host)), stop_timeout=2.5)

    def _own(self, name: str, *arguments: str, needs: tuple[str, ...], ready_path: str | None = None) -> Service:
        """A service that is a command of ours."""
        return Service(
            name, [_script("trading-platform"), *arguments], env=self.environment(), depends_on=needs,
            ready=http_ok(f"http://127.0.0.1{ready_path}") if ready_path else None,
            restart_if_unready_for=HANGS_AFTER_SECONDS if ready_path else None,
            settle=SETTLED_AFTER_SECONDS,
        )  # fmt: skip

    def _instances(self) -> range:
        return range(1, self.scale + 1)

    def _server_names(self) -> tuple[str, ...]:
        return tuple(service.name for service in self.servers())


def _reachable(host: str) -> str:
    """The address by which this machine reaches a server that listens on `host`."""
    return "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104 (compared, not bound)


def _script(name: str) -> str:
    """A script of this very environment, whatever PATH says."""
    return str(Path(sys.executable).parent / name)


def _write_private(path: Path, text: str) -> None:
    """Replace a file that only we may read, in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".tmp")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as handle:
        handle.write(text)
    draft.replace(path)
