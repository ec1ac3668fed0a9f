"""Commands on models: `models list`, `models show`, `models history`."""

from datetime import datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import select

from trading_platform.identifiers import DatasetId, StrategyId
from trading_platform.settings import settings
from trading_platform.storage.control import Deployment
from trading_platform.storage.databases import Databases

models = typer.Typer(
    help="Model versions: their out-of-sample figures, where they come from, and which was live when.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

DatasetOption = Annotated[str | None, typer.Option("--dataset", help="Only this dataset.")]
StrategyOption = Annotated[str | None, typer.Option("--strategy", help="Only this strategy.")]


@models.command("list")
def list_versions(dataset: DatasetOption = None, strategy: StrategyOption = None) -> None:
    """List versions, newest first. A dash is a figure that was not measured."""
    from trading_platform.learning.registry import versions

    table = Table(
        "version", "kind", "origin", "role", "rows", "accuracy", "base rate", "log-loss", "ECE", "precision at .8",
        "certified", "trained to", title="Model versions",
    )  # fmt: skip
    with Databases(settings()).control() as session:
        open_rows = session.scalars(select(Deployment).where(Deployment.to_time.is_(None)))
        roles = {deployment.version_id: deployment.role for deployment in open_rows}
        for row in versions(
            session, None if dataset is None else DatasetId(dataset), None if strategy is None else StrategyId(strategy)
        ):
            metrics = row.metrics
            table.add_row(
                row.version_id, row.kind, row.origin, roles.get(row.version_id, ""), f"{row.rows:,}",
                *(_shown(metrics.get(name)) for name in ("accuracy", "base_rate", "log_loss", "ece", "precision_at_80")),
                "yes" if row.certified else "no", _moment(row.trained_to),
            )  # fmt: skip
    Console().print(table)


@models.command("show")
def show(version_id: Annotated[str, typer.Argument(help="A version id, as `models list` shows it.")]) -> None:
    """Show a version: lineage, figures, hyperparameters, and the thresholds that were tested for certification."""
    from trading_platform.learning.registry import UnknownVersionError, lineage, summary

    console = Console()
    with Databases(settings()).control() as session:
        try:
            line = lineage(session, version_id)
        except UnknownVersionError as problem:
            console.print(f"[red]{problem}[/red]")
            raise typer.Exit(1) from None
    row = line[0]
    table = Table("what", "value", title=f"Version {row.version_id}", show_header=False)
    facts = {
        **summary(row),
        "lineage": " <- ".join(version.version_id for version in line),
        "dataset": row.dataset_id,
        "strategy": row.strategy_id,
        "data version": row.data_version,
        "feature hash": row.feature_hash,
        "code": row.code_version,
        "libraries": row.lock_hash,
        "seed": row.seed,
        "trained": f"{_moment(row.trained_from)} to {_moment(row.trained_to)}",
        "expires": _moment(row.expires_at),
        "artifact": f"{row.artifact_path} (sha256 {row.artifact_sha256[:16]})",
        "arm": row.params.get("arm"),
        "hyperparameters": row.params.get("hyperparameters"),
    }
    for name, value in facts.items():
        table.add_row(name, _shown(value))
    console.print(table)
    if sequence := row.metrics.get("certification", {}).get("sequence"):
        tested = Table(
            "threshold", "independent trades", "precision", "lower bound", "margin over base rate", "net return, lower",
            "passed", title="Thresholds tested for certification, highest first",
        )  # fmt: skip
        for test in sequence:
            tested.add_row(
                *(_shown(test[name]) for name in (
                    "threshold", "trades", "precision", "precision_lower", "margin_lower", "expected_value_lower", "passed",
                ))
            )  # fmt: skip
        console.print(tested)


@models.command("history")
def history(dataset: DatasetOption = None, strategy: StrategyOption = None) -> None:
    """Show which version served in which role from when to when, in market time."""
    table = Table(
        "dataset", "strategy", "role", "version", "from", "to", "reason", "by", title="Deployments, oldest first"
    )
    query = select(Deployment).order_by(Deployment.dataset_id, Deployment.strategy_id, Deployment.deployment_id)
    if dataset is not None:
        query = query.where(Deployment.dataset_id == dataset)
    if strategy is not None:
        query = query.where(Deployment.strategy_id == strategy)
    with Databases(settings()).control() as session:
        for row in session.scalars(query):
            table.add_row(
                row.dataset_id, row.strategy_id, row.role, row.version_id, _moment(row.from_time),
                _moment(row.to_time) if row.to_time else "serving", row.reason, row.decided_by,
            )  # fmt: skip
    Console().print(table)


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _moment(moment: datetime | None) -> str:
    return "-" if moment is None else moment.strftime("%Y-%m-%d %H:%M UTC")
