"""Commands on people: `trading-platform users add|list|passwd|disable|role|group|rotate-keys`.

Passwords are asked for on the terminal or read from standard input, never taken from the command line, where other
users of the machine could read them.
"""

import asyncio
import getpass
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import select

from trading_platform.accounts import users as directory
from trading_platform.accounts.passwords import MIN_LENGTH
from trading_platform.accounts.roles import known_role
from trading_platform.accounts.sessions import Sessions, SessionsUnavailableError, valkey
from trading_platform.accounts.vault import Vault, VaultError, add_master_key
from trading_platform.identifiers import GroupId, UserId
from trading_platform.settings import settings
from trading_platform.storage.control import User
from trading_platform.storage.databases import Databases

users = typer.Typer(
    no_args_is_help=True, help="People: add them, list them, set passwords and roles, take log-ins away."
)
Email = Annotated[str, typer.Argument(help="E-mail address, as it is used to log in.")]
FromStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")]
console = Console()


@users.command()
def add(
    email: Email,
    name: Annotated[str, typer.Option(help="Name to show.")] = "",
    role: Annotated[str, typer.Option(help="trader, compliance, engineer or admin.")] = "trader",
    group: Annotated[str, typer.Option(help="User group; created where it does not exist.")] = "g1",
    password_stdin: FromStdin = False,
) -> None:
    """Add a user. The first user of a group creates the group, its schema and (once restarted) its engine."""
    with _explained():
        new = directory.NewUser(
            email, name or email.partition("@")[0], known_role(role), GroupId(group), _password(password_stdin)
        )
        user_id = directory.create_user(Databases(settings()), new, actor=_actor())
    console.print(f"added {user_id} ({email}) to group {group}")


@users.command("list")
def list_users() -> None:
    """List all users with role, group and state."""
    table = Table("e-mail", "user", "name", "role", "group", "state", title="Users")
    with Databases(settings()).control() as session:
        for user in session.scalars(select(User).order_by(User.email)):
            state = "disabled" if user.disabled_at else "active"
            table.add_row(user.email, user.user_id, user.display_name, user.role, user.group_id, state)
    console.print(table)


@users.command()
def passwd(email: Email, password_stdin: FromStdin = False) -> None:
    """Set a user's password and end all the user's sessions."""
    with _explained():
        _end_sessions(directory.set_password(Databases(settings()), email, _password(password_stdin), actor=_actor()))
    console.print(f"the password of {email} is changed")


@users.command()
def disable(email: Email) -> None:
    """Take a user's log-in away and end all the user's sessions. What belongs to the user stays."""
    with _explained():
        _end_sessions(directory.disable_user(Databases(settings()), email, actor=_actor()))
    console.print(f"{email} can no longer log in. Orders are not touched: halt the user to stop trading.")


@users.command()
def role(email: Email, new_role: Annotated[str, typer.Argument(help="trader, compliance, engineer or admin.")]) -> None:
    """Change a user's role and end all the user's sessions, which hold the old one."""
    with _explained():
        _end_sessions(directory.set_role(Databases(settings()), email, known_role(new_role), actor=_actor()))
    console.print(f"{email} is now {new_role}")


@users.command()
def group(group_id: Annotated[str, typer.Argument(help="Lower-case letters, digits and _.")]) -> None:
    """Create a user group: its row in the shard map and its migrated schema. Nothing happens where it exists."""
    with _explained():
        directory.ensure_group(Databases(settings()), GroupId(group_id))
    console.print(f"group {group_id} is ready")


@users.command("rotate-keys")
def rotate_keys(
    new: Annotated[bool, typer.Option("--new", help="First add a master key to the key file.")] = False,
) -> None:
    """Wrap every stored credential's data key under the newest master key.

    With keys in TP_MASTER_KEYS: add the next version there, restart every process, then run this. With the key file:
    `--new` adds a version; restart the platform before new credentials are stored. Old versions may be taken away
    only after this has run for all groups.
    """
    databases = Databases(settings())
    with _explained():
        if new:
            console.print(f"master key {add_master_key(settings())} added")
        vault = Vault(settings())
        for group_id in databases.group_ids():
            with databases.group(group_id) as session:
                console.print(
                    f"group {group_id}: {vault.rotate(session)} credentials now under key {vault.newest_version}"
                )


def _password(from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\n")
    first: str = typer.prompt(f"Password (at least {MIN_LENGTH} characters)", hide_input=True, confirmation_prompt=True)
    return first


def _end_sessions(user_id: UserId) -> None:
    async def end() -> int:
        redis = valkey(settings())
        try:
            return await Sessions(redis).end_all(user_id)
        finally:
            await redis.aclose()

    console.print(f"{asyncio.run(end())} sessions ended")


def _actor() -> str:
    return f"cli:{getpass.getuser()}"


@contextmanager
def _explained() -> Iterator[None]:
    """A refusal is one line, not a traceback."""
    try:
        yield
    except SessionsUnavailableError as error:
        console.print(
            f"[red]The change is made, but sessions could not be ended: {error}. Run the command again.[/red]"
        )
        raise typer.Exit(1) from None
    except (ValueError, VaultError) as error:
        console.print(f"[red]{error}[/red]")
        raise typer.Exit(1) from None
