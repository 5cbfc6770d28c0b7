"""Any exception as a ``ServingError``, and that as a response."""

import logging

import orjson
from fastapi import Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import Scope

from serving.http.errors import Code, ServingError
from serving.http.routing import RouteSettings

logger = logging.getLogger(__name__)

# Prefix of the tags of a body's forms, which pydantic puts into the place of an error.
FORM = "form:"
MOST_ERRORS, LONGEST_NAME = 10, 60
# What FastAPI raises before a handler is called.
RAISED_BY_FASTAPI: dict[int, tuple[Code, str]] = {
    400: ("invalid_json", "the body cannot be read as JSON"),
    404: ("not_found", "there is no such route here (another task's?); /openapi.json lists all"),
    405: ("method_not_allowed", "this route does not take this method"),
}


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
    if errors and errors[0]["type"] == "json_invalid":
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
    return ServingError("validation_error", message, next(iter(places), None) or None)


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
