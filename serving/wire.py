"""What all routes share: how bodies are read, checked, and answered."""

import json
from collections.abc import Callable, Coroutine, Sequence
from typing import Annotated, Any, cast

import numpy as np
import orjson
import torch
from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import (
    BaseModel,
    ConfigDict,
    StrictInt,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import PydanticCustomError

from serving.service import Answer

# A key that only text-embeddings-inference's bodies have, by route.
TEI_KEYS = {"/embed": "inputs", "/rerank": "texts", "/similarity": "inputs", "/tokenize": "inputs"}


class Body(BaseModel):
    """A request's body; a key it does not know is an error."""

    model_config = ConfigDict(extra="forbid")


def _one_message(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    """One sentence instead of one for each thing that a value might have been."""
    try:
        return handler(value)
    except ValidationError:
        raise PydanticCustomError(
            "text_input", "must be a text, a list of texts, token ids, or a list of token ids"
        ) from None


TextInput = Annotated[
    str | list[str] | list[StrictInt] | list[list[StrictInt]], WrapValidator(_one_message)
]


def text_list(given: str | list[str] | list[int] | list[list[int]]) -> list[str | list[int]]:
    """A ``TextInput`` as a list of texts or token ids."""
    if isinstance(given, str):
        return [given]
    if given and isinstance(given[0], int):
        return [given]
    return list(cast("list[str | list[int]]", given))


class JsonRoute(APIRoute):
    """A route whose body is read strictly: no NaN, no half characters, no endless nesting."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, given our request."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(JsonRequest(request.scope, request.receive))

        return handle


class JsonRequest(Request):
    """A request that knows whether it speaks text-embeddings-inference's language."""

    async def json(self) -> Any:
        """The body.

        Raises:
            json.JSONDecodeError: It is no JSON.
        """
        body = await self.body()
        encoding = json.detect_encoding(body)
        if encoding != "utf-8":
            try:
                body = body.decode(encoding).encode()
            except UnicodeError:
                raise json.JSONDecodeError(f"not {encoding}", "", 0) from None
        content = orjson.loads(body)
        key = TEI_KEYS.get(self.url.path)
        if key is not None and isinstance(content, dict) and key in content:
            self.state.family = "tei"
        return content


def reply(request: Request, content: Any, *answers: Answer) -> Response:
    """A JSON response with what the work has cost in its headers.

    Args:
        request: What is answered.
        content: May hold numpy arrays and numbers.
        answers: What was computed for it.
    """
    work = {
        "tokens": sum(answer.tokens for answer in answers),
        "texts": sum(len(answer.sizes) for answer in answers),
        "truncated": sum(len(answer.truncated) for answer in answers),
    }
    headers = {"X-Compute-Tokens": str(work["tokens"]), "X-Truncated": str(work["truncated"])}
    for answer in answers:
        for name, milliseconds in answer.times.items():
            work[f"{name}_ms"] = work.get(f"{name}_ms", 0) + round(milliseconds)
            headers[f"X-{name.title()}-Time"] = str(work[f"{name}_ms"])
    request.state.work = work
    return Response(
        orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), 200, headers, "application/json"
    )


def usage(answer: Answer) -> dict[str, int]:
    """Tokens as OpenAI counts them."""
    return {"prompt_tokens": answer.tokens, "total_tokens": answer.tokens}


def sigmoid(scores: np.ndarray) -> np.ndarray:
    """Of raw scores [N], as ``Reranker.score`` gives it."""
    return torch.from_numpy(scores).sigmoid().numpy()


def best_first(scores: Sequence[float] | np.ndarray) -> list[int]:
    """The numbers of scores [N], the best first; of equal ones the earlier."""
    return np.argsort(-np.asarray(scores), kind="stable").tolist()


def example(content: Any) -> dict[int | str, dict[str, Any]]:
    """A route's ``responses``: what an answer looks like."""
    return {200: {"content": {"application/json": {"example": content}}}}
