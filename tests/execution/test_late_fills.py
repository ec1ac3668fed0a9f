"""After its end an order is still asked for: late fills, orders that turn up, and what an operator says of the others."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select, update
from typer.testing import CliRunner

from tests.execution.test_decisions import NOW, SITUATION
from tests.execution.test_sender import BTC, GROUP, Desk, desk, group  # noqa: F401
from trading_platform.cli import app
from trading_platform.execution import order_commands
from trading_platform.execution.late_fills import take_late_fills
from trading_platform.execution.probes import LATE_SECONDS, next_late_question, next_probe
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import AuditRow, Fill, Order, Outbox, Position

D = Decimal


def test_an_unknown_order_is_asked_for_without_end_at_gaps_of_one_to_sixty_seconds() -> None:
    at, gaps = 0.0, []
    while at < 86_400:
        gaps.append(next_probe(at))
        at += gaps[-1]
    assert gaps == sorted(gaps)
    assert (gaps[0], gaps[-1], max(gaps)) == (1, 60, 60)


@given(st.floats(0, 10_000))
def test_an_ended_order_is_asked_for_during_the_stated_horizon_and_no_longer(ended: float) -> None:
    wait = next_late_question(ended)
    assert (wait is None) == (ended >= LATE_SECONDS[-1])
    assert wait is None or (wait > 0 and ended + wait <= LATE_SECONDS[-1] * (1 + 1e-9))


async def late(made: Desk) -> int:
    return await take_late_fills(made.sender, [made.account], dict(SITUATION.instruments), all_now=True)


async def outbox(databases: Databases) -> list[Outbox]:
    async with databases.group_async(GROUP) as session:
        return list((await session.scalars(select(Outbox))).all())


async def counts(databases: Databases) -> tuple[int, Decimal]:
    async with databases.group_async(GROUP) as session:
        fills = (await session.scalars(select(Fill))).all()
        held = (await session.scalars(select(Position.quantity))).all()
    return len(fills), sum(held, D(0))


def executed(made: Desk, filled: Decimal, status: str) -> None:
    """The exchange's own book: so much of the order, in trades of one unit, and how the order stands."""
    (order,) = made.exchange.all()
    price = {"price": "100", "commission": "0.001", "commissionAsset": "BTC", "time": 1_709_294_400_000}
    order["fills"] = [{"tradeId": n, "id": n, "qty": "1", **price} for n in range(1, int(filled) + 1)]
    order |= {"executedQty": str(filled), "status": status}


async def test_a_fill_that_overtook_a_cancellation_is_booked_once(group: Databases) -> None:  # noqa: F811
    async with desk(group, "unanswered") as made:
        await made.send()
        executed(made, D(2), "CANCELED")
        assert await made.settle() == 0
        assert await made.state() == ("DONE", "CANCELLED", 2)
        assert [row.state for row in await outbox(group)] == ["SETTLING"]
        executed(made, D(5), "CANCELED")
        assert [await late(made) for _ in range(3)] == [1, 0, 0]
        assert await made.state() == ("DONE", "CANCELLED", 5)
        assert await counts(group) == (5, D(5) - 5 * D("0.001"))
        assert made.account.cash == D(10_000) - 500


async def test_an_order_that_was_given_up_and_turns_up_is_claimed(group: Databases) -> None:  # noqa: F811
    async with desk(group, "unanswered") as made:
        await made.send()
        hidden, made.exchange.orders = made.exchange.orders, {}
        await made.long_ago(11)
        assert await made.settle(NOW + timedelta(hours=1)) == 0
        assert await made.state() == ("ABANDONED", "REJECTED", 0)
        made.exchange.orders = hidden
        assert await late(made) == 1
        assert await made.state() == ("DONE", "FILLED", 1)
        assert (made.exchange.calls, await outbox(group)) == (1, [])


async def test_nobody_is_asked_after_the_horizon_and_the_order_blocks_nothing_during_it(
    group: Databases,  # noqa: F811
) -> None:
    async with desk(group, "unanswered") as made:
        await made.send()
        executed(made, D(0), "CANCELED")
        assert await made.settle() == 0
        assert made.account.unsettled == set()
        assert await late(made) == 0
        (row,) = await outbox(group)
        assert row.state == "SETTLING"
        async with group.group_async(GROUP) as session:
            await session.execute(update(Order).values(updated_at=datetime.now(UTC) - timedelta(seconds=300)))
        assert await late(made) == 0
        assert await outbox(group) == []


async def test_an_order_that_the_venue_had_is_never_sent_again(group: Databases) -> None:  # noqa: F811
    """It was acknowledged, and then the venue does not show it: that is no proof of anything."""
    async with desk(group, "unanswered") as made:
        await made.send()
        executed(made, D(0), "NEW")
        await made.settle()
        assert await made.state() == ("SUBMITTED", "WORKING", 0)
        made.exchange.orders = {}
        await made.long_ago(3_600)
        await made.settle(NOW + timedelta(hours=1))
        assert await made.state() == ("SUBMITTED", "WORKING", 0)
        assert made.exchange.calls == 1


def command(*arguments: str, databases: Databases, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    monkeypatch.setattr(order_commands, "settings", lambda: databases.settings)
    done = CliRunner().invoke(app, ["orders", *arguments, "--group", GROUP], env={"COLUMNS": "250"})
    return done.exit_code, done.output


async def told(monkeypatch: pytest.MonkeyPatch, databases: Databases, *arguments: str) -> tuple[int, str]:
    return await asyncio.to_thread(command, *arguments, databases=databases, monkeypatch=monkeypatch)


def settling(order: str, outcome: str, *more: str) -> tuple[str, ...]:
    words = f"settle {order} as {outcome}"
    return ("settle", order, "--as", outcome, "--reason", "order book of the day", "--confirm", words, *more)


async def test_an_operator_settles_what_never_arrived_after_the_venue_was_asked_once_more(
    group: Databases,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with desk(group, "lost") as made:
        await made.send()
        name = made.intent.client_order_id
        _, text = await told(monkeypatch, group, "list", "--json")
        assert json.loads(text.splitlines()[-1])["orders"][0]["state"] == "UNKNOWN"
        wrong = ("settle", name, "--as", "absent", "--reason", "r", "--confirm", "yes")
        assert (await told(monkeypatch, group, *wrong))[0] == 1
        assert await made.settle() == 1
        assert (await told(monkeypatch, group, *settling(name, "absent")))[0] == 0
        assert await made.settle() == 0
        assert await made.state() == ("ABANDONED", "REJECTED", 0)
        assert (made.exchange.calls, made.account.unknown) == (1, set())
        status, text = await told(monkeypatch, group, "show", name, "--json")
        trail = json.loads(text.splitlines()[-1])["trail"]
        assert status == 0
        assert any(row["actor"].startswith("cli:") and row["says"] == "order book of the day" for row in trail)
        assert (await told(monkeypatch, group, *settling(name, "absent")))[0] == 1, "it is settled"


async def test_the_venues_word_goes_before_the_operators(
    group: Databases,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with desk(group, "unanswered") as made:
        await made.send()
        assert (await told(monkeypatch, group, *settling(made.intent.client_order_id, "absent")))[0] == 0
        assert await made.settle() == 0
        assert await made.state() == ("DONE", "FILLED", 1)


async def test_an_order_of_an_earlier_day_is_settled_with_the_fills_of_its_contract_note(
    group: Databases,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with desk(group, "unanswered") as made:
        await made.send()
        executed(made, D(2), "PARTIALLY_FILLED")
        await made.settle()
        assert await made.state() == ("SUBMITTED", "PARTIALLY_FILLED", 2)
        made.exchange.orders = {}  # the book of that day is gone
        name = made.intent.client_order_id
        assert (await told(monkeypatch, group, *settling(name, "absent")))[0] == 1, "the venue had given it a number"
        too_many = settling(name, "ended", "--fill", "3:9:100:0:USDT")
        assert (await told(monkeypatch, group, *too_many))[0] == 1
        again_and_new = ("--fill", "2:1:100:0.001:BTC", "--fill", "3:1:101:0.001:BTC")
        assert (await told(monkeypatch, group, *settling(name, "ended", *again_and_new)))[0] == 0
        await made.settle()
        assert await made.state() == ("DONE", "EXPIRED", 3)
        assert made.account.cash == D(10_000) - 200 - 101
        async with group.group_async(GROUP) as session:
            said: Any = await session.scalars(select(AuditRow.detail).where(AuditRow.status == "SETTLED_BY_OPERATOR"))
            assert said.one()["typed"] == f"settle {name} as ended"
