"""The commands `halt show|set|clear`: the kill switch where there is neither dashboard nor API."""

import asyncio
import getpass
import json
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from trading_platform.execution.kill_switch import (
    ACTIONS,
    EVERYTHING,
    SCOPES,
    KillSwitchError,
    active,
    clear_halt,
    set_halt,
    target_of,
    words_to_clear,
)
from trading_platform.settings import settings
from trading_platform.storage.control import Halt
from trading_platform.storage.databases import Databases

Answer = TypeVar("Answer")
halt = typer.Typer(
    no_args_is_help=True,
    help="The kill switch. A halt stops entries for a user, an account, a group or the platform, survives restarts, and "
    "holds until somebody types the words that clear it. Exits always go on.",
)
console = Console()
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object as the last line.")]


@halt.command()
def show(as_json: AsJson = False) -> None:
    """Which halts hold, what they do, who set them and why.

    Example: `trading-platform halt show`
    """
    rows = _run(active)
    table = Table("halt", "scope", "id", "does", "reason", "set by", "since (UTC)", title="Halts that hold")
    for row in rows:
        since = f"{row.set_at:%Y-%m-%d %H:%M:%S}"
        table.add_row(str(row.halt_id), row.scope, row.scope_id, row.action, row.reason, row.set_by, since)
    console.print(table if rows else "No halt holds: entries are allowed.")
    if as_json:
        typer.echo(json.dumps({"halts": [_shown(row) for row in rows]}))


@halt.command("set")
def set_(
    scope: Annotated[str, typer.Argument(help=f"{', '.join(SCOPES)}.")],
    scope_id: Annotated[str, typer.Argument(help="Group, user or account id; not needed for platform.")] = EVERYTHING,
    reason: Annotated[str, typer.Option(help="Why; it is shown to everybody whom it stops.")] = "set on the console",
    action: Annotated[
        str, typer.Option(help="block: no entries. cancel: also cancel entries that work. flatten: also leave all.")
    ] = "cancel",
    as_json: AsJson = False,
) -> None:
    """Stop trading in a scope, at once and without a question.

    Example: `trading-platform halt set group g1 --reason "prices look wrong" --action flatten`
    """
    wanted = next((each for each in ACTIONS if each == action), None)
    if wanted is None:
        raise typer.BadParameter(f"action {action!r} is not known; it is one of {', '.join(ACTIONS)}")
    name = getpass.getuser()

    async def work(databases: Databases) -> tuple[Halt, bool]:
        target = await target_of(databases, scope, scope_id)
        return await set_halt(databases, target, reason, f"cli:{name}", wanted, set_by=name)

    row, is_new = _run(work)
    console.print(
        f"{'Halted' if is_new else 'Held already'}: {row.scope} {row.scope_id} ({row.action}), halt {row.halt_id}."
    )
    console.print(f"To let trading go on: trading-platform halt clear {row.halt_id}")
    if as_json:
        typer.echo(json.dumps(_shown(row)))


@halt.command()
def clear(
    halt_id: Annotated[int, typer.Argument(help="As `halt show` numbers it.")],
    reason: Annotated[str, typer.Option(help="What was checked.", prompt="What was checked?")],
    confirm: Annotated[
        str | None, typer.Option(help="The words `clear <scope> <id>`; asked for where they are not given.")
    ] = None,
) -> None:
    """Let trading go on. Asks for the words that name what is let go, so that nobody clears the wrong one.

    Example: `trading-platform halt clear 7 --reason "feed is right again" --confirm "clear group g1"`
    """
    name = getpass.getuser()

    async def work(databases: Databases) -> Halt:
        row = next((each for each in await active(databases) if each.halt_id == halt_id), None)
        if row is None:
            raise KillSwitchError(f"no halt {halt_id} holds; `trading-platform halt show` lists those that do")
        typed = confirm if confirm is not None else typer.prompt(f"Type `{words_to_clear(row)}`")
        return await clear_halt(databases, halt_id, typed=typed, reason=reason, actor=f"cli:{name}", cleared_by=name)

    row = _run(work)
    console.print(f"Cleared: {row.scope} {row.scope_id}. Any other halt that holds the same account keeps it stopped.")


def _run(work: Callable[[Databases], Coroutine[Any, Any, Answer]]) -> Answer:
    async def inside() -> Answer:
        databases = Databases(settings())
        try:
            return await work(databases)
        finally:
            await databases.aclose()

    try:
        return asyncio.run(inside())
    except KillSwitchError as error:
        _refuse(error)


def _refuse(error: KillSwitchError) -> NoReturn:
    Console(stderr=True).print(f"[red]{error}[/red]")
    raise typer.Exit(1)


def _shown(row: Halt) -> dict[str, Any]:
    return {
        "halt_id": row.halt_id, "scope": row.scope, "scope_id": row.scope_id, "action": row.action,
        "reason": row.reason, "set_by": row.set_by, "set_at": row.set_at.isoformat(),
    }  # fmt: skip
