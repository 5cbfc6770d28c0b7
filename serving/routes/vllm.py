"""vLLM's score route: its many names of the two sides, and its response."""

import time
from typing import Any, Self

import numpy as np
from fastapi import Request
from pydantic import model_validator

from serving.http.errors import ServingError
from serving.routes.options import TruncationFields

NAMES = ("text_1", "text_2")
SIDES = (("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2"))
KEYS = {"text_1", "text_2", "queries", "data_1", "data_2", "items"}

OneOrMany = str | list[str]


class ScoreBody(TruncationFields):
    """``POST /score``: one with one, one with all, or each with its own."""

    text_1: OneOrMany | None = None
    text_2: OneOrMany | None = None
    queries: OneOrMany | None = None
    documents: OneOrMany | None = None
    items: OneOrMany | None = None
    data_1: OneOrMany | None = None
    data_2: OneOrMany | None = None
    model: str | None = None
    use_activation: bool = True

    @model_validator(mode="after")
    def _two_sides(self) -> Self:
        given = {name for pair in SIDES for name in pair if getattr(self, name) is not None}
        if not any(given == set(pair) for pair in SIDES):
            fitting = next((pair for pair in SIDES if given < set(pair)), None)
            field = next((name for name in fitting or () if name not in given), None)
            raise ServingError(
                "validation_error",
                f"{f'{field}: is missing; ' if field else ''}give two sides: text_1 and text_2, "
                "queries and documents (or items), or data_1 and data_2",
                field or sorted(given)[0],
            )
        return self

    def sides(self) -> tuple[OneOrMany, OneOrMany]:
        """Left and right."""
        pair = next(pair for pair in SIDES if all(getattr(self, n) is not None for n in pair))
        return getattr(self, pair[0]), getattr(self, pair[1])


def score_content(request: Request, scores: np.ndarray) -> dict[str, Any]:
    """vLLM's response, without the model and usage that ours have too."""
    return {
        "id": f"score-{request.state.request_id}",
        "object": "list",
        "created": int(time.time()),
        "data": [{"index": at, "object": "score", "score": s} for at, s in enumerate(scores)],
    }
