"""Rerank for clients of Cohere (v1 and v2), Jina, vLLM and others: one response for all."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Body as FromBody
from fastapi import Request, Response
from pydantic import BaseModel, ConfigDict, Field, Tag

from serving.http.http_json import (
    Query,
    by_key,
    example,
    or_one_message,
    printable,
    ranking,
    reply,
)
from serving.http.routing import Router, RouteSettings
from serving.routes import tei
from serving.routes.options import TruncationFields
from serving.service import ModelOutput, Service


class Document(BaseModel):
    """A document as an object, of which only the text is looked at."""

    model_config = ConfigDict(extra="allow")
    text: str


AnyDocument = Annotated[
    str | Document, or_one_message("must be a text, or an object with the key text")
]


class RerankBody(TruncationFields):
    """What is ignored is also named in the answer's ``meta.warnings``."""

    query: Query
    documents: list[AnyDocument] = Field(
        examples=[["pandas.read_csv reads it.", "Paris is the capital of France."]]
    )
    model: str | None = Field(None, examples=["reranker"])
    top_n: int | None = Field(None, description="so many of the best; 0 or less: all")
    return_documents: bool = False
    raw_scores: bool = Field(False, description="logits instead of their sigmoid")
    max_tokens_per_doc: int | None = Field(None, ge=1)

    @property
    def texts(self) -> list[str]:
        """The documents' texts."""
        return [text if isinstance(text, str) else text.text for text in self.documents]

    def ignored(self, service: Service) -> list[str]:
        """Also what documents have beside their text."""
        of_documents = {
            f"documents.{name}"
            for document in self.documents
            if isinstance(document, Document)
            for name in document.model_extra or {}
        }
        return [*super().ignored(service), *sorted(of_documents)]


EitherRerank = Annotated[
    Annotated[RerankBody, Tag("form:documents")] | Annotated[tei.RerankBody, Tag("form:tei")],
    by_key({"texts"}, "form:tei", "form:documents"),
]
VERSIONED = RouteSettings("rerank", unprocessable=400)
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


def rerank_routes(service: Service) -> Router:
    """``/rerank``, ``/v1/rerank`` and ``/v2/rerank``."""
    router = Router("rerank")

    @router.at(
        "/rerank",
        RouteSettings("rerank", tei_field="texts"),
        responses=EXAMPLE,
        summary="Rerank (also TEI's body)",
    )
    async def rerank(request: Request, body: Annotated[EitherRerank, FromBody()]) -> Response:
        if isinstance(body, tei.RerankBody):
            return await tei.rerank(service, request, body)
        return await answer_rerank(service, request, body, "2")

    @router.at("/v1/rerank", VERSIONED, responses=EXAMPLE, summary="Rerank (Cohere v1, Jina, vLLM)")
    async def version_1(request: Request, body: RerankBody) -> Response:
        return await answer_rerank(service, request, body, "1")

    @router.at("/v2/rerank", VERSIONED, responses=EXAMPLE, summary="Rerank (Cohere v2)")
    async def version_2(request: Request, body: RerankBody) -> Response:
        return await answer_rerank(service, request, body, "2")

    return router


async def answer_rerank(
    service: Service, request: Request, body: RerankBody, version: str
) -> Response:
    """Score, sort, and respond in a form that all these clients read.

    ``document`` is left out unless asked for: some clients take no null there.
    """
    texts = body.texts
    answer = await service.score(
        [(body.query, text) for text in texts],
        params=("query", "documents"),
        truncation=body.requested_truncation._replace(max_document=body.max_tokens_per_doc),
    )
    scores = answer.scores(body.raw_scores)
    results = ranking(answer.values, scores, "relevance_score", body.top_n)
    if body.return_documents:
        for result in results:
            result["document"] = {"text": texts[result["index"]]}
    ignored = body.ignored(service)
    found = {
        "id": request.state.request_id,
        "object": "rerank",
        "model": answer.model.name,
        "results": results,
        "usage": answer.usage,
        "meta": meta(version, {"search_units": 1}, answer, ignored, "documents"),
    }
    return reply(request, found, answer, ignored=ignored)


def meta(
    version: str, units: dict[str, int], answer: ModelOutput, ignored: Sequence[str], texts: str
) -> dict[str, Any]:
    """Cohere's ``meta``: its version, what is billed, tokens, and warnings if there are any.

    ``ignored`` are keys of the body without effect, ``texts`` the one that holds the texts.
    """
    found: dict[str, Any] = {
        "api_version": {"version": version},
        "billed_units": units,
        "tokens": {"input_tokens": answer.tokens, "output_tokens": 0},
    }
    warnings = [f"field {name!r} was ignored" for name in printable(ignored)]
    if answer.truncated:
        warnings.append(f"{texts} {answer.truncated[:20]} were truncated")
    if warnings:
        found["warnings"] = warnings
    return found
