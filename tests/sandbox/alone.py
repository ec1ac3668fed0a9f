"""The command `trading-platform sandbox` as a process, and its admin address."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from kiteconnect import KiteConnect

START_SECONDS = 120


@dataclass
class Alone:
    """A running sandbox: what its line of JSON said."""

    process: "subprocess.Popen[bytes]"
    info: dict[str, Any]

    def admin(self, path: str, body: Any = None, method: str | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        verb = method or ("GET" if body is None else "POST")
        request = urllib.request.Request(self.info["admin"] + path, data=data, method=verb)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def faults(self, *faults: dict[str, Any]) -> None:
        """These faults, and no others."""
        self.admin("/faults", method="DELETE")
        self.admin("/faults", list(faults))

    def struck(self) -> list[int]:
        return [each["struck"] for each in self.admin("/faults")]

    def kite(self, **named: Any) -> KiteConnect:
        """The official client with a session of its own, which ends those before."""
        kite = self.info["kite"]
        token = self.admin("/kite/request_token", {"api_key": kite["api_key"]})["request_token"]
        client = KiteConnect(kite["api_key"], root=kite["root"], **named)
        client.set_access_token(client.generate_session(token, api_secret=kite["api_secret"])["access_token"])
        return client


@contextmanager
def alone(*arguments: str) -> Iterator[Alone]:
    """Start it, wait for its line, and end it; it must end by itself at SIGTERM."""
    command = [sys.executable, "-c", "from trading_platform.cli import main; main()", "sandbox", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, "the sandbox printed nothing"
        yield Alone(process, json.loads(line))
        process.terminate()
        assert process.wait(20) == 0
        assert process.stdout.read() == b"", "only one line is on standard output"
    finally:
        process.kill()
        process.wait()
