"""OpenAI's embeddings and list of models."""

import time
from typing import Annotated, Literal

from fastapi import Request, Response
from pydantic import Field

from serving.engine.model import ServedModel
from serving.http.errors import ServingError
from serving.http.http_json import TextInput, example, or_one_message, reply, text_list
from serving.http.routing import Router, RouteSettings
from serving.routes.vectors import OutputOptions, as_asked, embed
from serving.service import Service


class EmbeddingsBody(OutputOptions):
    """``POST /v1/embeddings``. Any ``model`` is taken; the answer names the one that is served."""

    input: TextInput = Field(examples=["How do I read a CSV file?"])
    model: str | None = Field(None, examples=["embedder"])
    modality: Annotated[
        Literal["text"], or_one_message("must be text; images and sound cannot be embedded here")
    ] = Field("text", description="infinity's")


OPENAI = RouteSettings(unprocessable=400)


def openai_routes(service: Service) -> Router:
    """``/v1/embeddings``."""
    router = Router("embed")
    found = {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.1, -0.2]}],
        "model": "embedder",
        "usage": {"prompt_tokens": 8, "total_tokens": 8},
    }

    @router.at(
        "/v1/embeddings", OPENAI, responses=example(found), summary="Embed texts (OpenAI's body)"
    )
    @router.at("/embeddings", OPENAI, include_in_schema=False)
    async def embeddings(request: Request, body: EmbeddingsBody) -> Response:
        texts, numbered = text_list(body.input), not isinstance(body.input, str)
        answer, vectors = await embed(service, texts, body, param="input", numbered=numbered)
        data = [
            {"object": "embedding", "index": at, "embedding": row}
            for at, row in enumerate(as_asked(vectors, body.output_dtype, body.encoding_format))
        ]
        found = {"object": "list", "data": data, "model": answer.model.name, "usage": answer.usage}
        return reply(request, found, answer, ignored=body.ignored(service))

    return router


def models_routes(service: Service) -> Router:
    """``/v1/models``, and each of them by its name."""
    router = Router("about")
    started = int(time.time())

    def about(model: ServedModel) -> dict[str, object]:
        """OpenAI's fields; the last two are infinity's."""
        engine = service.engine
        full = engine.wait_seconds() / engine.limits.max_wait
        return {
            "id": model.name,
            "object": "model",
            "created": started,
            "owned_by": "tandem",
            "capabilities": ["embed" if model.kind.retrieves else "rerank"],
            "stats": {"queue_fraction": full, "queue_absolute": engine.waiting},
        }

    @router.at("/v1/models", method="GET", summary="The models (OpenAI's list)")
    @router.at("/models", method="GET", include_in_schema=False)
    async def models(request: Request) -> Response:
        data = [about(model) for model in service.models().values()]
        return reply(request, {"object": "list", "data": data})

    @router.at("/v1/models/{model:path}", method="GET", summary="A model by its name")
    @router.at("/models/{model:path}", method="GET", include_in_schema=False)
    async def one_model(request: Request, model: str) -> Response:
        for known in service.models().values():
            if known.name == model:
                return reply(request, about(known))
        raise ServingError(
            "model_not_found", "there is no such model here; /v1/models lists all", "model"
        )

    return router
