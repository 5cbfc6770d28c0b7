"""The outermost middleware: request ids, the access log, and responses to all errors."""

import logging
import re
import time
import uuid
from collections.abc import Mapping
from typing import Any

import orjson
from fastapi import Response
from fastapi.exceptions import RequestValidationError
from opentelemetry.trace import Tracer, format_trace_id, get_current_span
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.http.errors import Code, ServingError
from serving.http.metrics import Metrics
from serving.http.routing import RouteSettings, find_settings, split_path
from serving.http.tracing import describe_request

logger = logging.getLogger(__name__)

REQUEST_ID = re.compile(r"[\w.-]{1,128}", re.ASCII)
# Prefix of the tags of a body's forms, which pydantic puts into the place of an error.
FORM = "form:"
MOST_ERRORS, LONGEST_NAME = 10, 60
# What FastAPI raises before a handler is called.
RAISED_BY_FASTAPI: dict[int, tuple[Code, str]] = {
    400: ("invalid_json", "the body cannot be read as JSON"),
    404: (
        "not_found",
        "this server has no such route; /docs lists those it has (an embedder, a reranker and "
        "--store each add some)",
    ),
    405: ("method_not_allowed", "this route does not take this method"),
}


class RequestLog:
    """Gives a request its id and settings, turns any exception into a response, logs one line.

    The line has sizes and times, never texts or keys. Requests are counted by route and status;
    ``settings`` are those of the routes, by path; ``tracer`` is there if requests are traced.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        settings: Mapping[str, RouteSettings],
        tracer: Tracer | None = None,
    ) -> None:
        self.app = app
        self.metrics = metrics
        self.settings = settings
        self.tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        begun = time.perf_counter()
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        state["requested_models"], scope["path"] = split_path(self.settings, scope["path"])
        state["settings"] = find_settings(self.settings, scope["path"])
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                headers["X-Total-Time"] = str(round(1000 * (time.perf_counter() - begun)))
                headers["X-Content-Type-Options"] = "nosniff"
                if self.tracer:
                    describe_request(self.tracer, state)
            await send(message)

        try:
            await self.app(scope, receive, send_with_headers)
        except Exception as error:
            if status:  # the response has begun: too late for another one
                raise
            response = error_response(scope, as_serving_error(error))
            await response(scope, receive, send_with_headers)
        finally:
            self._note(scope, status, time.perf_counter() - begun)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        # "other" are unknown paths and requests refused before routing, so that there are few.
        route = getattr(scope.get("route"), "path", "other")
        state = scope["state"]
        self.metrics.requests.labels(route, str(status)).inc()
        self.metrics.request_seconds.labels(route).observe(seconds)
        fields: dict[str, Any] = {
            "request_id": state["request_id"],
            "method": scope["method"],
            "route": route,
            "status": status,
            "ms": round(1000 * seconds, 1),
        }
        if "code" in state:
            fields["code"] = state["code"]
        context = get_current_span().get_span_context() if self.tracer else None
        if context and context.is_valid:
            fields["trace_id"] = format_trace_id(context.trace_id)
        fields |= state.get("work", {})
        quiet = state["settings"].quiet and "route" in scope and status < 500
        logger.log(logging.DEBUG if quiet else logging.INFO, "request", extra={"fields": fields})


def as_serving_error(error: Exception) -> ServingError:
    """Any exception as a ``ServingError``; internal errors are logged, and not described."""
    if isinstance(error, ServingError):
        return error
    if isinstance(error, RequestValidationError):
        return _validation_error(error)
    if isinstance(error, HTTPException) and error.status_code in RAISED_BY_FASTAPI:
        code, message = RAISED_BY_FASTAPI[error.status_code]
        return ServingError(code, message, headers=dict(error.headers or {}))
    logger.error("a request failed", exc_info=error)
    return ServingError("internal_error", "internal server error; see the server log")


def _validation_error(error: RequestValidationError) -> ServingError:
    """Fields and reasons, without the values."""
    errors = error.errors()
    if errors[0]["type"] == "json_invalid":
        reason = str(errors[0]["ctx"]["error"])[:200]
        return ServingError("invalid_json", f"the body is not JSON: {reason}")
    places = [_place(entry["loc"]) for entry in errors]
    reasons = [
        f"{place}: {entry['msg']}" if place else entry["msg"]
        for place, entry in zip(places, errors, strict=True)
    ]
    message = "; ".join(reasons[:MOST_ERRORS])
    if len(reasons) > MOST_ERRORS:
        message += f"; and {len(reasons) - MOST_ERRORS} more"
    return ServingError("validation_error", message, places[0] or None)


def _place(loc: tuple[int | str, ...]) -> str:
    parts = [str(part)[:LONGEST_NAME] for part in loc if part != "body"]
    return ".".join(part for part in parts if not part.startswith(FORM))


def error_response(scope: Scope, error: ServingError) -> Response:
    """The error in the dialect of the route, or of the body if that tells."""
    state = scope["state"]
    settings: RouteSettings = state["settings"]
    state["code"] = error.code
    content = error.body(settings.dialect, state["request_id"])
    status = error.status(settings.dialect, settings.unprocessable)
    return Response(orjson.dumps(content), status, error.headers, "application/json")
