"""Ports of the services on loopback: the same ones again after a restart where they are still free."""

import contextlib
import json
import socket
import zlib
from pathlib import Path

import psutil

PORTS_FILE = Path("run") / "ports.json"
FIRST = 20_000
COUNT = 12_000
"""20000..31999 lies below the range from which Linux gives outgoing connections their ports (32768 and up)."""


class PortTakenError(RuntimeError):
    """Somebody else listens on the public port."""


class Ports:
    """Ports by service name for one home folder."""

    def __init__(self, home: Path) -> None:
        self._path = home / PORTS_FILE
        self._next = zlib.crc32(str(home).encode()) % COUNT
        try:
            self._last = {str(name): int(port) for name, port in json.loads(self._path.read_text()).items()}
        except (FileNotFoundError, ValueError, AttributeError):
            self._last = {}
        self._given: dict[str, int] = {}

    def port(self, name: str) -> int:
        """The port of `name`: the one it had last time if that is free, else the next free one."""
        if name not in self._given:
            last = self._last.get(name)
            usable = last is not None and last not in self._given.values() and is_free(last)
            self._given[name] = last if usable and last is not None else self._next_free()
        return self._given[name]

    def save(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps(self._given, indent=1))

    def _next_free(self) -> int:
        for _ in range(COUNT):
            candidate = FIRST + self._next
            self._next = (self._next + 1) % COUNT
            if candidate not in self._given.values() and is_free(candidate):
                return candidate
        raise PortTakenError(f"none of the ports {FIRST}..{FIRST + COUNT - 1} is free on 127.0.0.1")


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """True when a server could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: TIME_WAIT is no obstacle
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def require_public_port(host: str, port: int) -> None:
    """Raise `PortTakenError`, saying who has it and what to do, unless the public port is ours to take."""
    if is_free(port, host):
        return
    raise PortTakenError(
        f"port {port} on {host} is not free: {_listener(port)}. End that program, or choose another port "
        f"(`make run PORT={port + 1}`, `trading-platform up --port {port + 1}` or TP_PORT={port + 1})."
    )


def _listener(port: int) -> str:
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections("inet"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port:
                if connection.pid is None:
                    return "a program of another user listens there"
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid}) listens there"
    if port < 1024:
        return "ports below 1024 need root"
    return "a program listens there, or the address is not one of this machine's"
