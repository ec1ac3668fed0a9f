"""Group `market_data`: bars in the lake, and the checks that keep bad bars away from everything downstream."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import dagster as dg

from assets import plots
from assets.platform import OnDataset, Platform
from assets.progress import reporter
from trading_platform.storage.control import Dataset

if TYPE_CHECKING:
    import polars as pl

# The domain is imported inside the bodies: the code location loads in seconds, and the daemon loads it for every run.
GROUP = "market_data"
SAMPLE_ROWS = 200_000
"""Great Expectations looks at the newest rows of this number; the quality rules of ingestion saw every row."""


class Source(OnDataset):
    """Where bars come from."""

    source: str = ""
    """A file, a folder, `binance` or `synthetic`; empty: the dataset that was collected last, asked again where it is live or generated."""
    drill: str = ""
    """`drift` changes the replayed tail on purpose, to see the platform react; the dataset is then one of its own."""


@dg.asset(
    group_name=GROUP,
    kinds={"deltalake", "polars"},
    description="Bars of one dataset in the lake: read or fetched, checked row by row, gaps found and repaired where a "
    "source answers. Bad rows are in quarantine with their reason; what stays missing is recorded.",
)
def bars(context: dg.AssetExecutionContext, config: Source, platform: Platform) -> dg.Output[str]:
    from trading_platform.market_data.datasets import IngestOptions, ingest

    source, drill = config.source, config.drill
    if not source:
        with platform.databases.control() as session:
            dataset = session.get_one(Dataset, platform.dataset_id(config.dataset_id))
        if dataset.kind == "files":  # files are named by their content; what was read of them is in the lake
            return dg.Output(dataset.dataset_id, metadata=_metadata(platform, dataset.dataset_id))
        source, drill = dataset.kind, (dataset.details.get("drill") or {}).get("kind", "")
        source = "binance" if source == "venue" else source
    options = IngestOptions(drill="drift" if drill else None)
    report = ingest(platform.databases, platform.lake, source, options, progress=reporter(context))
    done = {
        "added": report.added,
        "changed": report.changed,
        "notes": "; ".join(report.notes) or "none",
        "quarantined": dg.MetadataValue.json(report.quarantined),
    }
    return dg.Output(str(report.dataset_id), metadata=_metadata(platform, report.dataset_id) | done)


def _metadata(platform: Platform, dataset_id: str) -> dict[str, object]:
    frame = platform.lake.bars(dataset_id)
    closes = {
        symbol: (rows["open_time"].to_list(), (rows["close"] / rows["close"][0]).to_list())
        for (symbol,), rows in frame.gather_every(max(1, len(frame) // 4000)).group_by("symbol", maintain_order=True)
    }
    return {
        "dataset": dataset_id,
        "dagster/row_count": len(frame),
        "gaps": plots.table(platform.lake.gaps(dataset_id).sort("missing", descending=True).head(20).to_dicts()),
        "closes": plots.lines(closes, "close, relative to the first bar"),
    }


@dg.asset(
    group_name=GROUP,
    deps=[bars],
    kinds={"deltalake"},
    description="The lake's tables with their small files joined: live batches leave one every few seconds. Versions "
    "older than a week go; the versions that models were trained on are read by their rows' revision and stay whole.",
)
def compacted_lake(platform: Platform) -> dg.MaterializeResult:
    files = platform.lake.compact()
    rows = [{"table": name, "files before": before, "files after": after} for name, (before, after) in files.items()]
    return dg.MaterializeResult(metadata={"tables": plots.table(rows)})


@dg.multi_asset_check(
    specs=[
        dg.AssetCheckSpec(
            "expectations", asset="bars", blocking=True, description="Great Expectations suite over bars."
        ),
        dg.AssetCheckSpec(
            "history_is_complete", asset="bars", description="Fewer than 1 % of expected bars are missing."
        ),
    ]
)
def bar_checks(config: OnDataset, platform: Platform) -> Iterable[dg.AssetCheckResult]:
    dataset_id = platform.dataset_id(config.dataset_id)
    frame = platform.lake.bars(dataset_id)
    failures = _expectations(frame.tail(SAMPLE_ROWS))
    yield dg.AssetCheckResult(
        check_name="expectations",
        passed=not failures and len(frame) > 0,
        severity=dg.AssetCheckSeverity.ERROR,
        metadata={"rows": len(frame), "failed": dg.MetadataValue.json(failures)},
    )
    missing = int(platform.lake.gaps(dataset_id)["missing"].sum())
    yield dg.AssetCheckResult(
        check_name="history_is_complete",
        passed=missing <= 0.01 * max(len(frame), 1),
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"missing_bars": missing, "bars": len(frame)},
    )


def _expectations(frame: "pl.DataFrame") -> list[str]:
    """The expectations that do not hold; Great Expectations is imported here because its import takes seconds."""
    import great_expectations as gx
    import great_expectations.expectations as gxe
    import polars as pl

    ordered = frame.select(
        pl.col("dataset_id", "symbol", "open", "high", "low", "close", "volume"),
        key=pl.concat_str("symbol", pl.lit("|"), pl.col("interval_seconds"), pl.lit("|"), pl.col("open_time")),
        high_over_low=pl.col("high") - pl.col("low"),
        above=pl.col("high") - pl.max_horizontal("open", "close"),
        below=pl.min_horizontal("open", "close") - pl.col("low"),
        known_after_seconds=(pl.col("available_at") - pl.col("open_time")).dt.total_seconds(),
    )
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    suite = gx.ExpectationSuite(name="bars")
    for column in ("dataset_id", "symbol", "open", "high", "low", "close", "volume"):
        suite.add_expectation(gxe.ExpectColumnValuesToNotBeNull(column=column))
    for column in ("open", "high", "low", "close"):
        suite.add_expectation(gxe.ExpectColumnValuesToBeBetween(column=column, min_value=0, strict_min=True))
    for column in ("volume", "high_over_low", "above", "below"):
        suite.add_expectation(gxe.ExpectColumnValuesToBeBetween(column=column, min_value=0))
    suite.add_expectation(gxe.ExpectColumnValuesToBeBetween(column="known_after_seconds", min_value=1))
    suite.add_expectation(gxe.ExpectColumnValuesToBeUnique(column="key"))
    batch = (
        context.data_sources.add_pandas("lake")
        .add_dataframe_asset("bars")
        .add_batch_definition_whole_dataframe("all")
        .get_batch({"dataframe": ordered.to_pandas()})
    )
    result = batch.validate(suite)
    return [
        f"{each.expectation_config.type}({each.expectation_config.kwargs.get('column')}): {each.result}"
        for each in result.results
        if not each.success
    ]
