"""Entries that fill little by little: what is left of one ends with its bar, and what it filled is protected."""

from datetime import timedelta
from decimal import Decimal
from pathlib import Path

from sqlalchemy import select

from tests.execution.test_hedges import Floor, floor
from tests.execution.test_sender_kite import GROUP, group
from trading_platform.identifiers import Symbol
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import AuditRow, Intent, Order

__all__ = ["group"]
D = Decimal
SBIN = Symbol("SBIN")


async def orders_of(made: Floor) -> dict[str, tuple[str, Decimal, Decimal]]:
    """{purpose: (state, quantity, filled)}"""
    async with made.databases.group_async(GROUP) as session:
        rows = await session.execute(
            select(Intent.purpose, Order.state, Order.quantity, Order.filled_quantity).join(
                Order, Order.intent_id == Intent.intent_id
            )
        )
        return {purpose: (state, quantity, filled) for purpose, state, quantity, filled in rows.tuples()}


async def test_what_is_left_of_an_entry_ends_with_its_bar_and_what_it_filled_has_its_stop_and_can_be_left(
    group: Databases, tmp_path: Path
) -> None:
    async with floor(group, tmp_path, away=None, share=D("0.085")) as made:
        entry = await made.take(of=SBIN)
        state, quantity, filled = (await orders_of(made))["entry"]
        assert state == "PARTIALLY_FILLED"
        assert D(0) < filled < quantity
        assert SBIN in made.account.working

        await made.go_to(made.now + timedelta(seconds=5))
        await made.take("abstain", of=SBIN)
        found = await orders_of(made)
        state, _, filled = found["entry"]
        assert (state, filled < quantity) == ("CANCELLED", True)
        assert found["stop"] == ("WORKING", filled, D(0)), "as large as what is held"
        assert made.account.working == set()
        assert await made.venue_holds() == {SBIN: filled}
        async with group.group_async(GROUP) as session:
            asked = list(await session.scalars(select(AuditRow).where(AuditRow.event_type == "CANCEL_REQ")))
        assert [row.status_message for row in asked] == ["its bar is over"], "in the trail before it was sent"

        await made.go_to(entry.exit_by)
        await made.take("abstain", of=SBIN)
        await made.go_on()
        await made.take("abstain", of=SBIN)
        assert (made.account.holdings, await made.venue_holds()) == ({}, {})
