"""Rerank as Cohere (version 1 and 2), Jina, vLLM and others ask for it: one answer for all."""

from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from fastapi import Body as FromBody
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from serving import tei
from serving.service import Service
from serving.wire import JsonRoute, best_first, example, reply, sigmoid, usage


class Document(BaseModel):
    """A document as an object; its other fields are not looked at."""

    model_config = ConfigDict(extra="ignore")
    text: str


class RerankBody(BaseModel):
    """A key that is not known here is named in the answer's ``meta.warnings``."""

    model_config = ConfigDict(extra="allow")
    query: str = Field(examples=["How do I read a CSV file?"])
    documents: list[str | Document] = Field(
        examples=[["pandas.read_csv reads it.", "Paris is the capital of France."]]
    )
    model: str | None = Field(None, examples=["reranker"])
    top_n: int | None = Field(None, description="so many of the best; 0 or less: all")
    return_documents: bool | None = False
    raw_scores: bool = Field(False, description="logits instead of their sigmoid")
    max_tokens_per_doc: int | None = Field(None, ge=1)
    truncate: bool | None = None

    @property
    def texts(self) -> list[str]:
        """The documents' texts."""
        return [text if isinstance(text, str) else text.text for text in self.documents]

    @property
    def unknown(self) -> list[str]:
        """Names of keys that are ignored."""
        return sorted(name[:80] for name in self.model_extra or {})[:20]


def _kind(body: Any) -> str:
    return "tei" if isinstance(body, dict) and "texts" in body else "documents"


EitherRerank = Annotated[
    Annotated[RerankBody, Tag("documents")] | Annotated[tei.RerankBody, Tag("tei")],
    Discriminator(_kind),
]
EXAMPLE = example(
    {
        "id": "8c2f",
        "object": "rerank",
        "model": "reranker",
        "results": [{"index": 0, "relevance_score": 0.93}, {"index": 1, "relevance_score": 0.01}],
        "usage": {"prompt_tokens": 40, "total_tokens": 40},
        "meta": {"api_version": {"version": "2"}},
    }
)


def rerank_routes(service: Service) -> APIRouter:
    """``/rerank``, ``/v1/rerank`` and ``/v2/rerank``."""
    router = APIRouter(route_class=JsonRoute, tags=["rerank"])

    @router.post("/rerank", responses=EXAMPLE, summary="Rerank (also TEI's body)")
    async def rerank(request: Request, body: Annotated[EitherRerank, FromBody()]) -> Response:
        if isinstance(body, tei.RerankBody):
            return await tei.rerank(service, request, body)
        return await answer_rerank(service, request, body, "2")

    @router.post("/v1/rerank", responses=EXAMPLE, summary="Rerank (Cohere v1, Jina, vLLM)")
    async def version_1(request: Request, body: RerankBody) -> Response:
        return await answer_rerank(service, request, body, "1")

    @router.post("/v2/rerank", responses=EXAMPLE, summary="Rerank (Cohere v2)")
    async def version_2(request: Request, body: RerankBody) -> Response:
        return await answer_rerank(service, request, body, "2")

    return router


async def answer_rerank(
    service: Service, request: Request, body: RerankBody, version: str
) -> Response:
    """Score, order, and answer in a form that all these clients read.

    ``document`` is left out unless asked for: some clients take no null there.
    """
    texts = body.texts
    answer = await service.score(
        [(body.query, text) for text in texts],
        params=("query", "documents"),
        truncate=body.truncate,
        max_document=body.max_tokens_per_doc,
    )
    scores = answer.values if body.raw_scores else sigmoid(answer.values)
    order = best_first(answer.values)
    if body.top_n is not None and body.top_n > 0:
        order = order[: body.top_n]
    results: list[dict[str, Any]] = [{"index": at, "relevance_score": scores[at]} for at in order]
    if body.return_documents:
        for result in results:
            result["document"] = {"text": texts[result["index"]]}
    meta: dict[str, Any] = {
        "api_version": {"version": version},
        "billed_units": {"search_units": 1},
        "tokens": {"input_tokens": answer.tokens, "output_tokens": 0},
    }
    warnings = [f"unknown field {name!r} was ignored" for name in body.unknown]
    if answer.truncated:
        warnings.append(f"documents {answer.truncated[:20]} were cut")
    if warnings:
        meta["warnings"] = warnings
    found = {
        "id": request.state.request_id,
        "object": "rerank",
        "model": service.engine.models["reranker"].name,
        "results": results,
        "usage": usage(answer),
        "meta": meta,
    }
    return reply(request, found, answer)
