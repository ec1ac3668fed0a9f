"""What an engine is asked to do: obeyed at its next look, audited, and apart from the latches of the kill switch."""

from collections.abc import Iterator

import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from tests.execution.test_decisions import portfolio
from trading_platform.accounts.users import NewUser, create_user
from trading_platform.cli import app
from trading_platform.execution import desired_state
from trading_platform.execution.breaker_board import BreakerBoard
from trading_platform.execution.clock import WallClock
from trading_platform.execution.desired_state import ask_for
from trading_platform.execution.directives import Directives
from trading_platform.execution.kill_switch import active
from trading_platform.identifiers import DatasetId, GroupId, UserId
from trading_platform.storage.control import Group
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import AuditRow

G1 = GroupId("g1")


@pytest.fixture
def group(platform: Databases) -> Iterator[Databases]:
    person = NewUser("a@example.com", "A", "trader", G1, "correct horse battery", user_id=UserId("alice"))
    create_user(platform, person, actor="t")
    yield platform
    platform.close()


async def test_an_engine_halts_and_flattens_as_it_is_asked_and_runs_again_without_a_confirmation(
    group: Databases,
) -> None:
    board = BreakerBoard(G1)
    async with group.group_async(G1) as session:
        await board.load(session)
    directives = Directives(group, G1, DatasetId("d"), None, WallClock(), board)
    seen = {}
    for state in ("RUN", "HALT", "FLATTEN", "RUN"):
        before = await ask_for(group, G1, state, "a test", "t")
        await directives.read([], {})
        account = portfolio()
        seen[state] = (
            directives.situation.halted(account),
            directives.situation.leaves(account),
            directives.flattening,
        )
        assert before in ("RUN", "HALT", "FLATTEN")
    assert seen == {"RUN": (None, False, False), "HALT": ("group", False, False), "FLATTEN": (None, True, True)}
    assert await active(group) == [], "no latch was set"
    async with group.group_async(G1) as session:
        rows = await session.scalars(
            select(AuditRow).where(AuditRow.event_type == "DESIRED_STATE").order_by(AuditRow.seq)
        )
        assert [(row.detail["before"], row.status, row.detail["reason"]) for row in rows] == [
            ("RUN", "RUN", "a test"), ("RUN", "HALT", "a test"), ("HALT", "FLATTEN", "a test"), ("FLATTEN", "RUN", "a test"),
        ]  # fmt: skip
    await group.aclose()


def test_the_command_asks_and_refuses_what_there_is_not(group: Databases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desired_state, "settings", lambda: group.settings)
    told = CliRunner().invoke(app, ["desire", "g1", "halt", "--reason", "x"])
    assert (told.exit_code, told.output.strip()) == (0, "g1: RUN -> HALT")
    with group.control() as session:
        assert session.get_one(Group, "g1").desired_state == "HALT"
    for arguments in (("g1", "STOP"), ("g9", "HALT")):
        assert CliRunner().invoke(app, ["desire", *arguments, "--reason", "x"]).exit_code == 2
