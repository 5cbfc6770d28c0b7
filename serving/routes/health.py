"""Health, model info and Prometheus metrics."""

from importlib.metadata import PackageNotFoundError, version
from typing import Any

import orjson
from fastapi import Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from serving.engine.engine import Engine
from serving.engine.model import ServedModel
from serving.http.http_json import reply
from serving.http.routing import Router, RouteSettings

PROBE = RouteSettings(open=True, quiet=True)


def health_routes(engine: Engine) -> Router:
    """``/live``, ``/health``, ``/ping`` and ``/ready``."""
    router = Router("about")

    def answer(state: str, reason: str) -> Response:
        if state == "ready":
            return json_response({"status": "ok"}, 200)
        content = {"status": state, "reason": reason}
        return json_response(content, 503, {"Retry-After": "5"})

    @router.at("/live", PROBE, "GET", summary="The process is there")
    async def live() -> Response:
        return json_response({"status": "ok"}, 200)

    @router.at("/health", PROBE, "GET", summary="The models are there and answer")
    @router.at("/ping", PROBE, "GET", include_in_schema=False)
    async def health() -> Response:
        return answer(*engine.health())

    @router.at("/ready", PROBE, "GET", summary="... and have time for work")
    async def ready() -> Response:
        state, reason = engine.health()
        wait = engine.wait_seconds()
        if state == "ready" and wait > engine.limits.max_wait:
            return answer("overloaded", f"the queue is about {wait:.0f} s long")
        return answer(state, reason)

    return router


def about_routes(engine: Engine, workers: int, open_metrics: bool) -> Router:
    """``/info`` and ``/metrics``."""
    router = Router("about")

    @router.at("/info", method="GET", summary="The models and the limits")
    async def info(request: Request) -> Response:
        engine.check_open()
        models = [describe(role, model, engine, workers) for role, model in engine.models.items()]
        return reply(request, {**models[0], "models": models})

    @router.at(
        "/metrics", RouteSettings(open=open_metrics, quiet=True), "GET", summary="For Prometheus"
    )
    async def metrics() -> Response:
        engine.metrics.wait.set(engine.wait_seconds())
        return Response(engine.metrics.render(), media_type=CONTENT_TYPE_LATEST)

    return router


def describe(role: str, model: ServedModel, engine: Engine, workers: int) -> dict[str, Any]:
    """A model's ``/info``: the fields of text-embeddings-inference, and more."""
    encoder, limits = model.encoder, engine.limits
    about: dict[str, Any] = {
        "model_id": model.name,
        "model_sha": None,
        "model_dtype": "bfloat16" if engine.bf16 else "float32",
        "served_model_name": model.name,
        "max_concurrent_requests": None,
        "max_input_length": encoder.max_length,
        "max_batch_tokens": model.max_batch_tokens,
        "max_batch_requests": None,
        "max_client_batch_size": limits.max_items,
        "auto_truncate": limits.truncate,
        "tokenization_workers": workers,
        "version": our_version(),
        "role": role,
        "task": encoder.kind,
        "device": str(encoder.device),
        "prompts": model.prompts,
        "max_characters": limits.max_characters,
        "max_body_bytes": limits.max_body_bytes,
    }
    return about | model.kind.info(encoder)


def our_version() -> str:
    """Of this project, as installed."""
    try:
        return version("tandem-retrieval")
    except PackageNotFoundError:
        return "unknown"


def json_response(content: Any, status: int, headers: dict[str, str] | None = None) -> Response:
    """Small JSON answers."""
    return Response(orjson.dumps(content), status, headers, "application/json")
