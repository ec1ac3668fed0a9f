"""What a group's engine is asked to do: RUN, HALT (no entries; exits go on) or FLATTEN (leave everything).

    trading-platform desire g1 HALT --reason "maintenance of the feed"

This is the operators' word for a while: materializing `live_execution` asks for RUN again. What must hold until a person
has looked is a latch of the kill switch (`kill_switch.py`), which this neither sets nor clears.
"""

import asyncio
import getpass
from typing import Annotated

import typer
from rich.console import Console
from sqlalchemy import select

from trading_platform.compliance.audit import record
from trading_platform.identifiers import GroupId
from trading_platform.settings import settings
from trading_platform.storage.control import DESIRED_STATES, Group
from trading_platform.storage.databases import Databases


async def ask_for(databases: Databases, group_id: GroupId, state: str, reason: str, actor: str) -> str:
    """Ask a group's engine for a state, with an audit entry; returns what it was asked for before.

    Raises `ValueError` for a state or a group that there is not.
    """
    if state not in DESIRED_STATES:
        raise ValueError(f"{state!r} is no state; an engine is asked for one of {', '.join(DESIRED_STATES)}")
    async with databases.control_async() as session:
        group = await session.scalar(select(Group).where(Group.group_id == group_id).with_for_update())
        if group is None:
            raise ValueError(f"there is no group {group_id!r}; `trading-platform groups` lists them")
        before, group.desired_state = group.desired_state, state
        async with databases.group_async(group_id) as books:
            record(
                books, user_id="*", actor=actor, event_type="DESIRED_STATE", status=state,
                detail={"before": before, "after": state, "reason": reason},
            )  # fmt: skip
    return before


def desire(
    group: Annotated[str, typer.Argument(help="The user group, as `trading-platform groups` lists it.")],
    state: Annotated[str, typer.Argument(help="RUN; HALT: no entries, exits go on; FLATTEN: leave everything.")],
    reason: Annotated[str, typer.Option(help="Why; it is in the audit trail.", prompt="Why?")],
) -> None:
    """Ask a group's engine to run, to halt or to leave everything. It obeys within a second.

    For what must hold until somebody has looked, use `trading-platform halt set`: this is taken back by the next one who
    asks for RUN, Dagster's `live_execution` among them.

    Example: `trading-platform desire g1 HALT --reason "maintenance of the feed"`
    """

    async def work() -> str:
        databases = Databases(settings())
        try:
            return await ask_for(databases, GroupId(group), state.upper(), reason, f"cli:{getpass.getuser()}")
        finally:
            await databases.aclose()

    try:
        before = asyncio.run(work())
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    Console().print(f"{group}: {before} -> {state.upper()}")
