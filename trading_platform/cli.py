"""`trading-platform`: every command of the platform, loaded only when it is called.

A room keeps its commands in its own `commands.py`; this file says where each is found and how they are grouped, so
that `--help` is quick and one command's imports never slow another down.
"""

import importlib
import sys
from dataclasses import dataclass
from typing import Any

import typer
import typer.main
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup


@dataclass(frozen=True)
class Entry:
    """One top-level command: where it lives and the line that `--help` shows before anything is imported."""

    target: str
    """`module:attribute`; the attribute is a `typer.Typer` or a function."""
    help: str


COMMANDS: dict[str, Entry] = {
    "up": Entry("trading_platform.stack.commands:up", "Start everything, run one pass of the loop, go on serving."),
    "down": Entry("trading_platform.stack.commands:down", "Stop a running platform."),
    "status": Entry("trading_platform.stack.commands:status", "Show every process of the running platform."),
    "migrate": Entry("trading_platform.storage.commands:migrate", "Bring all databases and group schemas up to date."),
    "settings": Entry("trading_platform.storage.commands:show_settings", "Explain every TP_ variable and its value."),
    "groups": Entry("trading_platform.storage.commands:groups", "The shard map: user groups, servers, schemas."),
    "ingest": Entry("trading_platform.market_data.commands:ingest", "Read bars from files or a venue into the lake."),
    "lake": Entry("trading_platform.market_data.commands:lake", "Look into the lake: datasets, gaps, quarantine."),
    "collector": Entry("trading_platform.market_data.commands:collector", "Service: stream live bars into the lake."),
    "scorer": Entry("trading_platform.strategies.commands:scorer", "Service: turn closed bars into signals."),
    "desire": Entry("trading_platform.execution.desired_state:desire", "Ask a group's engine to run, halt or flatten."),
    "engine": Entry("trading_platform.execution.commands:engine", "Service: trade the accounts of user groups."),
    "orders": Entry("trading_platform.execution.order_commands:orders", "Orders: list, follow one, settle an unknown."),
    "halt": Entry("trading_platform.execution.halt_commands:halt", "The kill switch: show, set and clear halts."),
    "kite": Entry("trading_platform.venues.zerodha.commands:app", "Zerodha: log in, log out, preflight, ban list."),
    "sandbox": Entry("trading_platform.sandbox.commands:app", "An exchange of your own, for paper trading."),
    "torture": Entry(
        "trading_platform.torture.commands:torture", "Kill engines, exchange and database at random; compare all books."
    ),
    "api": Entry("trading_platform.api.commands:api", "Service: HTTP API, log-in, live streams."),
    "backtest": Entry("trading_platform.backtest.commands:backtest", "Play a strategy over files, and criticise it."),
    "models": Entry(
        "trading_platform.strategies.model_commands:models", "Model versions, lineage, what was live when."
    ),
    "learn": Entry(
        "trading_platform.learning.learn_commands:learn", "Learn and measure on data of your own, without a platform."
    ),
    "users": Entry("trading_platform.accounts.commands:users", "Add people, set passwords, disable log-ins."),
    "import-legacy": Entry("trading_platform.api.legacy:import_legacy", "Take over users, keys, sessions, the model."),
    "audit": Entry("trading_platform.compliance.commands:audit", "Seal, verify and show the audit trail."),
    "compliance": Entry("trading_platform.compliance.commands:compliance", "Write the daily compliance records."),
}

ABOUT = """A self-learning trading platform.

Bars become features, features a calibrated model, its signals orders, and the outcomes of those orders the next
model. Start with `trading-platform up --data synthetic`, open the address it prints, and read docs/architecture.md.
"""


class LazyGroup(TyperGroup):
    """A group that imports a command's module only when that command is called or asked for help."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return _load(cmd_name, COMMANDS[cmd_name]) if cmd_name in COMMANDS else None

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """The list of commands from the table above: nothing is imported for it."""
        console = Console()
        console.print(f"[bold]Usage:[/bold] {ctx.command_path} COMMAND [OPTIONS]\n\n{ABOUT}")
        table = Table("command", "what it does", box=None, pad_edge=False)
        for name, entry in COMMANDS.items():
            table.add_row(f"[cyan]{name}[/cyan]", entry.help)
        console.print(table)
        console.print(f"\n`{ctx.command_path} COMMAND --help` explains one of them.")


def _load(name: str, entry: Entry) -> Any:
    module_name, attribute = entry.target.split(":")
    target: Any = getattr(importlib.import_module(module_name), attribute)
    if isinstance(target, typer.Typer):
        command = typer.main.get_command(target)
    else:
        app = typer.Typer(add_completion=False, rich_markup_mode="markdown")
        app.command(name)(target)
        command = typer.main.get_command(app)
    command.name = name
    return command


app = typer.Typer(cls=LazyGroup, add_completion=False)


@app.callback(invoke_without_command=False)
def _root() -> None:
    """Only its presence matters: it makes the application a group."""


def main() -> None:
    """Entry point of the `trading-platform` script."""
    try:
        app(prog_name="trading-platform")
    except Exception as error:
        if (said := _without_database(error)) is None:
            raise
        Console(stderr=True).print(f"[red]{said}[/red]")
        sys.exit(1)


def _without_database(error: Exception) -> str | None:
    """What a person can do about an error that only says that no database is there; None of any other."""
    from sqlalchemy.exc import OperationalError

    from trading_platform.storage.databases import NoDatabaseError

    if isinstance(error, NoDatabaseError):
        return str(error)
    if isinstance(error, OperationalError):
        return f"The database does not answer: {error.orig}\nIs the platform up? `trading-platform status` says."
    return None


if __name__ == "__main__":
    main()
