"""Engines as real processes that die exactly there, by SIGKILL: at every named step of sending, and of settling what a dead
engine left. What must hold is read from the exchange's own books, which no engine sees.

A batch of points is lived through at the same time, a group each; then every one is judged by itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tests.torture.platform_under_test import Platform, alive, batched, platform_under_test, wait_until
from trading_platform.torture.comparison import Verdict
from trading_platform.torture.crash_points import SEND_POINTS, SETTLE_POINTS
from trading_platform.torture.deployment import Traded

pytestmark = [pytest.mark.xdist_group("torture"), pytest.mark.timeout(900)]
WIRE_POINTS = (
    "before the door", "signed, not on the wire", "bytes on the wire, answer not read", "answer read, not understood",
    "answer understood", "acknowledgement written, not committed",
)  # fmt: skip
ARRIVED, LOST = "bytes on the wire, answer not read", "signed, not on the wire"
STOP_POINTS = tuple(point for point in SEND_POINTS if point.startswith("stop "))
"""Passed with an entry alone."""
CANCEL_POINTS = tuple(point for point in SEND_POINTS if point.startswith("cancel "))
"""Passed with an exit alone, whose stop makes way."""
BEFORE_SETTLING = {
    "lease taken": ARRIVED, "before the venue is asked": ARRIVED, "venue asked, nothing booked": ARRIVED,
    "UNKNOWN written, not committed": LOST, "issued anew, not sent again": LOST, "sent again, not booked": LOST,
}  # fmt: skip
AT_ONCE = 10
PATIENT = 20.0
"""Seconds of a lease: so long that a slow machine does not lose it. Where its holder has died, it is ended at once."""
CASES = [
    *(("binance", point) for point in SEND_POINTS),
    *(("binance", point) for point in SETTLE_POINTS if point != "UNKNOWN written, not committed"),
    *(("zerodha", point) for point in (*WIRE_POINTS, "UNKNOWN written, not committed")),
]


@dataclass
class Lived:
    traded: Traded
    deaths: int = 0
    verdict: Verdict = field(default_factory=Verdict)


@pytest.fixture(scope="module")
def lived(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[dict[tuple[str, str], Lived]]:
    asked = [item.callspec.params for item in request.session.items if item.path == request.path]  # type: ignore[attr-defined]
    wanted = [(params["venue"], params["point"]) for params in asked]
    with platform_under_test(tmp_path_factory.mktemp("crash_points")) as made:
        cases: dict[tuple[str, str], Lived] = {}
        for batch in batched(wanted, AT_ONCE):
            some = {case: Lived(made.group(case[0])) for case in batch}
            cases |= some
            _die(made, some, entering=True)
            twice = {
                case: each
                for case, each in some.items()
                if case[0] == "binance" and case[1] in SEND_POINTS and case[1] not in STOP_POINTS
            }
            if twice:
                _die(made, twice, entering=False)
        for each in cases.values():
            if each.traded.venue == "zerodha":
                made.engine(each.traded, lease_seconds=PATIENT)
        made.market.close_day()
        for each in cases.values():
            if each.traded.venue == "zerodha":
                wait_until(lambda each=each: made.settled(each.traded), f"evening of {each.traded.group_id}", 60)
        for each in cases.values():
            if each.traded.venue == "zerodha":
                each.verdict = made.compare([each.traded])
        yield cases


def _die(made: Platform, cases: dict[tuple[str, str], Lived], *, entering: bool) -> None:
    """Engines that will die, the market until they have, and the successors that settle and go on."""
    doomed, spared = {}, {}
    for case, each in cases.items():
        if entering and case[1] in CANCEL_POINTS:
            spared[case] = made.engine(each.traded, lease_seconds=PATIENT)
        else:
            doomed[case] = made.engine(each.traded, point=BEFORE_SETTLING.get(case[1], case[1]), lease_seconds=PATIENT)
    _await_trading(made, cases, doomed | spared)
    made.market.entering = entering
    for _ in range(1 if entering else 5):  # every symbol is entered at once, and left after three minutes
        if any(alive(pid) for pid in doomed.values()):
            made.market.step()
            _pause_until(lambda: not any(alive(pid) for pid in doomed.values()), 45.0 if entering else 4.0)
    for case in spared:
        wait_until(lambda case=case: made.settled(cases[case].traded), f"the entries before {case[1]!r}", 60)
    for case, pid in (doomed | spared).items():
        cases[case].deaths += not alive(pid)
        if alive(pid):
            made.end(pid)
        made.lease_runs_out(cases[case].traded)
    takers = {
        case: made.engine(cases[case].traded, point=case[1], lease_seconds=PATIENT)
        for case in cases
        if case[1] in SETTLE_POINTS
    }
    successors = {
        case: made.engine(each.traded, lease_seconds=PATIENT) for case, each in cases.items() if case not in takers
    }
    for case, pid in takers.items():
        _pause_until(lambda pid=pid: not alive(pid), 45.0)
        cases[case].deaths += not alive(pid)
        if alive(pid):
            made.end(pid)
        made.lease_runs_out(cases[case].traded)
        successors[case] = made.engine(cases[case].traded, lease_seconds=PATIENT)
    _await_trading(made, cases, successors)
    _judge(made, cases)
    for case, pid in successors.items():
        made.end(pid)
        made.lease_runs_out(cases[case].traded)


def _judge(made: Platform, cases: dict[tuple[str, str], Lived]) -> None:
    """At Binance, where absence is proven in time: at once, for the market goes on without them and stops may go off."""
    for case, each in cases.items():
        if case[0] == "binance":
            wait_until(lambda each=each: made.settled(each.traded), f"settling after {case[1]!r}", 60)
            each.verdict = made.compare([each.traded])


def _await_trading(made: Platform, cases: dict[tuple[str, str], Lived], pids: dict[tuple[str, str], int]) -> None:
    for case, pid in pids.items():
        wait_until(lambda case=case, pid=pid: made.trading(cases[case].traded) == pid, f"an engine for {case}", 60)


def _pause_until(ready: object, seconds: float) -> None:
    import time

    assert callable(ready)
    deadline = time.monotonic() + seconds
    while not ready() and time.monotonic() < deadline:
        time.sleep(0.05)


@pytest.mark.parametrize(("venue", "point"), CASES)
def test_who_dies_at_this_step_loses_and_doubles_nothing(
    lived: dict[tuple[str, str], Lived], venue: str, point: str
) -> None:
    found = lived[venue, point]
    once = point in (*STOP_POINTS, *CANCEL_POINTS) or (venue == "zerodha" and point in SEND_POINTS)
    expected = 1 if once else 2
    assert found.deaths >= expected, f"died {found.deaths} times at {point!r}"
    assert found.verdict.lines == []
    # At Kite what never reached the wire is given up in the evening: there, no order at all may be right.
    assert found.verdict.clean or (venue == "zerodha" and found.verdict.orders == 0), found.verdict.shown()
