"""Spans of requests: one each, in the client's trace, and without a word about users."""

from __future__ import annotations

import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk", reason="the extra otel is not installed")
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.testclient import TestClient

from taiji.serving.app import build_app
from taiji.serving.clock import SteadyClock
from taiji.serving.keys import Keyring
from taiji.serving.scorers import Scorers
from taiji.serving.settings import ServingSettings
from taiji.serving.store import Store
from taiji.serving.tracing import Traced, traced

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def client(make_store: Callable[..., Store], exporter: InMemorySpanExporter) -> Iterator[TestClient]:
    store, provider = make_store(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    app = build_app(store, Scorers(store, lambda folder: None), ServingSettings(), Keyring([]), SteadyClock())  # type: ignore[arg-type, return-value]
    with TestClient(Traced(app, provider), base_url="http://127.0.0.1") as client:
        yield client


def test_a_request_is_a_span_of_its_route_in_the_client_s_trace(
    client: TestClient, exporter: InMemorySpanExporter
) -> None:
    assert client.get("/v1/features/somebody-secret?x=hush", headers={"traceparent": TRACE}).status_code == 404
    (span,) = exporter.get_finished_spans()
    assert span.name == "GET /v1/features/{user:path}"
    assert dict(span.attributes or {}) == {
        "http.request.method": "GET",
        "http.route": "/v1/features/{user:path}",
        "http.response.status_code": 404,
    }
    assert span.context is not None and f"{span.context.trace_id:032x}" == TRACE.split("-")[1]
    assert "secret" not in span.to_json() and "hush" not in span.to_json()


def test_probes_are_no_spans_and_what_nobody_routes_has_no_name(
    client: TestClient, exporter: InMemorySpanExporter
) -> None:
    client.get("/healthz")
    client.get("/readyz")
    assert not exporter.get_finished_spans()
    client.get("/nothing/of/mine")
    assert [span.name for span in exporter.get_finished_spans()] == ["GET none"]


def test_an_answer_of_our_fault_is_an_error(exporter: InMemorySpanExporter) -> None:
    async def broken(scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
        await send({"type": "http.response.start", "status": 500, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    assert TestClient(Traced(broken, provider)).get("/").status_code == 500
    (span,) = exporter.get_finished_spans()
    assert not span.status.is_ok


def test_spans_are_sent_to_a_collector_under_the_service_s_name(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            taken.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    async def app(scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps({}).encode()})

    server = HTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)
    wrapped, provider = traced(app)
    assert TestClient(wrapped).get("/").status_code == 200
    provider.shutdown()
    server.shutdown()
    server.server_close()
    ((path, body),) = taken
    assert path == "/v1/traces" and b"service.name" in body and b"taiji" in body and b"GET none" in body
