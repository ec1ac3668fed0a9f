"""Who trades when processes die, sleep past their lease, or lose their database: real processes, judged by the exchange's books."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.torture.platform_under_test import Platform, alive, platform_under_test, stopped, strike, wait_until
from trading_platform.execution.lease import TTL
from trading_platform.torture.deployment import Traded
from trading_platform.venues.binance import CALL_TIMEOUT_SECONDS

pytestmark = [pytest.mark.xdist_group("torture"), pytest.mark.timeout(300)]
LEASE_SECONDS = 5.0
"""Long enough that a busy machine does not lose one by being slow."""


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


@pytest.mark.parametrize(
    ("venue", "point"),
    [
        ("binance", "SENDING committed, nothing sent"),
        ("binance", "signed, not on the wire"),
        ("binance", "bytes on the wire, answer not read"),
        ("binance", "acknowledgement written, not committed"),  # asleep while it holds rows, its lease's among them
        ("zerodha", "signed, not on the wire"),
        ("zerodha", "bytes on the wire, answer not read"),
    ],
)
def test_who_was_stopped_past_his_lease_creates_nothing_new_and_what_he_had_written_is_claimed(
    made: Platform, venue: str, point: str
) -> None:
    traded = made.group(venue)
    sleeper = made.engine(traded, point=point, signal="SIGSTOP", lease_seconds=LEASE_SECONDS)
    wait_until(lambda: made.trading(traded) == sleeper, "the engine that will sleep")
    made.market.entering = True
    made.market.step()
    wait_until(lambda: stopped(sleeper), f"the stop at {point!r}", 20)
    successor = made.engine(traded, standby=True, lease_seconds=LEASE_SECONDS)
    wait_until(lambda: made.trading(traded) == successor, "its successor", 30)
    if venue == "binance":
        wait_until(lambda: made.settled(traded), "the successor's settling")
    written = entries(made, traded)
    strike(sleeper, signal.SIGCONT)
    time.sleep(3)  # as long as it takes to do harm
    assert made.trading(traded) == successor, "both believed that they own the group; one does"
    if venue == "zerodha":  # the broker takes what comes late, and proves absence in the evening alone
        made.market.close_day()
    wait_until(lambda: made.settled(traded), "settling after it woke up")
    after = made.compare([traded])
    assert (after.lines, after.doubled, after.lost) == ([], 0, 0)
    if venue == "binance":
        assert entries(made, traded) == written, "the holder of an old epoch had an order executed"
    for pid in (sleeper, successor):
        made.end(pid)


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
