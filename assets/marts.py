"""Group `marts`: the export of all groups' books to the analytics database, and the dbt models on top of it."""

import fcntl
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_dbt import DagsterDbtTranslator, DagsterDbtTranslatorSettings, DbtCliResource, DbtProject, dbt_assets

from assets.execution import trade_outcomes
from assets.platform import Platform
from assets.progress import reporter
from trading_platform.settings import settings

GROUP = "marts"
# dbt stands beside this interpreter, whether or not somebody has activated its environment.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
PROJECT_DIR = Path(__file__).resolve().parent.parent / "dbt"


def _project() -> DbtProject:
    """The dbt project with a manifest that is as new as its files; whoever comes first writes it, others wait."""
    made = DbtProject(project_dir=PROJECT_DIR, profiles_dir=PROJECT_DIR)
    made.manifest_path.parent.mkdir(exist_ok=True)
    with (made.manifest_path.parent / "manifest.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        sources = [
            path for path in PROJECT_DIR.rglob("*") if path.suffix in {".sql", ".yml"} and "target" not in path.parts
        ]
        newest = max(path.stat().st_mtime for path in sources)
        if not made.manifest_path.exists() or made.manifest_path.stat().st_mtime < newest:
            made.preparer.prepare(made)
    return made


project = _project()


@dg.asset(
    group_name=GROUP,
    deps=[
        dg.AssetDep(trade_outcomes, partition_mapping=dg.AllPartitionMapping()),
        "model_performance",
        "ab_evaluation",
    ],
    kinds={"postgres"},
    description="Every group's event log and the shared tables, brought into the analytics database by watermark: running it "
    "again adds nothing.",
)
def analytics_export(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:
    from trading_platform.storage.analytics import export

    report = reporter(context)
    rows = export(platform.databases, progress=lambda what, share: report(what, int(share * 100), 100))
    return dg.MaterializeResult(metadata={"rows": dg.MetadataValue.json(rows), "dagster/row_count": sum(rows.values())})


ONE_EXPORT = DagsterDbtTranslatorSettings(enable_duplicate_source_asset_keys=True)


class Translator(DagsterDbtTranslator):
    """dbt sources are what `analytics_export` wrote; model folders name the asset groups."""

    def get_asset_key(self, dbt_resource_props: Mapping[str, Any]) -> dg.AssetKey:
        if dbt_resource_props["resource_type"] == "source":
            return dg.AssetKey(["analytics_export"])
        return dg.AssetKey(dbt_resource_props["name"])

    def get_group_name(self, dbt_resource_props: Mapping[str, Any]) -> str:
        return "compliance" if "compliance" in dbt_resource_props["fqn"] else GROUP


@dbt_assets(manifest=project.manifest_path, project=project, dagster_dbt_translator=Translator(ONE_EXPORT))
def dbt_models(context: dg.AssetExecutionContext, dbt: DbtCliResource) -> Iterator[Any]:
    """`dbt build`: staging, marts for traders, compliance models, with their tests as asset checks."""
    from trading_platform.storage.analytics import dbt_environment

    os.environ.update(dbt_environment(settings()))
    yield from dbt.cli(["build"], context=context).stream()


def resources() -> dict[str, object]:
    return {"dbt": DbtCliResource(project_dir=project)}
