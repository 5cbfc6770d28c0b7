"""Two-stage search (embed, retrieve, rerank), and all loaded models side by side."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from fastapi import Request, Response
from pydantic import Field

from common.prompts import with_prompt
from common.similarity import Similarity
from serving.engine.corpus import Corpus
from serving.engine.model import ServedModel
from serving.engine.similarity import similarities
from serving.engine.tokenization import Side
from serving.http.errors import ServingError
from serving.http.http_json import Body, best_first, example, reply, sigmoid
from serving.http.routing import Router
from serving.routes.options import Truncation
from serving.service import ModelOutput, Service

# Shapes: D documents.


class SearchBody(Truncation):
    """A query, and documents unless the server has a corpus."""

    query: str = Field(examples=["How do I read a CSV file?"])
    documents: list[str] | None = Field(
        None, examples=[["pandas.read_csv reads it.", "Paris is the capital of France."]]
    )
    top_k: int = Field(50, ge=1, le=1000, description="documents that the reranker is given")
    top_n: int = Field(10, ge=1, description="documents of the answer")


class CompareBody(Body):
    """A query and documents, for every model that is loaded."""

    query: str = Field(examples=["How do I read a CSV file?"])
    documents: list[str] = Field(
        examples=[["pandas.read_csv reads it.", "Paris is the capital of France."]]
    )


@dataclass(frozen=True)
class Found:
    """Documents that the embedder found, the most similar first."""

    ids: list[str] | None
    numbers: list[int]
    texts: list[str]
    similarity: Similarity
    scores: np.ndarray
    truncated: set[int]


def search_routes(service: Service, reranks: bool) -> Router:
    """``/search``."""
    router = Router("search")
    hit = {"index": 0, "text": "pandas.read_csv reads it.", "score": 0.93, "cosine": 0.71}

    @router.at("/search", responses=example({"results": [hit]}), summary="Retrieve and rerank")
    async def search(request: Request, body: SearchBody) -> Response:
        found, embedded = await retrieve(service, body)
        answers = [embedded]
        order, scores = list(range(len(found.texts))), found.scores
        truncated = set(found.truncated)
        if reranks:
            pairs = [(body.query, text) for text in found.texts]
            answer = await service.score(
                pairs, params=("query", "documents"), truncate=body.cut, side=body.side
            )
            answers.append(answer)
            order, scores = best_first(answer.values), sigmoid(answer.values)
            truncated |= set(answer.truncated)
        results = []
        for at in order[: body.top_n]:
            result = {
                "index": found.numbers[at],
                "text": found.texts[at],
                "score": scores[at],
                found.similarity: found.scores[at],
                "embedder_rank": at + 1,
                "truncated": at in truncated,
            }
            if found.ids is not None:
                result["id"] = found.ids[at]
            results.append(result)
        names = {role: model.name for role, model in service.loaded.items() if "_" not in role}
        found_by = {"results": results, "models": names}
        return reply(request, found_by, *answers, ignored=body.ignored(service))

    return router


async def retrieve(service: Service, body: SearchBody) -> tuple[Found, ModelOutput]:
    """The documents most similar to the query, of those given or of the corpus."""
    service.check_text(body.query, "query")
    corpus, given = service.corpus, body.documents
    if given is not None:
        answer = await embed_together(
            service, "embedder", body.query, given, truncate=body.cut, side=body.side
        )
        similarity = service.loaded["embedder"].similarity
        documents = {str(at): text for at, text in enumerate(given)}
        corpus = Corpus(documents, answer.values[1:], similarity)
    elif corpus is not None:
        prompt = service.model("embedder").encoder.find_prompt("query")
        answer = await service.embed(
            [body.query],
            param="query",
            prompt=prompt,
            truncate=body.cut,
            side=body.side,
            numbered=False,
        )
    else:
        raise ServingError(
            "validation_error",
            "documents: is missing, and this server has no corpus; give documents, or start it "
            "with --corpus",
            "documents",
        )
    searched = corpus
    numbers, scores = await service.in_worker(
        lambda: searched.nearest(answer.values[0], body.top_k)
    )
    cut = {number - 1 for number in answer.truncated}
    found = Found(
        ids=None if given is not None else [searched.ids[number] for number in numbers],
        numbers=numbers,
        texts=[searched.texts[number] for number in numbers],
        similarity=searched.similarity,
        scores=scores,
        truncated={at for at, number in enumerate(numbers) if number in cut},
    )
    return found, answer


async def embed_together(
    service: Service,
    role: str,
    query: str,
    documents: list[str],
    truncate: bool | None,
    side: Side | None = None,
) -> ModelOutput:
    """Embed a query and documents, each with its prompt: [1 + D, H]."""
    service.check_text(query, "query")
    service.check_count(len(documents), "documents")
    for at, text in enumerate(documents):
        service.check_text(text, f"documents.{at}")
    encoder = service.model(role).encoder
    prompt = encoder.find_prompt("document")
    texts = [with_prompt(query, encoder.find_prompt("query"))]
    texts += [with_prompt(text, prompt) for text in documents]
    return await service.embed(
        texts,
        param="documents",
        role=role,
        prompt="",
        truncate=truncate,
        side=side,
        numbered=False,
    )


def compare_routes(service: Service) -> Router:
    """``/compare``, which the page at ``/`` uses."""
    router = Router("search")
    column = {"role": "reranker", "model": "reranker", "ranking": [{"index": 0, "score": 0.93}]}

    @router.at(
        "/compare",
        responses=example({"columns": [column]}),
        summary="Rank documents by every loaded model",
    )
    async def compare(request: Request, body: CompareBody) -> Response:
        columns, answers = [], []
        for role, model in service.models().items():
            answer, scores = await judged(service, role, model, body)
            truncated = set(answer.truncated)
            ranking = [
                {"index": at, "score": scores[at], "truncated": at in truncated}
                for at in best_first(answer.values)
            ]
            columns.append({"role": role, "model": model.name, "ranking": ranking})
            answers.append(answer)
        return reply(request, {"columns": columns}, *answers, ignored=body.ignored(service))

    return router


async def judged(
    service: Service, role: str, model: ServedModel, body: CompareBody
) -> tuple[ModelOutput, Any]:
    """The scores [D] of one model, and which documents it cut."""
    if model.kind.reads_pairs:
        pairs = [(body.query, text) for text in body.documents]
        answer = await service.score(pairs, params=("query", "documents"), role=role, truncate=True)
        return answer, sigmoid(answer.values)
    answer = await embed_together(service, role, body.query, body.documents, truncate=True)
    queries, documents = answer.values[:1], answer.values[1:]
    scores = similarities(documents, queries, model.similarity)
    cut = [at - 1 for at in answer.truncated if at]
    return replace(answer, values=scores, truncated=cut), scores
