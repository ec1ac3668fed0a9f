"""Commands on models: `models list`, `show`, `diff`, `history`, `promote`, `rollback`.

Each ends its output with one line of JSON; what is refused is said on the error stream, with exit status 1.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import select
from sqlalchemy.orm import Session

from trading_platform.identifiers import DatasetId, StrategyId
from trading_platform.settings import settings
from trading_platform.storage.control import Dataset, Deployment, MarketProgress
from trading_platform.storage.databases import Databases

models = typer.Typer(
    help="Model versions: their out-of-sample figures, where they come from, and which was live when. Each command ends "
    "with one line of JSON.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

PROVENANCE = ("dataset_id", "strategy_id", "data_version", "feature_hash", "code_version", "lock_hash", "seed",
              "trained_from", "trained_to", "expires_at", "artifact_sha256")  # fmt: skip

DatasetOption = Annotated[str | None, typer.Option("--dataset", help="Only this dataset.")]
StrategyOption = Annotated[str | None, typer.Option("--strategy", help="Only this strategy.")]


@models.command("list")
def list_versions(dataset: DatasetOption = None, strategy: StrategyOption = None) -> None:
    """List versions, newest first. A dash is a figure that was not measured."""
    from trading_platform.learning.registry import summary, versions

    table = Table(
        "version", "kind", "origin", "role", "rows", "accuracy", "base rate", "log-loss", "ECE", "precision at .8",
        "certified", "trained to", title="Model versions",
    )  # fmt: skip
    found = []
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
            found.append(
                {name: value for name, value in summary(row).items() if name != "features"}
                | {"role": roles.get(row.version_id), "dataset": row.dataset_id, "strategy": row.strategy_id,
                   "certified": row.certified, "trained_to": row.trained_to}
            )  # fmt: skip
    Console().print(table)
    _finish({"versions": found})


@models.command("show")
def show(version_id: Annotated[str, typer.Argument(help="A version id, as `models list` shows it.")]) -> None:
    """Show a version: lineage, figures, hyperparameters, and the thresholds that were tested for certification."""
    from trading_platform.learning.registry import lineage, summary

    console = Console()
    with _refusals(), Databases(settings()).control() as session:
        line = lineage(session, version_id)
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
    _finish(
        summary(row)
        | {"lineage": [version.version_id for version in line], "certified": row.certified}
        | {name: getattr(row, name) for name in PROVENANCE}
        | {"artifact_path": row.artifact_path, "params": row.params, "certification": row.metrics.get("certification")}
    )


@models.command("history")
def history(dataset: DatasetOption = None, strategy: StrategyOption = None) -> None:
    """Show which version served in which role from when to when, in market time."""
    found = []
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
            found.append(
                {"dataset": row.dataset_id, "strategy": row.strategy_id, "role": row.role, "version": row.version_id,
                 "from": row.from_time, "to": row.to_time, "reason": row.reason, "by": row.decided_by}
            )  # fmt: skip
    Console().print(table)
    _finish({"deployments": found})


@models.command("diff")
def diff(
    first: Annotated[str, typer.Argument(help="A version id.")],
    second: Annotated[str, typer.Argument(help="The version id to compare it with.")],
) -> None:
    """Show what two versions have in common and where they differ: data, code, features, hyperparameters, figures.

    Figures of different evaluation windows are not a race: which of two is better is what an experiment decides.
    """
    from trading_platform.learning.registry import summary, version

    console = Console()
    with _refusals(), Databases(settings()).control() as session:
        rows = [version(session, version_id) for version_id in (first, second)]
    sides = [
        summary(row)
        | {name: getattr(row, name) for name in PROVENANCE}
        | {"arm": row.params.get("arm")}
        | {f"hyperparameter {name}": value for name, value in row.params.get("hyperparameters", {}).items()}
        for row in rows
    ]
    table = Table("what", first, second, title="Where they differ")
    same, differing = [], {}
    for name in dict.fromkeys([*sides[0], *sides[1]]):
        left, right = (side.get(name) for side in sides)
        if left == right:
            same.append(name)
        else:
            differing[name] = [left, right]
            table.add_row(name, _shown(left), _shown(right))
    console.print(table)
    console.print(f"The same in both: {', '.join(same) or 'nothing'}.")
    _finish({"first": first, "second": second, "differ": differing, "same": same})


@models.command("promote")
def promote(
    dataset: Annotated[str, typer.Option("--dataset", help="The dataset the experiment runs on.")],
    strategy: Annotated[str, typer.Option("--strategy", help="The strategy whose challenger is to become champion.")],
    by: Annotated[str, typer.Option("--by", help="Who decides; it goes into the record.")],
) -> None:
    """Promote the challenger of the running experiment. **Only evidence promotes**: refused unless it says `promote`.

    The loop does this by itself at its next evaluation; the command is for those who do not want to wait.
    """
    from trading_platform.learning.experiments import promote as carry_out
    from trading_platform.learning.experiments import running
    from trading_platform.learning.registry import DeploymentRefusedError

    databases = Databases(settings())
    dataset_id, strategy_id = DatasetId(dataset), StrategyId(strategy)
    with _refusals(), databases.control() as session:
        experiment = running(session, dataset_id, strategy_id)
        if experiment is None:
            raise DeploymentRefusedError(
                f"no experiment runs for {strategy} on {dataset}: a challenger has to serve beside the champion first"
            )
        moment = _market_time(session, dataset_id)
        carry_out(session, databases.settings, experiment, market_time=moment, by=by)
        done = {"champion": experiment.challenger_id, "before": experiment.champion_id,
                "experiment": experiment.experiment_id}  # fmt: skip
    Console().print(f"{done['champion']} is champion of {strategy} on {dataset}.")
    _finish(done | {"dataset": dataset, "strategy": strategy, "market_time": moment, "by": by})


@models.command("rollback")
def rollback(
    dataset: Annotated[str, typer.Option("--dataset", help="The dataset.")],
    strategy: Annotated[str, typer.Option("--strategy", help="The strategy.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; it goes into the record.")],
    by: Annotated[str, typer.Option("--by", help="Who decides; it goes into the record.")],
) -> None:
    """Put the champion before the present one back into service, at once."""
    from trading_platform.learning.registry import roll_back, serving

    databases = Databases(settings())
    dataset_id, strategy_id = DatasetId(dataset), StrategyId(strategy)
    with _refusals(), databases.control() as session:
        moment = _market_time(session, dataset_id)
        before = serving(session, dataset_id, strategy_id).champion
        deployment = roll_back(
            session, databases.settings, dataset_id=dataset_id, strategy_id=strategy_id, market_time=moment,
            reason=reason, by=by,
        )  # fmt: skip
        done = {"champion": deployment.version_id, "before": None if before is None else before.version_id}
    Console().print(f"{done['champion']} is champion of {strategy} on {dataset} again.")
    _finish(done | {"dataset": dataset, "strategy": strategy, "market_time": moment, "reason": reason, "by": by})


@contextmanager
def _refusals() -> Iterator[None]:
    """What the registry refuses is one sentence on the error stream, not a stack trace."""
    from trading_platform.learning.artifact import ArtifactError
    from trading_platform.learning.registry import DeploymentRefusedError, UnknownVersionError

    try:
        yield
    except (ArtifactError, DeploymentRefusedError, UnknownVersionError) as problem:
        Console(stderr=True).print(f"[red]{problem}[/red]")
        raise typer.Exit(1) from None


def _market_time(session: Session, dataset_id: DatasetId) -> datetime:
    """As far as the platform has scored the dataset, else its last bar. Raises where there is no such dataset."""
    from trading_platform.learning.registry import DeploymentRefusedError

    if (progress := session.get(MarketProgress, dataset_id)) is not None:
        return progress.scored_through
    if (found := session.get(Dataset, dataset_id)) is None:
        raise DeploymentRefusedError(f"no dataset {dataset_id!r}; see `trading-platform lake`")
    return max(datetime.fromisoformat(entry["last"]) for entry in found.symbols.values())


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _moment(moment: datetime | None) -> str:
    return "-" if moment is None else moment.strftime("%Y-%m-%d %H:%M UTC")


def _finish(result: dict[str, Any]) -> None:
    """The JSON object, as the last line; times as ISO 8601."""
    typer.echo(json.dumps(result, default=lambda value: value.isoformat()))
