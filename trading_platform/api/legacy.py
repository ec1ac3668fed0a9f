"""`trading-platform import-legacy`: take over from the system that this platform replaces."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import typer
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table
from sqlalchemy import select

from trading_platform.accounts.legacy import Report
from trading_platform.accounts.legacy import import_legacy as import_people
from trading_platform.accounts.legacy_files import LegacyFormatError
from trading_platform.accounts.vault import VaultError
from trading_platform.identifiers import DatasetId, GroupId
from trading_platform.settings import settings
from trading_platform.storage.control import Dataset
from trading_platform.storage.databases import Databases

PROBLEMS_SHOWN = 50
console = Console()


def import_legacy(
    source: Annotated[
        Path | None, typer.Argument(exists=True, help="Folder, SQLite file, .sql dump, or one CSV or JSON file.")
    ] = None,
    group: Annotated[str, typer.Option(help="Group of users whose record names none; created if missing.")] = "g1",
    timezone: Annotated[str | None, typer.Option(help="Zone of times that have none, such as Asia/Kolkata.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and check the records, write nothing.")] = False,
    model: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="The old static model: JSON or LightGBM text.")
    ] = None,
    figures: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Its claimed figures: CSV with figure,value.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="The dataset that the model is to serve.")] = None,
    strategy: Annotated[str, typer.Option(help="The strategy that it is to serve.")] = "barrier_long",
) -> None:
    """Import users, API keys, trading sessions and the old model. Run it again at will: nothing is added twice.

    API keys are sealed into the vault as they are read and belong to live accounts that stay unarmed. Passwords come
    along as Argon2 hashes; anybody with another hash needs a new password. Start with `--dry-run`. The model becomes
    the first champion of `--dataset` and `--strategy`; its figures stay claims until it has been measured here. The
    shapes of the files are in docs/import-legacy.md, samples in docs/samples/legacy.
    """
    if source is None and model is None:
        raise _refused("nothing to import: name a file or folder, or --model")
    databases = Databases(settings())
    failed = 0
    if source is not None:
        report = _import_people(databases, source, group, _zone(timezone), dry_run=dry_run)
        _show(report, source)
        failed = report.failed
    if model is not None and not dry_run:
        _import_model(databases, model, figures, dataset=dataset, strategy_id=strategy)
    if failed:
        raise typer.Exit(1)


def _zone(name: str | None) -> ZoneInfo | None:
    try:
        return ZoneInfo(name) if name else None
    except (ZoneInfoNotFoundError, ValueError):
        raise _refused(f"time zone {name!r} is not known; expected a name such as Asia/Kolkata or UTC") from None


def _import_people(databases: Databases, source: Path, group: str, zone: ZoneInfo | None, *, dry_run: bool) -> Report:
    with Progress(console=console, transient=True) as progress:
        bars: dict[str, TaskID] = {}

        def step(table: str, done: int, total: int) -> None:
            if table not in bars:
                bars[table] = progress.add_task(table, total=total)
            progress.update(bars[table], completed=done)

        try:
            return import_people(
                databases, source, group_id=GroupId(group), timezone=zone, dry_run=dry_run, on_step=step
            )
        except (LegacyFormatError, VaultError) as error:
            raise _refused(str(error)) from None


def _import_model(
    databases: Databases, model: Path, figures: Path | None, *, dataset: str | None, strategy_id: str
) -> None:
    from trading_platform.learning.legacy import LegacyModelError
    from trading_platform.learning.legacy import import_legacy as import_model
    from trading_platform.strategies.definition import StrategyError, strategy, training_plan

    with databases.control() as session:
        found = session.get(Dataset, dataset) if dataset else None
        known = session.scalars(select(Dataset.dataset_id).order_by(Dataset.dataset_id)).all()
    if found is None:
        raise _refused(
            f"dataset {dataset!r} is not known; --dataset takes one of: {', '.join(known) or 'none yet'}. "
            "`trading-platform ingest` makes one."
        )
    try:
        plan = training_plan(strategy(strategy_id))
        row, created = import_model(
            databases,
            dataset_id=DatasetId(found.dataset_id),
            strategy_id=plan.strategy_id,
            features=plan.features,
            feature_hash=plan.feature_hash,
            model_file=model,
            figures_file=figures,
            market_time=found.replay_from or datetime.now(UTC),
            by="import-legacy",
        )
    except (LegacyModelError, StrategyError) as error:
        raise _refused(str(error)) from None
    console.print(f"model {row.version_id} {'serves as champion' if created else 'was there already'}")


def _show(report: Report, source: Path) -> None:
    table = Table("", "added", "there already", "failed", title="Would be imported" if report.dry_run else "Imported")
    for name, counts in report.counts.items():
        table.add_row(name, str(counts["added"]), str(counts["existing"]), str(counts["failed"]))
    console.print(table)
    for problem in report.problems[:PROBLEMS_SHOWN]:
        console.print(problem, style="red", markup=False)
    if len(report.problems) > PROBLEMS_SHOWN:
        console.print(f"… and {len(report.problems) - PROBLEMS_SHOWN} more")
    if report.without_password:
        console.print(f"\nThese users need a new password (`users passwd`): {', '.join(report.without_password)}")
    if report.counts["api_keys"]["added"] and not report.dry_run:
        console.print(f"\nThe API keys are in the vault. Delete the plain text now: {source}", style="bold yellow")


def _refused(message: str) -> typer.Exit:
    console.print(message, style="red", markup=False)
    return typer.Exit(2)
