"""OpenAI's embeddings and list of models."""

import time

from fastapi import APIRouter, Request, Response
from pydantic import Field

from serving.engine.model import ServedModel
from serving.http.errors import ServingError
from serving.http.http_json import JsonRoute, TextInput, example, reply, text_list, usage
from serving.routes.options import Prompting, Truncation
from serving.routes.vectors import Encoding, as_asked, check_vectors, finish
from serving.service import Service


class EmbeddingsBody(Prompting, Truncation):
    """``POST /v1/embeddings``. Any ``model`` is taken; the answer names the one that is served."""

    input: TextInput = Field(examples=["How do I read a CSV file?"])
    model: str | None = Field(None, examples=["embedder"])
    encoding_format: Encoding = "float"
    dimensions: int | None = Field(None, ge=1)


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
            text_list(body.input),
            param="input",
            prompt=body.find_prompt(model),
            truncate=body.cut,
            side=body.side,
            numbered=not isinstance(body.input, str),
        )
        vectors = finish(answer.values, model, None, body.dimensions)
        data = [
            {"object": "embedding", "index": at, "embedding": as_asked(row, body.encoding_format)}
            for at, row in enumerate(vectors)
        ]
        found = {"object": "list", "data": data, "model": model.name, "usage": usage(answer)}
        return reply(request, found, answer, ignored=body.ignored(service))

    return router


def models_routes(service: Service) -> APIRouter:
    """``/v1/models``, and each of them by its name."""
    router = APIRouter(tags=["about"])
    started = int(time.time())

    def about(model: ServedModel) -> dict[str, object]:
        return {"id": model.name, "object": "model", "created": started, "owned_by": "tandem"}

    @router.get("/v1/models", summary="The models (OpenAI's list)")
    @router.get("/models", include_in_schema=False)
    async def models(request: Request) -> Response:
        service.engine.check_open()
        data = [about(model) for model in service.engine.models.values()]
        return reply(request, {"object": "list", "data": data})

    @router.get("/v1/models/{model:path}", summary="A model by its name")
    @router.get("/models/{model:path}", include_in_schema=False)
    async def one_model(request: Request, model: str) -> Response:
        service.engine.check_open()
        for known in service.engine.models.values():
            if known.name == model:
                return reply(request, about(known))
        raise ServingError(
            "model_not_found", "there is no such model here; /v1/models lists all", "model"
        )

    return router
