"""The summary of a pass: `<home>/run/summary.json` and the same as tables. Figures are read from the books or absent."""

import json
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from sqlalchemy import Select, case, func, select

from jobs.pass_books import BooksCompared
from trading_platform.compliance.audit import verify
from trading_platform.identifiers import GroupId
from trading_platform.market_data.lake import Lake
from trading_platform.settings import Settings
from trading_platform.storage.control import Dataset, Deployment, DriftReport, Experiment, ModelVersion, Signal
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import Order, Outcome

MODEL_FIGURES = ("base_rate", "accuracy", "log_loss", "brier", "ece")


class PassSummary:
    """Collects what a pass did. `seconds`, `retraining_run_id` and `compared` are filled in by the pass itself."""

    def __init__(self, databases: Databases, settings: Settings) -> None:
        self.databases = databases
        self.settings = settings
        self.seconds: dict[str, float] = {}
        self.retraining_run_id: str | None = None
        self.compared: BooksCompared | None = None
        self.written: dict[str, Any] = {}

    # --- questions that the pass itself asks -------------------------------------------------------------------------

    def retraining_key(self, dataset_id: str) -> str | None:
        """The run key of the newest drift report, where it asks for retraining."""
        report = self._drift(dataset_id)
        return report.run_key if report is not None and report.decision == "retrain" else None

    def version_ids(self, dataset_id: str) -> list[str]:
        with self.databases.control() as session:
            return list(
                session.scalars(
                    select(ModelVersion.version_id)
                    .where(ModelVersion.dataset_id == dataset_id)
                    .order_by(ModelVersion.created_at)
                )
            )

    def without_card(self, version_ids: Sequence[str]) -> list[str]:
        return [name for name in version_ids if not (self.settings.reports_dir / "models" / f"{name}.html").exists()]

    # --- the summary -------------------------------------------------------------------------------------------------

    def write(self, dataset_id: str) -> Path:
        """Measure, write the file whole or not at all, and return its path."""
        self.written = {
            "data": self._data(dataset_id),
            "model": self._model(dataset_id),
            "experiment": self._experiment(dataset_id),
            "signals": self._signals(dataset_id),
            **self._books(dataset_id),
            "drift": self._drift_section(dataset_id),
            "audit": self._audit(),
            "reports": sorted(
                str(path) for path in self.settings.reports_dir.rglob("*") if path.suffix in {".html", ".csv"}
            ),
            "seconds": {**self.seconds, "total": round(sum(self.seconds.values()), 1)},
            "urls": self._urls(),
        }
        path = self.settings.run_dir / "summary.json"
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(self.written, indent=2, default=_plain))
        partial.replace(path)
        return path

    def _data(self, dataset_id: str) -> dict[str, Any]:
        with self.databases.control() as session:
            dataset = session.scalars(select(Dataset).where(Dataset.dataset_id == dataset_id)).one()
        lake = Lake(self.settings.lake_dir)
        gaps = lake.gaps(dataset_id)
        reasons = lake.quarantined(dataset_id)["reason"].value_counts()
        symbols = dataset.symbols
        return {
            "dataset": dataset_id,
            "source": dataset.source,
            "synthetic": dataset.kind == "synthetic",
            "drill": dataset.details.get("drill"),
            "symbols": sorted(symbols),
            "interval": dataset.interval_seconds,
            "first": min((entry["first"] for entry in symbols.values()), default=None),
            "last": max((entry["last"] for entry in symbols.values()), default=None),
            "replay_from": dataset.replay_from,
            "bars": sum(entry["bars"] for entry in symbols.values()),
            "gaps_found": len(gaps),
            "gaps_repaired": int((gaps["missing"] == 0).sum()),
            "bars_missing": int(gaps["missing"].sum()),
            "quarantined": dict(reasons.iter_rows()),
        }

    def _model(self, dataset_id: str) -> dict[str, Any]:
        """The version that serves as champion; its figures are those of its walk-forward, out of sample."""
        with self.databases.control() as session:
            version = session.scalars(
                select(ModelVersion)
                .join(Deployment, Deployment.version_id == ModelVersion.version_id)
                .where(Deployment.dataset_id == dataset_id, Deployment.role == "champion", Deployment.to_time.is_(None))
            ).first()
            count = session.scalar(
                select(func.count()).select_from(ModelVersion).where(ModelVersion.dataset_id == dataset_id)
            )
        if version is None:
            return {}
        return {
            "version": version.version_id,
            "kind": version.kind,
            "parent": version.parent_id,
            "versions": count,
            "rows": version.rows,
            "features": len(version.params.get("plan", {}).get("features", [])) or None,
            "folds": version.params.get("folds"),
            "trials": version.params.get("trials"),
            "trained_from": version.trained_from,
            "trained_to": version.trained_to,
            **{name: version.metrics.get(name) for name in MODEL_FIGURES},
            "precision_at_80": version.metrics.get("precision_at", {}).get("0.8"),
            "coverage_at_80": version.metrics.get("coverage_at", {}).get("0.8"),
            "certified_80": version.certified,
        }

    def _experiment(self, dataset_id: str) -> dict[str, Any]:
        with self.databases.control() as session:
            newest = session.scalars(
                select(Experiment)
                .where(Experiment.dataset_id == dataset_id, Experiment.samples > 0)
                .order_by(Experiment.started_at.desc())
            ).first()
        if newest is None:
            return {}
        return {
            "experiment": newest.experiment_id,
            "champion": newest.champion_id,
            "challenger": newest.challenger_id,
            "samples": newest.samples,
            "lower": newest.lower,
            "upper": newest.upper,
            "decision": newest.decision,
        }

    def _signals(self, dataset_id: str) -> dict[str, int]:
        with self.databases.control() as session:
            counts = dict(
                session.execute(
                    select(Signal.state, func.count()).where(Signal.dataset_id == dataset_id).group_by(Signal.state)
                ).all()
            )
        return {state: int(counts.get(state, 0)) for state in ("ok", "abstain", "outlier", "expired")}

    def _books(self, dataset_id: str) -> dict[str, Any]:
        """Orders, outcomes and profit of all groups, each read from its own schema."""
        orders: dict[str, Any] = {"sent": 0, "filled": 0, "rejected": 0, "unknown": 0}
        outcomes = {"success": 0, "failure": 0}
        pnl: dict[str, dict[str, Decimal]] = {}
        for group_id in self.databases.group_ids():
            with self.databases.group(GroupId(group_id)) as session:
                row = session.execute(_order_counts(dataset_id)).one()
                for name, value in zip(orders, row, strict=True):
                    orders[name] += int(value or 0)
                for currency, won, lost, gross, costs, net in session.execute(_outcome_sums(dataset_id)):
                    outcomes["success"] += won
                    outcomes["failure"] += lost
                    total = pnl.setdefault(currency, {"gross": Decimal(0), "costs": Decimal(0), "net": Decimal(0)})
                    for name, value in (("gross", gross), ("costs", costs), ("net", net)):
                        total[name] += value
        at_venue = {"at_venue": self.compared.shown()} if self.compared else {}
        return {"orders": orders | at_venue, "outcomes": outcomes, "pnl": pnl}

    def _drift(self, dataset_id: str) -> DriftReport | None:
        with self.databases.control() as session:
            return session.scalars(
                select(DriftReport)
                .where(DriftReport.dataset_id == dataset_id)
                .order_by(DriftReport.report_id.desc())
                .limit(1)
            ).one_or_none()

    def _drift_section(self, dataset_id: str) -> dict[str, Any]:
        report = self._drift(dataset_id)
        if report is None:
            return {}
        return {
            "features": sorted(name for name, found in report.features.items() if found.get("drifted")),
            "error": {name: found.get("state") for name, found in report.error.items() if isinstance(found, dict)},
            "decision": report.decision,
            "run_key": report.run_key,
            "retraining_run": self.retraining_run_id,
        }

    def _audit(self) -> dict[str, int]:
        entries = verified = 0
        for group_id in self.databases.group_ids():
            result = verify(self.databases, group_id)
            entries += result.entries
            verified += result.verified
        return {"entries": entries, "verified": verified}

    def _urls(self) -> dict[str, str]:
        base = f"http://{self.settings.public_host}:{self.settings.port}"
        urls = {"dashboard": f"{base}/app/", "api": f"{base}/docs", "dagster_read_only": f"{base}/dagster/"}
        return urls | ({"dagster": self.settings.dagster_url} if self.settings.dagster_url else {})

    # --- on the terminal ---------------------------------------------------------------------------------------------

    def show(self, console: Console) -> None:
        """The summary as one table a section."""
        for section, values in self.written.items():
            table = Table("", "", title=section, show_header=False, title_justify="left", title_style="bold")
            if isinstance(values, dict):
                for name, value in values.items():
                    table.add_row(name, _shown(value))
            else:
                table.add_row("files", str(len(values)))
                table.add_row("folder", str(self.settings.reports_dir))
            console.print(table)


def _order_counts(dataset_id: str) -> Select[Any]:
    """(sent, filled, rejected, unknown) of one group's orders on a dataset."""
    from trading_platform.storage.group import Intent

    def of(state: str) -> Any:
        return func.sum(case((Order.state == state, 1), else_=0))

    return (
        select(func.count(), of("FILLED"), of("REJECTED"), of("UNKNOWN"))
        .select_from(Order)
        .join(Intent, Intent.intent_id == Order.intent_id)
        .where(Intent.dataset_id == dataset_id)
    )


def _outcome_sums(dataset_id: str) -> Select[Any]:
    """A row a currency: (currency, successes, failures, gross, costs, net)."""
    won = func.sum(case((Outcome.success, 1), else_=0))
    return (
        select(
            Outcome.currency, won, func.count() - won, func.sum(Outcome.gross_pnl), func.sum(Outcome.costs),
            func.sum(Outcome.net_pnl),
        )
        .where(Outcome.dataset_id == dataset_id)
        .group_by(Outcome.currency)
    )  # fmt: skip


def _plain(value: object) -> object:
    if isinstance(value, Decimal):
        return str(value)
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(entry)}" for name, entry in value.items()) or "none"
    if isinstance(value, Decimal):
        return f"{value:,.2f}"
    return "–" if value is None else str(value)
