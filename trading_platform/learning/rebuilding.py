"""Build a registered version again, from what its row says it was made of, and compare the artifacts bit for bit.

A version is made of: data version, code version, libraries, features, the strategy's plan, hyperparameters, seed, number of
threads, and for an update its parent. Where all of these are the recorded ones, the artifact is the same file; where the
file is another one, the ingredient that changed is named. Nothing is written: what is registered stays what it is.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # a requirement of scikit-learn

from trading_platform.identifiers import DatasetId
from trading_platform.learning.artifact import encoded
from trading_platform.learning.fitting import FIRST, Fitted, fit_known
from trading_platform.learning.models import LEGACY
from trading_platform.learning.plan import TrainingPlan
from trading_platform.learning.provenance import code_version, lock_hash
from trading_platform.learning.registry import version
from trading_platform.learning.samples import Samples, build_samples
from trading_platform.learning.search import Progress
from trading_platform.learning.training import THREADS, finished, parent_of, version_id_of
from trading_platform.learning.updating import fit_update
from trading_platform.market_data.lake import Lake
from trading_platform.storage.control import ModelVersion
from trading_platform.storage.databases import Databases

PlanOf = Callable[[ModelVersion], TrainingPlan]
"""The plan of a version: that of its strategy, with the settings that the row recorded."""


class RebuildError(RuntimeError):
    """The version cannot be built again; the message says why."""


@dataclass(frozen=True)
class Rebuilt:
    """`differences`: ingredients that are not the recorded ones, each with what was recorded and what there is."""

    version_id: str
    registered: str
    rebuilt: str
    differences: dict[str, tuple[str, str]]
    seconds: float

    @property
    def same(self) -> bool:
        return self.registered == self.rebuilt

    def document(self) -> dict[str, Any]:
        return {**asdict(self), "same": self.same}


def rebuild(
    databases: Databases, lake: Lake, plan_of: PlanOf, version_id: str, progress: Progress = lambda *_: None
) -> Rebuilt:
    """Raises `registry.UnknownVersionError`, `RebuildError` where there is nothing to build it from, and
    `artifact.ArtifactError` where an update's parent is gone."""
    began = time.monotonic()
    with databases.control() as session:
        row = version(session, version_id)
        parent_row = None if row.parent_id is None else version(session, row.parent_id)
    if row.kind == LEGACY:
        raise RebuildError(f"{version_id} was imported with its numbers and not trained here: there is nothing to redo")
    plan, until = plan_of(row), datetime.fromisoformat(row.metrics["learnt_until"])
    bars = lake.bars(DatasetId(row.dataset_id), as_of=until)
    if bars.is_empty():
        raise RebuildError(f"dataset {row.dataset_id} has no bars up to {until.isoformat()}: they were removed")
    embargo = plan.barriers.horizon_bars * int(bars["interval_seconds"][0]) * 1_000_000
    with threadpool_limits(limits=int(row.params["threads"])):
        samples = build_samples(bars, plan, until, embargo)
        fitted = _fitted(databases, row, parent_row, plan, samples, embargo, progress)
        _, _, document = finished(plan, samples, fitted, int(row.metrics["recertification"]))
    differences = _differences(row, plan, lake.data_version(row.dataset_id, as_of=until), fitted)
    return Rebuilt(version_id, row.artifact_sha256, encoded(document)[1], differences, time.monotonic() - began)


def _fitted(
    databases: Databases, row: ModelVersion, parent_row: ModelVersion | None, plan: TrainingPlan, samples: Samples,
    embargo: int, progress: Progress,
) -> Fitted:  # fmt: skip
    """The recorded hyperparameters again, without the search that found them; an update decides its arm anew."""
    if row.params["arm"] == FIRST:
        return fit_known(
            samples, kind=row.kind, params=row.params["hyperparameters"], record=row.metrics["search"],
            folds=int(row.params["folds"]), seed=row.seed, embargo=embargo, progress=progress,
        )  # fmt: skip
    assert parent_row is not None
    parent = parent_of(databases.settings, parent_row, row.kind, plan)
    return fit_update(samples, parent, kind=row.kind, seed=row.seed, embargo=embargo, progress=progress)


def _differences(
    row: ModelVersion, plan: TrainingPlan, data_version: str, fitted: Fitted
) -> dict[str, tuple[str, str]]:
    pairs: dict[str, tuple[object, object]] = {
        "data": (row.data_version, data_version),
        "code": (row.code_version, code_version()),
        "libraries": (row.lock_hash, lock_hash()),
        "features": (row.feature_hash, plan.feature_hash),
        "plan": (row.params["plan"], plan.parameters()),
        "arm": (row.params["arm"], fitted.details["arm"]),
        "threads": (row.params["threads"], THREADS),
    }
    found = {name: (str(then), str(now)) for name, (then, now) in pairs.items() if then != now}
    # The seed is nowhere but in the row and, hashed, in the version's id.
    return found or (
        {} if version_id_of(row) == row.version_id else {"seed or row": (row.version_id, version_id_of(row))}
    )
