"""OpenTelemetry traces: FastAPI's span of a request, with what we know of it.

FastAPI makes the span and continues the client's ``traceparent``; the times that the service
measures become spans below it.
"""

import os
from collections.abc import Mapping
from typing import Any

from fastapi.telemetry import TelemetryConfig
from opentelemetry.trace import Tracer, TracerProvider, get_current_span

from serving.http.routing import RouteSettings, find_settings
from serving.service import ModelOutput

NAME = "tandem"
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
OFF = {"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "none"}
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


def open_provider() -> TracerProvider | None:
    """What sends spans by OTLP over HTTP, if the environment names an endpoint for traces.

    Everything is set by OpenTelemetry's own variables. What has not been sent is sent at exit.

    Raises:
        ValueError: The packages are not installed, or another protocol is asked for.
    """
    endpoint = next((name for name in ENDPOINTS if os.environ.get(name)), None)
    if endpoint is None or any(os.environ.get(k, "").strip().lower() == v for k, v in OFF.items()):
        return None
    protocol = next((name for name in PROTOCOLS if os.environ.get(name)), None)
    if protocol and os.environ[protocol] != "http/protobuf":
        raise ValueError(
            f"{protocol}: {os.environ[protocol]} is not supported; set it to http/protobuf, and "
            f"{endpoint} to the collector's HTTP port (usually 4318)"
        )
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider as Provider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise ValueError(
            f"{endpoint}: traces need packages that are not installed; unset it, or run pip "
            "install -c constraints.txt -e '.[otel]'"
        ) from None
    os.environ.setdefault("OTEL_SERVICE_NAME", NAME)
    provider = Provider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def telemetry(
    provider: TracerProvider | None, settings: Mapping[str, RouteSettings]
) -> TelemetryConfig:
    """For FastAPI: spans of requests alone, and none of probes and ``/metrics``."""
    return {
        "tracing": provider is not None,
        "tracer_provider": provider,
        "exclude": lambda scope: find_settings(settings, scope["path"]).quiet,
        "operation_spans": False,
        "metrics": False,
        "logs": False,
        "auto_configure": False,
    }


def describe_request(tracer: Tracer, state: Mapping[str, Any]) -> None:
    """Complete the span of the request at hand, as soon as its answer is known."""
    span = get_current_span()
    if not span.is_recording():
        return
    work = state.get("work", {})
    about = {"request_id": state["request_id"], "code": state.get("code")}
    about |= {name: work.get(name) for name in ("tokens", "texts", "truncated")}
    for name, value in about.items():
        if value is not None:
            span.set_attribute(f"{NAME}.{name}", value)
    for output in state.get("outputs", ()):
        add_stages(tracer, output)


def add_stages(tracer: Tracer, output: ModelOutput) -> None:
    """A span for each stage of a model's work, one after the other."""
    about: dict[str, str | int] = {f"{NAME}.model": output.model.name}
    about[f"{NAME}.tokens"] = output.tokens
    at = output.started_at
    for stage, milliseconds in output.times.items():
        begun, at = at, at + milliseconds / 1000
        span = tracer.start_span(stage, attributes=about, start_time=round(1e9 * begun))
        span.end(round(1e9 * at))
