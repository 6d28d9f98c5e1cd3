"""OpenTelemetry spans of requests, if the service is configured to send them.

A span has the method, the route's template and the status, but never a path or a query, which contain user ids. It
joins the trace named by the client's ``traceparent`` header. OpenTelemetry's own environment variables configure the
export (``OTEL_EXPORTER_OTLP_ENDPOINT``, ``OTEL_SERVICE_NAME``, …).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from taiji.core.optional import needs
from taiji.serving.gate import PROBES, route_of

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Traced:
    """ASGI application with a server span around each request except probes.

    Args:
        app: the application.
        provider: provider of the tracer.
    """

    def __init__(self, app: ASGIApp, provider: TracerProvider) -> None:
        from opentelemetry.propagate import extract
        from opentelemetry.trace import SpanKind, StatusCode

        self._extract, self._server, self._error = extract, SpanKind.SERVER, StatusCode.ERROR
        self._app, self._tracer = app, provider.get_tracer("taiji.serving")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        method = scope["method"]
        with self._tracer.start_as_current_span(method, context=self._extract(headers), kind=self._server) as span:

            async def watched(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set_attribute("http.response.status_code", message["status"])
                    if message["status"] >= 500:
                        span.set_status(self._error)
                await send(message)

            await self._app(scope, receive, watched)
            route = route_of(scope)
            span.update_name(f"{method} {route}")
            span.set_attributes({"http.request.method": method, "http.route": route})


def traced(app: ASGIApp) -> tuple[ASGIApp, TracerProvider]:
    """Wrap an application to trace its requests; return it with the tracer provider, which the caller must shut down.

    Raises:
        ResourceError: the extra ``otel`` is not installed.
    """
    with needs("otel", where="serving.traces"):
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    named = "OTEL_SERVICE_NAME" in os.environ
    provider = TracerProvider(resource=Resource.create({} if named else {SERVICE_NAME: "taiji"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Traced(app, provider), provider
