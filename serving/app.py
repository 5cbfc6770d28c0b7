"""The application: the routes that suit the loaded models, the pages, and the middleware."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from opentelemetry.trace import TracerProvider
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from serving.engine.engine import Engine
from serving.http.auth import KeyCheck
from serving.http.body_reader import BodyReader
from serving.http.http_json import IGNORED
from serving.http.model_sets import ModelSelector
from serving.http.request_log import RequestLog
from serving.http.routing import Router, RouteSettings
from serving.http.tracing import NAME, telemetry
from serving.routes.cohere_embed import cohere_embed_routes
from serving.routes.documents import document_routes
from serving.routes.health import about_routes, our_version
from serving.routes.openai import FindModels, loading_routes, models_routes, openai_routes
from serving.routes.own_routes import embedder_routes, score_batch_routes, score_routes
from serving.routes.rerank import rerank_routes
from serving.routes.search import compare_routes, search_routes
from serving.routes.tei import predict_routes, root_routes, similarity_routes, tokenize_routes
from serving.service import Service

# What pages of other sites may read of an answer, beside its body.
EXPOSED = [
    *("Retry-After", "WWW-Authenticate", "X-Request-Id", "X-Total-Time", "X-Tokenization-Time"),
    *("X-Queue-Time", "X-Inference-Time", "X-Compute-Tokens", "X-Truncated", IGNORED),
]
PAGE = Path(__file__).parent / "page"
# The pages hold nothing secret; what they ask for needs the key.
PAGE_SETTINGS = RouteSettings(open=True)
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
    embeds: bool | None = None,
    stores: bool = False,
    workers: int = 1,
    traces: TracerProvider | None = None,
    find_models: FindModels | None = None,
) -> FastAPI:
    """The application around an engine, which need not have loaded yet.

    Args:
        engine: The engine.
        roles: "embedder", "reranker" or both.
        keys: API keys; none: everybody is let in.
        cors_origins: Web pages of these origins may ask; none: no page but our own.
        open_metrics: Whether ``/metrics`` needs no key.
        embeds: Whether clients get embeddings, one of a text; None: if there is an embedder.
        stores: Whether the documents are in a store.
        workers: Threads that tokenize.
        traces: Takes the spans of requests; None: there are none.
        find_models: Finds models that clients want loaded; None: they may not.
    """
    settings: dict[str, RouteSettings] = {}
    app = FastAPI(
        title="Tandem",
        version=our_version(),
        description=ABOUT,
        docs_url=None,
        redoc_url=None,
        telemetry=telemetry(traces, settings),
    )
    app.mount("/static", StaticFiles(directory=PAGE))
    service = Service(engine, workers)
    embeds = "embedder" in roles if embeds is None else embeds
    settings |= _add_routes(app, service, roles, open_metrics, embeds, stores)
    for router in (models_routes(service), loading_routes(service, find_models)):
        app.include_router(router)
        settings |= router.settings
    # FastAPI would answer these itself; the middleware answers all errors.
    for kind in (RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _pass_on)
    _add_middleware(app, engine, settings, keys, cors_origins, traces)
    return app


def _add_middleware(
    app: FastAPI,
    engine: Engine,
    settings: Mapping[str, RouteSettings],
    keys: Sequence[str],
    cors_origins: Sequence[str],
    traces: TracerProvider | None,
) -> None:
    # The last one added is the outermost.
    app.add_middleware(ModelSelector, model_sets=engine.model_sets)
    app.add_middleware(BodyReader, limits=engine.limits)
    if keys:
        app.add_middleware(KeyCheck, keys=keys)
    app.add_middleware(
        RequestLog,
        metrics=engine.metrics,
        settings=settings,
        tracer=traces.get_tracer(NAME) if traces else None,
    )
    if cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(cors_origins),
            allow_methods=["GET", "HEAD", "POST", "PUT", "DELETE"],
            allow_headers=["*"],
            allow_private_network=True,
            expose_headers=EXPOSED,
        )


def _add_routes(
    app: FastAPI,
    service: Service,
    roles: Sequence[str],
    open_metrics: bool,
    embeds: bool,
    stores: bool,
) -> dict[str, RouteSettings]:
    """Add the routes that suit the models; return the settings of all, by path."""
    searches, reranks = "embedder" in roles, "reranker" in roles
    settings = {"/static/": PAGE_SETTINGS}
    for served, router in (
        (True, page_routes()),
        (embeds, embedder_routes(service)),
        (embeds, openai_routes(service)),
        (embeds, cohere_embed_routes(service)),
        (True, score_routes(service, reranks)),
        (embeds, similarity_routes(service)),
        (searches, search_routes(service, reranks)),
        (stores, document_routes(service)),
        (reranks, predict_routes(service)),
        (reranks, score_batch_routes(service)),
        (reranks, rerank_routes(service)),
        (embeds or reranks, root_routes(service, embeds, reranks)),
        (True, compare_routes(service)),
        (True, tokenize_routes(service, roles[0])),
        (True, about_routes(service, open_metrics)),
    ):
        if served:
            app.include_router(router)
        # Also of routes that are absent here: their 404 is in the dialect of their clients.
        settings |= router.settings
    return settings


async def _pass_on(request: Request, error: Exception) -> Response:
    raise error


def page_routes() -> Router:
    """The playground and the API page; they load nothing from other hosts."""
    router = Router()

    @router.at("/", PAGE_SETTINGS, "GET", include_in_schema=False)
    async def playground() -> Response:
        return FileResponse(PAGE / "index.html", headers=PAGE_HEADERS)

    @router.at("/docs", PAGE_SETTINGS, "GET", include_in_schema=False)
    async def docs() -> Response:
        return FileResponse(PAGE / "docs.html", headers=PAGE_HEADERS)

    return router
