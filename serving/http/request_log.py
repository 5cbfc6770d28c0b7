"""The outermost middleware: request ids, the access log, and responses to all errors."""

import logging
import re
import time
import uuid
from collections.abc import Mapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.http.error_responses import as_serving_error, error_response
from serving.http.metrics import Metrics
from serving.http.routing import RouteSettings, find_settings

logger = logging.getLogger(__name__)

REQUEST_ID = re.compile(r"[\w.-]{1,128}", re.ASCII)


class RequestLog:
    """Gives a request its id and settings, turns any exception into a response, logs one line.

    The line has sizes and times, never texts or keys.

    Args:
        app: The next layer.
        metrics: Where requests are counted, by route and status.
        settings: Of the routes, by path.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics, settings: Mapping[str, RouteSettings]
    ) -> None:
        self.app = app
        self.metrics = metrics
        self.settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = time.perf_counter()
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
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
        fields |= state.get("work", {})
        quiet = state["settings"].quiet and "route" in scope and status < 500
        logger.log(logging.DEBUG if quiet else logging.INFO, "request", extra={"fields": fields})
