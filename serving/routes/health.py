"""Health, model info and Prometheus metrics."""

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST

from serving.engine.model import ServedModel
from serving.http.http_json import reply
from serving.http.routing import Router, RouteSettings
from serving.service import Service

PROBE = RouteSettings(open=True, quiet=True)


def about_routes(service: Service, open_metrics: bool) -> Router:
    """``/live``, ``/health``, ``/ping``, ``/ready``, ``/info`` and ``/metrics``."""
    router, engine = Router("about"), service.engine

    def answer(state: str, reason: str, **more: int) -> Response:
        if state == "ready":
            return JSONResponse({"status": "ok", **more})
        return JSONResponse({"status": state, "reason": reason}, 503, {"Retry-After": "5"})

    @router.at("/live", PROBE, "GET", summary="The process is running")
    async def live() -> Response:
        return answer("ready", "")

    @router.at("/health", PROBE, "GET", summary="The models are loaded and answer")
    @router.at("/ping", PROBE, "GET", include_in_schema=False)
    async def health() -> Response:
        return answer(*engine.health(), replicas=engine.replicas)

    @router.at("/ready", PROBE, "GET", summary="... and the queue is short enough")
    async def ready() -> Response:
        state, reason = engine.health()
        wait = engine.wait_seconds()
        if state == "ready" and wait > engine.limits.max_wait:
            return answer("overloaded", f"the queue is about {wait:.0f} s long")
        return answer(state, reason)

    @router.at("/info", method="GET", summary="The models and the limits")
    async def info(request: Request) -> Response:
        models = [describe(role, model, service) for role, model in service.models().items()]
        return reply(request, {**models[0], "models": models})

    @router.at(
        "/metrics", RouteSettings(open=open_metrics, quiet=True), "GET", summary="For Prometheus"
    )
    async def metrics() -> Response:
        engine.metrics.wait.set(engine.wait_seconds())
        engine.metrics.ready.set(engine.health()[0] == "ready")
        return Response(engine.metrics.render(), media_type=CONTENT_TYPE_LATEST)

    return router


def describe(role: str, model: ServedModel, service: Service) -> dict[str, Any]:
    """A model's ``/info``: the fields of text-embeddings-inference, and more."""
    encoder, limits = model.encoder, service.engine.limits
    return {
        "model_id": model.name,
        "model_sha": None,
        "model_dtype": "bfloat16" if service.engine.bf16 else "float32",
        "served_model_name": model.name,
        "max_concurrent_requests": None,
        "max_input_length": model.lengths[1],  # of documents, if these have their own
        "max_batch_tokens": model.max_batch_tokens,
        "max_batch_requests": None,
        "max_client_batch_size": limits.max_items,
        "auto_truncate": limits.truncate,
        "tokenization_workers": service.workers,
        "version": our_version(),
        "role": role,
        "task": encoder.kind,
        "device": model.device,
        "prompts": model.prompts,
        "max_characters": limits.max_characters,
        "max_body_bytes": limits.max_body_bytes,
        **model.about,
    }


def our_version() -> str:
    """This project's version, as installed."""
    try:
        return version("tandem-retrieval")
    except PackageNotFoundError:
        return "unknown"
