"""Commands: `audit seal|verify|show` and `compliance report`."""

from datetime import date, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import select

from trading_platform.compliance.audit import SealBusyError, seal, verify
from trading_platform.compliance.record_files import IST
from trading_platform.compliance.reports import NotBuiltError, write_daily_records
from trading_platform.identifiers import GroupId
from trading_platform.settings import settings
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import AuditRow

audit = typer.Typer(
    add_completion=False, no_args_is_help=True, rich_markup_mode="markdown",
    help="Seal, verify and show the audit trail. Every state change of an order, a limit or a latch is an entry; "
    "entries are chained by hashes, and the heads of the chains are kept in another database.",
)  # fmt: skip
compliance = typer.Typer(
    add_completion=False, no_args_is_help=True, rich_markup_mode="markdown",
    help="The daily compliance records. They are records, not filings: filings are the broker's.",
)  # fmt: skip
Groups = Annotated[list[str] | None, typer.Option("--group", "-g", help="A user group; may be repeated. Default: all.")]


@audit.callback()
def _audit() -> None:
    """Only its presence matters: it keeps the subcommands' names."""


@compliance.callback()
def _compliance() -> None:
    """Only its presence matters: it keeps the subcommand's name."""


@audit.command("seal")
def seal_trail(group: Groups = None) -> None:
    """Chain the entries that are not sealed yet and anchor the new heads. Harmless at any time."""
    databases = Databases(settings())
    table = Table("group", "entries sealed", "head", "hash", title="Sealed")
    for group_id in _groups(databases, group):
        try:
            done = seal(databases, group_id)
        except SealBusyError as error:
            raise typer.BadParameter(str(error)) from error
        table.add_row(group_id, f"{done.entries:,}", str(done.head_seq or "–"), done.head_hash or "–")
    Console().print(table)


@audit.command("verify")
def verify_trail(group: Groups = None) -> None:
    """Recompute every chain from its rows. Exits with 1 and names the first bad entries where one is broken."""
    databases, console = Databases(settings()), Console()
    table = Table("group", "entries", "verified", "not sealed yet", "verdict", title="Audit trail")
    broken = []
    for group_id in _groups(databases, group):
        with console.status(f"recomputing the chain of {group_id}"):
            found = verify(databases, group_id)
        broken += [f"{group_id}: {problem}" for problem in found.problems]
        table.add_row(
            group_id, f"{found.entries:,}", f"{found.verified:,}",
            f"{found.entries - found.verified:,}" if found.whole else "–",
            "[green]whole[/green]" if found.whole else f"[red]broken at seq {found.first_bad_seq}[/red]",
        )  # fmt: skip
    console.print(table)
    for problem in broken:
        console.print(f"[red]{problem}[/red]")
    if broken:
        raise typer.Exit(1)


@audit.command()
def show(
    group: Annotated[str, typer.Argument(help="A user group.")],
    user: Annotated[str | None, typer.Option(help="Only entries of this user.")] = None,
    intent: Annotated[str | None, typer.Option(help="Only entries of this intent: the life of one order.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, the newest ones.")] = 50,
) -> None:
    """Show the newest entries of a group's trail, oldest first."""
    databases = Databases(settings())
    (group_id,) = _groups(databases, [group])
    query = select(AuditRow).order_by(AuditRow.seq.desc()).limit(limit)
    if user:
        query = query.where(AuditRow.user_id == user)
    if intent:
        query = query.where(AuditRow.intent_id == intent)
    table = Table("seq", "time (IST)", "market time", "user", "actor", "event", "symbol", "side", "quantity", "price", "status", title=f"Audit trail of {group}")  # fmt: skip
    with databases.group(group_id) as session:
        for row in reversed(session.scalars(query).all()):
            table.add_row(
                str(row.seq), f"{row.event_ts.astimezone(IST):%Y-%m-%d %H:%M:%S.%f}"[:-3],
                "" if row.market_time is None else f"{row.market_time:%Y-%m-%d %H:%M}Z", row.user_id, row.actor,
                row.event_type, row.symbol or "", row.side or "", "" if row.quantity is None else f"{row.quantity:f}".rstrip("0").rstrip("."),
                "" if row.price is None else f"{row.price:f}".rstrip("0").rstrip("."), row.status or row.status_message or "",
            )  # fmt: skip
    Console().print(table)


@compliance.command()
def report(
    day: Annotated[datetime | None, typer.Argument(formats=["%Y-%m-%d"], help="Indian date; default: today.")] = None,
    group: Groups = None,
) -> None:
    """Write a day's records: CSV files, one page to read, a manifest with their hashes.

    They come from the analytics database: materialize group `marts` in Dagster first (export and dbt models).
    """
    databases, console = Databases(settings()), Console()
    chosen: date = (day or datetime.now(IST)).date()
    try:
        with console.status("") as status:
            records = write_daily_records(
                databases, chosen, _groups(databases, group) if group else None,
                progress=lambda what, fraction: status.update(f"{what} ({fraction:.0%})"),
            )  # fmt: skip
    except (NotBuiltError, SealBusyError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error
    table = Table("figure", "value", title=f"Compliance records of {chosen}")
    for name, value in records.figures.items():
        table.add_row(name.replace("_", " "), str(value))
    console.print(table)
    for path in records.paths:
        console.print(str(path), soft_wrap=True)
    if not records.figures["chains_whole"]:
        raise typer.Exit(1)


def _groups(databases: Databases, chosen: list[str] | None) -> list[GroupId]:
    known = databases.group_ids()
    if unknown := sorted(set(chosen or ()) - set(known)):
        raise typer.BadParameter(f"no group {', '.join(unknown)}; there are {', '.join(known) or 'none yet'}")
    return [GroupId(group) for group in chosen] if chosen else known
