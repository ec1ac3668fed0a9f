"""Clients in another language, with nothing but the base URL changed: Zerodha's own for JavaScript, and one for Binance."""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox.alone import alone

FOLDER = Path(__file__).with_name("javascript")
FILES = ("package.json", "package-lock.json", "trade.mjs")


@pytest.fixture(scope="module")
def clients(request: pytest.FixtureRequest) -> Path:
    """A folder with the locked clients installed; kept from one test run to the next."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm are not on this machine")
    content = hashlib.sha256((FOLDER / "package-lock.json").read_bytes()).hexdigest()[:12]
    folder = request.config.cache.mkdir(f"javascript-{content}")  # type: ignore[union-attr]
    for name in FILES:
        shutil.copy(FOLDER / name, folder)
    if not (folder / "node_modules" / "kiteconnect").exists():
        done = subprocess.run(
            [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder, capture_output=True
        )
        if done.returncode != 0:
            pytest.skip(f"npm cannot install the locked clients here: {done.stderr[-200:]!r}")
    return folder


@pytest.mark.timeout(240)
def test_clients_for_javascript_trade_at_both_doors(clients: Path) -> None:
    with alone("--speed", "60", "--seed", "11") as sandbox:
        command = ["node", "trade.mjs", json.dumps(sandbox.info), "INFY"]
        done = subprocess.run(command, cwd=clients, capture_output=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr.decode()
    seen: dict[str, Any] = json.loads(done.stdout)
    tick = seen["kite"].pop("tick")
    assert tick.pop("price") > 0
    assert tick == {"mode": "full", "token": True, "depth": 5}
    assert seen["kite"] == {
        "orders": {"JS1": "COMPLETE", "JS2": "CANCELLED"}, "filled": 2, "position": 2, "refused": "InputException",
        "updates": ["COMPLETE", "OPEN", "CANCELLED"],
    }  # fmt: skip
    assert seen["binance"] == {
        "listed": True, "status": "FILLED", "open": ["js_rests"], "cancelled": "CANCELED", "bought": 0.01, "refused": -1013,
    }  # fmt: skip
