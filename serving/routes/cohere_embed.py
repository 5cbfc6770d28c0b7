"""Embed for clients of Cohere (v1 and v2): several types of numbers in one answer."""

from typing import Any, Self

from fastapi import Request, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from serving.http.errors import wrong_field
from serving.http.http_json import example, reply
from serving.http.routing import Router
from serving.routes.rerank import VERSIONED, meta
from serving.routes.vectors import OutputType, VectorOptions, are_integers, as_asked, embed
from serving.service import Service


class Content(BaseModel):
    """A part of an input; Cohere also knows images."""

    model_config = ConfigDict(extra="forbid")
    type: str = "text"
    text: str | None = None
    image_url: Any = None


class Input(BaseModel):
    """What is embedded as one: its texts, joined by line breaks."""

    model_config = ConfigDict(extra="forbid")
    content: list[Content] = Field(min_length=1)

    def joined(self, place: str) -> str:
        """The text; ``place`` is where the input stands in the body.

        Raises:
            ServingError: A part is no text.
        """
        texts = []
        for at, part in enumerate(self.content):
            if part.type != "text" or part.text is None or part.image_url is not None:
                raise wrong_field(
                    f"{place}.content.{at}",
                    'must be {"type": "text", "text": ...}, as images cannot be embedded here',
                )
            texts.append(part.text)
        return "\n".join(texts)


class EmbedBody(VectorOptions):
    """Either ``texts`` or ``inputs``. What is ignored is also named in ``meta.warnings``."""

    texts: list[str] | None = Field(None, examples=[["How do I read a CSV file?"]])
    inputs: list[Input] | None = Field(None, description="parts of each text, which are joined")
    images: list[Any] = Field([], description="refused: only texts can be embedded")
    model: str | None = Field(None, examples=["embedder"])
    embedding_types: list[OutputType] | None = Field(
        None, min_length=1, description="base64: float32, little-endian", examples=[["int8"]]
    )

    @model_validator(mode="after")
    def _only_texts(self) -> Self:
        if self.images:
            raise wrong_field("images", "images cannot be embedded here; give texts")
        if (self.texts is None) == (self.inputs is None):
            raise wrong_field("texts", "give either texts or inputs")
        return self

    def integers(self) -> str | None:
        """See ``VectorOptions``."""
        return "embedding_types" if any(map(are_integers, self.embedding_types or [])) else None


EXAMPLE = example(
    {
        "id": "8c2f",
        "response_type": "embeddings_by_type",
        "embeddings": {"int8": [[12, -47]]},
        "texts": ["How do I read a CSV file?"],
        "meta": {"api_version": {"version": "2"}, "billed_units": {"input_tokens": 8}},
    }
)


def cohere_embed_routes(service: Service) -> Router:
    """``/v1/embed`` and ``/v2/embed``."""
    router = Router("embed")

    @router.at("/v1/embed", VERSIONED, responses=EXAMPLE, summary="Embed texts (Cohere v1)")
    async def version_1(request: Request, body: EmbedBody) -> Response:
        return await answer_embed(service, request, body, "1")

    @router.at("/v2/embed", VERSIONED, responses=EXAMPLE, summary="Embed texts (Cohere v2)")
    async def version_2(request: Request, body: EmbedBody) -> Response:
        return await answer_embed(service, request, body, "2")

    return router


async def answer_embed(
    service: Service, request: Request, body: EmbedBody, version: str
) -> Response:
    """Embeddings by type; version 1 has bare ones where no type is asked for."""
    param, texts = "texts", body.texts
    if texts is None:
        param = "inputs"
        texts = [one.joined(f"inputs.{at}") for at, one in enumerate(body.inputs or [])]
    output, vectors = await embed(service, texts, body, param=param)
    ignored = body.ignored(service)
    types = body.embedding_types or (["float"] if version == "2" else None)
    found = {
        "id": request.state.request_id,
        "response_type": "embeddings_by_type" if types else "embeddings_floats",
        "embeddings": {name: as_asked(vectors, name) for name in types} if types else vectors,
        "texts": texts,
        "meta": meta(version, {"input_tokens": output.tokens}, output, ignored, param),
    }
    return reply(request, found, output, ignored=ignored)
