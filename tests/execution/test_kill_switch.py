"""The kill switch on real databases: what holds, survives, escalates, is audited, and how it is let go."""

import subprocess
import sys
from dataclasses import replace
from decimal import Decimal

import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from tests.execution.test_decisions import NOW, SITUATION, STRATEGY, holding, portfolio, signal
from trading_platform.accounts.users import NewUser, create_user
from trading_platform.cli import app
from trading_platform.execution.decisions import decide, flatten
from trading_platform.execution.kill_switch import (
    KillSwitchError,
    Latches,
    active,
    clear_halt,
    set_halt,
    target_of,
)
from trading_platform.execution.withdrawal import at_most_held
from trading_platform.identifiers import AccountId, GroupId, Symbol, UserId
from trading_platform.storage.control import Halt
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import AuditRow

G1 = GroupId("g1")
D = Decimal


@pytest.fixture
def people(platform: Databases) -> Databases:
    for name, group in (("ann", "g1"), ("ben", "g2")):
        new = NewUser(
            f"{name}@example.com", name, "trader", GroupId(group), "correct horse battery", user_id=UserId(name)
        )
        create_user(platform, new, actor="test")
    return platform


def audited(databases: Databases, group: str) -> list[tuple[str, str, str]]:
    with databases.group(GroupId(group)) as session:
        rows = session.scalars(
            select(AuditRow).where(AuditRow.event_type.in_(("HALT", "CLEAR"))).order_by(AuditRow.seq)
        )
        return [(row.event_type, row.actor, row.detail["action"]) for row in rows]


async def test_a_platform_halt_is_audited_in_every_group_and_survives_the_process(people: Databases) -> None:
    target = await target_of(people, "platform", "*")
    held, is_new = await set_halt(people, target, "a drill", "cli:ops", "block", set_by="ops")
    assert is_new
    await people.aclose()
    anew = Databases(people.settings)
    assert [(row.scope, row.action, row.reason) for row in await active(anew)] == [("platform", "block", "a drill")]
    assert audited(anew, "g1") == audited(anew, "g2") == [("HALT", "cli:ops", "block")]
    with pytest.raises(KillSwitchError, match="expected 'clear platform \\*'"):
        await clear_halt(anew, held.halt_id, typed="clear platform", reason="ok", actor="cli:ops", cleared_by="ops")
    assert len(await active(anew)) == 1
    typed = "clear platform *"
    await clear_halt(anew, held.halt_id, typed=typed, reason="ok", actor="cli:ops", cleared_by="ops")
    assert await active(anew) == []
    assert audited(anew, "g2")[-1] == ("CLEAR", "cli:ops", "block")
    with pytest.raises(KillSwitchError, match="ops cleared halt"):
        await clear_halt(anew, held.halt_id, typed=typed, reason="ok", actor="cli:ops", cleared_by="ops")
    await anew.aclose()
    anew.close()


async def test_a_halt_becomes_stronger_and_never_weaker(people: Databases) -> None:
    target = await target_of(people, "user", "ann")
    for action, held_action, is_new in (
        ("cancel", "cancel", True),
        ("flatten", "flatten", False),
        ("block", "flatten", False),
    ):
        row, new = await set_halt(people, target, "why", "x:y", action, set_by="y")  # type: ignore[arg-type]
        assert (row.action, new) == (held_action, is_new)
    assert [entry[2] for entry in audited(people, "g1")] == ["cancel", "flatten"]
    assert audited(people, "g2") == []
    await people.aclose()


@pytest.mark.parametrize(("scope", "scope_id"), [("group", "g9"), ("user", "eve"), ("account", "acc"), ("planet", "x")])
async def test_what_there_is_not_cannot_be_halted(people: Databases, scope: str, scope_id: str) -> None:
    with pytest.raises(KillSwitchError):
        await target_of(people, scope, scope_id)
    await people.aclose()


def latches(*rows: tuple[str, str, str]) -> Latches:
    return Latches.of(Halt(scope=scope, scope_id=scope_id, action=action) for scope, scope_id, action in rows)


def test_the_widest_halt_is_named_and_the_strongest_counts() -> None:
    account = portfolio()
    held = latches(("user", "alice", "flatten"), ("group", "g1", "block"), ("account", "other", "flatten"))
    assert held.scope_of(account, G1) == "group"
    assert held.asks(account, G1, "flatten")
    assert not latches(("group", "g1", "cancel")).asks(account, G1, "flatten")
    assert latches(("group", "g1", "cancel")).asks(account, G1, "cancel")
    assert latches(("group", "g2", "flatten"), ("user", "bob", "flatten")).scope_of(account, G1) is None


def test_flattening_one_user_leaves_the_others_positions_alone() -> None:
    held = latches(("user", "alice", "flatten"))
    situation = replace(
        SITUATION, halted=lambda each: held.scope_of(each, G1), leaving=lambda each: held.asks(each, G1, "flatten")
    )
    mine = {(STRATEGY, Symbol("ETH/USDT")): holding("ETH/USDT")}
    alice = portfolio(holdings=dict(mine))
    bob = portfolio(user_id=UserId("bob"), account_id=AccountId("b"), holdings=dict(mine))
    signals = [signal("ETH/USDT", "100"), signal("BTC/USDT", "100")]
    found = [
        [(d.purpose, d.denial and d.denial.partition(":")[0]) for d in decide(each, signals, NOW, situation, NOW)]
        for each in (alice, bob)
    ]
    assert found == [[("exit", None), ("entry", "HALT_ACTIVE")], [("entry", None)]]


@pytest.mark.parametrize(("there", "sold"), [("5", "1.998"), ("1.5", "1.500"), ("0", None), ("-3", None)])
def test_no_more_is_sold_than_the_venue_says_is_there(there: str, sold: str | None) -> None:
    """A position that somebody closed by hand must not become a short one."""
    account = portfolio(holdings={(STRATEGY, Symbol("ETH/USDT")): holding("ETH/USDT")})
    exits = flatten(account, {Symbol("ETH/USDT"): signal("ETH/USDT", "100")}, NOW, SITUATION)
    found = at_most_held(exits, {"ETH": D(there), "USDT": D(1)}, SITUATION.instruments)
    assert [f"{each.quantity:.3f}" for each in found] == ([] if sold is None else [sold])


def test_two_strategies_share_what_is_there() -> None:
    account = portfolio(
        holdings={
            (STRATEGY, Symbol("ETH/USDT")): holding("ETH/USDT"),
            ("other", Symbol("ETH/USDT")): holding("ETH/USDT", strategy_id="other"),
        }
    )
    exits = flatten(account, {Symbol("ETH/USDT"): signal("ETH/USDT", "100")}, NOW, SITUATION)
    assert sum(each.quantity for each in at_most_held(exits, {"ETH": D(3)}, SITUATION.instruments)) == 3


def test_the_command_sets_shows_and_clears(people: Databases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trading_platform.execution.halt_commands.settings", lambda: people.settings)
    run = CliRunner().invoke
    assert run(app, ["halt", "set", "group", "g1", "--reason", "a drill", "--action", "flatten"]).exit_code == 0
    shown = run(app, ["halt", "show", "--json"]).stdout.splitlines()[-1]
    assert '"scope": "group", "scope_id": "g1", "action": "flatten", "reason": "a drill"' in shown
    number = shown.partition('"halt_id": ')[2].partition(",")[0]
    wrong = run(app, ["halt", "clear", number, "--reason", "checked"], input="clear group g2\n")
    assert wrong.exit_code == 1
    assert '"g1"' in run(app, ["halt", "show", "--json"]).stdout
    right = run(app, ["halt", "clear", number, "--reason", "checked"], input="clear group g1\n")
    assert right.exit_code == 0, right.output
    assert "No halt holds" in run(app, ["halt", "show"]).stdout
    assert run(app, ["halt", "set", "group", "g9"]).exit_code == 1
    assert run(app, ["halt", "set", "group", "g1", "--action", "explode"]).exit_code == 2


def test_help_teaches() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "trading_platform.cli", "halt", "--help"], capture_output=True, text=True, check=True
    )
    assert all(word in done.stdout for word in ("show", "set", "clear", "Exits always go on"))
