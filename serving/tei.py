"""The language of text-embeddings-inference: bare lists, and its names."""

from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import Field, field_validator

from serving.errors import ServingError
from serving.model import ServedModel
from serving.service import Service
from serving.tokenization import Side
from serving.vectors import check_vectors, cosines, finish
from serving.wire import (
    Body,
    JsonRoute,
    TextInput,
    best_first,
    example,
    reply,
    sigmoid,
    text_list,
)


class Truncation(Body):
    """What is done with texts that are too long."""

    truncate: bool | None = None
    truncation_direction: Literal["left", "right"] = "right"

    @field_validator("truncation_direction", mode="before")
    @classmethod
    def _any_case(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value

    @property
    def side(self) -> Side:
        """Where they are cut."""
        return self.truncation_direction


class EmbedBody(Truncation):
    """``POST /embed``."""

    inputs: TextInput = Field(examples=["How do I read a CSV file?"])
    prompt_name: str | None = None
    normalize: bool = True
    dimensions: int | None = Field(None, ge=1)


class RerankBody(Truncation):
    """``POST /rerank``."""

    query: str = Field(examples=["How do I read a CSV file?"])
    texts: list[str] = Field(examples=[["pandas.read_csv reads it.", "Paris is in France."]])
    raw_scores: bool = False
    return_text: bool = False


class Sentences(Body):
    """What is compared with what."""

    source_sentence: str = Field(examples=["What is a CSV file?"])
    sentences: list[str] = Field(examples=[["A file of comma-separated values.", "A capital."]])


class SimilarityParameters(Truncation):
    """Of ``POST /similarity``."""

    prompt_name: str | None = None


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
    model = service.model("embedder")
    # It asks for unit length unless told otherwise, which a model may have no choice in.
    check_vectors(model, body.normalize, body.dimensions)
    answer = await service.embed(
        text_list(body.inputs),
        param="inputs",
        prompt=find_prompt(model, body.prompt_name),
        truncate=body.truncate,
        side=body.side,
    )
    return reply(request, finish(answer.values, model, body.normalize, body.dimensions), answer)


async def rerank(service: Service, request: Request, body: RerankBody) -> Response:
    """A bare list of scores, the best first."""
    answer = await service.score(
        [(body.query, text) for text in body.texts],
        params=("query", "texts"),
        truncate=body.truncate,
        side=body.side,
    )
    scores = answer.values if body.raw_scores else sigmoid(answer.values)
    ranking: list[dict[str, Any]] = [
        {"index": at, "score": scores[at]} for at in best_first(answer.values)
    ]
    if body.return_text:
        for entry in ranking:
            entry["text"] = body.texts[entry["index"]]
    return reply(request, ranking, answer)


def similarity_routes(service: Service) -> APIRouter:
    """``/similarity``."""
    router = APIRouter(route_class=JsonRoute, tags=["score"])

    @router.post("/similarity", responses=example([0.83, 0.1]), summary="Cosines (TEI's body)")
    async def similarity(request: Request, body: SimilarityBody) -> Response:
        model = service.model("embedder")
        answer = await service.embed(
            [body.inputs.source_sentence, *body.inputs.sentences],
            param="inputs",
            prompt=find_prompt(model, body.parameters.prompt_name),
            truncate=body.parameters.truncate,
            side=body.parameters.side,
        )
        return reply(request, cosines(answer.values[1:], answer.values[:1]), answer)

    return router


def tokenize_routes(service: Service, role: str) -> APIRouter:
    """``/tokenize``."""
    router = APIRouter(route_class=JsonRoute, tags=["about"])
    about = [[{"id": 7592, "text": "hello", "special": False, "start": 0, "stop": 5}]]

    @router.post("/tokenize", responses=example(about), summary="Tokens, with places in bytes")
    async def tokenize(request: Request, body: TokenizeBody) -> Response:
        model = service.model(role)
        texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
        service.check_count(len(texts), "inputs")
        for at, text in enumerate(texts):
            service.check_text(text, f"inputs.{at}")
        prompt = find_prompt(model, body.prompt_name)
        found = await service.in_worker(
            lambda: [
                model.tokenizer.pieces(prompt + text, body.add_special_tokens) for text in texts
            ]
        )
        return reply(request, found)

    return router


def find_prompt(model: ServedModel, name: str | None) -> str:
    """The model's prompt by name; "query" and "document" may be empty."""
    if name is None:
        return ""
    if name not in {"query", "document", *model.prompts}:
        known = ", ".join(sorted({"query", "document", *model.prompts}))
        raise ServingError(
            "validation_error", f"prompt_name: the model has the prompts {known}", "prompt_name"
        )
    return model.prompts.get(name, "")
