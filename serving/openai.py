"""OpenAI's embeddings and list of models."""

import time

from fastapi import APIRouter, Request, Response
from pydantic import Field

from serving.service import Service
from serving.vectors import Encoding, as_asked, check_vectors, finish
from serving.wire import Body, JsonRoute, TextInput, example, reply, text_list, usage


class EmbeddingsBody(Body):
    """``POST /v1/embeddings``. Any ``model`` is taken; the answer names the one that is served."""

    input: TextInput = Field(examples=["How do I read a CSV file?"])
    model: str | None = Field(None, examples=["embedder"])
    encoding_format: Encoding = "float"
    dimensions: int | None = Field(None, ge=1)
    user: str | None = None


def openai_routes(service: Service) -> APIRouter:
    """``/v1/embeddings``."""
    router = APIRouter(route_class=JsonRoute, tags=["embed"])
    found = {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.1, -0.2]}],
        "model": "embedder",
        "usage": {"prompt_tokens": 8, "total_tokens": 8},
    }

    @router.post("/v1/embeddings", responses=example(found), summary="Embed texts (OpenAI's body)")
    @router.post("/embeddings", include_in_schema=False)
    async def embeddings(request: Request, body: EmbeddingsBody) -> Response:
        model = service.model("embedder")
        check_vectors(model, None, body.dimensions)
        answer = await service.embed(
            text_list(body.input), param="input", numbered=not isinstance(body.input, str)
        )
        vectors = finish(answer.values, model, None, body.dimensions)
        data = [
            {"object": "embedding", "index": at, "embedding": as_asked(row, body.encoding_format)}
            for at, row in enumerate(vectors)
        ]
        found = {"object": "list", "data": data, "model": model.name, "usage": usage(answer)}
        return reply(request, found, answer)

    return router


def models_routes(service: Service) -> APIRouter:
    """``/v1/models``."""
    router = APIRouter(tags=["about"])
    started = int(time.time())

    @router.get("/v1/models", summary="The models (OpenAI's list)")
    @router.get("/models", include_in_schema=False)
    async def models(request: Request) -> Response:
        service.engine.check_open()
        data = [
            {"id": model.name, "object": "model", "created": started, "owned_by": "tandem"}
            for model in service.engine.models.values()
        ]
        return reply(request, {"object": "list", "data": data})

    return router
