"""Two-stage search (embed, retrieve, rerank), and all loaded models side by side."""

from dataclasses import replace

import numpy as np
from fastapi import Request, Response

from serving.engine.tokenization import Truncation
from serving.http.http_json import Body, Documents, Query, best_first, example, reply
from serving.http.routing import Router
from serving.routes.candidates import SearchBody, find_candidates, page_of
from serving.service import Service


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
        if reranks:
            body.check_pages()
        candidates = await find_candidates(service, body)
        found, outputs = candidates.found, list(candidates.outputs)
        scores = np.array([each.score for each in found])
        order = list(range(len(found)))
        if reranks and found:
            pairs = [(body.query, each.text) for each in found]
            answer = await service.score(
                pairs,
                params=("query", "documents"),
                truncation=body.requested_truncation,
                checked=True,
            )
            outputs.append(answer)
            order, shown = best_first(answer.values), answer.scores()
            cut = set(answer.truncated)
            found = [
                replace(each, truncated=each.truncated or at in cut)
                for at, each in enumerate(found)
            ]
            if (fusion := answer.model.fusion) is not None and candidates.weight_applies:
                fused = answer.values + fusion.weight * scores
                for each, score in zip(found, shown.tolist(), strict=True):
                    each.about["reranker"] = score
                order, shown = best_first(fused), fused
            scores = shown
        last = outputs[-1].model if outputs else service.model("embedder")
        served = service.engine.model_sets.current.served
        content = {
            "results": page_of(body, found, order, scores),
            "models": {role: model.name for role, model in served.items()},
            "similarity": last.about.get("similarity"),
        }
        return reply(request, content, *outputs, ignored=body.ignored(service))

    return router


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
                pairs, params=("query", "documents"), role=role, truncation=Truncation(allowed=True)
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
