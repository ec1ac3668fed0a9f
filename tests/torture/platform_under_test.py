"""A database, an exchange and a parent of engines for tests that kill: one market, groups as they are asked for."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import func, select, update

from trading_platform.storage.databases import Databases
from trading_platform.storage.group import EngineLease, SignalCursor
from trading_platform.torture.comparison import Verdict, compare_at_rest, unsettled
from trading_platform.torture.deployment import Deployment, Traded
from trading_platform.torture.engines import Nursery
from trading_platform.torture.exchange import Exchange
from trading_platform.torture.market import Market

BOTH = ("binance", "zerodha")


class Entering(Market):
    """A market in which every symbol is worth a trade while `entering`, and none else."""

    entering = True

    def _signal(self, venue: str, symbol: str, price: Any) -> dict[str, Any]:
        state = {"state": "ok", "direction": "long"} if self.entering else {"state": "abstain", "direction": "flat"}
        return super()._signal(venue, symbol, price) | state


@dataclass
class Platform:
    deployment: Deployment
    exchange: Exchange
    nursery: Nursery
    market: Entering
    pids: list[int]

    @property
    def databases(self) -> Databases:
        return self.deployment.databases

    def group(self, venue: str) -> Traded:
        """A new one, which trades from now on: what the market said before is not its business."""
        self.deployment.traded.append(self.deployment._group(len(self.deployment.traded), venue))
        new = self.deployment.traded[-1]
        with self.databases.group(new.group_id) as session:
            session.add(SignalCursor(dataset_id=new.dataset_id, seq=self.last_seq(new), market_time=self.market.now))
        return new

    def engine(self, traded: Traded, **order: Any) -> int:
        self.pids.append(self.nursery.engine(group=traded.group_id, dataset=traded.dataset_id, **order))
        return self.pids[-1]

    def trading(self, traded: Traded) -> int | None:
        """The process id of the engine that trades a group now."""
        with self.databases.group(traded.group_id) as session:
            valid = EngineLease.expires_at > func.now()
            row = session.scalars(select(EngineLease).where(valid, EngineLease.state == "RUNNING")).one_or_none()
        return int(row.holder.split(":")[1]) if row is not None else None

    def settled(self, traded: Traded) -> bool:
        """All signals are consumed, and no outcome is open."""
        with self.databases.group(traded.group_id) as session:
            cursor = session.get(SignalCursor, traded.dataset_id)
        books = self.exchange.tell("/books")[traded.account_id]
        return (
            cursor is not None and cursor.seq >= self.last_seq(traded) and not unsettled(self.databases, traded, books)
        )

    def last_seq(self, traded: Traded) -> int:
        from trading_platform.storage.control import Signal

        with self.databases.control() as session:
            newest = select(func.max(Signal.seq)).where(Signal.dataset_id == traded.dataset_id)
            return session.scalar(newest) or 0

    def lease_runs_out(self, traded: Traded) -> None:
        """Its holder is dead: nobody needs to wait for it."""
        with self.databases.group(traded.group_id) as session:
            session.execute(update(EngineLease).values(expires_at=func.now()))

    def compare(self, traded: Sequence[Traded]) -> Verdict:
        return compare_at_rest(self.databases, traded, lambda: self.exchange.tell("/books"))

    def end(self, pid: int, which: signal.Signals = signal.SIGKILL) -> None:
        strike(pid, which)
        wait_until(lambda: not alive(pid), f"the end of {pid}", 20)


@contextmanager
def platform_under_test(folder: Path, venues: tuple[str, ...] = BOTH, seed: int = 3) -> Iterator[Platform]:
    exchange = Exchange(folder, seed)
    exchange.start()
    deployment = Deployment(folder, exchange, 0, venues)
    deployment.start()
    deployment.fill()
    nursery = Nursery(deployment.environment, folder / "engines.log")
    nursery.start()
    made = Platform(deployment, exchange, nursery, Entering(deployment.databases, exchange, venues, seed), [])
    try:
        yield made
    finally:
        for pid in made.pids:
            strike(pid)
        nursery.stop()
        exchange.stop()
        deployment.stop()


def batched(given: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(given), size):
        yield given[start : start + size]


def wait_until(ready: Callable[[], bool], what: str, seconds: float = 60.0) -> float:
    """Seconds that it took."""
    began = time.monotonic()
    while not ready():
        assert time.monotonic() - began < seconds, f"{what} did not come within {seconds:.0f} s"
        time.sleep(0.05)
    return time.monotonic() - began


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def strike(pid: int, which: signal.Signals = signal.SIGKILL) -> None:
    try:
        os.kill(pid, which)
    except ProcessLookupError:
        return
