"""The application: routes for the models that are served, and the layers around them."""

from collections.abc import Sequence
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from serving.engine.engine import Engine
from serving.http.auth import KeyCheck
from serving.http.body_reader import BodyReader
from serving.http.error_responses import as_serving_error, error_response
from serving.http.errors import ServingError
from serving.http.head import HeadAsGet
from serving.http.http_json import IGNORED
from serving.http.request_log import RequestLog
from serving.routes.health import about_routes, health_routes, our_version
from serving.routes.openai import models_routes, openai_routes
from serving.routes.own_routes import embedder_routes, score_batch_routes, score_routes
from serving.routes.rerank import rerank_routes
from serving.routes.search import compare_routes, search_routes
from serving.routes.tei import root_routes, similarity_routes, tokenize_routes
from serving.service import Service

# What pages of other sites may read of an answer, beside its body.
EXPOSED = [
    *("Retry-After", "WWW-Authenticate", "X-Request-Id", "X-Total-Time", "X-Tokenization-Time"),
    *("X-Queue-Time", "X-Inference-Time", "X-Compute-Tokens", "X-Truncated", IGNORED),
]
PAGE = Path(__file__).parent / "page"
# Nothing from elsewhere, and in no other site's frame.
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'",
    "Cache-Control": "no-cache",
}
ABOUT = """Embed texts, score and rerank documents, search. Errors are
`{"error": {"message", "type", "param", "code"}, "request_id"}`; 429 and 503 have `Retry-After`."""


def build_app(
    engine: Engine,
    roles: Sequence[str],
    *,
    keys: Sequence[str] = (),
    cors_origins: Sequence[str] = (),
    open_metrics: bool = False,
    workers: int = 1,
) -> FastAPI:
    """The application around an engine, which need not have loaded yet.

    Args:
        engine: What computes.
        roles: "embedder", "reranker" or both.
        keys: API keys; none: everybody is let in.
        cors_origins: Web pages of these origins may ask; none: no page but our own.
        open_metrics: Whether ``/metrics`` needs no key.
        workers: Threads that tokenize.
    """
    app = FastAPI(
        title="Tandem", version=our_version(), description=ABOUT, docs_url=None, redoc_url=None
    )
    service = Service(engine, workers)
    _add_routes(app, service, roles, workers)
    _add_pages(app)

    async def answer_error(request: Request, error: Exception) -> Response:
        return error_response(request.scope, as_serving_error(error))

    for kind in (ServingError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, answer_error)
    # The last one added is the outermost.
    app.add_middleware(BodyReader, limits=engine.limits)
    app.add_middleware(HeadAsGet)
    if keys:
        app.add_middleware(KeyCheck, keys=keys, open_metrics=open_metrics)
    app.add_middleware(RequestLog, metrics=engine.metrics)
    if cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(cors_origins),
            allow_methods=["GET", "HEAD", "POST"],
            allow_headers=["*"],
            allow_private_network=True,
            expose_headers=EXPOSED,
        )
    return app


def _add_routes(app: FastAPI, service: Service, roles: Sequence[str], workers: int) -> None:
    reranks = "reranker" in roles
    embeds = "embedder" in roles
    routers = [score_routes(service, reranks)]
    if embeds:
        routers = [
            embedder_routes(service),
            openai_routes(service),
            *routers,
            similarity_routes(service),
            search_routes(service, reranks),
        ]
    if reranks:
        routers += [score_batch_routes(service), rerank_routes(service)]
    routers += [
        root_routes(service, embeds, reranks),
        compare_routes(service),
        tokenize_routes(service, roles[0]),
        health_routes(service),
        about_routes(service, workers),
        models_routes(service),
    ]
    for router in routers:
        app.include_router(router)


def _add_pages(app: FastAPI) -> None:
    """The playground and the page of the API; they load nothing from elsewhere."""
    app.mount("/static", StaticFiles(directory=PAGE), name="static")

    @app.get("/", include_in_schema=False)
    async def playground() -> Response:
        return FileResponse(PAGE / "index.html", headers=PAGE_HEADERS)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return FileResponse(PAGE / "docs.html", headers=PAGE_HEADERS)
