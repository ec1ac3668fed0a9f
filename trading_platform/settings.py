"""Settings: addresses and secrets, nothing else.

Strategies, limits, universes and experiments are rows with history (see `trading_platform.storage`), edited through
the API and the dashboard. Every variable starts with `TP_`. A server address given here is used as it is; one left
out is served by an embedded server, whose address the running stack writes to `<home>/run/endpoints.json`, so that a
second terminal finds it without any variable set.
"""

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

ENDPOINTS_FILE = Path("run") / "endpoints.json"


class Settings(BaseSettings):
    """All settings of the platform. Times are seconds, addresses are URLs."""

    model_config = SettingsConfigDict(env_prefix="TP_", extra="ignore", frozen=True, env_ignore_empty=True)

    home_dir: Annotated[Path, NoDecode] = Field(
        default=Path("var"), description="State folder: lake, embedded servers, artifacts, logs, reports, secrets."
    )
    environment: str = Field(default="local", description="Name of this deployment, put on every log line and metric.")
    database_url: SecretStr | None = Field(
        default=None,
        description="PostgreSQL, as postgresql://user:password@host:port/name. The named database is the control "
        "database; its siblings <name>_dagster, <name>_optuna, <name>_analytics and <name>_shard0 are created beside "
        "it. Unset: an embedded server is started.",
    )
    shard_urls: dict[str, SecretStr] = Field(
        default_factory=dict,
        description="More PostgreSQL servers for user groups, as JSON {shard id: URL}. The shard map in the control "
        "database says which group lives on which.",
    )
    redis_url: SecretStr | None = Field(
        default=None, description="Valkey or Redis, as redis://[:password@]host:port/0. Unset: an embedded Valkey."
    )
    master_keys: SecretStr | None = Field(
        default=None,
        description="Master keys of the credential vault as JSON {version: base64 of 32 bytes}; the highest version "
        "encrypts. Unset: one is made in <home>/secrets on first use.",
    )
    public_host: str = Field(default="127.0.0.1", description="Address the load balancer listens on.")
    port: int = Field(default=8400, ge=1, le=65535, description="Port of the load balancer: dashboard, API, Dagster.")
    api_url: str = Field(default="http://127.0.0.1:8400", description="Where the dashboard reaches the API.")
    dagster_url: str | None = Field(default=None, description="The writable Dagster UI (loopback only).")
    sandbox_url: str | None = Field(default=None, description="Base URL of the sandbox exchange.")
    sandbox_kite_url: str | None = Field(
        default=None, description="Root of the sandbox's Kite Connect, for paper accounts at Zerodha."
    )
    sandbox_admin_token: SecretStr | None = Field(
        default=None, description="Bearer token of the sandbox's own control routes (replay clock, accounts, books)."
    )
    exceptional_days: Path | None = Field(
        default=None,
        description="TOML file of closures and special sessions that exchanges announced since this release; it wins over "
        "the package's own for the dates it names.",
    )
    ban_list_url: str = Field(
        default="https://nsearchives.nseindia.com/content/fo/fo_secban.csv",
        description="The exchange's daily F&O ban list. Without the day's list nothing new is opened in derivatives of "
        "single shares.",
    )
    otlp_endpoint: str | None = Field(
        default=None,
        description="OpenTelemetry collector (OTLP over HTTP). Unset: spans go to <home>/logs/traces.jsonl.",
    )
    alert_webhook_url: SecretStr | None = Field(
        default=None, description="Alerts are also posted here as JSON. Unset: they stay in the alerts table."
    )
    log_level: str = Field(default="INFO", description="DEBUG, INFO, WARNING or ERROR.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments win over the environment, the environment over the running stack's endpoints file."""
        return init_settings, env_settings, _RunningStack(settings_cls, init_settings)

    @property
    def home(self) -> Path:
        """The state folder, absolute."""
        return self.home_dir.expanduser().resolve()

    @property
    def lake_dir(self) -> Path:
        return self.home / "lake"

    @property
    def artifacts_dir(self) -> Path:
        return self.home / "artifacts"

    @property
    def reports_dir(self) -> Path:
        return self.home / "reports"

    @property
    def logs_dir(self) -> Path:
        return self.home / "logs"

    @property
    def run_dir(self) -> Path:
        return self.home / "run"

    @property
    def secrets_dir(self) -> Path:
        """Created with mode 0700 by whoever writes the first secret."""
        return self.home / "secrets"

    @property
    def dagster_home(self) -> Path:
        return self.home / "dagster"


class _RunningStack(PydanticBaseSettingsSource):
    """Addresses of the embedded servers, as the running stack wrote them."""

    def __init__(self, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource) -> None:
        super().__init__(settings_cls)
        home = init_settings().get("home_dir") or os.environ.get("TP_HOME_DIR") or "var"
        self._path = Path(str(home)).expanduser() / ENDPOINTS_FILE

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[object, str, bool]:
        return None, field_name, False

    def __call__(self) -> dict[str, object]:
        try:
            found = json.loads(self._path.read_text())
        except (FileNotFoundError, json.JSONDecodeError, PermissionError):
            return {}
        return {name: value for name, value in found.items() if name in Settings.model_fields}


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The process's settings, read once."""
    return Settings()
