"""The application: the routes that suit the loaded models, the pages, and the middleware."""

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
from serving.http.head import HeadAsGet
from serving.http.http_json import IGNORED
from serving.http.request_log import RequestLog
from serving.http.routing import RouteSettings
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
# The pages hold nothing secret; what they ask for needs the key.
PAGE_SETTINGS = {"/docs": RouteSettings(open=True), "/static/": RouteSettings(open=True)}
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
    embeds, reranks = "embedder" in roles, "reranker" in roles
    service = Service(engine, workers)
    routers = [
        (embeds, embedder_routes(service)),
        (embeds, openai_routes(service)),
        (True, score_routes(service, reranks)),
        (embeds, similarity_routes(service)),
        (embeds, search_routes(service, reranks)),
        (reranks, score_batch_routes(service)),
        (reranks, rerank_routes(service)),
        (True, root_routes(service, embeds, reranks)),
        (True, compare_routes(service)),
        (True, tokenize_routes(service, roles[0])),
        (True, health_routes(engine)),
        (True, about_routes(engine, workers, open_metrics)),
        (True, models_routes(service)),
    ]
    settings = dict(PAGE_SETTINGS)
    for served, router in routers:
        if served:
            app.include_router(router)
        # Also of routes that are absent here: their 404 is in the dialect of their clients.
        settings |= router.settings
    _add_pages(app)
    # FastAPI would answer these itself; the middleware answers all errors.
    for kind in (RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _pass_on)
    # The last one added is the outermost.
    app.add_middleware(BodyReader, limits=engine.limits)
    app.add_middleware(HeadAsGet)
    if keys:
        app.add_middleware(KeyCheck, keys=keys)
    app.add_middleware(RequestLog, metrics=engine.metrics, settings=settings)
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


async def _pass_on(request: Request, error: Exception) -> Response:
    raise error


def _add_pages(app: FastAPI) -> None:
    """The playground and the API page; they load nothing from other hosts."""
    app.mount("/static", StaticFiles(directory=PAGE), name="static")

    @app.get("/", include_in_schema=False)
    async def playground() -> Response:
        return FileResponse(PAGE / "index.html", headers=PAGE_HEADERS)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return FileResponse(PAGE / "docs.html", headers=PAGE_HEADERS)
