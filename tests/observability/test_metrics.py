"""Metrics are served on loopback, announced to Prometheus in its own format, and named by its rules."""

import json
import re
from pathlib import Path

import httpx
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from trading_platform.observability import metrics
from trading_platform.settings import Settings


def test_a_worker_serves_and_announces_its_metrics(tmp_path: Path) -> None:
    settings = Settings(home_dir=tmp_path, environment="test")
    port = metrics.serve("engine:g1", settings)
    metrics.ORDERS.labels(group="of_this_test", result="filled").inc(3)
    families = {
        family.name: family
        for family in text_string_to_metric_families(httpx.get(f"http://127.0.0.1:{port}/metrics").text)
    }
    sample = next(s for s in families["tp_orders"].samples if s.labels == {"group": "of_this_test", "result": "filled"})
    assert sample.value == 3
    announced = json.loads((tmp_path / "run" / "metrics" / "engine_g1.json").read_text())
    assert announced == [{"targets": [f"127.0.0.1:{port}"], "labels": {"service": "engine:g1", "environment": "test"}}]
    assert metrics.targets(settings) == {"engine:g1": f"127.0.0.1:{port}"}


def test_names_follow_the_rules_and_every_metric_says_what_it_is() -> None:
    ours = [family for family in REGISTRY.collect() if family.name.startswith("tp_")]
    assert len(ours) >= 15
    for family in ours:
        assert re.fullmatch(r"tp_[a-z_]+", family.name)
        assert family.documentation.endswith(".")
        if family.type == "histogram":
            assert family.name.endswith("_seconds")


def test_the_documentation_lists_every_metric() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "observability.md").read_text()
    for family in REGISTRY.collect():
        if family.name.startswith("tp_"):
            assert f"`{family.name}" in text, family.name
