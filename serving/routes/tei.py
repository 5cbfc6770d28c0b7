"""Routes of text-embeddings-inference: its field names, and bare lists as responses."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, cast

from fastapi import Body as FromBody
from fastapi import Request, Response
from pydantic import Discriminator, Field, StrictInt, Tag

from common.prompts import with_prompt
from serving.engine.similarity import similarities
from serving.engine.tokenization import Truncation
from serving.http.errors import wrong_field
from serving.http.http_json import (
    Body,
    Documents,
    Query,
    TextInput,
    example,
    or_one_message,
    ranking,
    reply,
    text_list,
)
from serving.http.routing import Router, RouteSettings
from serving.routes.options import PromptFields, TextOptions, TruncationFields, check_name
from serving.routes.vectors import VectorOptions
from serving.routes.vectors import embed as vectors_of
from serving.service import Service

TEI = RouteSettings("tei")
Pair = Annotated[list[str], Field(min_length=2, max_length=2)]
Ids = list[StrictInt]


class RightTruncationFields(TruncationFields):
    """Texts are truncated on the right by default, whatever the tokenizer does."""

    @property
    def requested_truncation(self) -> Truncation:
        """See ``TruncationFields``."""
        truncation = super().requested_truncation
        return truncation._replace(side=truncation.side or "right")


class PromptName(PromptFields):
    """Also by the name that the model's own folder gives a prompt."""

    prompt_name: str | None = None

    def choices(self, prompts: Mapping[str, str]) -> dict[str, str | None]:
        """Also by ``prompt_name``."""
        if self.prompt_name is None:
            return super().choices(prompts)
        check_name(self.prompt_name, prompts)
        return {"prompt_name": self.prompt_name, **super().choices(prompts)}


class EmbedBody(PromptName, RightTruncationFields, VectorOptions):
    """``POST /embed``."""

    inputs: TextInput = Field(examples=["How do I read a CSV file?"])
    normalize: bool = True


class RerankBody(RightTruncationFields):
    """``POST /rerank``."""

    query: Query
    texts: Documents
    raw_scores: bool = False
    return_text: bool = False


class Sentences(Body):
    """What is compared with what."""

    source_sentence: str = Field(examples=["What is a CSV file?"])
    sentences: list[str] = Field(examples=[["A file of comma-separated values.", "A capital."]])


class SimilarityParameters(PromptName, RightTruncationFields, TextOptions):
    """``parameters`` of ``POST /similarity``."""


class SimilarityBody(Body):
    """``POST /similarity``."""

    inputs: Sentences
    parameters: SimilarityParameters = Field(default_factory=SimilarityParameters)


class PredictBody(RightTruncationFields):
    """``POST /predict``: of a reranker, which reads two texts."""

    inputs: Annotated[
        Pair | list[Pair], or_one_message("must be [query, text], or a list of such pairs")
    ] = Field(examples=[["How do I read a CSV file?", "pandas.read_csv reads it."]])
    raw_scores: bool = False


class TokenizeBody(Body):
    """``POST /tokenize``."""

    inputs: str | list[str] = Field(examples=["How do I read a CSV file?"])
    add_special_tokens: bool = True
    prompt_name: str | None = None


class DecodeBody(Body):
    """``POST /decode``."""

    ids: Annotated[Ids | list[Ids], or_one_message("must be token ids, or a list of them")] = Field(
        examples=[[101, 102]]
    )
    skip_special_tokens: bool = True


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
        truncation=body.requested_truncation,
    )
    ranked = ranking(answer.values, answer.scores(body.raw_scores))
    if body.return_text:
        for entry in ranked:
            entry["text"] = body.texts[entry["index"]]
    return reply(request, ranked, answer, ignored=body.ignored(service))


async def predict(service: Service, request: Request, body: PredictBody) -> Response:
    """The score of a pair under the label of the model, in a list; of each of several pairs."""
    several = not isinstance(next(iter(body.inputs), []), str)
    pairs = cast("list[list[str]]", body.inputs if several else [body.inputs])
    answer = await service.score(
        [(query, text) for query, text in pairs],
        params=("inputs", "inputs"),
        truncation=body.requested_truncation,
        is_list=several,
    )
    label = answer.model.about["model_type"]["reranker"]["id2label"]["0"]
    found = [[{"score": score, "label": label}] for score in answer.scores(body.raw_scores)]
    content = found if several else found[0]
    return reply(request, content, answer, ignored=body.ignored(service))


async def compare(service: Service, request: Request, body: SimilarityBody) -> Response:
    """A bare list of cosines, which are TEI's contract whatever the model's similarity."""
    answer = await service.embed(
        [body.inputs.source_sentence, *body.inputs.sentences],
        param="inputs",
        prompt=body.parameters.find_prompt(service.model("embedder")),
        truncation=body.parameters.requested_truncation,
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


def predict_routes(service: Service) -> Router:
    """``/predict``."""
    router = Router("score")
    about = [{"score": 0.93, "label": "LABEL_0"}]

    @router.at("/predict", TEI, responses=example(about), summary="Scores of pairs (TEI's body)")
    async def predict_pairs(request: Request, body: PredictBody) -> Response:
        return await predict(service, request, body)

    return router


def tokenize_routes(service: Service, role: str) -> Router:
    """``/tokenize`` and ``/decode``."""
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
        found = await service.in_tokenizer(
            lambda: [
                model.tokenizer.pieces(with_prompt(text, prompt), body.add_special_tokens)
                for text in texts
            ]
        )
        idle = ["prompt_name"] if body.prompt_name is not None and not prompt else []
        return reply(request, found, ignored=[*body.ignored(service), *idle])

    @router.at("/decode", TEI, responses=example(["hello"]), summary="Texts of token ids")
    async def decode(request: Request, body: DecodeBody) -> Response:
        raw = service.model(role).tokenizer.raw
        lists = cast("list[list[int]]", text_list(body.ids))
        service.check_count(len(lists), "ids")

        def decode_all() -> list[str]:
            for at, ids in enumerate(lists):
                if any(not 0 <= id_ < 2**32 or raw.id_to_token(id_) is None for id_ in ids):
                    reason = "has a number that is not a token id of the model"
                    raise wrong_field(f"ids.{at}", reason, "invalid_token_id")
            return raw.decode_batch(lists, skip_special_tokens=body.skip_special_tokens)

        found = await service.in_tokenizer(decode_all)
        return reply(request, found, ignored=body.ignored(service))

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
