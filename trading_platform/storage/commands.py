"""Commands on the databases: `migrate`, `settings`, `groups`."""

from typing import Annotated

import typer
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table
from sqlalchemy import select

from trading_platform.settings import Settings, settings
from trading_platform.storage.control import Group, User
from trading_platform.storage.databases import Databases
from trading_platform.storage.migrate import migrate as run_migrations


def migrate() -> None:
    """Create what is missing and bring the control database and every group's schema to the newest revision.

    Resumable: after an interruption it goes on where it stopped.
    """
    console = Console()
    run_migrations(Databases(settings()), on_step=lambda what: console.print(f"migrating {what}"))
    console.print("all schemas are at the newest revision")


def show_settings(
    markdown: Annotated[bool, typer.Option(help="Print the table as Markdown, for the documentation.")] = False,
) -> None:
    """Explain every environment variable and show the value in force. Secrets are shown as set or unset only."""
    current = settings()
    if markdown:
        typer.echo(settings_markdown())
        return
    table = Table("variable", "value", "meaning", title="Settings", show_lines=True)
    for name, field in Settings.model_fields.items():
        table.add_row(f"TP_{name.upper()}", _shown(getattr(current, name)), field.description)
    Console().print(table)


def settings_markdown() -> str:
    """The settings as a Markdown table: variable, default, meaning."""
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True, validated_data={})
        rows.append(
            f"| `TP_{name.upper()}` | {'' if default in (None, {}) else f'`{default}`'} | {field.description} |"
        )
    return "\n".join(rows)


def groups() -> None:
    """List the user groups with their server, schema, state and number of users."""
    table = Table("group", "shard", "schema", "desired state", "users", title="User groups")
    with Databases(settings()).control() as session:
        members = session.scalars(select(User.group_id)).all()
        for group in session.scalars(select(Group).order_by(Group.group_id)):
            table.add_row(
                group.group_id, group.shard_id, group.schema_name, group.desired_state,
                str(members.count(group.group_id)),
            )  # fmt: skip
    Console().print(table)


def _shown(value: object) -> str:
    if isinstance(value, SecretStr):
        return "(set)"
    if isinstance(value, dict):
        return ", ".join(value) or "(none)"
    return "(unset)" if value is None else str(value)
