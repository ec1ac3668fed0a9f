"""Engine processes by the dozen: one parent has imported everything and forks an engine in milliseconds.

    python -m trading_platform.torture.engines        # reads {"group", "dataset", "crash", ...} lines, answers with pids

A forked engine is the platform's own, with short leases and a trap: once it has decided on an order, it sends itself SIGKILL
after `crash` more instructions of the send path (byte codes of the files that write, send and book). So it dies between any
two of them; or it gets `signal` at a named `point` (`crash_points.py`). `standby`: it takes over and is never the first.
"""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Any

from trading_platform.stack.processes import die_with_parent

SEND_PATH = (
    "execution/sender.py", "execution/books.py", "execution/positions.py", "execution/intents.py",
    "execution/outgoing.py", "execution/dispatch.py", "execution/watched_venue.py", "storage/direct_call.py",
    "venues/binance.py", "venues/wire.py", "venues/zerodha/venue.py", "venues/zerodha/orders.py",
    "venues/zerodha/transport.py",
)  # fmt: skip
LEASE_SECONDS, RENEW_SECONDS = 2.0, 0.5
RECEIVE_WINDOW_SECONDS, MARGIN_SECONDS = 1.0, 0.5
PROBES = (0.3, 0.7, 1.0)


@dataclass
class Nursery:
    """The parent process of all engines, as the torture talks to it."""

    environment: dict[str, str]
    log: Path
    process: "subprocess.Popen[str] | None" = field(default=None)

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "trading_platform.torture.engines"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=log, text=True, env=os.environ | self.environment, preexec_fn=die_with_parent,
            )  # fmt: skip

    def engine(self, **order: Any) -> int:
        """Fork an engine; returns its process id."""
        assert self.process is not None
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(order), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the parent of the engines has ended; its log is {self.log}")
        return int(line)

    def stop(self) -> None:
        if self.process is not None:
            assert self.process.stdin is not None
            self.process.stdin.close()
            self.process.wait(30)


def main() -> None:
    """Read orders, fork engines, reap them, until standard input ends."""
    import ccxt.async_support  # noqa: F401
    import uvloop  # noqa: F401

    from trading_platform.execution import commands  # noqa: F401
    from trading_platform.torture import crash_points, sabotage  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system reaps them
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _be_an_engine(order)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


def _be_an_engine(order: dict[str, Any]) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    die_with_parent(signal.SIGKILL)
    os.close(0)
    os.dup2(2, 1)
    try:
        _shorten(float(order.get("lease_seconds", LEASE_SECONDS)))
        if name := order.get("sabotage"):
            from trading_platform.torture.sabotage import SABOTAGES

            SABOTAGES[name]()
        if point := order.get("point"):
            from trading_platform.torture.crash_points import arm

            arm(point, getattr(signal, order.get("signal", "SIGKILL")))
        if order.get("crash"):
            _set_trap(int(order["crash"]))
        _run(order["group"], order["dataset"], standby=bool(order.get("standby")))
    finally:
        os._exit(0)


def _shorten(lease_seconds: float) -> None:
    """Leases, receive windows and probes of seconds: what a lease of ten seconds survives, one of two does."""
    from trading_platform.execution import engine, lease, probes, reconciliation, sender
    from trading_platform.venues import binance

    lease.TTL = timedelta(seconds=lease_seconds)
    setattr(engine, "RENEW_EVERY_SECONDS", RENEW_SECONDS)  # noqa: B010 - imported there, and read there
    engine.RETRY_SECONDS = 0.2
    reconciliation.EVERY_SECONDS, reconciliation.AGAIN_SECONDS = 3.0, 0.2
    probes.GAPS_SECONDS = PROBES
    setattr(sender, "FIRST_PROBE_SECONDS", PROBES[0])  # noqa: B010 - as above
    binance.RECV_WINDOW = timedelta(seconds=RECEIVE_WINDOW_SECONDS)
    binance.ABSENCE_MARGIN = timedelta(seconds=MARGIN_SECONDS)


def _run(group: str, dataset: str, *, standby: bool) -> None:
    import asyncio

    import uvloop

    from trading_platform.execution import lease
    from trading_platform.execution.clock import WallClock
    from trading_platform.execution.engine import Engine
    from trading_platform.identifiers import DatasetId, GroupId
    from trading_platform.observability import logs
    from trading_platform.settings import settings
    from trading_platform.storage.databases import Databases

    class DataClock(WallClock):
        """Waits for nobody, and yet its days pass in minutes: the market's time is that of its data."""

        def now(self, market_time: datetime | None) -> datetime:
            return market_time or super().now(market_time)

    settings.cache_clear()
    current = settings()
    logs.configure(f"engine:{group}", current)

    async def serve() -> None:
        databases = Databases(current, pool_size=4, asleep_after=lease.TTL)
        service = Engine(databases, GroupId(group), DatasetId(dataset), DataClock(), standby=standby)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, service.stop.set)
        await service.run()

    uvloop.run(serve())


def _set_trap(limit: int) -> None:
    """Die after so many instructions of the send path, counted from the first decision that is written down.

    The interpreter is watched only from then on: that slows it by half, and an engine's start is most of its life here.
    """
    from trading_platform.execution.intents import StepWriter

    write = StepWriter.write_rows

    async def first(self: StepWriter, rows: Any, *given: Any) -> set[str]:
        if rows:
            StepWriter.write_rows = write  # type: ignore[method-assign]
            sys.settrace(_trap(limit))
        return await write(self, rows, *given)

    StepWriter.write_rows = first  # type: ignore[assignment,method-assign]


def _trap(limit: int) -> Any:
    root = str(Path(__file__).resolve().parents[1]) + "/"
    files = {root + name for name in SEND_PATH}
    left = limit

    def inside(frame: FrameType, event: str, _: object) -> Any:
        nonlocal left
        if event == "opcode":
            left -= 1
            if left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return inside

    def outside(frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code.co_filename not in files:
            return None
        frame.f_trace_opcodes = True
        return inside

    return outside


if __name__ == "__main__":
    main()
