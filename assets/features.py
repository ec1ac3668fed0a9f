"""Group `features`: point-in-time features and market conditions, and the checks that they look at no future."""

from typing import TYPE_CHECKING

import dagster as dg

from assets import plots
from assets.market_data import bars
from assets.platform import OnDataset, Platform
from assets.progress import reporter

if TYPE_CHECKING:
    import polars as pl

    from trading_platform.features.definition import Feature

GROUP = "features"
CONDITIONS = ("volatility", "trend", "liquidity", "session")


@dg.asset(
    group_name=GROUP,
    deps=[bars],
    kinds={"deltalake", "numba"},
    description="Features and market conditions of every bar, by the same kernel that scores live bars.",
)
def features(context: dg.AssetExecutionContext, config: OnDataset, platform: Platform) -> dg.MaterializeResult:
    from trading_platform.features.build import build_features
    from trading_platform.features.definition import feature_hash

    dataset_id = platform.dataset_id(config.dataset_id)
    frame = build_features(platform.lake, dataset_id, progress=reporter(context))
    counts = {name: dict(frame[name].value_counts(normalize=True).iter_rows()) for name in CONDITIONS}
    return dg.MaterializeResult(
        metadata={
            "dataset": dataset_id,
            "dagster/row_count": len(frame),
            "feature_hash": feature_hash(),
            **{name: plots.bars(shares, f"share of bars by {name}") for name, shares in counts.items()},
        }
    )


@dg.asset_check(asset=features, description="A few hundred bars of history give the same row; live equals batch.")
def forgets_and_serves_alike(config: OnDataset, platform: Platform) -> dg.AssetCheckResult:
    from trading_platform.features.checks import check_symbols, settled_after

    bars, chosen = _to_check(platform, config)
    settled = settled_after(max(feature.warm_up for feature in chosen))
    if len(bars) <= settled:
        return dg.AssetCheckResult(passed=True, metadata={"not_checked": f"{len(bars)} bars of {settled} say nothing"})
    found = check_symbols(bars, features=chosen)[0]
    never = [name for name, bars in found.history.items() if bars < 0]
    return dg.AssetCheckResult(
        passed=found.passed,
        severity=dg.AssetCheckSeverity.ERROR,
        metadata={
            "never_settling": ", ".join(never) or "none",
            "most_history": max(found.history.values(), default=199),
            "differing_live": ", ".join(found.differing or []) or "none",
        },
    )


@dg.asset_check(asset=features, blocking=True, description="Recomputed with the data cut at t, the row at t is equal.")
def looks_at_no_future(config: OnDataset, platform: Platform) -> dg.AssetCheckResult:
    from trading_platform.features.lookahead import check_lookahead, set_features

    bars, chosen = _to_check(platform, config)
    found = check_lookahead(bars.tail(5_000), set_features(chosen), [feature.name for feature in chosen])
    return dg.AssetCheckResult(
        passed=not found,
        severity=dg.AssetCheckSeverity.ERROR,
        metadata={"leaking_features": ", ".join(found) or "none"},
    )


def _to_check(platform: Platform, config: OnDataset) -> "tuple[pl.DataFrame, tuple[Feature, ...]]":
    """One symbol's bars, the reference's close beside them, and the features that the dataset's strategy learns from."""
    from trading_platform.features.definition import FEATURE_SETS
    from trading_platform.features.reference import with_reference
    from trading_platform.strategies.definition import strategy_of

    dataset_id = platform.dataset_id(config.dataset_id)
    with platform.databases.control() as session:
        chosen = FEATURE_SETS[strategy_of(session, dataset_id).features]
    frame = with_reference(platform.lake.bars(dataset_id))
    return frame.filter(frame["symbol"] == frame["symbol"][-1]), chosen
