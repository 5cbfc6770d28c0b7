"""Request bodies and JSON responses: the base class of bodies, shared fields, cost headers."""

import re
from collections.abc import Sequence, Set
from typing import Annotated, Any, LiteralString, Self, cast

import numpy as np
import orjson
from fastapi import Request, Response
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StrictInt,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from serving.http.errors import wrong_field
from serving.http.routing import without_nulls
from serving.service import ModelOutput, Service

# Keys that hold texts on one route or another.
TEXT_KEYS = {
    *("text", "texts", "input", "inputs", "query", "queries", "doc", "docs", "document"),
    *("documents", "items", "text_1", "text_2", "data_1", "data_2"),
}
IGNORED = "X-Tandem-Ignored"
MOST_NAMES, LONGEST_NAME = 20, 60


class Body(BaseModel):
    """A request's body.

    null stands for a key's default. A key that is not known is ignored, and named in the answer's
    headers; only one that holds texts elsewhere is an error, because its texts would be lost.
    """

    model_config = ConfigDict(extra="allow")

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, value: Any) -> Any:
        return without_nulls(value)

    @model_validator(mode="after")
    def _no_texts_lost(self) -> Self:
        own = [field for field in type(self).model_fields if field in TEXT_KEYS]
        for name in self.model_extra or {}:
            if own and name in TEXT_KEYS:
                raise wrong_field(name, f"cannot be given beside {own[0]}")
        return self

    def ignored(self, service: Service) -> list[str]:
        """Given keys that have no effect."""
        nested = [
            f"{name}.{key}"
            for name, value in self
            if isinstance(value, Body)
            for key in value.ignored(service)
        ]
        return [*(self.model_extra or {}), *nested]


Query = Annotated[str, Field(examples=["How do I read a CSV file?"])]
Documents = Annotated[
    list[str], Field(examples=[["pandas.read_csv reads it.", "Paris is the capital of France."]])
]


def or_one_message(message: LiteralString) -> WrapValidator:
    """One error message instead of one for each type of a union."""

    def validate(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise PydanticCustomError("one_of_several", message) from None

    return WrapValidator(validate)


TextInput = Annotated[
    str | list[str] | list[StrictInt] | list[list[StrictInt]],
    or_one_message("must be a text, a list of texts, token ids, or a list of token ids"),
]


def text_list(given: str | list[str] | list[int] | list[list[int]]) -> list[str | list[int]]:
    """A ``TextInput`` as a list of texts or token ids."""
    if isinstance(given, str):
        return [given]
    if given and isinstance(given[0], int):
        return [given]
    return list(cast("list[str | list[int]]", given))


def reply(
    request: Request, content: Any, *answers: ModelOutput, ignored: Sequence[str] = ()
) -> Response:
    """A JSON response whose headers tell tokens and times.

    Args:
        request: The request.
        content: May hold numpy arrays and numbers.
        answers: The outputs of models for it.
        ignored: Keys of its body that had no effect.
    """
    work = {
        "tokens": sum(answer.tokens for answer in answers),
        "texts": sum(len(answer.sizes) for answer in answers),
        "truncated": sum(len(answer.truncated) for answer in answers),
    }
    headers = {"X-Compute-Tokens": str(work["tokens"]), "X-Truncated": str(work["truncated"])}
    if ignored:
        headers[IGNORED] = ", ".join(printable(ignored))
    for answer in answers:
        for name, milliseconds in answer.times.items():
            work[f"{name}_ms"] = work.get(f"{name}_ms", 0) + round(milliseconds)
            headers[f"X-{name.title()}-Time"] = str(work[f"{name}_ms"])
    request.state.work, request.state.outputs = work, answers
    return Response(
        orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), 200, headers, "application/json"
    )


def printable(names: Sequence[str]) -> list[str]:
    """Names of a client's keys for headers and messages: few, short, ASCII."""
    shown = [re.sub(r"[^\w.-]", "?", name[:LONGEST_NAME], flags=re.ASCII) or '""' for name in names]
    more = len(shown) - MOST_NAMES
    return shown if more <= 0 else [*shown[:MOST_NAMES], f"and {more} more"]


def best_first(scores: Sequence[float] | np.ndarray) -> list[int]:
    """The numbers of scores [N], the best first; of equal ones the earlier."""
    order: list[int] = np.argsort(-np.asarray(scores), kind="stable").tolist()
    return order


def ranking(
    raw: np.ndarray, scores: np.ndarray, name: str = "score", top_n: int | None = None
) -> list[dict[str, Any]]:
    """Number and score of each document, the best first.

    Args:
        raw: What orders them [N]: sigmoids of high logits tie.
        scores: What is shown [N].
        name: Of the score.
        top_n: So many; None, 0 or less: all.
    """
    order = best_first(raw)
    order = order[:top_n] if top_n is not None and top_n > 0 else order
    return [{"index": at, name: scores[at]} for at in order]


def by_key(keys: Set[str], form: str, otherwise: str) -> Discriminator:
    """Tell two forms of a body apart: ``form`` is the tag of the one that has any of the keys."""

    def tag(body: Any) -> str:
        return form if isinstance(body, dict) and keys & body.keys() else otherwise

    return Discriminator(tag)


def example(content: Any) -> dict[int | str, dict[str, Any]]:
    """A route's ``responses`` with an example for the OpenAPI schema."""
    return {200: {"content": {"application/json": {"example": content}}}}
