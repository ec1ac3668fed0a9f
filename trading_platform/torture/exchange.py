"""The sandbox as a process that can be killed: the same ports, journal and keys at every start."""

import json
import os
import secrets
import subprocess
import sys
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trading_platform.stack.processes import die_with_parent
from trading_platform.stack.servers import free_port

START = "2026-07-01T09:15:00+05:30"
LOG = "exchange.log"


@dataclass
class Exchange:
    """`trading-platform sandbox` by itself, with its market standing still until it is told to go on."""

    folder: Path
    seed: int
    token: str = field(default_factory=lambda: secrets.token_urlsafe(18))
    kite_port: int = field(default_factory=free_port)
    binance_port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None
    where: dict[str, Any] = field(default_factory=dict)

    def start(self) -> None:
        command = [
            sys.executable, "-c", "from trading_platform.cli import main; main()", "sandbox", "--speed", "60",
            "--seed", str(self.seed), "--start", START, "--no-limits", "--journal", str(self.folder / "journal"),
            "--kite-port", str(self.kite_port), "--binance-port", str(self.binance_port),
        ]  # fmt: skip
        with (self.folder / LOG).open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, preexec_fn=die_with_parent,
                env=os.environ | {"TP_SANDBOX_ADMIN_TOKEN": self.token},
            )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the sandbox did not start; its log is {self.folder / LOG}")
        self.where = json.loads(line)
        self.tell("/clock", {"run": False})

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()

    def tell(self, path: str, body: object = None, method: str | None = None) -> Any:
        """Ask or tell the admin address. Raises OSError where it does not answer."""
        data = None if body is None else json.dumps(body).encode()
        verb = method or ("GET" if body is None else "POST")
        request = urllib.request.Request(self.where["admin"] + path, data=data, method=verb)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)
