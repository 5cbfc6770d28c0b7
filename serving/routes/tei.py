"""Routes of text-embeddings-inference: its field names, and bare lists as responses."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

from fastapi import Body as FromBody
from fastapi import Request, Response
from pydantic import Discriminator, Field, Tag

from common.prompts import with_prompt
from serving.engine.similarity import similarities
from serving.engine.tokenization import Cut
from serving.http.http_json import (
    Body,
    Documents,
    Query,
    TextInput,
    example,
    ranking,
    reply,
    text_list,
)
from serving.http.routing import Router, RouteSettings
from serving.routes.options import Prompting, TextOptions, Truncation, check_name
from serving.routes.vectors import VectorOptions
from serving.routes.vectors import embed as vectors_of
from serving.service import Service

TEI = RouteSettings("tei")


class FromTheRight(Truncation):
    """Texts are cut on the right unless a request says otherwise, whatever the tokenizer does."""

    @property
    def cut(self) -> Cut:
        """See ``Truncation``."""
        cut = super().cut
        return cut._replace(side=cut.side or "right")


class PromptName(Prompting):
    """Also by the name that the model's own folder gives a prompt."""

    prompt_name: str | None = None

    def choices(self, prompts: Mapping[str, str]) -> dict[str, str | None]:
        """Also by ``prompt_name``."""
        if self.prompt_name is None:
            return super().choices(prompts)
        check_name(self.prompt_name, prompts)
        return {"prompt_name": self.prompt_name, **super().choices(prompts)}


class EmbedBody(PromptName, FromTheRight, VectorOptions):
    """``POST /embed``."""

    inputs: TextInput = Field(examples=["How do I read a CSV file?"])
    normalize: bool = True


class RerankBody(FromTheRight):
    """``POST /rerank``."""

    query: Query
    texts: Documents
    raw_scores: bool = False
    return_text: bool = False


class Sentences(Body):
    """What is compared with what."""

    source_sentence: str = Field(examples=["What is a CSV file?"])
    sentences: list[str] = Field(examples=[["A file of comma-separated values.", "A capital."]])


class SimilarityParameters(PromptName, FromTheRight, TextOptions):
    """Of ``POST /similarity``."""


class SimilarityBody(Body):
    """``POST /similarity``."""

    inputs: Sentences
    parameters: SimilarityParameters = Field(default_factory=SimilarityParameters)


class TokenizeBody(Body):
    """``POST /tokenize``."""

    inputs: str | list[str] = Field(examples=["How do I read a CSV file?"])
    add_special_tokens: bool = True
    prompt_name: str | None = None


async def embed(service: Service, request: Request, body: EmbedBody) -> Response:
    """A bare list of embeddings."""
    answer, vectors = await vectors_of(
        service, text_list(body.inputs), body, param="inputs", normalize=body.normalize
    )
    return reply(request, vectors, answer, ignored=body.ignored(service))


async def rerank(service: Service, request: Request, body: RerankBody) -> Response:
    """A bare list of scores, the best first."""
    answer = await service.score(
        [(body.query, text) for text in body.texts],
        params=("query", "texts"),
        cut=body.cut,
    )
    ranked = ranking(answer.values, answer.scores(body.raw_scores))
    if body.return_text:
        for entry in ranked:
            entry["text"] = body.texts[entry["index"]]
    return reply(request, ranked, answer, ignored=body.ignored(service))


async def compare(service: Service, request: Request, body: SimilarityBody) -> Response:
    """A bare list of cosines, which are TEI's contract whatever the model's similarity."""
    answer = await service.embed(
        [body.inputs.source_sentence, *body.inputs.sentences],
        param="inputs",
        prompt=body.parameters.find_prompt(service.model("embedder")),
        cut=body.parameters.cut,
    )
    found = similarities(answer.values[1:], answer.values[:1], "cosine")
    return reply(request, found, answer, ignored=body.ignored(service))


def similarity_routes(service: Service) -> Router:
    """``/similarity``."""
    router = Router("score")

    @router.at("/similarity", TEI, responses=example([0.83, 0.1]), summary="Cosines (TEI's body)")
    async def similarity(request: Request, body: SimilarityBody) -> Response:
        return await compare(service, request, body)

    return router


def tokenize_routes(service: Service, role: str) -> Router:
    """``/tokenize``."""
    router = Router("about")
    about = [[{"id": 7592, "text": "hello", "special": False, "start": 0, "stop": 5}]]

    @router.at("/tokenize", TEI, responses=example(about), summary="Tokens, with places in bytes")
    async def tokenize(request: Request, body: TokenizeBody) -> Response:
        model = service.model(role)
        texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
        service.check_count(len(texts), "inputs")
        for at, text in enumerate(texts):
            service.check_text(text, f"inputs.{at}")
        if body.prompt_name is not None:
            check_name(body.prompt_name, model.prompts)
        prompt = model.prompts.get(body.prompt_name or "", "")
        found = await service.in_worker(
            lambda: [
                model.tokenizer.pieces(with_prompt(text, prompt), body.add_special_tokens)
                for text in texts
            ]
        )
        idle = ["prompt_name"] if body.prompt_name is not None and not prompt else []
        return reply(request, found, ignored=[*body.ignored(service), *idle])

    return router


def _embed_kind(body: Any) -> str:
    compares = isinstance(body, dict) and isinstance(body.get("inputs"), dict)
    return "form:similarity" if compares else "form:embed"


def _any_kind(body: Any) -> str:
    reranks = isinstance(body, dict) and "inputs" not in body and {"query", "texts"} & body.keys()
    return "form:rerank" if reranks else _embed_kind(body)


Embeds = Annotated[EmbedBody, Tag("form:embed")] | Annotated[SimilarityBody, Tag("form:similarity")]
ForEmbedder = Annotated[Embeds, Discriminator(_embed_kind)]
ForEither = Annotated[Embeds | Annotated[RerankBody, Tag("form:rerank")], Discriminator(_any_kind)]


def root_routes(service: Service, embeds: bool, reranks: bool) -> Router:
    """``POST /``, where huggingface_hub asks, and ``/invocations``, where SageMaker does.

    The form of the body decides; any other body is for the embedder, if there is one.
    """
    router = Router()

    async def for_reranker(request: Request, body: RerankBody) -> Response:
        return await rerank(service, request, body)

    async def for_embedder(request: Request, body: Annotated[ForEmbedder, FromBody()]) -> Response:
        if isinstance(body, SimilarityBody):
            return await compare(service, request, body)
        return await embed(service, request, body)

    async def for_either(request: Request, body: Annotated[ForEither, FromBody()]) -> Response:
        if isinstance(body, RerankBody):
            return await for_reranker(request, body)
        return await for_embedder(request, body)

    answer = (for_either if reranks else for_embedder) if embeds else for_reranker
    summary = "Embed, compare or rerank, as the body is (TEI's)"
    # GET of "/" is the playground, which needs no key.
    router.at("/", replace(TEI, open=True), summary=summary)(answer)
    router.at("/invocations", TEI, include_in_schema=False)(answer)
    return router
