"""The kill switch: latches that stop the trading of a user, an account, a group or the whole platform.

    held = await set_halt(databases, Target("user", "u_1", "u_1", (group,)), "prices look wrong", "trader:u_1", "cancel")
    await clear_halt(databases, held.halt_id, typed="clear user u_1", reason="checked", actor="trader:u_1")

What a latch does, each with what stands before it: `block` keeps entries back, `cancel` also cancels entries that work at
the venue, `flatten` also leaves every position. Setting one needs no confirmation and takes effect at the engines' next
look; setting a stronger one over a weaker one makes that one stronger, and nothing makes a latch weaker but clearing it
with the typed words. Latches are rows: they survive every restart.

Latches live in the control database and the audit rows in the groups', which no transaction spans; so a latch is
committed before its audit row when it is set, and after it when it is cleared: a failure in between leaves trading
stopped, not running.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, get_args

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from trading_platform.compliance.audit import record
from trading_platform.execution.portfolio import Portfolio
from trading_platform.identifiers import GroupId
from trading_platform.observability.traces import current_trace_id
from trading_platform.storage.control import Group, Halt, User
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import Account

Action = Literal["block", "cancel", "flatten"]
HaltScope = Literal["platform", "group", "user", "account"]
ACTIONS: tuple[Action, ...] = get_args(Action)
"""Weakest first."""
SCOPES: tuple[HaltScope, ...] = get_args(HaltScope)
"""Widest first: of several latches on an account the widest is named."""
EVERYTHING = "*"


class KillSwitchError(ValueError):
    """What was asked of the kill switch cannot be done; the message says why and what to do."""


@dataclass(frozen=True)
class Target:
    """What a latch stops. `owner`: the user it is audited under ('*' for many); `groups`: those that it touches."""

    scope: HaltScope
    scope_id: str
    owner: str
    groups: tuple[GroupId, ...]


@dataclass(frozen=True)
class Latches:
    """The latches that hold now, as an engine looks at them: {(scope, scope id): action}."""

    held: Mapping[tuple[str, str], Action]

    @classmethod
    def of(cls, rows: Iterable[Halt]) -> "Latches":
        return cls({(row.scope, row.scope_id): _action(row.action) for row in rows})

    def scope_of(self, portfolio: Portfolio, group_id: GroupId) -> HaltScope | None:
        """The scope of the widest latch on an account; None where none holds."""
        return next((scope for scope, _ in self._touching(portfolio, group_id)), None)

    def asks(self, portfolio: Portfolio, group_id: GroupId, action: Action) -> bool:
        """Whether a latch on the account asks for that, or for more."""
        wanted = ACTIONS.index(action)
        return any(ACTIONS.index(each) >= wanted for _, each in self._touching(portfolio, group_id))

    def _touching(self, portfolio: Portfolio, group_id: GroupId) -> list[tuple[HaltScope, Action]]:
        ids: Mapping[HaltScope, str] = {
            "platform": EVERYTHING, "group": group_id, "user": portfolio.user_id, "account": portfolio.account_id,
        }  # fmt: skip
        return [(scope, self.held[scope, ids[scope]]) for scope in SCOPES if (scope, ids[scope]) in self.held]


def words_to_clear(halt: Halt) -> str:
    """What somebody types to let trading go on."""
    return f"clear {halt.scope} {halt.scope_id}"


async def active(databases: Databases) -> list[Halt]:
    """All latches that hold, the oldest first."""
    async with databases.control_async() as session:
        rows = await session.scalars(select(Halt).where(Halt.cleared_at.is_(None)).order_by(Halt.halt_id))
        return list(rows.all())


async def set_halt(
    databases: Databases, target: Target, reason: str, actor: str, action: Action = "cancel", *, set_by: str
) -> tuple[Halt, bool]:
    """Set a latch, or make the one that holds stronger. Returns it and whether it is new. `actor` as the audit names it.

    Raises `KillSwitchError` where it was cleared at that very moment.
    """
    async with databases.control_async() as session:
        values = {"scope": target.scope, "scope_id": target.scope_id, "reason": reason, "set_by": set_by}
        row = await session.scalar(
            insert(Halt).values(**values, action=action).on_conflict_do_nothing().returning(Halt)
        )
        is_new = changed = row is not None
        if row is None:
            row = await session.scalar(
                select(Halt)
                .where(
                    Halt.scope == target.scope, Halt.scope_id == target.scope_id, Halt.cleared_at.is_(None)
                )
                .with_for_update()
            )  # fmt: skip
            if row is None:
                raise KillSwitchError("somebody cleared this halt while it was being set; set it again")
            if ACTIONS.index(action) > ACTIONS.index(_action(row.action)):
                row.action, changed = action, True
        await session.flush()
        session.expunge(row)
    if changed:
        await _audit(databases, target, row, "HALT", actor, reason)
    return row, is_new


async def clear_halt(
    databases: Databases, halt_id: int, *, typed: str, reason: str, actor: str, cleared_by: str
) -> Halt:
    """Open a latch; any other that holds the same account keeps it stopped.

    Raises `KillSwitchError` where there is none, it was cleared already, or the typed words are not its own.
    """
    async with databases.control_async() as session:
        row = await session.scalar(select(Halt).where(Halt.halt_id == halt_id).with_for_update())
        if row is None:
            raise KillSwitchError(f"there is no halt {halt_id}; `trading-platform halt show` lists those that hold")
        if row.cleared_at is not None:
            raise KillSwitchError(f"{row.cleared_by} cleared halt {halt_id} at {row.cleared_at.isoformat()}")
        if typed != words_to_clear(row):
            raise KillSwitchError(f"the confirmation was {typed!r}, expected {words_to_clear(row)!r}; type it exactly")
        row.cleared_by, row.cleared_at, row.clear_reason = cleared_by, datetime.now(UTC), reason
        await _audit(databases, await target_of(databases, row.scope, row.scope_id), row, "CLEAR", actor, reason)
        await session.flush()
        session.expunge(row)
    return row


async def target_of(databases: Databases, scope: str, scope_id: str) -> Target:
    """What a scope and id name. Raises `KillSwitchError` for what there is not."""
    async with databases.control_async() as session:
        every = tuple(GroupId(each) for each in await session.scalars(select(Group.group_id).order_by(Group.group_id)))
        group = await session.scalar(select(User.group_id).where(User.user_id == scope_id)) if scope == "user" else None
    if scope == "platform":
        return Target("platform", EVERYTHING, EVERYTHING, every)
    if scope == "group":
        if scope_id not in every:
            raise KillSwitchError(f"there is no group {scope_id!r}; there are {', '.join(every)}")
        return Target("group", scope_id, EVERYTHING, (GroupId(scope_id),))
    if scope == "user":
        if group is None:
            raise KillSwitchError(f"there is no user {scope_id!r}; `trading-platform users list` shows all")
        return Target("user", scope_id, scope_id, (GroupId(group),))
    if scope != "account":
        raise KillSwitchError(f"scope {scope!r} is not known; it is one of {', '.join(SCOPES)}")
    for group_id in every:
        async with databases.group_async(group_id) as books:
            owner = await books.scalar(select(Account.user_id).where(Account.account_id == scope_id))
        if owner is not None:
            return Target("account", scope_id, owner, (group_id,))
    raise KillSwitchError(f"there is no account {scope_id!r} in any group")


async def _audit(databases: Databases, target: Target, halt: Halt, event: str, actor: str, reason: str) -> None:
    for group_id in target.groups:
        async with databases.group_async(group_id) as session:
            _record(session, target, halt, event, actor, reason)


def _record(session: AsyncSession, target: Target, halt: Halt, event: str, actor: str, reason: str) -> None:
    record(
        session, user_id=target.owner, actor=actor, event_type=event,
        account_id=target.scope_id if target.scope == "account" else None,
        detail={
            "halt_id": halt.halt_id, "scope": halt.scope, "scope_id": halt.scope_id, "action": halt.action,
            "reason": reason,
        },
        trace_id=current_trace_id(),
    )  # fmt: skip


def _action(value: str) -> Action:
    return next(action for action in ACTIONS if action == value)
