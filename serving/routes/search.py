"""Two-stage search (embed, retrieve, rerank), and all loaded models side by side."""

import numpy as np
from fastapi import Request, Response
from pydantic import Field

from serving.engine.similarity import Corpus, Hit
from serving.engine.tokenization import Cut
from serving.http.errors import wrong_field
from serving.http.http_json import Body, Documents, Query, best_first, example, reply
from serving.http.routing import Router
from serving.routes.options import Truncation
from serving.service import ModelOutput, Service, item_places


class SearchBody(Truncation):
    """A query, and documents unless the server has a corpus."""

    query: Query
    documents: list[str] | None = Field(
        None, examples=[["pandas.read_csv reads it.", "Paris is the capital of France."]]
    )
    top_k: int = Field(50, ge=1, le=1000, description="documents that the reranker is given")
    top_n: int = Field(10, ge=1, description="documents of the answer")


class CompareBody(Body):
    """A query and documents, for every model that is loaded."""

    query: Query
    documents: Documents


def search_routes(service: Service, reranks: bool) -> Router:
    """``/search``."""
    router = Router("search")
    hit = {"index": 0, "text": "pandas.read_csv reads it.", "score": 0.93, "cosine": 0.71}

    @router.at("/search", responses=example({"results": [hit]}), summary="Retrieve and rerank")
    async def search(request: Request, body: SearchBody) -> Response:
        corpus, hits, embedded = await retrieve(service, body)
        texts = [corpus.texts[hit.number] for hit in hits]
        # Given documents were embedded behind the query; those of a corpus were not, this time.
        cut = {at - 1 for at in embedded.truncated}
        truncated = {at for at, hit in enumerate(hits) if hit.number in cut}
        answers, scores = [embedded], [hit.score for hit in hits]
        parts: list[dict[str, float]] = [{corpus.similarity: hit.similarity} for hit in hits]
        order = list(range(len(hits)))
        if reranks:
            pairs = [(body.query, text) for text in texts]
            answer = await service.score(pairs, params=("query", "documents"), cut=body.cut)
            answers.append(answer)
            order, shown = best_first(answer.values), answer.scores().tolist()
            truncated |= set(answer.truncated)
            if (fusion := answer.model.fusion) is not None:
                fused = answer.values + fusion.weight * np.array(scores)
                parts = [part | {"reranker": at} for part, at in zip(parts, shown, strict=True)]
                order, shown = best_first(fused), fused.tolist()
            scores = shown
        results = []
        for at in order[: body.top_n]:
            result = {
                "index": hits[at].number,
                "text": texts[at],
                "score": scores[at],
                **parts[at],
                "embedder_rank": at + 1,
                "truncated": at in truncated,
            }
            if corpus.ids is not None:
                result["id"] = corpus.ids[hits[at].number]
            results.append(result)
        served = {role: model for role, model in service.engine.models.items() if "_" not in role}
        content = {
            "results": results,
            "models": {role: model.name for role, model in served.items()},
            "similarity": answers[-1].model.about.get("similarity"),
        }
        return reply(request, content, *answers, ignored=body.ignored(service))

    return router


async def retrieve(service: Service, body: SearchBody) -> tuple[Corpus, list[Hit], ModelOutput]:
    """The best documents for the query, of those given or of the corpus.

    Returns:
        What was searched, what was found (the best first), and the embeddings of the query and of
        the documents that were given.
    """
    model, corpus, documents = service.model("embedder"), service.engine.corpus, body.documents
    service.check_text(body.query, "query")
    if documents is not None:
        service.check_count(len(documents), "documents")
    elif corpus is None:
        raise wrong_field(
            "documents",
            "is missing, and this server has no corpus; give documents, or start it with --corpus",
        )
    given = documents or []
    places = item_places("documents", len(given))
    for text, place in zip(given, places, strict=True):
        service.check_text(text, place)
    answer = await service.embed_sides(model, [body.query], given, body.cut, ["query", *places])
    query, vectors = answer.values[0], answer.values[1:]

    def find() -> tuple[Corpus, list[Hit]]:
        searched = corpus
        if documents is not None:
            searched = Corpus(documents, vectors, model.similarity, bm25_weight=model.bm25_weight)
        assert searched is not None
        return searched, searched.search(query, body.query, body.top_k)

    return *await service.in_worker(find), answer


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
        pairs = [(body.query, text) for text in body.documents]
        for role, model in service.models().items():
            answer = await service.score(
                pairs, params=("query", "documents"), role=role, cut=Cut(allowed=True)
            )
            scores, truncated = answer.scores(), set(answer.truncated)
            ranking = [
                {"index": at, "score": scores[at], "truncated": at in truncated}
                for at in best_first(answer.values)
            ]
            columns.append(
                {
                    "role": role,
                    "model": model.name,
                    "similarity": model.about.get("similarity"),
                    "ranking": ranking,
                }
            )
            answers.append(answer)
        return reply(request, {"columns": columns}, *answers, ignored=body.ignored(service))

    return router
