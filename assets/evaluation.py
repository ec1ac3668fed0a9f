"""Group `evaluation`: what was predicted against what happened, and what follows from it."""

from datetime import datetime
from typing import TYPE_CHECKING

import dagster as dg

from assets import plots
from assets.models import BY, serving
from assets.platform import OnDataset, Platform

if TYPE_CHECKING:
    import polars as pl

GROUP = "evaluation"


@dg.asset(
    group_name=GROUP,
    deps=[serving],
    kinds={"polars"},
    description="Every signal whose outcome is known, by version: accuracy, log-loss, calibration and precision of what was "
    "published, over time and by market condition. Predictions go to the lake.",
)
def model_performance(config: OnDataset, platform: Platform) -> dg.MaterializeResult:
    import polars as pl

    from trading_platform.learning import performance
    from trading_platform.strategies.definition import strategy_of

    dataset_id = platform.dataset_id(config.dataset_id)
    with platform.databases.control() as session:
        barriers = strategy_of(session, dataset_id).barriers
    rows = performance.resolved(
        platform.databases, platform.lake, barriers, dataset_id, as_of=platform.market_time(dataset_id, config.as_of)
    )
    if rows.is_empty():
        return dg.MaterializeResult(metadata={"dataset": dataset_id, "resolved_signals": 0})
    _export(platform, dataset_id, rows)
    weekly = performance.over_time(rows, "1w").with_columns(
        net_return=pl.col("net_return_sum").cum_sum().over("version_id", order_by="available_at")
    )
    metadata: dict[str, object] = {
        "dataset": dataset_id,
        "resolved_signals": len(rows),
        **{
            f"{name}_by_week": plots.lines(_by_version(weekly, name), title)
            for name, title in (
                ("log_loss", "log-loss by week"),
                ("accuracy", "accuracy by week"),
                ("precision", "share of published signals that came true, by week"),
                ("net_return", "summed net return of published signals, after costs"),
            )
        },
        "by_condition": plots.table(_rounded(performance.by_condition(rows))),
    }
    for (version,), part in performance.reliability_frame(rows).group_by("version_id", maintain_order=True):
        metadata[f"reliability_{version}"] = plots.reliability(
            part["confidence"].to_list(), part["observed"].to_list(), part["rows"].to_list()
        )
    return dg.MaterializeResult(metadata=metadata)


@dg.asset(
    group_name=GROUP,
    deps=[model_performance],
    kinds={"postgres"},
    description="The running experiment: the paired log-loss difference on block means, in a confidence sequence that may "
    "be looked at as often as one likes. The page holds the decision, its evidence and their plots.",
)
def ab_evaluation(config: OnDataset, platform: Platform) -> dg.MaterializeResult:
    from trading_platform.learning.decision_page import write_decision
    from trading_platform.learning.experiments import evaluate, running
    from trading_platform.strategies.definition import strategy_of

    dataset_id = platform.dataset_id(config.dataset_id)
    with platform.databases.control() as session:
        definition = strategy_of(session, dataset_id)
        experiment = running(session, dataset_id, definition.strategy_id)
    if experiment is None:
        return dg.MaterializeResult(metadata={"dataset": dataset_id, "experiment": "none runs"})
    row = evaluate(
        platform.databases, platform.lake, definition.barriers, experiment.experiment_id,
        as_of=platform.market_time(dataset_id, config.as_of),
    )  # fmt: skip
    return dg.MaterializeResult(
        metadata={
            "experiment": row.experiment_id,
            "champion": row.champion_id,
            "challenger": row.challenger_id,
            "samples": row.samples,
            "decision": row.decision,
            "lower": str(row.lower),
            "upper": str(row.upper),
            "evidence": dg.MetadataValue.json(row.evidence),
            "page": dg.MetadataValue.path(write_decision(platform.settings.reports_dir / "experiments", row)),
            **_band(row.evidence),
        }
    )


@dg.asset(
    group_name=GROUP,
    deps=[ab_evaluation],
    kinds={"postgres"},
    description="The gate: carries out what the experiment decided (promote, keep, roll back) and nothing else. Every "
    "deployment is a row with its reason, so what was live when has an answer.",
)
def promotion(config: OnDataset, platform: Platform) -> dg.MaterializeResult:
    from trading_platform.learning.experiments import conclude, running
    from trading_platform.strategies.definition import strategy_of

    dataset_id = platform.dataset_id(config.dataset_id)
    market_time: datetime = platform.market_time(dataset_id, config.as_of)
    with platform.databases.control() as session:
        experiment = running(session, dataset_id, strategy_of(session, dataset_id).strategy_id)
        acted = experiment is not None and conclude(
            session, platform.settings, experiment, market_time=market_time, by=BY
        )
        decision = experiment.decision if experiment is not None else "no experiment runs"
    return dg.MaterializeResult(metadata={"dataset": dataset_id, "decision": decision, "changed": acted})


@dg.asset(
    group_name=GROUP,
    deps=[promotion],
    kinds={"postgres"},
    description="Whoever serves after the gate: features against computed thresholds, the error stream against "
    "detectors. The decision `retrain` is what the drift sensor acts on.",
)
def drift_report(config: OnDataset, platform: Platform) -> dg.MaterializeResult:
    from trading_platform.learning.drift import check_drift
    from trading_platform.strategies.definition import strategy_of, training_plan

    dataset_id = platform.dataset_id(config.dataset_id)
    with platform.databases.control() as session:
        plan = training_plan(strategy_of(session, dataset_id))
    report = check_drift(
        platform.databases, platform.lake, plan, dataset_id, platform.market_time(dataset_id, config.as_of)
    )
    ratios = {
        name: float(found["statistic"]) / float(found["threshold"])
        for name, found in report.features.items()
        if found.get("threshold")
    }
    conditions = sorted(
        (found | {"said": found.get("said", "")} for found in report.conditions.values()),
        key=lambda found: float(found["p_value"]),
    )
    said = [found["said"] for found in conditions if found["said"]]
    kept = report.error.get("precision of published", {})
    worst = dict(sorted(ratios.items(), key=lambda item: -item[1])[:15])
    return dg.MaterializeResult(
        metadata={
            "dataset": dataset_id,
            "version": report.version_id,
            "decision": report.decision,
            "run_key": report.run_key,
            "features": plots.bars(worst, "distance / computed threshold", reference=1.0)
            if worst
            else "window too short",
            "precision": f"{kept['precision']:.1%} of {kept['trades']} published signals came true ({kept['lower']:.1%} to "
            f"{kept['upper']:.1%} at every look), promised were {kept['promised']:.1%}"
            if kept.get("trades")
            else "no published signal has ended",
            "error_stream": dg.MetadataValue.json(report.error),
            "says": dg.MetadataValue.md("\n".join(f"- {line}" for line in said) or "No market condition has drifted."),
            "conditions": plots.table(conditions) if conditions else "too little is known",
        }
    )


def _by_version(weekly: "pl.DataFrame", name: str) -> dict[str, tuple[list[object], list[float]]]:
    return {
        str(version): (part["available_at"].to_list(), part[name].to_list())
        for (version,), part in weekly.drop_nulls(name).group_by("version_id", maintain_order=True)
    }


def _export(platform: Platform, dataset_id: str, rows: "pl.DataFrame") -> None:
    """Predictions with their outcomes into the lake, for whoever reads Delta tables."""
    import polars as pl

    platform.lake.write_predictions(
        rows.with_columns(dataset_id=pl.lit(dataset_id), open_time=pl.col("bar_open_time")).select(
            "dataset_id", "version_id", "symbol", "open_time", "available_at", "confidence", "threshold", "state",
            "label", "net_return", "log_loss",
        )
    )  # fmt: skip


def _rounded(frame: "pl.DataFrame") -> list[dict[str, object]]:
    import polars as pl

    return frame.select(pl.col(pl.String), pl.col(pl.Int64, pl.UInt32), pl.col(pl.Float64).round(4)).to_dicts()


def _band(evidence: dict[str, object]) -> dict[str, dg.MarkdownMetadataValue]:
    """The confidence sequence as a plot, where the evidence holds its series."""
    series = evidence.get("series") if isinstance(evidence, dict) else None
    if not isinstance(series, dict) or not series.get("lower"):
        return {}
    lower, upper = list(series["lower"]), list(series["upper"])
    x = list(range(1, len(lower) + 1))
    return {
        "confidence_sequence": plots.lines(
            {"lower": (x, lower), "upper": (x, upper)}, "champion's loss minus challenger's"
        )
    }
