"""OpenAI's embeddings and list of models, to which others can be loaded."""

import re
import time
from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import Request, Response
from pydantic import Field

from serving.engine.model_sets import ModelSet
from serving.engine.replica import Load
from serving.http.errors import ServingError, wrong_field
from serving.http.http_json import Body, TextInput, example, or_one_message, reply, text_list
from serving.http.routing import MODELS, Router, RouteSettings
from serving.routes.vectors import OutputOptions, as_asked, embed
from serving.service import Service


class EmbeddingsBody(OutputOptions):
    """``POST /v1/embeddings``. The answer names the model that made it."""

    input: TextInput = Field(examples=["How do I read a CSV file?"])
    model: str | None = Field(None, examples=["embedder"])
    modality: Annotated[
        Literal["text"], or_one_message("must be text; images and sound cannot be embedded here")
    ] = Field("text", description="infinity's")


OPENAI = RouteSettings(unprocessable=400)
STARTED = int(time.time())
NAME = re.compile(r"[\w.-]{1,100}", re.ASCII)


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
        texts, is_list = text_list(body.input), not isinstance(body.input, str)
        answer, vectors = await embed(service, texts, body, param="input", is_list=is_list)
        data = [
            {"object": "embedding", "index": at, "embedding": row}
            for at, row in enumerate(as_asked(vectors, body.output_dtype, body.encoding_format))
        ]
        found = {"object": "list", "data": data, "model": answer.model.name, "usage": answer.usage}
        return reply(request, found, answer, ignored=body.ignored(service))

    return router


class LoadBody(Body):
    """Models to load, as scripts/serve.py takes them."""

    model: str | None = Field(None, examples=["outputs/embedding_contrastive_2"])
    embedder: str | None = Field(None, description="instead of model, to go with a reranker")
    reranker: str | None = Field(None, description="instead of model, to go with an embedder")


def infinity_fields(service: Service, model_set: ModelSet, name: str) -> dict[str, object]:
    """What infinity's list of models tells too: what a model can do, and how long the queue is."""
    engine = service.engine
    models = list(model_set.served.values())
    # The model set's own name stands for all of them, unless one has it.
    known = [model for model in models if model.name == name] or models
    return {
        "capabilities": sorted({"embed" if m.kind.retrieves else "rerank" for m in known}),
        "stats": {
            "queue_fraction": engine.wait_seconds() / engine.limits.max_wait,
            "queue_absolute": engine.waiting,
        },
    }


# Finds the models that a client wants loaded under a name, and returns what opens them.
FindModels = Callable[[str, LoadBody], Load]


def about(model: str, state: str) -> dict[str, object]:
    """A model as OpenAI describes one, and whether it is live, ready, loading or failed."""
    known = {"id": model, "object": "model", "created": STARTED, "owned_by": "tandem"}
    return {**known, "state": state}


def models_routes(service: Service) -> Router:
    """``/v1/models``, and each of them by its name."""
    router, model_sets = Router("about"), service.engine.model_sets

    def about_loaded(model_set: ModelSet, model: str) -> dict[str, object]:
        state = "live" if model_set is model_sets.live else "ready"
        return about(model, state) | infinity_fields(service, model_set, model)

    @router.at("/v1/models", method="GET", summary="The models (OpenAI's list)")
    @router.at("/models", method="GET", include_in_schema=False)
    async def models(request: Request) -> Response:
        service.engine.check_open()
        loaded = {
            model.name: about_loaded(model_set, model.name)
            for model_set in model_sets.ready.values()
            for model in model_set.served.values()
        }
        return reply(request, {"object": "list", "data": list(loaded.values())})

    @router.at("/v1/models/{model:path}", method="GET", summary="A model by its name")
    @router.at("/models/{model:path}", method="GET", include_in_schema=False)
    async def one_model(request: Request, model: str) -> Response:
        service.engine.check_open()
        if model == model_sets.loading:
            return reply(request, about(model, "loading"))
        if model in model_sets.failed:
            return reply(request, about(model, "failed") | {"reason": model_sets.failed[model]})
        return reply(request, about_loaded(model_sets.find(model), model))

    return router


def loading_routes(service: Service, find_models: FindModels | None = None) -> Router:
    """``/models/NAME``: model sets are loaded beside the live one, go live and are unloaded."""
    router, model_sets = Router("about"), service.engine.model_sets
    # The model that is named there is the one to load, perhaps from the Hub.
    router.settings[f"/{MODELS}/"] = RouteSettings(chooses_model=False, timed=False)
    model_sets.strict = find_models is not None
    shown: dict[str, Any] = {"include_in_schema": model_sets.strict}

    def allowed() -> FindModels:
        if find_models is None:
            reason = "this server does not load models; start it with --allow_loading true"
            raise ServingError("read_only", reason)
        service.engine.check_open()
        return find_models

    @router.at("/models/{name}", method="PUT", summary="Load models beside the live ones", **shown)
    async def load(request: Request, name: str, body: LoadBody) -> Response:
        find = allowed()
        if not NAME.fullmatch(name):
            raise wrong_field("name", "may have letters, digits, dots, hyphens and underscores")
        try:
            open_models = await service.in_worker(lambda: find(name, body))
        except ValueError as error:
            raise ServingError("validation_error", str(error)) from None
        service.engine.load_models(name, open_models)
        return reply(request, about(name, "loading"), ignored=body.ignored(service))

    @router.at("/models/{name:path}/activate", summary="Make loaded models live", **shown)
    async def go_live(request: Request, name: str) -> Response:
        allowed()
        model_sets.go_live(name)
        return reply(request, about(name, "live"))

    @router.at("/models/{name:path}", method="DELETE", summary="Unload models", **shown)
    async def unload(request: Request, name: str) -> Response:
        allowed()
        model_sets.unload(name, service.engine.forget)
        return reply(request, {"id": name, "object": "model", "deleted": True})

    return router
