"""Who trades when processes die, sleep past their lease, or lose their database: real processes, judged by the exchange's books."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.torture.platform_under_test import Platform, alive, platform_under_test, stopped, strike, wait_until
from trading_platform.execution.lease import TTL
from trading_platform.torture.comparison import Verdict
from trading_platform.torture.deployment import Traded
from trading_platform.venues.binance import CALL_TIMEOUT_SECONDS

pytestmark = [pytest.mark.xdist_group("torture"), pytest.mark.timeout(300)]
LEASE_SECONDS = 8.0
"""Long enough that a busy machine does not lose one by being slow."""
ASLEEP = [
    ("binance", "SENDING committed, nothing sent"),
    ("binance", "signed, not on the wire"),
    ("binance", "bytes on the wire, answer not read"),
    ("binance", "acknowledgement written, not committed"),  # asleep while it holds rows, its lease's among them
    ("zerodha", "signed, not on the wire"),
    ("zerodha", "bytes on the wire, answer not read"),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with platform_under_test(tmp_path_factory.mktemp("takeover")) as platform:
        yield platform


def command(made: Platform, log: Path, *arguments: str) -> "subprocess.Popen[bytes]":
    environment = os.environ | made.deployment.environment | {"TP_LOG_LEVEL": "INFO", "TP_SANDBOX_ADMIN_TOKEN": ""}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "trading_platform.cli", "engine", *arguments],
            env=environment,
            stdout=out,
            stderr=out,
        )
    made.pids.append(process.pid)
    return process


def test_a_standby_takes_over_all_groups_of_a_dead_engine_within_lease_time_out_and_two_seconds(
    made: Platform, tmp_path: Path
) -> None:
    """The platform's own command with its own times; one process owns two groups, and so does its standby."""
    groups = [made.group("binance"), made.group("binance")]
    where = [word for each in groups for word in ("--group", each.group_id)] + ["--dataset", groups[0].dataset_id]
    standby = command(made, tmp_path / "standby.log", *where, "--standby")
    log = tmp_path / "standby.log"
    wait_until(lambda: log.read_text().count("engine_stands_by") == 2, "a warm standby", 90)
    time.sleep(2)
    assert [made.trading(each) for each in groups] == [None, None], "a standby is never the first"
    first = command(made, tmp_path / "first.log", *where)
    for each in groups:
        wait_until(lambda each=each: made.trading(each) == first.pid, "the first engine", 90)
    first.send_signal(signal.SIGKILL)
    first.wait()
    began = time.monotonic()
    for each in groups:
        wait_until(lambda each=each: made.trading(each) == standby.pid, "the takeover", 60)
    took = time.monotonic() - began
    standby.terminate()
    assert standby.wait(30) == 0
    assert 1 < took <= TTL.total_seconds() + CALL_TIMEOUT_SECONDS + 2, f"{took:.1f} s"


@dataclass
class Slept:
    """What became of a group whose engine was stopped past its lease, and went on."""

    traded: Traded
    sleeper: int
    successor: int = 0
    owner: int | None = None
    bought: set[str] = field(default_factory=set)
    """Before it woke up."""
    bought_in_the_end: set[str] = field(default_factory=set)
    verdict: Verdict = field(default_factory=Verdict)


@pytest.fixture(scope="module")
def slept(made: Platform) -> dict[tuple[str, str], Slept]:
    """All cases at the same time, a group each."""
    cases = {}
    for venue, point in ASLEEP:
        traded = made.group(venue)
        sleeper = made.engine(traded, point=point, signal="SIGSTOP", lease_seconds=LEASE_SECONDS)
        cases[venue, point] = Slept(traded, sleeper)
    for each in cases.values():
        wait_until(lambda each=each: made.trading(each.traded) == each.sleeper, "the engine that will sleep")
    made.market.entering = True
    made.market.step()
    for case, each in cases.items():
        wait_until(lambda each=each: stopped(each.sleeper), f"the stop at {case}", 40)
        each.successor = made.engine(each.traded, standby=True, lease_seconds=LEASE_SECONDS)
    for case, each in cases.items():
        wait_until(lambda each=each: made.trading(each.traded) == each.successor, f"the successor at {case}", 40)
        if case[0] == "binance":
            wait_until(lambda each=each: made.settled(each.traded), f"the successor's settling at {case}")
        each.bought = entries(made, each.traded)
    for each in cases.values():
        strike(each.sleeper, signal.SIGCONT)
    time.sleep(4)  # as long as it takes to do harm
    for each in cases.values():
        each.owner = made.trading(each.traded)
    made.market.close_day()  # Kite takes what comes late, and proves absence in the evening alone
    for case, each in cases.items():
        wait_until(lambda each=each: made.settled(each.traded), f"settling after {case} woke up")
        each.verdict = made.compare([each.traded])
        each.bought_in_the_end = entries(made, each.traded)
        made.end(each.sleeper)
        made.end(each.successor)
    return cases


@pytest.mark.parametrize(("venue", "point"), ASLEEP)
def test_who_was_stopped_past_his_lease_creates_nothing_new_and_what_he_had_written_is_claimed(
    slept: dict[tuple[str, str], Slept], venue: str, point: str
) -> None:
    found = slept[venue, point]
    assert found.owner == found.successor, "both believed that they own the group; one does"
    assert (found.verdict.lines, found.verdict.doubled, found.verdict.lost) == ([], 0, 0)
    if venue == "binance":
        assert found.bought_in_the_end == found.bought, "the holder of an old epoch had an order executed"


def entries(made: Platform, traded: Traded) -> set[str]:
    """What was bought; the successor puts stops under it as it goes on."""
    orders = made.exchange.tell("/books")[traded.account_id]["orders"]
    return {str(row["client_order_id"]) for row in orders if row["side"].lower() == "buy"}


def test_engines_recover_by_themselves_when_postgresql_is_restarted_under_load(made: Platform) -> None:
    groups: list[Traded] = [made.group("binance") for _ in range(3)]
    pids = [made.engine(each) for each in groups]
    for each in groups:
        wait_until(lambda each=each: made.trading(each) is not None, "engines")
    for pause in (0.0, 0.03, 0.1, 0.3):
        made.market.entering = not made.market.entering
        made.market.step()
        time.sleep(pause)
        made.deployment.kill()
        made.deployment.start()
        made.databases.close()
        for each in groups:
            wait_until(lambda each=each: made.trading(each) is not None, "recovery", 60)
            wait_until(lambda each=each: made.settled(each), "settling", 60)
    assert [alive(pid) for pid in pids] == [True] * 3, "they live through it"
    assert [made.trading(each) for each in groups] == pids
    found = made.compare(groups)
    assert (found.lines, found.clean) == ([], True)
