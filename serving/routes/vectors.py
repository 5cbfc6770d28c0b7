"""Embeddings as clients want them: normalised, shortened, base64."""

import base64
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from serving.engine.similarity import unit_length
from serving.http.errors import wrong_field
from serving.routes.options import TextOptions
from serving.service import ModelOutput, Service, Text

# Shapes: N texts, H dimensions of an embedding.

Encoding = Literal["float", "base64"]


class VectorOptions(TextOptions):
    """Options of bodies that are answered by embeddings."""

    dimensions: int | None = Field(None, ge=1, description="keep so many of the first dimensions")


async def embed(
    service: Service,
    texts: Sequence[Text],
    options: VectorOptions,
    *,
    param: str,
    numbered: bool = True,
    normalize: bool | None = None,
) -> tuple[ModelOutput, np.ndarray]:
    """Embed texts as a client wants it: the output of the model, and the vectors [N, H].

    ``param`` and ``numbered`` are as in ``Service.embed``. ``normalize`` is whether the client
    wants unit length; None: as the model does.
    """
    model = service.model("embedder")
    unit, most = model.embedder.normalize, model.embedder.dimension
    dimensions = options.dimensions or most
    if normalize is False and unit:
        raise wrong_field(
            "normalize",
            "this model brings its embeddings to unit length itself; leave normalize out, or give "
            "true",
        )
    if dimensions > most:
        raise wrong_field("dimensions", f"{dimensions} are more than the {most} of the model")
    prompt = options.find_prompt(model)
    output = await service.embed(
        texts, param=param, cut=options.cut, prompt=prompt, numbered=numbered
    )
    vectors = output.values[:, :dimensions]
    # A model that brings its embeddings to unit length gets them so after the cut too.
    if (unit if normalize is None else normalize) and (dimensions < most or not unit):
        vectors = unit_length(vectors)
    return output, np.ascontiguousarray(vectors)


def as_asked(vectors: np.ndarray, encoding: Encoding) -> list[Any]:
    """Embeddings [N, H] as rows of numbers, or each as base64 of little-endian float32."""
    if encoding == "float":
        return list(vectors)
    rows = vectors.astype("<f4", copy=False)
    return [base64.b64encode(row.tobytes()).decode("ascii") for row in rows]
