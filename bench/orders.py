"""What an order costs, beside bare clients in the same sitting. `python bench/orders.py --peers ../shared/peers_bench`

Runs the peers' scripts (ccxt, kiteconnect, httpx against a loopback server that checks nothing), durable commits at a
PostgreSQL of its own with fsync, and then the platform's own way against the same loopback server: risk, durable intent,
send, and the books. Single orders are measured in turns with a bare client that commits one row and then sends: in blocks,
whose answers are booked together; and one by one, with a pause as long as booking one takes, after which everything is cold,
for both. They are also put beside the loops that the peers' scripts and the commits run in by themselves, before and after.
The last line is one JSON object; ratios are what to look at, for seconds differ from hour to hour.
`--profile FILE` writes where the processor's time of the single orders goes.
"""

import argparse
import asyncio
import cProfile
import gc
import json
import os
import pstats
import signal as signals
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import psutil
import psycopg
import structlog
import uvloop
from pydantic import SecretStr
from rich.console import Console
from rich.progress import track
from rich.table import Table

from trading_platform.accounts.users import NewUser, create_user
from trading_platform.execution.books import Answer
from trading_platform.execution.clock import WallClock
from trading_platform.execution.decisions import Situation, decide
from trading_platform.execution.engine import Engine, stay_in_memory
from trading_platform.execution.intents import Cursor
from trading_platform.execution.limits import LimitBook, Limits
from trading_platform.execution.portfolio import Portfolio, Stake
from trading_platform.identifiers import AccountId, DatasetId, GroupId, StrategyId, Symbol, UserId, Venue
from trading_platform.markets.instruments import Instrument
from trading_platform.settings import Settings
from trading_platform.stack.processes import die_with_parent
from trading_platform.stack.servers import Postgres
from trading_platform.storage.control import Signal
from trading_platform.storage.databases import Databases, database_url, plain_url
from trading_platform.storage.migrate import migrate
from trading_platform.venues.binance import BinanceVenue
from trading_platform.venues.port import Accepted

D = Decimal
PORT = 18431
"""Where the peers' scripts look for their server."""
GROUP, DATASET, BTC = GroupId("bench"), DatasetId("bench"), Symbol("BTC/USDT")
STRATEGY = StrategyId("barrier_long")
START = datetime(2026, 7, 1, tzinfo=UTC)
ENOUGH = D(10**9)
FREE = Limits(ENOUGH, ENOUGH, 1_000, 100_000, 10_000_000, ENOUGH)
INSTRUMENT = Instrument(Venue("binance"), BTC, "BTC", "USDT", D("0.01"), D("0.00001"), D(5))
STEPS = ("risk", "durable intent", "send", "books")
WARM = 50
BOOKED_TOGETHER = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--peers", type=Path, default=Path("../shared/peers_bench"), help="folder of the peers' scripts"
    )
    parser.add_argument("--orders", type=int, default=1_000, help="single orders, one after the other")
    parser.add_argument("--users", type=int, default=1_000, help="accounts that follow one signal")
    parser.add_argument("--rounds", type=int, default=5, help="of one signal to all accounts")
    parser.add_argument("--profile", type=Path, help="write a profile of the single orders there")
    options = parser.parse_args()
    if not (options.peers / "order_server.py").exists():
        raise SystemExit(f"{options.peers} has no order_server.py: name the folder of the peers' scripts with --peers")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    with tempfile.TemporaryDirectory(prefix="bench-orders-") as folder:
        peers, work = options.peers.resolve(), Path(folder)
        run_peers(peers, work, ["orders.py", "orders_memory.py"])
        with database(work) as databases:
            commits = [commit_seconds(databases)]
            with order_server(peers):
                found = uvloop.run(measure(databases, options))
            commits.append(commit_seconds(databases))
        run_peers(peers, work, ["orders.py"])  # again: the machine's pace may be another one by now
        show(work, statistics.mean(commits), found)


# --- what others take ------------------------------------------------------------------------------------------------


def run_peers(folder: Path, work: Path, scripts: Sequence[str]) -> None:
    """Run them now; their rows go to a file in `work`."""
    for script in track(scripts, "peers", console=Console(stderr=True)):
        subprocess.run(
            [sys.executable, script], cwd=folder, check=True, stdout=subprocess.DEVNULL,
            env=os.environ | {"PEERS_WORK": str(work), "PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip


def told(work: Path, name: str, *path: str) -> float:
    """A figure of the peers' rows of that name: the mean where it was measured twice."""
    rows = [json.loads(line) for line in (work / "out" / "results.jsonl").read_text().splitlines()]
    first = next(row["name"] for row in rows if row["name"].startswith(name))
    figures = [reduce(getitem, path, row) for row in rows if row["name"] == first]
    return float(statistics.mean(figures))


@contextmanager
def order_server(folder: Path) -> Iterator[None]:
    command = [
        str(Path(sys.executable).parent / "granian"), "--interface", "asgi", "--port", str(PORT), "--workers", "1",
        "--loop", "uvloop", "--log-level", "error", "order_server:app",
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=folder, preexec_fn=die_with_parent)
    try:
        deadline = time.monotonic() + 20
        while socket.socket().connect_ex(("127.0.0.1", PORT)):
            if time.monotonic() > deadline:
                raise SystemExit("the loopback order server did not start")
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def database(folder: Path) -> Iterator[Databases]:
    """A PostgreSQL of its own that keeps what it has acknowledged, with one group."""
    postgres = Postgres(folder / "postgres")
    postgres.prepare()
    process = subprocess.Popen(postgres.command(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=die_with_parent)  # fmt: skip
    try:
        while not postgres.is_ready():
            time.sleep(0.05)
        databases = Databases(Settings(home_dir=folder / "home", database_url=SecretStr(postgres.url)), pool_size=16)
        migrate(databases)
        person = NewUser("a@example.com", "A", "trader", GROUP, "a password of the bench", user_id=UserId("u0"))
        create_user(databases, person, actor="bench")
        yield databases
        databases.close()
    finally:
        process.send_signal(signals.SIGINT)  # a fast shutdown, whoever is still connected
        process.wait(60)


def commit_seconds(databases: Databases, count: int = 1_000) -> float:
    """Median of one row's insert and durable commit over one connection."""
    with psycopg.connect(plain_url(database_url(databases.settings)), autocommit=True) as connection:
        connection.execute("drop table if exists one_commit")
        connection.execute("create table one_commit (id bigint primary key, body text)")
        taken = []
        for number in range(count):
            began = time.perf_counter()
            connection.execute("insert into one_commit values (%s, %s)", (number, "x" * 200))
            taken.append(time.perf_counter() - began)
    return statistics.median(taken)


# --- what we take ----------------------------------------------------------------------------------------------------


async def measure(databases: Databases, options: argparse.Namespace) -> dict[str, Any]:
    single = account(0)  # clients take seconds to import and to make: before there is a lease to renew
    gc.collect()
    before = psutil.Process().memory_info().rss
    crowd = [account(number) for number in range(1, options.users + 1)]
    memory = (psutil.Process().memory_info().rss - before) / options.users
    engine = Engine(databases, GROUP, DATASET, WallClock())
    engine.instruments = {BTC: INSTRUMENT}
    stay_in_memory()
    assert await engine.lease.acquire()
    keeping = asyncio.create_task(keep(engine))
    situation = Situation(
        engine.instruments, False, lambda moment: time.time(), lambda portfolio: None, GROUP, LimitBook.of(())
    )
    async with bare_client(databases, options.peers) as bare:
        await singly(engine, situation, single, range(WARM), 1, bare)  # what is compiled and connected once
        profile = cProfile.Profile()
        if options.profile:
            profile.enable()
        stream = await singly(engine, situation, single, range(WARM, WARM + options.orders), BOOKED_TOGETHER, bare)
        profile.disable()
        refresh(single)
        turns = range(WARM + options.orders, WARM + options.orders + options.orders // 2)
        alone = await singly(engine, situation, single, turns, 1, bare)
    if options.profile:
        pstats.Stats(profile).dump_stats(options.profile)
    await single.venue.close()
    many = [await together(engine, situation, crowd, number) for number in range(options.rounds)]
    for portfolio in crowd:
        await portfolio.venue.close()
    keeping.cancel()
    await engine.lease.release()
    await engine.writer.close()
    await databases.aclose()
    return {"stream": stream, "alone": alone, "many": statistics.median(many), "memory": memory, "users": options.users}


def account(number: int) -> Portfolio:
    return Portfolio(
        user_id=UserId(f"u{number}"), account_id=AccountId(f"a{number}"), kind="sandbox", armed=False, currency="USDT",
        venue=BinanceVenue(f"http://127.0.0.1:{PORT}", f"key-{number}", f"secret-{number}"), limits=FREE,
        stakes={STRATEGY: Stake(STRATEGY, D("0.01"), True, True)}, cash=D(1_000_000),
    )  # fmt: skip


def refresh(portfolio: Portfolio) -> None:
    """A new day's limits."""
    portfolio.sent_at.clear()
    portfolio.orders_today = 0


def signal(number: int) -> Signal:
    at = START + timedelta(minutes=number)
    return Signal(
        dataset_id=DATASET, seq=number + 1, signal_id=f"s{number}", strategy_id=STRATEGY, version_id="v", role="champion",
        symbol=BTC, bar_open_time=at - timedelta(minutes=1), available_at=at, price=D(30_000), state="ok",
        probability=0.7, direction="long", certified=True, threshold=0.6, confidence=0.7, target_price=D(31_000),
        stop_price=D(29_000), exit_by=at + timedelta(hours=1), expires_at=at + timedelta(hours=1), volatility="low",
        trend="up", liquidity="high", session="us",
    )  # fmt: skip


@dataclass
class Bare:
    """A ccxt client as the peers' scripts make it, and a connection that commits one row."""

    client: Any
    connection: psycopg.AsyncConnection
    rows: int = 0

    async def commit(self) -> float:
        began = time.perf_counter()
        self.rows += 1
        await self.connection.execute("insert into bare_commit values (%s, %s)", (self.rows, "x" * 200))
        return time.perf_counter() - began

    async def order(self) -> float:
        began = time.perf_counter()
        await self.client.create_order("BTC/USDT", "limit", "buy", 1.0, 30000.0)
        return time.perf_counter() - began


async def singly(
    engine: Engine,
    situation: Situation,
    portfolio: Portfolio,
    numbers: range,
    book_every: int,
    bare: Bare | None = None,
) -> dict[str, list[float]]:
    """Seconds of every step, order by order: the engine's own functions, called as it calls them.

    `book_every`: so many answers are booked together, as they are while orders wait (`Dispatch`). `bare` commits one row
    and sends one order as often, in turns with ours; where each order is booked, it pauses for as long before ours goes on.
    """
    taken: dict[str, list[float]] = defaultdict(list)
    answers: list[Answer] = []
    for number in numbers:
        given = signal(number)
        began = time.perf_counter()
        decisions = decide(portfolio, [given], given.available_at, situation, given.available_at)
        decided = time.perf_counter()
        assert decisions[0].denial is None, decisions[0].denial
        issued_at = datetime.now(UTC)
        cursor = Cursor(DATASET, given.seq, given.available_at)
        at = given.available_at
        (order,) = await engine.writer.write(decisions, engine.instruments, at, issued_at, at, cursor)
        written = time.perf_counter()
        answers.append(await engine.sender.place(order, time.time()))
        sent = time.perf_counter()
        assert answers[-1].accepted, answers[-1].result
        if len(answers) == book_every or number == numbers[-1]:
            await engine.sender.book(answers)
            taken["books"].append((time.perf_counter() - sent) / len(answers))
            taken["bare"] += [await bare.commit() + await bare.order() for _ in answers]
            if book_every == 1:
                await asyncio.sleep(taken["books"][-1])
            answers.clear()
        for name, seconds in zip(STEPS, (decided - began, written - decided, sent - written), strict=False):
            taken[name].append(seconds)
        taken["to the wire and back"].append(sent - began)
        portfolio.working.clear()
        portfolio.unknown.clear()
    return taken


@asynccontextmanager
async def bare_client(databases: Databases, peers: Path) -> AsyncIterator[Bare]:
    import ccxt.async_support

    sys.path.insert(0, str(peers))
    from ccxt_local import make

    url, _ = databases.group_address(GROUP)
    client = make(ccxt.async_support.binance)
    async with await psycopg.AsyncConnection.connect(plain_url(url), autocommit=True) as connection:
        await connection.execute("create table bare_commit (id bigint primary key, body text)")
        yield Bare(client, connection)
    await client.close()


async def together(engine: Engine, situation: Situation, crowd: list[Portfolio], round_: int) -> float:
    """Seconds from one signal to the answer of the last of all accounts' orders."""
    given, answered = signal(100_000 + round_), [0.0]
    for portfolio in crowd:
        portfolio.working.clear()
        portfolio.unknown.clear()
        _note_answers(portfolio.venue, answered)
    engine.portfolios = crowd
    began = time.perf_counter()
    decisions = [
        decision
        for portfolio in crowd
        for decision in decide(portfolio, [given], given.available_at, situation, given.available_at)
    ]
    assert sum(decision.denial is None for decision in decisions) == len(crowd), decisions[0].denial
    await engine._carry_out(decisions, given.available_at, given.seq)
    return answered[0] - began


def _note_answers(venue: Any, answered: list[float]) -> None:
    place = type(venue).place_market

    async def noted(*given: Any, **named: Any) -> Any:
        result = await place(venue, *given, **named)
        assert isinstance(result, Accepted), result
        answered[0] = time.perf_counter()
        return result

    venue.place_market = noted


async def keep(engine: Engine) -> None:
    while True:
        await asyncio.sleep(2)
        await engine.lease.renew()


# --- side by side ----------------------------------------------------------------------------------------------------


def show(work: Path, commit: float, found: dict[str, Any]) -> None:
    ccxt = told(work, "ccxt.async_support binance, 1 in flight", "us", "p50")
    bare = found["users"] / told(work, "ccxt.async_support binance, 32 in flight", "per_s")
    own_table = told(work, "per-user object: ccxt binance, own set_markets", "kb_each")
    stream = {name: statistics.median(values) * 1e6 for name, values in found["stream"].items()}
    alone = {name: statistics.median(values) * 1e6 for name, values in found["alone"].items()}
    way, kite = stream["to the wire and back"], told(work, "kiteconnect place_order, 1", "us", "p50")
    rows = [
        ("order, intent to answer (p50)", f"{way:.0f} us", f"one commit, then ccxt {stream['bare']:.0f} us",
         way / stream["bare"], 1.3),
        ("the same after a pause", f"{alone['to the wire and back']:.0f} us",
         f"commit, ccxt after a pause {alone['bare']:.0f} us", alone["to the wire and back"] / alone["bare"], 1.3),
        ("order, beside the scripts' loops", f"{way:.0f} us", f"ccxt {ccxt:.0f}, commit {commit * 1e6:.0f} us",
         way / (ccxt + commit * 1e6), 1.3),
        (f"{found['users']} users, one signal", f"{found['many']:.2f} s", f"bare ccxt {bare:.2f} s", found["many"] / bare, 1.3),
        ("order, beside kiteconnect (p50)", f"{way:.0f} us", f"{kite:.0f} us", way / kite, None),
        ("memory a user", f"{found['memory'] / 1e6:.3f} MB", f"own table {own_table / 1024:.1f} MB; aim .3 MB",
         found["memory"] / 1e6 / 0.3, 1.0),
    ]  # fmt: skip
    table = Table("row", "ours", "beside", "ratio", "aim", "met")
    for name, ours, beside, ratio, aim in rows:
        met = "" if aim is None else ("yes" if ratio <= aim else "NO")
        table.add_row(name, ours, beside, f"{ratio:.2f}", "" if aim is None else f"{aim}", met)
    where = Table("step of one order, p50 us", f"booked by {BOOKED_TOGETHER}", "booked before the next", "share", "")
    whole = sum(alone[name] for name in STEPS)
    for name in STEPS:
        share = alone[name] / whole
        where.add_row(name, f"{stream[name]:.0f}", f"{alone[name]:.0f}", f"{share:.0%}", "#" * round(40 * share))
    console = Console()
    console.print(table, where)
    print(json.dumps({
        "ratios": {name: round(ratio, 3) for name, _, _, ratio, _ in rows},
        "stream_us": {name: round(stream[name]) for name in STEPS}, "alone_us": {name: round(alone[name]) for name in STEPS},
        "commit_us": round(commit * 1e6), "ccxt_us": round(ccxt), "order_us": round(way), "users_s": round(found["many"], 3),
        "bare_s": round(bare, 3), "memory_kb": round(found["memory"] / 1024),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
