"""Our own routes: embed or score one text or many."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import Body as FromBody
from fastapi import Request, Response
from pydantic import AliasChoices, Field, Tag

from serving.http.errors import wrong_field
from serving.http.http_json import Documents, Query, by_key, example, ranking, reply
from serving.http.routing import Router, RouteSettings
from serving.routes import tei, vllm
from serving.routes.options import TruncationFields
from serving.routes.vectors import OutputOptions, as_asked, embed
from serving.service import Service

Prompt = Literal["query", "document"]
OneOrMany = str | list[str]


class EmbedOptions(OutputOptions):
    """Options of ``/embed`` and ``/embed_batch``."""

    prompt: Prompt | None = Field(None, description="put the model's prompt for these before")
    normalize: bool | None = Field(None, description="to unit length; default: as the model does")

    def choices(self, prompts: Mapping[str, str]) -> dict[str, str | None]:
        """Also by ``prompt``."""
        own = {} if self.prompt is None else {"prompt": self.prompt}
        return own | super().choices(prompts)


class EmbedBody(EmbedOptions):
    """One text (``input`` is another name for ``text``)."""

    text: str = Field(
        validation_alias=AliasChoices("text", "input"), examples=["How do I read a CSV file?"]
    )


class EmbedBatchBody(EmbedOptions):
    """Texts (``inputs`` and ``input`` are other names for ``texts``)."""

    texts: list[str] = Field(
        validation_alias=AliasChoices("texts", "inputs", "input"),
        examples=[["How do I read a CSV file?", "如何读取 CSV 文件？"]],
    )


class ScoreBody(TruncationFields):
    """Query and document (also ``document``, ``text``), or lists: pair by pair, or one with all."""

    query: OneOrMany = Field(examples=["How do I read a CSV file?"])
    doc: OneOrMany = Field(
        validation_alias=AliasChoices("doc", "document", "text"),
        examples=["pandas.read_csv reads a comma-separated file."],
    )
    raw_scores: bool = Field(False, description="reranker: logits instead of their sigmoid")


class ScoreBatchBody(TruncationFields):
    """One query and its documents (also ``documents``, ``texts``)."""

    query: Query
    docs: Documents = Field(validation_alias=AliasChoices("docs", "documents", "texts"))
    top_n: int | None = Field(None, description="rank so many; 0 or less: all")
    return_documents: bool = False
    raw_scores: bool = False


EitherEmbed = Annotated[
    Annotated[EmbedBody, Tag("form:native")] | Annotated[tei.EmbedBody, Tag("form:tei")],
    by_key({"inputs"}, "form:tei", "form:native"),
]
EitherScore = Annotated[
    Annotated[ScoreBody, Tag("form:native")] | Annotated[vllm.ScoreBody, Tag("form:vllm")],
    by_key(vllm.KEYS, "form:vllm", "form:native"),
]


def embedder_routes(service: Service) -> Router:
    """``/embed`` and ``/embed_batch``."""
    router = Router("embed")

    async def answer(
        request: Request, body: EmbedOptions, texts: list[str], param: str
    ) -> Response:
        several = param == "texts"
        output, vectors = await embed(
            service, texts, body, param=param, is_list=several, normalize=body.normalize
        )
        rows = as_asked(vectors, body.output_dtype, body.encoding_format)
        found: dict[str, Any] = {
            "dim": vectors.shape[1],
            "model": output.model.name,
            "usage": output.usage,
        }
        if several:
            found |= {"embeddings": rows, "truncated": output.truncated}
        else:
            found |= {"embedding": rows[0], "truncated": bool(output.truncated)}
        return reply(request, found, output, ignored=body.ignored(service))

    one = {"embedding": [0.1, -0.2], "dim": 384, "model": "embedder", "truncated": False}

    @router.at(
        "/embed",
        RouteSettings(tei_field="inputs"),
        responses=example(one),
        summary="Embed one text (ours or TEI's body)",
    )
    async def embed_one(request: Request, body: Annotated[EitherEmbed, FromBody()]) -> Response:
        if isinstance(body, tei.EmbedBody):
            return await tei.embed(service, request, body)
        return await answer(request, body, [body.text], "text")

    many = {"embeddings": [[0.1, -0.2]], "dim": 384, "model": "embedder", "truncated": []}

    @router.at("/embed_batch", responses=example(many), summary="Embed texts")
    async def embed_batch(request: Request, body: EmbedBatchBody) -> Response:
        return await answer(request, body, body.texts, "texts")

    return router


def score_routes(service: Service, reranks: bool) -> Router:
    """``/score``: by the reranker, or without one the similarity by the embedder."""
    router = Router("score")
    about = {"score": 0.93, "model": "reranker", "truncated": False}
    role = "reranker" if reranks else "embedder"
    title = "Score pairs by the reranker" if reranks else "Similarity of query and document"

    @router.at("/score", responses=example(about), summary=f"{title} (ours or vLLM's body)")
    @router.at("/v1/score", RouteSettings(unprocessable=400), include_in_schema=False)
    async def score(request: Request, body: Annotated[EitherScore, FromBody()]) -> Response:
        if isinstance(body, vllm.ScoreBody):
            sides, names, raw = body.sides(), vllm.NAMES, not body.use_activation
        else:
            sides, names, raw = (body.query, body.doc), ("query", "doc"), body.raw_scores
        one = all(isinstance(side, str) for side in sides)
        answer = await service.score(
            pair_up(*sides, names),
            params=names,
            role=role,
            truncation=body.requested_truncation,
            is_list=not one,
        )
        scores = answer.scores(raw)
        if isinstance(body, vllm.ScoreBody):
            found = vllm.score_content(request, scores)
        elif one:
            found = {"score": scores[0], "truncated": bool(answer.truncated)}
        else:
            found = {"scores": scores, "truncated": answer.truncated}
        found |= {"model": answer.model.name, "usage": answer.usage}
        return reply(request, found, answer, ignored=body.ignored(service))

    return router


def score_batch_routes(service: Service) -> Router:
    """``/score_batch``: one query, its documents, their scores and their order."""
    router = Router("score")
    about = {"scores": [0.93, 0.01], "ranking": [{"index": 0, "score": 0.93}], "truncated": []}

    @router.at("/score_batch", responses=example(about), summary="Score and rank documents")
    async def score_batch(request: Request, body: ScoreBatchBody) -> Response:
        pairs = [(body.query, doc) for doc in body.docs]
        answer = await service.score(
            pairs, params=("query", "docs"), truncation=body.requested_truncation
        )
        scores = answer.scores(body.raw_scores)
        ranked = ranking(answer.values, scores, top_n=body.top_n)
        if body.return_documents:
            for entry in ranked:
                entry["document"] = body.docs[entry["index"]]
        found = {
            "scores": scores,
            "ranking": ranked,
            "truncated": answer.truncated,
            "model": answer.model.name,
            "usage": answer.usage,
        }
        return reply(request, found, answer, ignored=body.ignored(service))

    return router


def pair_up(first: OneOrMany, second: OneOrMany, names: tuple[str, str]) -> list[tuple[str, str]]:
    """Pairs of two sides: one with one, one with all, or each with its own.

    Raises:
        ServingError: The lists are of different length, or empty.
    """
    left = [first] if isinstance(first, str) else first
    right = [second] if isinstance(second, str) else second
    if len(left) == 1:
        left = left * len(right)
    elif len(left) != len(right):
        reason = f"has {len(left)} texts and {names[1]} has {len(right)}"
        raise wrong_field(names[0], f"{reason}; give as many, or one {names[0]}")
    return list(zip(left, right, strict=True))
