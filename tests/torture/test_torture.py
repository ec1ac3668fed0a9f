"""The torture finds nothing in the product, and finds what is missing where a protection was taken out.

Short runs: `trading-platform torture --kills 2000` is the long one, and tells by its exit status.
"""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

COMMAND = [sys.executable, "-c", "from trading_platform.cli import main; main()", "torture", "--faults", "all"]


def torture(*arguments: str) -> tuple[int, dict[str, Any], str]:
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=420, check=False)
    assert done.stdout, done.stderr[-2000:]
    return done.returncode, json.loads(done.stdout.splitlines()[-1]), done.stderr


@pytest.mark.timeout(450)
@pytest.mark.xdist_group("torture")
def test_killed_engines_lose_and_double_nothing_at_either_venue() -> None:
    status, found, errors = torture("--kills", "10", "--groups", "4", "--seed", "11")
    wrong = ("lost", "doubled", "fills_lost", "fills_doubled", "unresolved", "cash_difference", "position_difference")
    assert {name: found[name] for name in wrong} == dict.fromkeys(wrong, 0), errors[-3000:]
    assert status == 0
    assert found["kills"] >= 10
    assert found["orders"] > 10, "engines trade between their deaths"
    assert found["days_closed"] >= 1


@pytest.mark.timeout(450)
@pytest.mark.xdist_group("torture")
def test_an_order_that_was_not_written_down_before_it_was_sent_is_missed() -> None:
    status, found, _ = torture("--kills", "4", "--groups", "2", "--seed", "5", "--sabotage", "sending_mark")
    assert status == 1
    assert found["lost"] > 0


def test_what_it_does_not_know_is_refused() -> None:
    for arguments in (("--venue", "nasdaq"), ("--faults", "some"), ("--sabotage", "luck")):
        wide = os.environ | {"COLUMNS": "300"}
        done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False, env=wide)
        assert done.returncode == 2
        assert arguments[1] in done.stderr, done.stderr
