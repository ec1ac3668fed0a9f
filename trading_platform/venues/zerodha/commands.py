"""`trading-platform kite`: log in, log out, see how things stand, check before the market opens, load the ban list."""

import asyncio
import getpass
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TypeVar, cast
from urllib.parse import parse_qs, urlsplit

import typer
from rich.console import Console
from rich.table import Table

from trading_platform.accounts.vault import Vault, VaultError
from trading_platform.markets.sessions import IST, Segment
from trading_platform.settings import settings
from trading_platform.storage.control import BanListRow
from trading_platform.storage.databases import Databases
from trading_platform.venues.port import QueryFailedError
from trading_platform.venues.zerodha import vaulted
from trading_platform.venues.zerodha.bans import take
from trading_platform.venues.zerodha.login import (
    LoginRefusedError,
    close_session,
    login_url,
    open_session,
    signed_state,
    state_is_ours,
)
from trading_platform.venues.zerodha.preflight import Report
from trading_platform.venues.zerodha.transport import KiteTransport
from trading_platform.venues.zerodha.watch import SEGMENTS, check_account

app = typer.Typer(no_args_is_help=True, help="Zerodha accounts: daily log-in, and checks before the market opens.")
AccountOption = Annotated[str, typer.Option("--account", help="The account, as `kite status` lists it.")]
Found = TypeVar("Found")
STDIN = "-"
console = Console()


@app.command()
def login(
    account: AccountOption,
    request_token: Annotated[
        str,
        typer.Option(help="The token of the redirect, where it is known already; `-` reads it from standard input."),
    ] = "",
) -> None:
    """Log in for today: open the address that is shown, then paste the address that you were sent back to."""
    with _explained():
        databases, vault = Databases(settings()), Vault(settings())
        found = vaulted.account_of(databases, account)
        keys = vaulted.keys_of(databases, vault, found)
        secret = keys.api_secret.get_secret_value()
        token = sys.stdin.readline().strip() if request_token == STDIN else request_token
        if not token:
            state = signed_state(found.account_id, found.user_id, secret, datetime.now(UTC))
            console.print("Open this address and log in there:")
            console.print(login_url(keys.api_key, state, vaulted.login_page_of(settings(), found)), soft_wrap=True)
            token = token_in_redirect(
                typer.prompt("Paste the address that you were sent to"), found, secret, datetime.now(UTC)
            )
        transport = KiteTransport(keys.api_key, None, root=vaulted.root_of(settings(), found))
        session = _run(transport, lambda: open_session(transport, token, secret))
        vaulted.keep(databases, vault, found, session, actor=_actor())
    console.print(f"{account} is logged in until {session.expires_at.astimezone(IST):%Y-%m-%d %H:%M} IST at the latest")


@app.command()
def logout(account: AccountOption) -> None:
    """End today's session at the broker and take its token out of the vault."""
    with _explained():
        databases, vault = Databases(settings()), Vault(settings())
        found = vaulted.account_of(databases, account)
        keys = vaulted.keys_of(databases, vault, found)
        if keys.access_token is not None:
            transport, token = vaulted.transport_of(settings(), found, keys), keys.access_token.get_secret_value()
            _run(transport, lambda: close_session(transport, token))
        vaulted.forget(databases, found, actor=_actor(), why="logged out")
    console.print(f"{account} is logged out")


@app.command()
def status() -> None:
    """All accounts at Zerodha, and until when they are logged in."""
    table = Table("account", "group", "kind", "armed", "session", title="Accounts at Zerodha")
    with _explained():
        databases, vault = Databases(settings()), Vault(settings())
        for each in vaulted.all_accounts(databases):
            try:
                session = vaulted.keys_of(databases, vault, each).session
                text = f"until {session.expires_at.astimezone(IST):%m-%d %H:%M} IST" if session else "log in"
            except (vaulted.NoAccountError, VaultError) as error:
                text = str(error)
            table.add_row(
                each.account_id, each.group_id, "live" if each.live else "sandbox", "yes" if each.armed else "no", text
            )
    console.print(table)


@app.command()
def preflight(
    account: AccountOption,
    allow: Annotated[
        list[str] | None, typer.Option(help="An address on the broker's list; may be given twice.")
    ] = None,
    segment: Annotated[list[str] | None, typer.Option(help="What is to be traded; NSE and NFO unless given.")] = None,
    address_service: Annotated[
        str, typer.Option(help="URL of a service that answers with the address it sees. Default: the local address.")
    ] = "",
) -> None:
    """Check session, address, clock, instruments and segments. Ends with 1 where orders would not get through."""
    with _explained():
        databases, vault = Databases(settings()), Vault(settings())
        found = vaulted.account_of(databases, account)
        report = asyncio.run(
            check_account(
                databases, vault, found, datetime.now(UTC), allowed=frozenset(allow or ()),
                segments=cast(list[Segment], segment) if segment else SEGMENTS, address_service=address_service,
            )
        )  # fmt: skip
    _show(report)
    if not report.ready:
        raise typer.Exit(1)


@app.command()
def bans(
    file: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="The exchange's fo_secban.csv, to load it by hand.")
    ] = None,
    day: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="The trading day it is of. Default: today in India.")
    ] = None,
) -> None:
    """Show the F&O ban list of a day, or load it from a file.

    It is loaded by itself on trading days before the market opens. A list that
    is loaded by hand is obeyed by engines within a second. A replay goes by the
    lists of the days that it replays.

    Example: `trading-platform kite bans --file fo_secban.csv --day 2026-11-20`
    """
    wanted = (day or datetime.now(IST)).date()
    with _explained():
        databases = Databases(settings())
        if file is not None:
            take(databases, file.read_bytes(), wanted, source=file.name, actor=_actor())
        with databases.control() as session:
            row = session.get(BanListRow, wanted)
    if row is None:
        console.print(
            f"[yellow]No F&O ban list of {wanted} is loaded[/yellow]: nothing new is opened in derivatives of single shares"
        )
        raise typer.Exit(1)
    fetched = f"{row.fetched_at.astimezone(IST):%Y-%m-%d %H:%M} IST"
    console.print(f"{wanted}: {', '.join(row.underlyings) or 'nothing is in the ban'} ({row.source}, {fetched})")


def token_in_redirect(pasted: str, account: vaulted.KiteAccount, api_secret: str, now: datetime) -> str:
    """The request token of the address that the browser was sent back to. Raises ValueError for anything else."""
    query = parse_qs(urlsplit(pasted.strip()).query)
    state, token = query.get("state", [""])[0], query.get("request_token", [""])[0]
    if not token:
        raise ValueError("that address has no request_token in it; paste it as a whole, or log in again")
    if not state_is_ours(state, account.account_id, account.user_id, api_secret, now):
        raise ValueError("that address does not come from this log-in, or is older than ten minutes; log in again")
    return token


def _show(report: Report) -> None:
    table = Table("check", "", "what was found", title="Before the market opens")
    colours = {"ok": "green", "warning": "yellow", "failed": "red"}
    for each in report.findings:
        table.add_row(each.check, f"[{colours[each.verdict]}]{each.verdict}[/]", each.text)
    console.print(table)


def _run(transport: KiteTransport, work: Callable[[], Awaitable[Found]]) -> Found:
    async def both() -> Found:
        try:
            return await work()
        finally:
            await transport.close()

    return asyncio.run(both())


def _actor() -> str:
    return f"cli:{getpass.getuser()}"


@contextmanager
def _explained() -> Iterator[None]:
    """A refusal is one line, not a traceback."""
    try:
        yield
    except (ValueError, LookupError, LoginRefusedError, QueryFailedError, VaultError) as error:
        console.print(f"[red]{error}[/red]")
        raise typer.Exit(1) from None
