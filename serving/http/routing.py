"""Routes with their settings: dialect of errors, API key, log level."""

import json
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from serving.http.errors import Dialect, ServingError


@dataclass(frozen=True)
class RouteSettings:
    """Settings of a route, stated where the route is defined and read by the middleware.

    Args:
        dialect: In which its errors are worded.
        tei_field: A field that only text-embeddings-inference's bodies have; a body with it makes
            the request one in that dialect.
        unprocessable: The status of errors that are 422 elsewhere; OpenAI and Cohere use 400.
        open: Whether GET needs no API key.
        quiet: Whether requests are logged at DEBUG: monitoring asks every few seconds.
        chooses_model: Whether ``model`` in a body names the one that is to answer.
        timed: Whether it must be answered within ``request_timeout``.
    """

    dialect: Dialect = "native"
    tei_field: str | None = None
    unprocessable: int = 422
    open: bool = False
    quiet: bool = False
    chooses_model: bool = True
    timed: bool = True


NATIVE = RouteSettings()
MODELS = "models"  # Paths below ask for one of several model sets.
Handler = Callable[..., Coroutine[Any, Any, Response]]


class Router(APIRouter):
    """Routes of one API, with their settings by path; ``tag`` heads them in the OpenAPI schema."""

    def __init__(self, tag: str | None = None) -> None:
        super().__init__(route_class=JsonRoute, tags=[tag] if tag else None)
        self.settings: dict[str, RouteSettings] = {}

    def at(
        self, path: str, settings: RouteSettings = NATIVE, method: str = "POST", **options: Any
    ) -> Callable[[Handler], Handler]:
        """Decorate a handler; ``options`` are those of FastAPI's ``api_route``.

        GET answers HEAD too, for load balancers and ``wget --spider``; uvicorn drops the body.
        """
        self.settings[path] = settings

        def decorate(handler: Handler) -> Handler:
            self.api_route(path, methods=[method], **options)(handler)
            if method == "GET":
                self.head(path, include_in_schema=False)(handler)
            return handler

        return decorate


def find_settings(settings: Mapping[str, RouteSettings], path: str) -> RouteSettings:
    """The settings of a path; a path in a mounted folder has those of "/folder/"."""
    return settings.get(path) or settings.get(path[: path.find("/", 1) + 1], NATIVE)


def split_path(settings: Mapping[str, RouteSettings], path: str) -> tuple[str | None, str]:
    """The model set that a path asks for, and the route: "/models/NAME/search" is NAME's "/search".

    None: it asks for none. A name may have slashes.
    """
    begins = {route.split("/")[1] for route in settings} - {MODELS}
    parts = path.split("/")
    if parts[1:2] == [MODELS]:
        for at in range(3, len(parts)):
            if parts[at] in begins:
                return "/".join(parts[2:at]), "/" + "/".join(parts[at:])
    return None, path


class JsonRoute(APIRoute):
    """A route whose body is read strictly: no NaN, no half characters, no endless nesting."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await handler(JsonRequest(request.scope, request.receive))
            except HTTPException as error:
                # FastAPI calls whatever is raised while the body is read a body that is no JSON.
                if isinstance(error.__cause__, ServingError):
                    raise error.__cause__ from None
                raise

        return handle


class JsonRequest(Request):
    """A request that recognises bodies of text-embeddings-inference, and models by name."""

    async def json(self) -> Any:
        """The body.

        Raises:
            json.JSONDecodeError: It is no JSON.
        """
        body = await self.body()
        encoding = json.detect_encoding(body)
        if encoding != "utf-8":
            try:
                body = body.decode(encoding).encode()
            except UnicodeError:
                raise json.JSONDecodeError(f"not {encoding}", "", 0) from None
        content = without_nulls(orjson.loads(body))
        settings: RouteSettings = self.state.settings
        if isinstance(content, dict):
            if settings.tei_field in content:
                self.state.settings = replace(settings, dialect="tei")
            model = content.get("model")
            if settings.chooses_model and isinstance(model, str):
                self.state.choose_model(model)
        return content


def without_nulls(value: Any) -> Any:
    """An object without the keys whose value is null; anything else as it is."""
    if not isinstance(value, dict):
        return value
    return {name: item for name, item in value.items() if item is not None}
