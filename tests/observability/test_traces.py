"""Spans reach their file or their collector, whole, from several processes at once, and traces go on."""

import gzip
import http.server
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export import SpanExportResult

from trading_platform.observability.traces import JsonLinesExporter, continued, current_trace_id, make_provider
from trading_platform.settings import Settings


def test_spans_are_lines_with_their_times_and_parents(tmp_path: Path) -> None:
    settings = Settings(home_dir=tmp_path, environment="test")
    provider = make_provider("scorer:d1", settings)
    tracer = provider.get_tracer("x")
    with tracer.start_as_current_span("bar", attributes={"symbol": "BTC/USDT"}):
        trace_id = current_trace_id()
        with tracer.start_as_current_span("signal"):
            pass
    provider.shutdown()
    spans = [json.loads(line) for line in (settings.logs_dir / "traces.jsonl").read_text().splitlines()]
    child, parent = spans
    assert (parent["name"], parent["attributes"], parent["service"]) == ("bar", {"symbol": "BTC/USDT"}, "scorer:d1")
    assert child["parent_id"] == parent["span_id"]
    assert {child["trace_id"], parent["trace_id"]} == {trace_id}
    assert 0 <= child["duration_ms"] <= parent["duration_ms"]
    assert current_trace_id() is None


def test_a_trace_goes_on_from_the_id_in_a_row(tmp_path: Path) -> None:
    provider = make_provider("engine:g1", Settings(home_dir=tmp_path))
    tracer = provider.get_tracer("x")
    with tracer.start_as_current_span("signal"):
        stored = current_trace_id()
    with tracer.start_as_current_span("order", context=continued(stored)):
        assert current_trace_id() == stored
    for bad in (None, "", "xyz", "0" * 32, "g" * 32):
        with tracer.start_as_current_span("order", context=continued(bad)):
            assert current_trace_id() not in (None, stored)
    provider.shutdown()


def test_the_file_is_rotated_and_no_line_is_torn(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    provider = make_provider("x", Settings(home_dir=tmp_path))
    tracer = provider.get_tracer("x")
    spans = []
    for number in range(200):
        span = tracer.start_span(f"span {number}", attributes={"padding": "x" * 500})
        span.end()
        spans.append(span)
    exporters = [JsonLinesExporter(path, max_bytes=60_000) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        batches = [(exporters[number % 4], spans[number : number + 5]) for number in range(0, 200, 5)]
        results = list(pool.map(lambda batch: batch[0].export(batch[1]), batches))
    assert set(results) == {SpanExportResult.SUCCESS}
    for file in (path, tmp_path / "traces.jsonl.1"):
        assert 0 < file.stat().st_size <= 60_000
        assert all(json.loads(line)["attributes"]["padding"] == "x" * 500 for line in file.read_text().splitlines())
    provider.shutdown()


def test_a_collector_gets_them_by_otlp(tmp_path: Path) -> None:
    received: list[ExportTraceServiceRequest] = []
    paths: list[str] = []

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            body = gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body
            received.append(ExportTraceServiceRequest.FromString(body))
            paths.append(self.path)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        provider = make_provider("api", Settings(home_dir=tmp_path, otlp_endpoint=url))
        provider.get_tracer("x").start_span("hello").end()
        provider.shutdown()
        server.shutdown()
    resource = received[0].resource_spans[0]
    assert paths == ["/v1/traces"]
    assert resource.scope_spans[0].spans[0].name == "hello"
    assert {attribute.key: attribute.value.string_value for attribute in resource.resource.attributes}[
        "service.name"
    ] == "api"
    assert not (tmp_path / "logs").exists()


def test_a_folder_that_cannot_be_written_does_not_raise(tmp_path: Path) -> None:
    exporter = JsonLinesExporter(tmp_path / "logs" / "traces.jsonl")
    (tmp_path / "logs" / "traces.lock").mkdir()
    assert exporter.export([]) is SpanExportResult.FAILURE


@pytest.fixture(autouse=True)
def _no_sampling_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_TRACES_SAMPLER", raising=False)
