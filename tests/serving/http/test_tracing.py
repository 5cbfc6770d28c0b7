"""Traces, received as a collector receives them."""

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from forked import Copy
from served import Process, engine_of, running, until
from serving.http.tracing import ENDPOINTS, OFF, PROTOCOLS, open_provider

TRACE, PARENT = 16 * "4b", 8 * "0f"
STAGES = ["tokenization", "queue", "inference"]
MILLISECOND = 10**6  # of nanoseconds


class Collector(ThreadingHTTPServer):
    """Keeps what is sent to /v1/traces."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Receiver)
        self.batches: list[ExportTraceServiceRequest] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def services(self) -> set[str]:
        return {
            attributes(sent.resource)["service.name"]
            for batch in self.batches
            for sent in batch.resource_spans
        }

    @property
    def spans(self) -> list[Span]:
        """All spans, the earliest first."""
        found = [
            span
            for batch in self.batches
            for sent in batch.resource_spans
            for scope in sent.scope_spans
            for span in scope.spans
        ]
        return sorted(found, key=lambda span: span.start_time_unix_nano)

    def below(self, parent: Span) -> list[Span]:
        return [span for span in self.spans if span.parent_span_id == parent.span_id]


class Receiver(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        assert (self.path, self.headers["content-type"]) == ("/v1/traces", "application/x-protobuf")
        self.server.batches.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


def attributes(of: Any) -> dict[str, Any]:
    return {
        entry.key: getattr(entry.value, str(entry.value.WhichOneof("value")))
        for entry in of.attributes
    }


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*ENDPOINTS, *PROTOCOLS, *OFF, "OTEL_SERVICE_NAME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with Collector() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.url)
        yield server
        server.shutdown()


def test_requests_are_spans_and_stages_are_spans_below_them(
    collector: Collector, tiny_bert: Path, tiny_classifier: Path, tmp_path: Path
) -> None:
    models = ("--embedder", tiny_bert, "--reranker", tiny_classifier)
    with Process(tmp_path, *models, "--log_json") as server:
        sent = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
        one = httpx.post(f"{server.url}/embed", json={"text": "a"}, headers=sent)
        two = httpx.post(f"{server.url}/search", json={"query": "q", "documents": ["a", "b"]})
        wrong = httpx.post(f"{server.url}/embed", json={"text": ""})
        missing = httpx.get(f"{server.url}/nothing")
        assert httpx.get(f"{server.url}/metrics").status_code == 200
        server.terminate()
        assert server.process.wait(60) == 0
    answers = (one, two, wrong, missing)
    assert [answer.status_code for answer in answers] == [200, 200, 422, 404]
    roots = [span for span in collector.spans if span.kind == Span.SPAN_KIND_SERVER]
    names = ["POST /embed", "POST /search", "POST /embed", "GET"]  # no probe, no /metrics
    assert [span.name for span in roots] == names
    assert collector.services == {"tandem"}

    first = roots[0]
    assert (first.trace_id.hex(), first.parent_span_id.hex()) == (TRACE, PARENT)
    stages = collector.below(first)
    assert [span.name for span in stages] == STAGES
    for span in stages:
        assert span.trace_id == first.trace_id
        milliseconds = (span.end_time_unix_nano - span.start_time_unix_nano) / MILLISECOND
        assert round(milliseconds) == int(one.headers[f"X-{span.name.title()}-Time"])
        assert first.start_time_unix_nano - MILLISECOND < span.start_time_unix_nano
        assert span.end_time_unix_nano < first.end_time_unix_nano + MILLISECOND
    assert attributes(first) == attributes(first) | {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "http.route": "/embed",
        "url.path": "/embed",
        "tandem.request_id": one.headers["X-Request-Id"],
        "tandem.tokens": int(one.headers["X-Compute-Tokens"]),
        "tandem.texts": 1,
        "tandem.truncated": 0,
    }

    both = collector.below(roots[1])
    assert [span.name for span in both] == 2 * STAGES
    assert [attributes(span)["tandem.model"] for span in both] == [
        *3 * [tiny_bert.name],
        *3 * [tiny_classifier.name],
    ]
    assert len({span.trace_id for span in roots}) == len(roots)
    assert attributes(roots[2])["tandem.code"] == "empty_text"
    assert all(span.status.code == Status.STATUS_CODE_UNSET for span in roots)

    lines = [json.loads(line) for line in server.text.splitlines() if '"request"' in line]
    logged = {line["request_id"]: line["trace_id"] for line in lines if "trace_id" in line}
    assert logged == {
        answer.headers["X-Request-Id"]: span.trace_id.hex()
        for answer, span in zip(answers, roots, strict=True)
    }


def test_a_refusal_for_the_server_s_own_reasons_is_an_error(
    collector: Collector, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")  # milliseconds
    monkeypatch.setenv("OTEL_SERVICE_NAME", "ours")
    with (
        engine_of({"embedder": tiny_bert}) as engine,
        running(engine, ["embedder"], traces=open_provider()) as (url, _),
    ):
        engine.drain()
        assert httpx.post(f"{url}/embed", json={"text": "a"}).status_code == 503
        until(lambda: bool(collector.batches))
    (span,) = collector.spans
    assert span.status.code == Status.STATUS_CODE_ERROR
    assert attributes(span)["tandem.code"] == "draining"
    assert not collector.below(span)
    assert collector.services == {"ours"}


def test_a_collector_that_is_away_harms_nothing(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Collector() as gone:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", gone.url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "2")  # seconds; the default is 10
    with Process(tmp_path, "--model", tiny_bert) as server:
        assert httpx.post(f"{server.url}/embed", json={"text": "a"}).status_code == 200
        server.terminate()
        assert server.process.wait(60) == 0


@pytest.mark.parametrize("name", ENDPOINTS)
def test_what_is_amiss_is_one_sentence(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_provider() is None
    monkeypatch.setenv(name, "http://127.0.0.1:4317")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(ValueError, match=f"OTEL_EXPORTER_OTLP_PROTOCOL: grpc is not .* and {name}"):
        open_provider()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(ValueError, match=rf"{name}: traces need .* -e '\.\[otel\]'"):
        open_provider()
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert open_provider() is None
    monkeypatch.delenv("OTEL_SDK_DISABLED")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    assert open_provider() is None


def test_nothing_is_loaded_where_nothing_is_asked_for(tmp_path: Path) -> None:
    """A copy holds what scripts/serve.py imports, and no more."""
    (tmp_path / "loaded.py").write_text("import sys; sys.exit('opentelemetry.sdk' in sys.modules)")
    assert Copy([tmp_path / "loaded.py"]).wait() == 0
